//! One run: sets the fleet up, gives its schedule out, breaks what the scenario breaks, and reports.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use flydex_connector::api::Api;
use flydex_connector::paired::RegionEndpoint;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::tls;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::account::Account;
use crate::figures::{FAULT, FLOOR, Figures, LAG, Report, SET_UP, UNSETTLED};
use crate::floor;
use crate::line::Line;
use crate::machine::{self, Machine};
use crate::phone::{Entrance, Phone, Standing};
use crate::record::Recorder;
use crate::scenario::{Phase, PhaseKind, Scenario};
use crate::schedule::{self, Due, Receivers, is_picked, share_of};

mod network;

/// Arrivals that one receiver may be behind.
const BEHIND_MAX: usize = 4096;
/// Machines that pair at once.
const PAIRINGS_AT_ONCE: usize = 8;
/// Pause between two sessions that are opened at set-up.
const SESSION_PAUSE: Duration = Duration::from_millis(3);
/// Time that the set-up may take after the last machine was paired.
const SET_UP_MAX: Duration = Duration::from_secs(120);
/// Time after the last phase for what is still open.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(15);
/// Time that everything has to end.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Size of the floor's message: what a small signed command and its receipt weigh.
const FLOOR_BYTES: usize = 400;

/// Breaks something by its name, and returns when it is broken: or mended again, where that is part of it.
pub type OnFault = Arc<dyn Fn(&str) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// What a run is given besides its scenario.
#[derive(Clone, Default)]
pub struct Options {
    /// The relay's web origin.
    pub origin: String,
    /// One sign-in link for each account.
    pub sign_in: Vec<String>,
    /// A certificate to trust besides the system's, in PEM.
    pub ca_pem: Option<String>,
    /// Where the history is written.
    pub record: Option<PathBuf>,
    /// What is called with the name of each fault as its phase begins.
    pub on_fault: Option<OnFault>,
}

/// Faults are left to a program that is run with their names.
#[must_use]
pub fn fault_hook(program: PathBuf) -> OnFault {
    Arc::new(move |fault| {
        let ended = Command::new(&program).arg(fault).status();
        Box::pin(async move {
            let status = ended.await.context("run the fault hook")?;
            ensure!(status.success(), "the fault hook ended with {status}");
            Ok(())
        })
    })
}

/// What every part of a run shares.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) scenario: Scenario,
    pub(crate) recorder: Recorder,
    pub(crate) figures: Figures,
    pub(crate) shutdown: Shutdown,
    base: Instant,
    started: OnceLock<Instant>,
}

impl World {
    fn new(scenario: Scenario, record: Option<&Path>) -> anyhow::Result<Arc<Self>> {
        let file = record.map(File::create).transpose().context("open the file for the history")?;
        let file = file.map(|file| Box::new(BufWriter::new(file)) as Box<dyn Write + Send>);
        let clock = Clock::system();
        Ok(Arc::new(Self {
            recorder: Recorder::new(file),
            figures: Figures::new(&scenario),
            shutdown: Shutdown::new(),
            base: clock.instant(),
            started: OnceLock::new(),
            clock,
            scenario,
        }))
    }

    /// Microseconds of the run.
    pub(crate) fn now_us(&self) -> u64 {
        self.micros(self.clock.instant())
    }

    /// An instant in microseconds of the run.
    pub(crate) fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX)
    }

    /// Something was lost and is back: keeps for how long, and in a phase of kind fault also since it began, since
    /// what a fault breaks may be noticed late.
    pub(crate) fn gap(&self, of: &str, lost_at: Instant, now: Instant) {
        let phase = self.phase_at(lost_at);
        self.figures.time(phase, &format!("{of} gap"), now.saturating_duration_since(lost_at));
        let Some(before) = phase.checked_sub(1) else { return };
        let (Some(started), phases) = (self.started.get(), &self.scenario.phases) else { return };
        if phases[before].kind == PhaseKind::Fault {
            let begun = *started + phases[..before].iter().map(Phase::duration).sum::<Duration>();
            self.figures.time(phase, &format!("{of} back"), now.saturating_duration_since(begun));
        }
    }

    /// The phase of the report that an instant lies in.
    pub(crate) fn phase_at(&self, at: Instant) -> usize {
        let Some(started) = self.started.get() else { return SET_UP };
        let Some(mut since) = at.checked_duration_since(*started) else { return SET_UP };
        for (index, phase) in self.scenario.phases.iter().enumerate() {
            match since.checked_sub(phase.duration()) {
                Some(rest) => since = rest,
                None => return index + 1,
            }
        }
        self.scenario.phases.len()
    }
}

/// Runs a scenario against a relay.
///
/// # Errors
/// When the relay cannot be reached or refuses the fleet, or the history cannot be written.
pub async fn run(scenario: Scenario, options: &Options) -> anyhow::Result<Report> {
    let accounts = scenario.fleet.accounts;
    ensure!(
        options.sign_in.len() == accounts,
        "the scenario has {accounts} accounts: give --sign-in once for each, and not {} times",
        options.sign_in.len()
    );
    let world = World::new(scenario, options.record.as_deref())?;
    let fleet = Box::pin(Fleet::set_up(&world, options)).await?;
    let dropped = Box::pin(fleet.play(&world, options.on_fault.as_ref())).await;
    world.shutdown.begin();
    world.shutdown.drain(STOP_MAX).await;
    let verdict = world.recorder.verdict().context("write the history")?;
    Ok(world.figures.report(&world.scenario, verdict, dropped?))
}

/// Everything that is paired and open.
struct Fleet {
    machines: Vec<Machine>,
    standings: Vec<watch::Receiver<Standing>>,
    orders: Vec<Orders>,
    receivers: Receivers,
    floor: mpsc::Receiver<Due>,
    lag: mpsc::Receiver<Due>,
}

/// How a session is broken.
struct Orders {
    cut: watch::Sender<u64>,
    slow_until: watch::Sender<Option<Instant>>,
    line: Option<Arc<Line>>,
}

impl Fleet {
    async fn set_up(world: &Arc<World>, options: &Options) -> anyhow::Result<Self> {
        let origin = options.origin.parse().context("read the origin")?;
        let trusting = Api::trusting(origin, options.ca_pem.clone(), world.clock.clone());
        let (api, pem) = trusting.await.context("ask the relay for its regions")?;
        let mut accounts = Vec::new();
        for link in &options.sign_in {
            accounts.push(Account::sign_in_trusting(link, pem.as_deref()).await.context("sign in")?);
        }
        let regions = api.regions().await?.endpoints(api.origin(), pem.as_deref());
        let first = accounts.first().context("no account")?;
        let entrance = entrance(first, pem.as_deref()).await?;
        let (machines, machine_txs) = start_machines(world, &api, &accounts, &regions, pem.as_deref()).await?;
        let attached = stream::iter(&machines).map(Machine::attached).buffer_unordered(64).try_collect::<()>();
        tokio::time::timeout(SET_UP_MAX, attached).await.context("the machines were not attached in time")??;

        let (floor_tx, floor) = mpsc::channel(BEHIND_MAX);
        let (lag_tx, lag) = mpsc::channel(BEHIND_MAX);
        let receivers = Receivers { sessions: Vec::new(), machines: machine_txs, floor: floor_tx, lag: lag_tx };
        let mut fleet = Self { machines, standings: Vec::new(), orders: Vec::new(), receivers, floor, lag };
        let mut far = Vec::new();
        for account in &accounts {
            far.push(network::far_account(&world.scenario, account).await?);
        }
        fleet.open_sessions(world, &far, &entrance).await?;
        Ok(fleet)
    }

    async fn open_sessions(
        &mut self,
        world: &Arc<World>,
        accounts: &[Account],
        entrance: &Entrance,
    ) -> anyhow::Result<()> {
        let threads = world.scenario.fleet.threads_per_machine;
        for (index, machine) in self.machines.iter().enumerate() {
            for (number, device) in machine.devices.iter().enumerate() {
                let (due_tx, due) = mpsc::channel(BEHIND_MAX);
                let (cut_tx, cut) = watch::channel(0);
                let (slow_tx, slow_until) = watch::channel(None);
                let line = network::session_line(&world.scenario);
                let (standing, standing_rx) = watch::channel(Standing::default());
                let phone = Phone {
                    world: world.clone(),
                    account: accounts[index % accounts.len()].clone(),
                    device: device.clone(),
                    number,
                    machine: machine.paired.clone(),
                    entrance: entrance.clone(),
                    thread_id: machine::thread(number % threads).to_string(),
                    due,
                    cut,
                    slow_until,
                    line: line.clone(),
                    standing,
                };
                world.shutdown.spawn(Box::pin(phone.run()));
                self.receivers.sessions.push(due_tx);
                self.orders.push(Orders { cut: cut_tx, slow_until: slow_tx, line });
                self.standings.push(standing_rx);
                tokio::time::sleep(SESSION_PAUSE).await;
            }
        }
        let opened = self.all_sessions(|standing| standing.usable);
        tokio::time::timeout(SET_UP_MAX, opened).await.context("the sessions were not usable in time")
    }

    async fn all_sessions(&self, holds: impl Fn(&Standing) -> bool) {
        for standing in &self.standings {
            // A session ends only with the run.
            let _ = standing.clone().wait_for(|standing| holds(standing)).await;
        }
    }

    /// Gives the schedule out and waits for the last answers. Returns how many arrivals were dropped.
    async fn play(self, world: &Arc<World>, on_fault: Option<&OnFault>) -> anyhow::Result<u64> {
        let arrivals = schedule::draw(&world.scenario);
        let Self { machines, standings, orders, receivers, floor, lag } = self;
        let floor_socket = floor::start().await?;
        let start = *world.started.get_or_init(|| world.clock.instant());
        world.shutdown.spawn(measure_lag(world.clone(), lag));
        world.shutdown.spawn(measure_floor(world.clone(), floor_socket, floor));
        let clock = world.clock.clone();
        let given = tokio::task::spawn_blocking(move || schedule::give_out(&arrivals, start, &receivers, &clock));
        let mut faults = JoinSet::new();
        let mut at = start;
        for (index, phase) in world.scenario.phases.iter().enumerate() {
            tokio::time::sleep_until(at.into()).await;
            at += phase.duration();
            break_links(&machines, phase);
            break_sessions(&orders, phase, at);
            if let (Some(fault), Some(on_fault)) = (&phase.fault, on_fault) {
                faults.spawn(break_it(world.clone(), index + 1, fault.clone(), on_fault(fault)));
            }
        }
        tokio::time::sleep_until(at.into()).await;
        let dropped = given.await.context("give the schedule out")?;
        let settled = async {
            for mut standing in standings.clone() {
                // A session ends only with the run.
                let _ = standing.wait_for(Standing::is_settled).await;
            }
        };
        // What is open after that is counted as unanswered.
        let _ = tokio::time::timeout(LAST_ANSWERS_MAX, settled).await;
        let unsettled = standings.iter().filter(|standing| !standing.borrow().is_settled()).count();
        world.figures.set(world.scenario.phases.len(), UNSETTLED, unsettled as u64);
        while let Some(ended) = faults.join_next().await {
            ended.context("wait for a fault")??;
        }
        Ok(dropped)
    }
}

fn break_links(machines: &[Machine], phase: &Phase) {
    for machine in &machines[..share_of(machines.len(), phase.cut_links)] {
        machine.cut();
    }
    let lines: Vec<_> = machines.iter().filter_map(|machine| machine.line.as_ref()).collect();
    for line in &lines[..share_of(lines.len(), phase.silence_links)] {
        line.silence();
    }
}

fn break_sessions(orders: &[Orders], phase: &Phase, end: Instant) {
    let of = orders.len();
    // The others, where only a part is cut, so that both sides of a machine break apart from each other.
    for order in &orders[of - share_of(of, phase.cut_sessions)..] {
        order.cut.send_modify(|cuts| *cuts += 1);
    }
    for (index, order) in orders.iter().enumerate() {
        if is_picked(index, of, phase.slow_sessions) {
            order.slow_until.send_replace(Some(end));
        }
        if let Some(line) = order.line.as_ref().filter(|_| is_picked(index, of, phase.silence_sessions)) {
            line.silence();
        }
    }
}

/// Waits for a fault to be done, and keeps how long it took.
async fn break_it(
    world: Arc<World>,
    phase: usize,
    fault: String,
    broken: BoxFuture<'static, anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let since = world.clock.instant();
    broken.await.with_context(|| format!("do the fault {fault:?}"))?;
    let took = world.clock.instant().saturating_duration_since(since);
    world.figures.time(phase, &format!("{FAULT}{fault}"), took);
    Ok(())
}

/// The first region's entrance for sessions.
async fn entrance(account: &Account, pem: Option<&str>) -> anyhow::Result<Entrance> {
    let (status, answer) = account.call(Method::GET, "/api/regions", None).await?;
    ensure!(status.is_success(), "/api/regions was answered {status}");
    let region = &answer["regions"][0];
    let text = |name: &str| region[name].as_str().map(ToOwned::to_owned).with_context(|| format!("no {name}"));
    let tls = Arc::new(tls::client_config(pem, &[b"http/1.1"])?);
    Ok(Entrance { region: text("region")?, url: text("session_url")?, tls })
}

async fn start_machines(
    world: &Arc<World>,
    api: &Api,
    accounts: &[Account],
    regions: &[RegionEndpoint],
    pem: Option<&str>,
) -> anyhow::Result<(Vec<Machine>, Vec<mpsc::Sender<Due>>)> {
    let fleet = world.scenario.fleet;
    let quic = share_of(fleet.machines, fleet.quic_share);
    let without_quic: Vec<_> = regions.iter().map(|region| RegionEndpoint { quic: None, ..region.clone() }).collect();
    let without_quic = &without_quic;
    let (txs, rxs): (Vec<_>, Vec<_>) = (0..fleet.machines).map(|_| mpsc::channel(BEHIND_MAX)).unzip();
    let before_kib = resident_kib();
    let starting = rxs.into_iter().enumerate().map(|(index, due)| {
        let account = &accounts[index % accounts.len()];
        async move {
            let (line, regions) = match index < quic {
                true => (None, regions.to_vec()),
                false => network::link_line(&world.scenario, without_quic).await?,
            };
            // Each comes over connections of its own, since rates are counted by address.
            let api = Api::new(api.origin().clone(), pem, world.clock.clone())?;
            Machine::start(world, &api, &account.elsewhere()?, (line, regions), due).await
        }
    });
    let machines: Vec<Machine> = stream::iter(starting).buffered(PAIRINGS_AT_ONCE).try_collect().await?;
    let kib = resident_kib().saturating_sub(before_kib) / fleet.machines as u64;
    world.figures.set(SET_UP, "KiB of memory for each machine", kib);
    Ok((machines, txs))
}

/// The memory of this process; 0 where the system does not say.
pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

async fn measure_lag(world: Arc<World>, mut due: mpsc::Receiver<Due>) {
    while let Some(due) = due.recv().await {
        world.figures.time(due.phase + 1, LAG, world.clock.instant().saturating_duration_since(due.intended));
    }
}

/// Times round trips through a bare forwarder, on the schedule of the run.
async fn measure_floor(world: Arc<World>, address: std::net::SocketAddr, mut due: mpsc::Receiver<Due>) {
    let Ok((mut socket, _)) = connect_async(format!("ws://{address}")).await else { return };
    let message = Bytes::from(vec![7; FLOOR_BYTES]);
    while let Some(due) = due.recv().await {
        if socket.send(Message::Binary(message.clone())).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() {
                break;
            }
        }
        world.figures.time(due.phase + 1, FLOOR, world.clock.instant().saturating_duration_since(due.intended));
    }
}
