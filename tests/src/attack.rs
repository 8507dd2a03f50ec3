//! The attack suite: what is tried against a relay, by whom, and which check must stop it.
//!
//! An [`Attack`] is data and a function. It stands for itself: it makes a relay or an account of its own on the
//! [`Ground`] it is given, with whatever else it needs ([`stand`]), and counts what its attempts were stopped by. The
//! same function runs against one process (`tests/it/attacks.rs`, `tests/it/attack.rs`) and against a cluster of real
//! processes (`cargo xtask attack`). Some leave the ground alone and bring a relay of their own: a hostile one, one
//! that bills, one whose signing key is withdrawn.
//!
//! To join, write a file in `attack/` with `pub const ATTACKS`, and name it in [`all`]. The function
//! - begins with `Relay::on(&ground, &tally)`, or `Stand::on` where it needs a machine and the real Codex;
//! - ends with an error, or a panic, if anything took effect that must not, was told otherwise, or was leaked;
//! - calls [`Tally::stopped`](tally::Tally::stopped) for each attempt that was stopped, with the code that stopped it,
//!   or a word where there is none. `Client::is_turned_away` and `Client::is_refused` do so themselves;
//! - shows at its end that who may do it still can: an attack that stops everything has proved nothing.
//!
//! The attack fails as well when something else stopped an attempt than `stopped_by` names, or when one of those names
//! stopped none: what is written here is what was seen.

use std::fmt;

use anyhow::ensure;
use futures_util::future::BoxFuture;

pub mod account;
pub mod approvals;
pub mod billing;
pub mod claims;
pub mod commands;
pub mod hello;
pub mod hostile;
pub mod keys;
pub mod links;
pub mod members;
mod office;
pub mod passkey;
pub mod relay;
pub mod replay;
pub mod stand;
pub mod strict;
pub mod tally;

use relay::Ground;
use tally::Tally;

/// One thing that must not be possible.
#[derive(Clone, Copy)]
pub struct Attack {
    /// Its name in the table, and what the filter of the suite looks at.
    pub name: &'static str,
    /// What is tried, in a line.
    pub tries: &'static str,
    /// What its attempts are stopped by: names of error codes, or a word. All of these, and nothing else.
    pub stopped_by: &'static [&'static str],
    /// Does it, and fails if anything of it succeeds.
    pub run: fn(Ground, Tally) -> BoxFuture<'static, anyhow::Result<()>>,
    /// How many regions it needs.
    pub regions: usize,
}

/// Every attack, in the order in which they are run.
#[must_use]
pub fn all() -> Vec<Attack> {
    let answers = [approvals::ATTACKS, strict::ATTACKS, passkey::ATTACKS].concat();
    let [keys, signed] = [keys::attacks(), [commands::ATTACKS, &answers, replay::ATTACKS].concat()];
    let account = [account::ATTACKS, members::ATTACKS, billing::ATTACKS].concat();
    [hello::ATTACKS, links::ATTACKS, claims::ATTACKS, &account, &signed, &keys, hostile::ATTACKS].concat()
}

impl Attack {
    /// Does it on that ground, and returns how many attempts there were.
    ///
    /// # Errors
    /// When something of it succeeds, or is stopped by something else than it should be.
    pub async fn on(&self, ground: Ground) -> anyhow::Result<u32> {
        let tally = Tally::default();
        (self.run)(ground, tally.clone()).await?;
        let by = tally.by();
        let unnamed: Vec<_> = by.iter().filter(|by| !self.stopped_by.contains(&by.as_str())).collect();
        ensure!(unnamed.is_empty(), "stopped by something else than what is named: {unnamed:?}");
        let idle: Vec<_> = self.stopped_by.iter().filter(|name| by.iter().all(|by| by != *name)).collect();
        ensure!(idle.is_empty(), "stopped nothing: {idle:?}");
        Ok(tally.tried())
    }
}

/// A row of the table.
struct Row {
    attack: String,
    tried: String,
    stopped_by: String,
    result: String,
}

impl fmt::Display for Row {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attack, tried, stopped_by, result } = self;
        write!(to, "{attack:<28} | {tried:>5} | {stopped_by:<72} | {result}")
    }
}

/// Runs the attacks whose name contains `filter`, and says a table and a count. True when all were stopped.
pub async fn suite(ground: &Ground, filter: Option<&str>, say: &impl Fn(&str)) -> bool {
    let is_wanted = |attack: &Attack| filter.is_none_or(|filter| attack.name.contains(filter));
    let is_wanted = |attack: &Attack| is_wanted(attack) && attack.regions <= ground.regions();
    let (mut rows, mut passed, mut failed) = (Vec::new(), 0_u32, 0_u32);
    for attack in all().into_iter().filter(is_wanted) {
        say(&format!("== {}: {}", attack.name, attack.tries));
        // In a task, since whatever finds more in a log than it should makes who drops it panic.
        let ground = ground.clone();
        let done = tokio::spawn(async move { attack.on(ground).await }).await;
        let done = done.map_err(anyhow::Error::from).flatten();
        let (tried, result) = match &done {
            Ok(tried) => (tried.to_string(), "stopped".to_owned()),
            Err(error) => (String::new(), format!("FAILED: {error:#}")),
        };
        *(if done.is_ok() { &mut passed } else { &mut failed }) += 1;
        let (attack, stopped_by) = (attack.name.to_owned(), attack.stopped_by.join(", "));
        rows.push(Row { attack, tried, stopped_by, result });
    }
    let word = |text: &str| text.to_owned();
    let head =
        Row { attack: word("attack"), tried: word("tried"), stopped_by: word("stopped by"), result: word("result") };
    say(&format!("\n{head}"));
    rows.iter().for_each(|row| say(&row.to_string()));
    say(&format!("{passed} passed, {failed} failed"));
    failed == 0
}
