//! What stands before a region's gateways, or before the control processes: one address, several processes behind it.
//!
//! It does what a load balancer of layer 4 does. A new TCP connection or UDP flow goes to the next process that takes
//! new ones; a process that drains keeps what it has. TLS is not touched. Beside that it is the test's network: it
//! delays everything by a given time each way, and can go dark, so that both sides hear nothing and no connection ends.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::part;

/// Time that one process has to take a connection before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a process is asked whether it is ready, as an orchestrator does.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Probes in a row without a yes until a process gets nothing new, and its UDP flows go to others.
const PROBES_FAILED_MAX: u32 = 2;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;
/// Reads that are on their way in one direction.
const UNDER_WAY_MAX: usize = 1024;
/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// UDP flows at once; the oldest goes first.
const FLOWS_MAX: usize = 65_536;

/// One address before several processes. It ends when it is dropped.
pub struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _end: DropGuard,
}

struct Shared {
    state: Mutex<State>,
    delay_us: AtomicU64,
    dark: watch::Sender<bool>,
    end: CancellationToken,
}

#[derive(Default)]
struct State {
    backends: BTreeMap<String, Backend>,
    next: usize,
    flows: BTreeMap<SocketAddr, Flow>,
    opened: u64,
}

struct Backend {
    address: SocketAddr,
    admin: SocketAddr,
    drains: bool,
    /// Probes in a row without a yes.
    probes_failed: u32,
}

#[derive(Clone)]
struct Flow {
    number: u64,
    backend: SocketAddr,
    socket: Arc<UdpSocket>,
}

impl Balancer {
    /// Listens on a port of loopback, TCP and UDP.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("listen for TCP")?;
        let address = tcp.local_addr()?;
        let udp = Arc::new(UdpSocket::bind(address).await.context("listen for UDP")?);
        let end = CancellationToken::new();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            delay_us: AtomicU64::new(0),
            dark: watch::Sender::new(false),
            end: end.clone(),
        });
        shared.spawn(accept(shared.clone(), tcp));
        shared.spawn(receive(shared.clone(), udp));
        shared.spawn(probe(shared.clone()));
        Ok(Self { address, shared, _end: end.drop_guard() })
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Adds a process that is ready, or gives a known one another address. Its admin port is asked from then on, and while
    /// it does not say that it is ready, the process gets nothing new.
    pub fn put(&self, name: &str, address: SocketAddr, admin: SocketAddr) {
        let backend = Backend { address, admin, drains: false, probes_failed: 0 };
        self.shared.state().backends.insert(name.to_owned(), backend);
    }

    /// A process gets nothing new; what it has goes on.
    pub fn drain(&self, name: &str) {
        if let Some(backend) = self.shared.state().backends.get_mut(name) {
            backend.drains = true;
        }
    }

    /// A process is gone: its UDP flows go to another.
    pub fn remove(&self, name: &str) {
        let mut state = self.shared.state();
        if let Some(backend) = state.backends.remove(name) {
            state.flows.retain(|_, flow| flow.backend != backend.address);
        }
    }

    /// Everything takes so much longer, each way, from now on.
    pub fn set_delay(&self, one_way: Duration) {
        self.shared.delay_us.store(u64::try_from(one_way.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// While it is dark nothing comes through, and nobody is told.
    pub fn set_dark(&self, dark: bool) {
        self.shared.dark.send_replace(dark);
    }
}

impl Backend {
    const fn takes_new(&self) -> bool {
        !self.drains && self.probes_failed < PROBES_FAILED_MAX
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        tokio::spawn(async move { end.run_until_cancelled(task).await });
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.delay_us.load(Ordering::Relaxed))
    }

    async fn light(&self) {
        // The sender lives as long as this value.
        let _ = self.dark.subscribe().wait_for(|dark| !dark).await;
    }

    /// Those that take something new, beginning with the one whose turn it is.
    fn candidates(&self) -> Vec<SocketAddr> {
        let mut state = self.state();
        let mut open: Vec<_> = state.backends.values().filter(|it| it.takes_new()).map(|it| it.address).collect();
        state.next += 1;
        let turn = state.next.checked_rem(open.len()).unwrap_or(0);
        open.rotate_left(turn);
        open
    }
}

async fn probe(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(PROBE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let asked: Vec<_> = shared.state().backends.iter().map(|(name, it)| (name.clone(), it.admin)).collect();
        for (name, admin) in asked {
            let shared = shared.clone();
            shared.clone().spawn(async move {
                let ready = part::is_ready(admin).await;
                let mut state = shared.state();
                let Some(backend) = state.backends.get_mut(&name).filter(|it| it.admin == admin) else { return };
                backend.probes_failed = if ready { 0 } else { backend.probes_failed + 1 };
                if !backend.drains && !backend.takes_new() {
                    let address = backend.address;
                    state.flows.retain(|_, flow| flow.backend != address);
                }
            });
        }
    }
}

// === TCP ===

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.spawn(forward(shared.clone(), client));
    }
}

async fn forward(shared: Arc<Shared>, client: TcpStream) {
    shared.light().await;
    let Some(server) = connect(&shared).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // What one side broke off is broken off for the other; what it ended is ended.
    tokio::select! {
        Err(_) = both(pump(&shared, from_client, to_server), pump(&shared, from_server, to_client)) => {}
        else => {}
    }
}

async fn both(
    one: impl Future<Output = io::Result<()>>,
    other: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    tokio::try_join!(one, other).map(drop)
}

async fn connect(shared: &Shared) -> Option<TcpStream> {
    for address in shared.candidates() {
        if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_TIMEOUT, dial(address)).await {
            return Some(stream);
        }
    }
    None
}

/// Each connection comes from an address of its own, as those of many computers do: rates are by address.
async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let [near, ..] = uuid::Uuid::new_v4().into_bytes();
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, near.max(2)), 0).into())?;
    socket.connect(address).await
}

/// One direction: read at once, written when it is due.
async fn pump(shared: &Shared, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let (tx, mut rx) = mpsc::channel::<(Instant, Bytes)>(UNDER_WAY_MAX);
    let reading = async move {
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(READ_BYTES);
            let read = from.read_buf(&mut buffer).await?;
            // The writer is there for as long as this is.
            if read == 0 || tx.send((Instant::now() + shared.delay(), buffer.freeze())).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async {
        while let Some((due, bytes)) = rx.recv().await {
            wait_until(due).await;
            shared.light().await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    both(reading, writing).await
}

/// A due time that is past is no reason to yield.
async fn wait_until(due: Instant) {
    if due > Instant::now() {
        tokio::time::sleep_until(due).await;
    }
}

// === UDP ===

async fn receive(shared: Arc<Shared>, udp: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let (tx, rx) = mpsc::channel(UNDER_WAY_MAX);
    shared.spawn(send_when_due(shared.clone(), rx));
    loop {
        let Ok((length, client)) = udp.recv_from(&mut buffer).await else { continue };
        let Some(flow) = flow(&shared, &udp, client).await else { continue };
        let datagram = Datagram {
            due: Instant::now() + shared.delay(),
            socket: flow.socket,
            to: None,
            bytes: Bytes::copy_from_slice(&buffer[..length]),
        };
        // A network that has too much under way loses datagrams.
        let _ = tx.try_send(datagram);
    }
}

/// The flow of a client, which stays with its process for as long as that is there.
async fn flow(shared: &Arc<Shared>, udp: &Arc<UdpSocket>, client: SocketAddr) -> Option<Flow> {
    if let Some(flow) = shared.state().flows.get(&client) {
        return Some(flow.clone());
    }
    let backend = *shared.candidates().first()?;
    let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.ok()?);
    socket.connect(backend).await.ok()?;
    let flow = {
        let mut state = shared.state();
        state.opened += 1;
        let flow = Flow { number: state.opened, backend, socket };
        if state.flows.len() >= FLOWS_MAX {
            let oldest = state.flows.iter().min_by_key(|(_, flow)| flow.number).map(|(client, _)| *client);
            oldest.and_then(|client| state.flows.remove(&client));
        }
        state.flows.insert(client, flow.clone());
        flow
    };
    shared.spawn(answer(shared.clone(), udp.clone(), client, flow.clone()));
    Some(flow)
}

/// Brings back what the process sends, until the flow is another's.
async fn answer(shared: Arc<Shared>, udp: Arc<UdpSocket>, client: SocketAddr, flow: Flow) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let (tx, rx) = mpsc::channel(UNDER_WAY_MAX);
    shared.spawn(send_when_due(shared.clone(), rx));
    loop {
        let received = flow.socket.recv(&mut buffer).await;
        let Ok(length) = received else {
            // Nobody listens there any more.
            shared.state().flows.retain(|_, one| one.number != flow.number);
            return;
        };
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        let _ = tx.try_send(Datagram {
            due: Instant::now() + shared.delay(),
            socket: udp.clone(),
            to: Some(client),
            bytes,
        });
        if shared.state().flows.get(&client).is_none_or(|one| one.number != flow.number) {
            return;
        }
    }
}

struct Datagram {
    due: Instant,
    socket: Arc<UdpSocket>,
    /// None for a socket that has one peer.
    to: Option<SocketAddr>,
    bytes: Bytes,
}

async fn send_when_due(shared: Arc<Shared>, mut datagrams: mpsc::Receiver<Datagram>) {
    while let Some(Datagram { due, socket, to, bytes }) = datagrams.recv().await {
        wait_until(due).await;
        if *shared.dark.borrow() {
            continue;
        }
        // A datagram may be lost.
        let _ = match to {
            Some(client) => socket.send_to(&bytes, client).await,
            None => socket.send(&bytes).await,
        };
    }
}
