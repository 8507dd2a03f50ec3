//! Which node holds a machine: members, their health, and the choice among them. Pure; the directory is a hint.
//!
//! The connector is the fence (INV-FENCE): whatever is decided here from stale or wrong knowledge costs a refused
//! attach and another try, never a double effect. So a takeover waits for no lease, only for a reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::epoch::Epoch;
use crate::id::{Incarnation, NodeId};
use crate::limits::{LEASE_DEAD_AFTER, LEASE_SUSPECT_AFTER, LINK_COUNTER_JUMP_MAX};
use crate::scope::MachineKey;

/// Whether a node takes machines on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It does.
    Active,
    /// It hands its machines over and then ends.
    Draining,
}

/// What a node says of itself in its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// This life of the process.
    pub incarnation: Incarnation,
    /// Its configured name.
    pub node_id: NodeId,
    /// Where its gRPC is reached: `https://host:port`.
    pub address: String,
    /// Whether it takes machines on.
    pub state: NodeState,
    /// How many machines it holds.
    pub machines: u32,
}

/// A node with a lease, as the directory sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it said last.
    pub record: NodeRecord,
    /// How long ago that was, by the directory's clock.
    pub silent_for: Duration,
}

/// How much a lease still says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Heard of within [`LEASE_SUSPECT_AFTER`].
    Alive,
    /// Silent for longer: another may take its machines.
    Suspect,
    /// Silent for [`LEASE_DEAD_AFTER`]: it has no lease any more.
    Dead,
}

impl Member {
    /// How much its lease still says.
    #[must_use]
    pub fn health(&self) -> Health {
        if self.silent_for < LEASE_SUSPECT_AFTER {
            Health::Alive
        } else if self.silent_for < LEASE_DEAD_AFTER {
            Health::Suspect
        } else {
            Health::Dead
        }
    }

    /// Whether it may be given a machine.
    #[must_use]
    pub fn takes_machines(&self) -> bool {
        self.health() == Health::Alive && self.record.state == NodeState::Active
    }
}

/// The link of a machine that counts, as its owner recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRecord {
    /// The connector's own counter of its links; the greatest wins.
    pub counter: u64,
    /// The gateway that holds it.
    pub gateway_id: NodeId,
}

/// Who owns a machine, by the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRecord {
    /// The owning node's life; none after a release.
    pub holder: Option<Incarnation>,
    /// The highest epoch on record.
    pub epoch: Epoch,
    /// The newest link on record.
    pub link: Option<LinkRecord>,
}

/// Where the frames of a machine go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To the owner on record.
    Owner(Incarnation),
    /// To a node that shall become the owner.
    Candidate {
        /// That node.
        node: Incarnation,
        /// The owner that it takes over from without waiting: it is gone, suspect, or does not answer the asker.
        replacing: Option<Incarnation>,
    },
    /// No node takes machines on.
    Nowhere,
}

/// Decides where the frames of a machine go.
///
/// `lost` names the nodes that do not answer the asker, whatever their lease says. `draws` are two random numbers: of
/// two random candidates the less loaded is taken, so that many askers with one stale view do not all choose alike.
#[must_use]
pub fn place(
    record: Option<&OwnerRecord>,
    members: &[Member],
    lost: impl Fn(Incarnation) -> bool,
    draws: [u64; 2],
) -> Place {
    let holder = record.and_then(|record| record.holder);
    if let Some(holder) = holder
        && !lost(holder)
        && members.iter().any(|member| member.record.incarnation == holder && member.health() == Health::Alive)
    {
        return Place::Owner(holder);
    }
    let candidates: Vec<&Member> = members
        .iter()
        .filter(|member| member.takes_machines() && !lost(member.record.incarnation))
        .filter(|member| Some(member.record.incarnation) != holder)
        .collect();
    let Some(node) = less_loaded(&candidates, draws) else {
        // A suspect or draining owner is better than none.
        let is_member = |holder: &Incarnation| members.iter().any(|member| member.record.incarnation == *holder);
        let holder = holder.filter(|holder| !lost(*holder) && is_member(holder));
        return holder.map_or(Place::Nowhere, Place::Owner);
    };
    Place::Candidate { node, replacing: holder }
}

/// Decides without a directory: the first of the members that answer, in an order that follows from the machine
/// alone, so that askers with one view agree.
#[must_use]
pub fn place_by_rendezvous(machine: MachineKey, members: &[Member], lost: impl Fn(Incarnation) -> bool) -> Place {
    let answering = members.iter().filter(|member| !lost(member.record.incarnation));
    let best = answering
        .max_by_key(|member| (member.record.state == NodeState::Active, rendezvous_score(machine, &member.record)));
    best.map_or(Place::Nowhere, |member| Place::Candidate { node: member.record.incarnation, replacing: None })
}

fn less_loaded(candidates: &[&Member], draws: [u64; 2]) -> Option<Incarnation> {
    let count = candidates.len() as u64;
    let draw = |draw: u64| usize::try_from(draw % count).ok().map(|index| candidates[index]);
    if count == 0 {
        return None;
    }
    let (first, second) = (draw(draws[0])?, draw(draws[1])?);
    let chosen = if second.record.machines < first.record.machines { second } else { first };
    Some(chosen.record.incarnation)
}

fn rendezvous_score(machine: MachineKey, record: &NodeRecord) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"flydex/v1/rendezvous");
    hash.update(machine.account_id().as_bytes());
    hash.update(machine.machine_id().as_bytes());
    hash.update(record.incarnation.as_bytes());
    hash.finalize().into()
}

/// Why a node asks for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its connector has come.
    Link,
    /// A session opens it.
    Session,
}

/// What the directory makes of an attempt to own a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquisition {
    /// The asker owns the machine under this epoch.
    Owned(Epoch),
    /// Another node does.
    Held(OwnerRecord),
}

/// Decides on an acquire by `asker`, with an epoch not below `floor`.
///
/// A holder that asks again keeps its epoch. Another takes over when nobody holds the machine, when the holder has no
/// lease, or when the asker was sent to replace exactly that holder.
#[must_use]
pub fn acquire(
    record: Option<&OwnerRecord>,
    asker: Incarnation,
    floor: Epoch,
    replacing: Option<Incarnation>,
    holder_has_lease: bool,
) -> Acquisition {
    let Some(record) = record else { return Acquisition::Owned(floor.above(asker)) };
    match record.holder {
        Some(holder) if holder == asker && record.epoch >= floor => return Acquisition::Owned(record.epoch),
        Some(holder) if holder != asker && holder_has_lease && replacing != Some(holder) => {
            return Acquisition::Held(record.clone());
        }
        Some(_) | None => {}
    }
    Acquisition::Owned(record.epoch.max(floor).above(asker))
}

/// What the directory makes of an owner's word on what it already owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reassertion {
    /// It is on record as owner.
    Kept,
    /// A later ownership is on record, or one that the asker may not replace: the asker drops the machine.
    Lost(OwnerRecord),
}

/// Decides on a re-assertion: the greater epoch stays, whoever comes first.
///
/// Without an attached link nothing proves the asker's epoch, which it may have minted while the directory was away: it
/// then replaces no other holder, however great its epoch is, or it would hide the one that the connector obeys.
#[must_use]
pub fn reassert(record: Option<&OwnerRecord>, epoch: Epoch, linked: bool) -> Reassertion {
    let Some(record) = record else { return Reassertion::Kept };
    let another_holds = record.holder.is_some_and(|holder| holder != epoch.incarnation);
    if record.epoch > epoch || (another_holds && !linked) {
        Reassertion::Lost(record.clone())
    } else {
        Reassertion::Kept
    }
}

/// What the directory makes of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPlacement {
    /// It is the newest.
    Newest,
    /// A newer one is on record; a connector that has lost its counter adopts this one plus one.
    Superseded {
        /// The counter on record.
        counter: u64,
    },
    /// Further above the counter on record than [`LINK_COUNTER_JUMP_MAX`] allows.
    Absurd,
    /// The asker is not the owner on record.
    NotHeld,
}

/// The newer of the link on record and the one that an owner asserts.
#[must_use]
pub fn newer_link(on_record: Option<LinkRecord>, asserted: Option<LinkRecord>) -> Option<LinkRecord> {
    match (on_record, asserted) {
        (Some(on_record), Some(asserted)) if asserted.counter < on_record.counter => Some(on_record),
        (on_record, asserted) => asserted.or(on_record),
    }
}

/// Decides on a link with `counter` that the machine's owner wants on record.
#[must_use]
pub fn set_link(on_record: Option<u64>, counter: u64) -> LinkPlacement {
    // Counters follow the clock, and a directory may have forgotten: the first one has nothing to jump from.
    let Some(on_record) = on_record else { return LinkPlacement::Newest };
    if counter < on_record {
        LinkPlacement::Superseded { counter: on_record }
    } else if counter - on_record > LINK_COUNTER_JUMP_MAX {
        LinkPlacement::Absurd
    } else {
        LinkPlacement::Newest
    }
}

#[cfg(test)]
mod tests;
