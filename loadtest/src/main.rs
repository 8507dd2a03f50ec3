//! `flydex-loadtest`: drives sessions of the real protocol and prints figures beside their floors.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use flydex_loadtest::bench::{Figure, forward, micro, rebuild, relay};
use flydex_loadtest::figures::{self, Report};
use flydex_loadtest::record;
use flydex_loadtest::rig::Rig;
use flydex_loadtest::run::{self, Options};
use flydex_loadtest::scenario::Scenario;
use flydex_loadtest::stub::{self, StubArguments};

/// What was measured says nothing about the relay.
const EXIT_VOID: u8 = 2;
/// An invariant is broken.
const EXIT_BROKEN: u8 = 3;
/// A bound of the scenario was missed.
const EXIT_MISSED: u8 = 4;
/// The command line or the scenario is wrong (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// Measures FlyDex against floors of the same run.
#[derive(Debug, Parser)]
#[command(name = "flydex-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Codec and gate in this process.
    Micro {
        /// Tries of each.
        #[arg(long, default_value_t = 20_000)]
        rounds: u32,
    },
    /// Round trips through relay and connector, with a stub in place of Codex.
    Relay {
        /// Tries of each.
        #[arg(long, default_value_t = 2_000)]
        rounds: u32,
    },
    /// Events from links over a gateway's streams and a node to sessions, against bare tonic on the same streams.
    #[command(after_help = "Ends with 4 when an event costs more CPU time than 60 % of the floor's rate allow.")]
    Forward {
        /// Seconds for each size, and as many for its floor.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Puts the records of machines back into a Redis that was flushed, against writing the same records alone.
    #[command(after_help = "Needs redis-server. Ends with 4 when it takes longer than 5 seconds.")]
    Rebuild {
        /// Machines, shared by three nodes; each has a link.
        #[arg(long, default_value_t = 100_000)]
        machines: u32,
    },
    /// Runs a scenario of sessions and connectors against a relay that is up.
    #[command(long_about = RUN_ABOUT, after_long_help = RUN_HELP)]
    Run(RunArguments),
    /// Checks a history that `run --record` has written: INV-ONCE, INV-FINAL, INV-FENCE and INV-ORDER.
    #[command(after_help = "Ends with 0 when every invariant holds, with 3 when one is broken.")]
    Check {
        /// The history: one JSON object a line.
        history: PathBuf,
    },
    /// The stub itself, as the connector starts it.
    #[command(name = "app-server", hide = true)]
    AppServer(StubArguments),
}

const RUN_ABOUT: &str = "\
Runs a scenario of sessions and connectors against a relay that is up: one process or a cluster.

Everything but Codex is real: TLS, pairing, signatures, gate, journal, links over QUIC and WebSocket, cursors. Machines \
are the connector's own core and links, many in this process, with their files in memory. Arrivals are drawn before \
the run and given out when they are due, whatever the relay does meanwhile, and latency counts from then (open loop: \
a stall shows in all that was due in it).";

const RUN_HELP: &str = "\
A scenario is TOML; a field that is unknown or out of bounds is named. Rates are of the whole fleet:

  name = \"small\"
  seed = 7                      # the same seed gives the same schedule
  [fleet]
  accounts = 2                  # one --sign-in each; machines are dealt out in turn
  machines = 4
  sessions_per_machine = 2      # at most 64
  threads_per_machine = 1       # each session watches one
  quic_share = 0.5              # of links; the others are WebSockets
  session_round_trip_ms = 40    # what an answer of the gateway takes at least; on this computer only
  link_round_trip_ms = 20       # the same for links over WebSockets
  [stub]                        # in place of Codex
  answer_ms = [0, 5]            # thinks so long before it answers
  event_bytes = 256
  page_bytes = 2048             # more than 32 KiB travels in pieces
  [[phase]]
  name = \"owner killed\"
  kind = \"fault\"                # ramp | steady | fault | cool_down
  seconds = 15
  commands_per_second = 200
  events_per_second = 500
  arrivals = \"poisson\"          # or \"even\"
  mix = { list_threads = 3, read_thread = 1, list_models = 1, start_turn = 3, rename_thread = 1 }
  fault = \"kill-owner\"          # passed to --fault-hook as the phase begins
  cut_links = 0.5               # share of links that this process breaks
  cut_sessions = 0.5            # and of sessions
  silence_links = 0.5           # share of links over WebSockets whose network falls silent: no socket closes
  silence_sessions = 0.2        # and of sessions; nothing is asked of these meanwhile
  slow_sessions = 0.2           # share of sessions that read nothing in the phase; nothing is asked of them
  [phase.must]                  # judged at the end; p50_ms, p99_ms, max_ms, least and most can be set
  \"first delivered\" = { p99_ms = 1000, least = 4 }
  errors = { most = 0 }

What is reported for each phase, with p50, p90, p99, p99.9 and max:

  answer: KIND      from the intended start to the machine's verified receipt, whatever breaks in between
  delivered: KIND   to the word that the machine has an effect on disk
  first delivered   the same, of the first effect that is asked of each machine in a phase of kind fault
  event             from when the stub was to tell it until it reached a session
  session opened    from nothing to admitted and watching
  session gap       from the loss of a session or its streams until it is admitted and watches again
  session back      the same, from the beginning of a phase of kind fault: what it breaks may be noticed late
  socket to live    the part of it from an open WebSocket on
  link gap          from the loss of a link until an owner has attached again, as the connector sees it
  link back         the same, from the beginning of a phase of kind fault
  fault: NAME       how long the fault hook took
  floor             a round trip through a bare WebSocket forwarder, at the same times
  own lag           how late this process was itself

A phase in which its own lag is over 5 ms at p99 and over a tenth of the answers' p99 voids the run.

What must be so names a kind of these, or of what is counted, or all kinds that begin with the name and a colon. Its \
times are held to p50_ms, p99_ms and max_ms, and how many there are to least and most. `errors` counts all that is \
failed, refused, unknown, closed, ended or lost. Every run must break no invariant, leave no effect without a final \
word, and end with every session usable.

Ends with 0; with 2 when the run is void; with 3 when an invariant is broken; with 4 when a bound is missed; with 64 \
when the scenario or the command line is wrong; with 1 when it could not be done.

Examples:
  flydex-loadtest run loadtest/scenarios/small.toml --origin http://localhost:48200 \\
      --sign-in \"$FIRST\" --sign-in \"$SECOND\" --record history.ndjson --json report.json
  flydex-loadtest run loadtest/scenarios/owner.toml --origin https://relay.example \\
      --sign-in \"$LINK\" --fault-hook ./break-it";

#[derive(Debug, Args)]
struct RunArguments {
    /// The scenario: a TOML file.
    scenario: PathBuf,
    /// The relay's web origin.
    #[arg(long, env = "FLYDEX_LOAD_ORIGIN")]
    origin: String,
    /// A one-time sign-in link of an owner; once for each account of the scenario.
    #[arg(long = "sign-in", value_name = "LINK", required = true)]
    sign_in: Vec<String>,
    /// A certificate to trust besides the system's roots, in PEM. A self-made one of a relay on this machine is
    /// trusted unasked.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Write the history here, for `check` and other eyes: ids, hashes, numbers and times, no content.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write the report here as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A program that is run with the name of a phase's fault as the phase begins; it must end well.
    #[arg(long, value_name = "PROGRAM")]
    fault_hook: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            error.print()?;
            return Ok(if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS });
        }
    };
    match cli.what {
        None => {
            print(&micro::run(20_000)?);
            measure_relay(2_000)?;
            measure_forwarding(5.0)?;
            measure_rebuild(100_000)?;
        }
        Some(What::Micro { rounds }) => print(&micro::run(rounds)?),
        Some(What::Relay { rounds }) => measure_relay(rounds)?,
        Some(What::Forward { seconds }) => return measure_forwarding(seconds),
        Some(What::Rebuild { machines }) => return measure_rebuild(machines),
        Some(What::Run(arguments)) => return run_scenario(&arguments),
        Some(What::Check { history }) => return check(&history),
        Some(What::AppServer(arguments)) => stub::serve(arguments).context("serve the stub")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_scenario(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.scenario;
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let scenario = match Scenario::parse(&text) {
        Ok(scenario) => scenario,
        Err(error) => {
            say(&format!("{}: {error}", path.display()));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let options = Options {
        origin: arguments.origin.clone(),
        sign_in: arguments.sign_in.clone(),
        ca_pem: arguments.ca.as_ref().map(read).transpose()?,
        record: arguments.record.clone(),
        on_fault: arguments.fault_hook.clone().map(run::fault_hook),
    };
    flydex_runtime::tls::install_provider();
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    let report = runtime.block_on(run::run(scenario, &options))?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    say(&report.table());
    Ok(exit_of(&report))
}

fn exit_of(report: &Report) -> ExitCode {
    if report.verdict.broken > 0 {
        ExitCode::from(EXIT_BROKEN)
    } else if !report.void.is_empty() {
        ExitCode::from(EXIT_VOID)
    } else if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_MISSED)
    }
}

fn check(history: &Path) -> anyhow::Result<ExitCode> {
    let file = File::open(history).with_context(|| format!("open {}", history.display()))?;
    let verdict = record::check(BufReader::new(file))?;
    say(&figures::verdict_lines(&verdict));
    Ok(if verdict.broken > 0 { ExitCode::from(EXIT_BROKEN) } else { ExitCode::SUCCESS })
}

fn measure_relay(rounds: u32) -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let figures = runtime.block_on(async {
        let rig = Rig::start(folder.path()).await?;
        relay::run(&rig, rounds).await
    })?;
    print(&figures);
    Ok(())
}

fn measure_forwarding(seconds: f64) -> anyhow::Result<ExitCode> {
    flydex_runtime::tls::install_provider();
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    let rates = runtime.block_on(forward::run(seconds))?;
    for rate in &rates {
        say(&rate.line());
    }
    Ok(exit_within(rates.iter().all(|rate| rate.share() >= forward::SHARE_MIN)))
}

fn measure_rebuild(machines: u32) -> anyhow::Result<ExitCode> {
    flydex_runtime::tls::install_provider();
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    let rebuilt = runtime.block_on(rebuild::run(machines))?;
    say(&rebuilt.line());
    Ok(exit_within(rebuilt.took <= rebuild::TOOK_MAX))
}

fn exit_within(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::from(EXIT_MISSED) }
}

fn print(figures: &[Figure]) {
    for figure in figures {
        say(&figure.line());
    }
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn say(text: &str) {
    println!("{}", text.trim_end());
}
