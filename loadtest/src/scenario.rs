//! Scenarios as data: how many accounts, machines and sessions there are, and what they do in which phase.
//!
//! A scenario is a TOML file without unknown fields, every number of it bounded. Rates are of the whole fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

mod bound;

pub use bound::Bound;

/// Accounts of one run: each needs a sign-in link.
const ACCOUNTS_MAX: usize = 1_000;
/// Machines of one run: connectors of one process.
const MACHINES_MAX: usize = 20_000;
/// Devices on one machine's list.
const SESSIONS_PER_MACHINE_MAX: usize = flydex_domain::limits::DEVICE_LIST_MAX;
/// Threads of one machine that are watched.
const THREADS_MAX: usize = flydex_domain::limits::WATCHED_THREADS_MAX;
/// Phases of one run.
const PHASES_MAX: usize = 100;
/// Seconds of one phase: a day's soak in a few of them.
const PHASE_SECONDS_MAX: f64 = 21_600.0;
/// Arrivals of a second, commands and events each.
const RATE_MAX: f64 = 200_000.0;
/// Arrivals of one run: they are drawn before it begins, and lie in memory.
const ARRIVALS_MAX: f64 = 20_000_000.0;
/// Text of one event, in bytes, and of one page: well within the frame that carries it.
const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Content of one page, in bytes.
const PAGE_BYTES_MAX: usize = 240 * 1024;
/// Round trip of a network, in milliseconds: round the world over bad ones.
const ROUND_TRIP_MS_MAX: u64 = 2_000;
/// Share of sessions that may be slow or silent: others must be there to be asked.
const UNASKED_MAX: f64 = 0.9;
/// Time that the stub takes to answer.
const ANSWER_MS_MAX: u64 = 60_000;

/// Time that an approval waits, as the connector's own.
const APPROVAL_SECONDS_MAX: f64 = 600.0;

/// Why a file is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not TOML, or has a field that no scenario has, or one of another type.
    #[error("read the scenario: {0}")]
    Malformed(#[from] toml::de::Error),
    /// A field is out of its bounds.
    #[error("{field} must be {bounds}, and is {value}")]
    OutOfBounds {
        /// The field, with its path: `phase[2].seconds`.
        field: String,
        /// What it may be.
        bounds: String,
        /// What it is.
        value: String,
    },
}

/// What a run does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Named in the report.
    pub name: String,
    /// What arrivals are drawn from: the same seed gives the same schedule. Default 1.
    #[serde(default = "one")]
    pub seed: u64,
    /// Who there is.
    pub fleet: Fleet,
    /// What stands in for Codex.
    #[serde(default)]
    pub stub: Stub,
    /// What happens, one after the other.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
}

/// Who there is.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Accounts; machines are dealt out to them in turn. One sign-in link for each is given to the run.
    pub accounts: usize,
    /// Machines in all.
    pub machines: usize,
    /// Sessions of each machine, each with a device of its own, at most 64.
    pub sessions_per_machine: usize,
    /// Threads of each machine; each session watches one. Default 1.
    #[serde(default = "one")]
    pub threads_per_machine: usize,
    /// Share of links that go over QUIC where the region has it, 0 to 1; the others are WebSockets. Default 0.
    #[serde(default)]
    pub quic_share: f64,
    /// What an answer of the gateway takes at least on a session's way, in milliseconds, calls for tickets included.
    /// Default 0.
    #[serde(default)]
    pub session_round_trip_ms: u64,
    /// The same on the way of links over WebSockets. Default 0.
    #[serde(default)]
    pub link_round_trip_ms: u64,
}

/// What stands in for Codex.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stub {
    /// Least and most time that it thinks before it answers, in milliseconds; drawn evenly. Default 0 to 0.
    pub answer_ms: [u64; 2],
    /// Bytes of text in an event. Default 256.
    pub event_bytes: usize,
    /// Seconds that an approval waits for a remote answer before it is renewed under another id. Default 5.
    pub approval_seconds: f64,
    /// Bytes of a page of threads or history; more than 32 KiB travels on the bulk lane. Default 2048.
    pub page_bytes: usize,
}

impl Default for Stub {
    fn default() -> Self {
        Self { answer_ms: [0, 0], event_bytes: 256, page_bytes: 2048, approval_seconds: 5.0 }
    }
}

/// A stretch of a run with its own figures.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Named in the report.
    pub name: String,
    /// What it is.
    pub kind: PhaseKind,
    /// How long it lasts.
    pub seconds: f64,
    /// Commands of a second, of all sessions together. Default 0.
    #[serde(default)]
    pub commands_per_second: f64,
    /// Events of a second, of all machines together. Default 0.
    #[serde(default)]
    pub events_per_second: f64,
    /// Approvals that the stubs ask for in a second, of all machines together. Each is played in one of several ways:
    /// most are accepted by one phone. Default 0.
    #[serde(default)]
    pub approvals_per_second: f64,
    /// How arrivals lie in time. Default `poisson`.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// Which commands, by weight. Default: two lists of threads for each started turn.
    #[serde(default)]
    pub mix: Mix,
    /// The fault that begins with the phase: the argument of `--fault-hook`. On `fault` phases only.
    #[serde(default)]
    pub fault: Option<String>,
    /// Share of links whose sockets this process breaks as the phase begins, 0 to 1. On `fault` phases only.
    #[serde(default)]
    pub cut_links: f64,
    /// Share of sessions whose sockets this process breaks as the phase begins, 0 to 1. On `fault` phases only.
    #[serde(default)]
    pub cut_sessions: f64,
    /// Share of links over WebSockets whose network falls silent as the phase begins, 0 to 1: no socket closes. On
    /// `fault` phases only.
    #[serde(default)]
    pub silence_links: f64,
    /// Share of sessions whose network falls silent as the phase begins, 0 to 1. Nothing is asked of them in the phase.
    /// On `fault` phases only.
    #[serde(default)]
    pub silence_sessions: f64,
    /// Share of sessions that read nothing in the phase, and yet say that they are there, 0 to 1. Nothing is asked of
    /// them in the phase. On `fault` phases only.
    #[serde(default)]
    pub slow_sessions: f64,
    /// What the figures of this phase must be: by the kind of what is timed or counted, as the report names it. A name
    /// stands for all that begin with it and a colon; `errors` for all that a user would see fail.
    #[serde(default)]
    pub must: BTreeMap<String, Bound>,
}

/// What a phase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// Rates rise evenly from nothing.
    Ramp,
    /// Rates stand.
    Steady,
    /// Rates stand, and a fault begins with it.
    Fault,
    /// Nothing new: what is under way ends. Its rates are 0.
    CoolDown,
}

/// How arrivals lie in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// As independent people would: gaps are exponential.
    #[default]
    Poisson,
    /// One like the other.
    Even,
}

/// Weights of commands.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// A page of threads.
    #[serde(default)]
    pub list_threads: u32,
    /// A page of history.
    #[serde(default)]
    pub read_thread: u32,
    /// The models.
    #[serde(default)]
    pub list_models: u32,
    /// An effect: a prompt.
    #[serde(default)]
    pub start_turn: u32,
    /// An effect: another name.
    #[serde(default)]
    pub rename_thread: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { list_threads: 2, read_thread: 0, list_models: 0, start_turn: 1, rename_thread: 0 }
    }
}

impl Mix {
    /// The sum of the weights.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { list_threads, read_thread, list_models, start_turn, rename_thread } = *self;
        [list_threads, read_thread, list_models, start_turn, rename_thread].into_iter().map(u64::from).sum()
    }
}

impl Phase {
    /// Share of sessions of which nothing is asked.
    #[must_use]
    pub fn unasked(&self) -> f64 {
        self.slow_sessions.max(self.silence_sessions)
    }

    /// How long it lasts.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

const fn one<T: One>() -> T {
    T::ONE
}

trait One {
    const ONE: Self;
}

impl One for u64 {
    const ONE: Self = 1;
}

impl One for usize {
    const ONE: Self = 1;
}

impl Scenario {
    /// Reads a scenario and checks each field.
    ///
    /// # Errors
    /// The first thing that is wrong, with the field's path.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let scenario: Self = toml::from_str(text)?;
        let Fleet { accounts, machines, sessions_per_machine, threads_per_machine, quic_share, .. } = scenario.fleet;
        within("fleet.session_round_trip_ms", scenario.fleet.session_round_trip_ms, 0, ROUND_TRIP_MS_MAX)?;
        within("fleet.link_round_trip_ms", scenario.fleet.link_round_trip_ms, 0, ROUND_TRIP_MS_MAX)?;
        within("fleet.accounts", accounts, 1, ACCOUNTS_MAX)?;
        within("fleet.machines", machines, accounts, MACHINES_MAX)?;
        within("fleet.sessions_per_machine", sessions_per_machine, 1, SESSIONS_PER_MACHINE_MAX)?;
        within("fleet.threads_per_machine", threads_per_machine, 1, THREADS_MAX)?;
        within("fleet.quic_share", quic_share, 0.0, 1.0)?;
        let Stub { answer_ms: [least, most], event_bytes, page_bytes, approval_seconds } = scenario.stub;
        within("stub.approval_seconds", approval_seconds, 0.5, APPROVAL_SECONDS_MAX)?;
        within("stub.answer_ms[1]", most, 0, ANSWER_MS_MAX)?;
        within("stub.answer_ms[0]", least, 0, most)?;
        within("stub.event_bytes", event_bytes, 0, EVENT_BYTES_MAX)?;
        within("stub.page_bytes", page_bytes, 0, PAGE_BYTES_MAX)?;
        within("the number of phases", scenario.phases.len(), 1, PHASES_MAX)?;
        let mut arrivals = 0.0;
        for (index, phase) in scenario.phases.iter().enumerate() {
            phase.check(&|field| format!("phase[{index}].{field}"))?;
            arrivals +=
                phase.seconds * (phase.commands_per_second + phase.events_per_second + phase.approvals_per_second);
        }
        within("the number of arrivals (seconds times rates)", arrivals, 0.0, ARRIVALS_MAX)?;
        Ok(scenario)
    }

    /// Sessions in all.
    #[must_use]
    pub const fn sessions(&self) -> usize {
        self.fleet.machines * self.fleet.sessions_per_machine
    }
}

impl Phase {
    fn check(&self, at: &dyn Fn(&str) -> String) -> Result<(), Error> {
        within(&at("seconds"), self.seconds, 0.01, PHASE_SECONDS_MAX)?;
        let rate_max = if self.kind == PhaseKind::CoolDown { 0.0 } else { RATE_MAX };
        within(&at("commands_per_second"), self.commands_per_second, 0.0, rate_max)?;
        within(&at("events_per_second"), self.events_per_second, 0.0, rate_max)?;
        within(&at("approvals_per_second"), self.approvals_per_second, 0.0, rate_max)?;
        within(&at("mix (the sum of its weights)"), self.mix.total(), 1, u64::from(u32::MAX))?;
        let share_max = if self.kind == PhaseKind::Fault { 1.0 } else { 0.0 };
        for (field, share) in [
            ("cut_links", self.cut_links),
            ("cut_sessions", self.cut_sessions),
            ("silence_links", self.silence_links),
            ("silence_sessions", self.silence_sessions),
            ("slow_sessions", self.slow_sessions),
        ] {
            within(&at(field), share, 0.0, share_max)?;
        }
        within(&at("slow_sessions or silence_sessions"), self.unasked(), 0.0, UNASKED_MAX)?;
        for (what, bound) in &self.must {
            bound.check(&at(&format!("must.{what:?}")))?;
        }
        match &self.fault {
            Some(fault) if self.kind != PhaseKind::Fault => Err(Error::OutOfBounds {
                field: at("fault"),
                bounds: "on a phase of kind \"fault\"".to_owned(),
                value: format!("{fault:?} on another"),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Also refuses what is not a number.
fn within<T: PartialOrd + std::fmt::Display>(field: &str, value: T, least: T, most: T) -> Result<(), Error> {
    if value >= least && value <= most {
        return Ok(());
    }
    let bounds = format!("{least} to {most}");
    Err(Error::OutOfBounds { field: field.to_owned(), bounds, value: value.to_string() })
}

#[cfg(test)]
mod tests;
