//! A gateway and a node in this process, joined over memory as in `flydex-server all`, behind a real socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flydex_domain::id::{Incarnation, NodeId};
use flydex_domain::placement::NodeRecord;
use flydex_domain::revocation::RevocationEntry;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{Claims, TokenSigner, TokenVerifier};
use flydex_proto::v1::machine_host_server::{MachineHost, MachineHostServer};
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::tls;
use flydex_store::directory::{Directory, InProcessDirectory};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};

use crate::fuzz::Doctored;

/// The origin of the web app.
pub const ORIGIN: &str = "https://app.example";
/// The host that connectors dial.
pub const HOST: &str = "localhost";
/// The one region.
pub const REGION: &str = "local";
/// The gateway's name.
pub const GATEWAY: &str = "gateway-1";
/// When it begins.
const START_MS: u64 = 1_800_000_000_000;
/// Bytes in flight over memory, as a socket's buffer would hold.
const DUPLEX_BYTES: usize = 1024 * 1024;
/// Connections over memory that wait to be accepted.
const CONNECTIONS_WAITING_MAX: usize = 64;
/// How long an end may take.
const DRAIN_FOR: Duration = Duration::from_millis(200);

/// A running relay, and the key that signs for its control plane.
pub struct Stand {
    /// Moved by hand.
    pub clock: Clock,
    /// Where sessions and links go.
    pub address: SocketAddr,
    shutdown: Shutdown,
    signer: TokenSigner,
    node: Way,
    gateway: flydex_gateway::Handle,
    machines: flydex_machines::Handle,
}

impl Stand {
    /// Starts it, and waits until the gateway reaches the node.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(None).await
    }

    /// The same, where the gateway may reach a node that is wrong on purpose.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub async fn start_with(doctored: Option<Doctored>) -> anyhow::Result<Self> {
        tls::install_provider();
        let signer = TokenSigner::from_seed("k1", &SecretKey::new([1; 32]));
        let verifier = Arc::new(TokenVerifier::new([signer.public()]));
        let (clock, shutdown) = (Clock::manual(START_MS), Shutdown::new());
        let directory: Arc<dyn Directory> = Arc::new(InProcessDirectory::default());
        let machines = flydex_machines::Service::new(
            flydex_machines::Config {
                node_id: name("node-1")?,
                incarnation: Incarnation::from_bytes([5; 16]),
                address: "memory://node-1".to_owned(),
                region: REGION.to_owned(),
            },
            directory.clone(),
            verifier.clone(),
            clock.clone(),
            shutdown.clone(),
        );
        let handle = machines.handle();
        let node = Way::to(machines.into_grpc(), &shutdown);
        let reached = match doctored {
            Some(doctored) => Way::to(MachineHostServer::new(doctored.before(node.channel())), &shutdown),
            None => node.clone(),
        };
        let gateway = gateway(reached, directory, verifier, &clock, &shutdown)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let address = listener.local_addr()?;
        let serving = flydex_runtime::http::serve(listener, None, gateway.router(), shutdown.clone());
        shutdown.spawn(serving);
        gateway.handle().nodes_ready(1).await;
        Ok(Self { clock, address, shutdown, signer, node, gateway: gateway.handle(), machines: handle })
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }

    /// Signs as the control plane does.
    #[must_use]
    pub fn sign<C: Claims>(&self, claims: &C) -> String {
        self.signer.sign(claims)
    }

    /// Says that something no longer holds, as control does.
    pub fn revoke(&self, entry: &RevocationEntry) {
        self.gateway.revoke(entry);
        self.machines.revoke(entry.clone());
    }

    /// A way of one's own to the node, as a gateway has it.
    #[must_use]
    pub fn node(&self) -> Channel {
        self.node.channel()
    }

    /// Ends everything.
    pub async fn stop(self) {
        self.shutdown.begin();
        self.shutdown.drain(DRAIN_FOR).await;
    }
}

/// A gateway that reaches every node by that way.
///
/// # Errors
/// Never; its name is a good one.
pub fn gateway(
    way: Way,
    directory: Arc<dyn Directory>,
    verifier: Arc<TokenVerifier>,
    clock: &Clock,
    shutdown: &Shutdown,
) -> anyhow::Result<flydex_gateway::Service> {
    let config = flydex_gateway::Config {
        gateway_id: name(GATEWAY)?,
        region: REGION.to_owned(),
        public_origin: ORIGIN.to_owned(),
        public_url: format!("wss://{HOST}:8443"),
        drain_for: DRAIN_FOR,
    };
    let ways = flydex_gateway::Ways::to(move |_: &NodeRecord| Ok(way.channel()));
    Ok(flydex_gateway::Service::new(config, ways, directory, verifier, clock.clone(), shutdown.clone()))
}

fn name(text: &str) -> anyhow::Result<NodeId> {
    NodeId::try_from(text.to_owned()).map_err(|error| anyhow::anyhow!("{error}"))
}

/// The way to a node over memory.
#[derive(Clone)]
pub struct Way {
    accept: mpsc::Sender<DuplexStream>,
}

impl Way {
    /// Serves `host` in memory until the hard stop.
    pub fn to<H: MachineHost>(host: MachineHostServer<H>, shutdown: &Shutdown) -> Self {
        let (accept, incoming) = mpsc::channel::<DuplexStream>(CONNECTIONS_WAITING_MAX);
        let incoming = ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
        let hard = shutdown.hard();
        let server = Server::builder().add_service(host).serve_with_incoming_shutdown(incoming, async move {
            hard.cancelled().await;
        });
        shutdown.spawn(async move {
            // It ends with the stand; that it ended otherwise shows in everything that follows.
            let _ = server.await;
        });
        Self { accept }
    }

    fn channel(&self) -> Channel {
        let accept = self.accept.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let accept = accept.clone();
            async move {
                let (near, far) = tokio::io::duplex(DUPLEX_BYTES);
                accept.send(far).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
                Ok::<_, std::io::Error>(TokioIo::new(near))
            }
        });
        flydex_gateway::tuned(Endpoint::from_static("http://node.invalid")).connect_with_connector_lazy(connector)
    }
}
