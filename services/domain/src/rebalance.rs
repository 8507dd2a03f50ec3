//! Rebalance: how many machines a node gives to others, and to whom, so that a node which has just come gets its share.
//! Pure; every node decides for itself from the members that the directory knows.
//!
//! What is too much at some nodes and what is too little at others are laid out as two lines, the most loaded nodes
//! first, and each node gives from its own stretch of the first to whoever lies opposite on the second. Nodes that see
//! the same members therefore never give to one place more than it lacks, and nobody gives what it would get back: the
//! rule converges and does not swing. A node that sees stale members is wrong by one round at most.
//!
//! Nothing moves while a node drains or is silent: its machines are on their way already.

use std::cmp::Reverse;

use crate::id::Incarnation;
use crate::limits::{REBALANCE_LOAD_PERCENT_MAX, REBALANCE_MACHINES_MIN, REBALANCE_ROUNDS_OF_LOAD};
use crate::placement::Member;

/// The nodes that shall get a machine each in this round from `own`, which has `held` machines.
#[must_use]
pub fn plan(own: Incarnation, held: u32, members: &[Member]) -> Vec<Incarnation> {
    if !members.iter().all(Member::takes_machines) {
        return Vec::new();
    }
    let mut loads: Vec<Load> = members.iter().map(|member| Load::of(member, own, held)).collect();
    loads.sort_by_key(|load| (Reverse(load.machines), load.node));
    let total: u64 = loads.iter().map(|load| load.machines).sum();
    let Some(mean) = total.checked_div(loads.len() as u64) else { return Vec::new() };
    let Some(own) = loads.iter().position(|load| load.node == own) else { return Vec::new() };
    if is_even(&loads, total) {
        return Vec::new();
    }
    // What a division leaves over belongs to nobody: only once everybody has the mean is it spread as well.
    let level = if loads.iter().all(|load| load.machines >= mean) { mean + 1 } else { mean };
    let over = |load: &Load| load.machines.saturating_sub(level);
    let lacking = loads.iter().flat_map(|load| {
        let count = usize::try_from(level.saturating_sub(load.machines)).unwrap_or(usize::MAX);
        std::iter::repeat_n(load.node, count)
    });
    let before: u64 = loads[..own].iter().map(over).sum();
    let gives = over(&loads[own]).min(loads[own].machines.div_ceil(REBALANCE_ROUNDS_OF_LOAD));
    let (before, gives) = (usize::try_from(before).unwrap_or(usize::MAX), usize::try_from(gives).unwrap_or(usize::MAX));
    lacking.skip(before).take(gives).collect()
}

/// A node and how many machines it has.
struct Load {
    node: Incarnation,
    machines: u64,
}

impl Load {
    /// A node knows its own load better than the directory does.
    fn of(member: &Member, own: Incarnation, held: u32) -> Self {
        let node = member.record.incarnation;
        Self { node, machines: if node == own { held } else { member.record.machines }.into() }
    }
}

/// Whether nobody has much more than the mean, or much less: to look only at who has more would leave a new node of many
/// empty.
fn is_even(loads: &[Load], total: u64) -> bool {
    let count = loads.len() as u64;
    loads.iter().all(|load| {
        let scaled = load.machines * count;
        let is_near = scaled.abs_diff(total) <= REBALANCE_MACHINES_MIN * count;
        is_near
            || scaled * 100 <= total * REBALANCE_LOAD_PERCENT_MAX && total * 100 <= scaled * REBALANCE_LOAD_PERCENT_MAX
    })
}

#[cfg(test)]
mod tests;
