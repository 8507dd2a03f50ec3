//! The fault suite: what is done to a cluster under load, each time to a fresh one, and what must hold then.
//!
//! Scenarios are data (`loadtest/scenarios`), with the bounds of their figures. Every run records what devices asked and
//! were told and what machines did; INV-ONCE, INV-FINAL, INV-FENCE, INV-APPROVE and INV-ORDER are judged
//! over that.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flydex_loadtest::figures::Report;
use flydex_loadtest::run::{self, OnFault, Options};
use flydex_loadtest::scenario::Scenario;
use tokio::sync::Mutex;

use super::fault::Fault;
use super::{Cluster, Settings, region};

/// Machines of a bounded trial.
const BOUNDED_MACHINES: usize = 12;
/// Sessions of each of them.
const BOUNDED_SESSIONS: usize = 2;
/// Commands, and events, of a second.
const BOUNDED_RATE: f64 = 20.0;

/// One of the suite: a scenario, and the cluster that it is tried on.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Its name on the command line.
    pub name: &'static str,
    scenario: &'static str,
    sentinel: bool,
    island: bool,
}

/// Every trial.
pub const TRIALS: &[Trial] = &[
    trial("owner", include_str!("../../../loadtest/scenarios/owner.toml")),
    trial("gateway", include_str!("../../../loadtest/scenarios/gateway.toml")),
    trial("redis", include_str!("../../../loadtest/scenarios/redis.toml")),
    trial("control", include_str!("../../../loadtest/scenarios/control.toml")),
    Trial { sentinel: true, ..trial("sentinel", include_str!("../../../loadtest/scenarios/sentinel.toml")) },
    Trial { island: true, ..trial("partition", include_str!("../../../loadtest/scenarios/partition.toml")) },
    trial("dark", include_str!("../../../loadtest/scenarios/dark.toml")),
    trial("network", include_str!("../../../loadtest/scenarios/network.toml")),
    trial("resume", include_str!("../../../loadtest/scenarios/resume.toml")),
    trial("roll", include_str!("../../../loadtest/scenarios/roll.toml")),
];

const fn trial(name: &'static str, scenario: &'static str) -> Trial {
    Trial { name, scenario, sentinel: false, island: false }
}

/// Lines that are right while things break.
pub const EXPECTED: &[(&str, &str)] = &[
    ("stream to a node broke", "nodes are killed, frozen and replaced"),
    ("nodes not asked for: the last view holds", "Redis is away, or the gateway was frozen"),
    ("directory is away; the node goes on without it", "Redis is away, or the node was frozen"),
    ("directory has forgotten; what is owned here is asserted again", "Redis forgets, or the node's lease ran out"),
    ("connection to the directory lost", "Redis is killed"),
    ("terminating connection due to immediate shutdown", "PostgreSQL crashes"),
    ("revocations late", "PostgreSQL is away"),
    ("error.code=\"store_unavailable\"", "what needs PostgreSQL while it is away"),
    ("control is not followed any more; asking again", "control is away, or the process was frozen"),
];

impl Trial {
    /// The trial of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> anyhow::Result<&'static Self> {
        TRIALS.iter().find(|trial| trial.name == name).with_context(|| format!("there is no trial {name:?}"))
    }

    /// Runs it on a fresh cluster. A bounded one has a small fleet: its figures say nothing, its history does.
    ///
    /// # Errors
    /// When the cluster does not come up, or the scenario cannot be run to its end.
    pub async fn run(&self, bounded: bool, history: Option<&Path>) -> anyhow::Result<Report> {
        let mut scenario =
            Scenario::parse(self.scenario).with_context(|| format!("read the scenario {}", self.name))?;
        if bounded {
            bound(&mut scenario);
        }
        let settings = Settings { sentinel: self.sentinel, island: self.island, ..Settings::default() };
        let mut cluster = Cluster::start(settings).await?;
        for (text, why) in EXPECTED {
            cluster.may_log(text, why);
        }
        let mut sign_in = Vec::new();
        for _ in 0..scenario.fleet.accounts {
            sign_in.push(cluster.account().await?);
        }
        let (origin, ca_pem) = (cluster.origin().to_owned(), cluster.certificate_pem().to_owned());
        let cluster = Arc::new(Mutex::new(cluster));
        let options = Options {
            origin,
            sign_in,
            ca_pem: Some(ca_pem),
            record: history.map(Path::to_owned),
            on_fault: Some(strike(cluster.clone())),
        };
        let report = Box::pin(run::run(scenario, &options)).await;
        drop(options);
        let cluster = Arc::into_inner(cluster).context("a fault is still under way")?.into_inner();
        if let Some(history) = history {
            keep_logs(&cluster, &history.with_extension("logs"))?;
        }
        let report = report?;
        cluster.stop().await?;
        Ok(report)
    }
}

fn keep_logs(cluster: &Cluster, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    for file in fs::read_dir(cluster.folder())? {
        let path = file?.path();
        if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|extension| extension == "log")) {
            fs::copy(&path, folder.join(name)).with_context(|| format!("keep {}", path.display()))?;
        }
    }
    Ok(())
}

fn strike(cluster: Arc<Mutex<Cluster>>) -> OnFault {
    Arc::new(move |fault| {
        let (cluster, fault) = (cluster.clone(), fault.parse::<Fault>());
        Box::pin(async move { fault?.strike(&mut *cluster.lock().await).await })
    })
}

fn bound(scenario: &mut Scenario) {
    scenario.fleet.machines = scenario.fleet.machines.min(BOUNDED_MACHINES);
    scenario.fleet.sessions_per_machine = scenario.fleet.sessions_per_machine.min(BOUNDED_SESSIONS);
    for phase in &mut scenario.phases {
        phase.commands_per_second = phase.commands_per_second.min(BOUNDED_RATE);
        phase.events_per_second = phase.events_per_second.min(BOUNDED_RATE);
        if phase.fault.is_none() {
            phase.seconds = phase.seconds.min(2.0);
        }
    }
}

/// The time within which the machines of a lost region must be usable again.
const REGION_LOST_MAX: Duration = Duration::from_secs(15);
/// The one that is no scenario: a real connector and a real browser.
const REGION: &str = "region";

/// What a check has found so far.
#[derive(Default)]
struct Table {
    rows: Vec<String>,
    passed: u32,
    failed: u32,
}

impl Table {
    fn settle(&mut self, holds: bool) {
        *(if holds { &mut self.passed } else { &mut self.failed }) += 1;
    }

    fn report(&mut self, trial: &str, report: &Report) {
        self.rows.extend(report.judgements.iter().map(|judgement| format!("{trial:<10} {judgement}")));
        self.rows.extend(report.void.iter().map(|void| format!("{trial:<10} VOID   {}", void.why)));
        self.settle(report.holds() && report.void.is_empty());
    }

    fn region(&mut self, took: Duration) {
        let holds = took <= REGION_LOST_MAX;
        let (word, what) = (if holds { "holds " } else { "MISSED" }, "until a phone reads and writes again");
        self.rows.push(format!(
            "{REGION:<10} {word} {:<24} {what:<40} {took:>12.1?}   must be at most {REGION_LOST_MAX:.1?}",
            "a region is lost"
        ));
        self.settle(holds);
    }

    fn failure(&mut self, trial: &str, error: &anyhow::Error) {
        self.rows.push(format!("{trial:<10} FAILED {error:#}"));
        self.settle(false);
    }
}

/// Runs the trials whose name contains `filter`, and says a table and a count.
///
/// # Errors
/// When a report cannot be written.
pub async fn check(filter: Option<&str>, keep: Option<&Path>, say: &impl Fn(&str)) -> anyhow::Result<bool> {
    let is_wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let mut table = Table::default();
    for trial in TRIALS.iter().filter(|trial| is_wanted(trial.name)) {
        say(&format!("== {}", trial.name));
        let history = keep.map(|folder| folder.join(format!("{}.ndjson", trial.name)));
        // In a task, since a log with a line that nobody expected makes whoever drops it panic.
        let run = tokio::spawn(async move { Box::pin(trial.run(false, history.as_deref())).await });
        match run.await.map_err(anyhow::Error::from).flatten() {
            Ok(report) => {
                say(&report.table());
                if let Some(folder) = keep {
                    fs::write(folder.join(format!("{}.json", trial.name)), serde_json::to_vec_pretty(&report)?)?;
                }
                table.report(trial.name, &report);
            }
            Err(error) => table.failure(trial.name, &error),
        }
    }
    if is_wanted(REGION) {
        say(&format!("== {REGION}"));
        match tokio::spawn(Box::pin(region::lost())).await.map_err(anyhow::Error::from).flatten() {
            Ok(took) => table.region(took),
            Err(error) => table.failure(REGION, &error),
        }
    }
    say("\nwhat was done, whether it holds, in which phase, what, its figure and its bound:");
    table.rows.iter().for_each(|row| say(row));
    say(&format!("{} passed, {} failed", table.passed, table.failed));
    Ok(table.failed == 0)
}
