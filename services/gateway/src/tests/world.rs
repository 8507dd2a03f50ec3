//! A running gateway, its control plane's key, and the tokens that a test needs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::epoch::Epoch;
use flydex_domain::id::{AccountId, GrantId, Incarnation, MachineId, NodeId, TicketId, UserId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{CREDENTIAL_LIFETIME, GRANT_LIFETIME, TICKET_LIFETIME};
use flydex_domain::placement::NodeRecord;
use flydex_domain::scope::{MachineKey, Principal, Role};
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, Grant, MachineCredential, Ticket, TokenSigner, TokenVerifier};
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::tls;
use flydex_store::directory::{Acquire, Cause, Directory as _};
use futures_util::future::BoxFuture;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;

use super::directory::Switched;
use super::host::{Host, Way, host, life, record};
use crate::{Config, DialError, Seeds, Service, Ways, quic};

pub(super) const ORIGIN: &str = "https://app.example";
/// The host of the gateway, which is not that of the web app.
pub(super) const HOST: &str = "localhost";
pub(super) const REGION: &str = "local";
pub(super) const GATEWAY: &str = "gateway-1";
/// What the gateway is told of its drain.
pub(super) const DRAIN_FOR: Duration = Duration::from_secs(20);
const START_MS: u64 = 1_800_000_000_000;

type KnownWays = Arc<Mutex<BTreeMap<Incarnation, Way>>>;

/// A gateway with a listener of each kind.
pub(super) struct World {
    pub(super) verifier: Arc<TokenVerifier>,
    pub(super) service: Service,
    /// The first node.
    pub(super) host: Host,
    /// The others.
    pub(super) others: Vec<Host>,
    pub(super) directory: Arc<Switched>,
    ways: KnownWays,
    pub(super) names: Option<Arc<Names>>,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
    pub(super) plain: SocketAddr,
    pub(super) tls: SocketAddr,
    pub(super) quic: SocketAddr,
    pub(super) certificate_pem: String,
    signer: TokenSigner,
}

impl World {
    pub(super) async fn start() -> Self {
        Self::with_nodes(1).await
    }

    /// A gateway among that many nodes.
    pub(super) async fn with_nodes(nodes: u8) -> Self {
        Self::found_by(nodes, Arc::new(Switched::default()), None).await
    }

    /// A gateway that starts while the directory is away, among that many nodes that names lead to.
    pub(super) async fn named(nodes: u8) -> Self {
        let directory = Arc::new(Switched::default());
        directory.set_away(true);
        Self::found_by(nodes, directory, Some((1..=nodes).collect())).await
    }

    /// A gateway among that many nodes, while names lead to some.
    pub(super) async fn found_by(nodes: u8, directory: Arc<Switched>, names: Option<Vec<u8>>) -> Self {
        tls::install_provider();
        let signer = TokenSigner::from_seed("k1", &SecretKey::new([1; 32]));
        let verifier = Arc::new(TokenVerifier::new([signer.public()]));
        let ways = KnownWays::default();
        let mut hosts = Vec::new();
        for tag in 1..=nodes {
            hosts.push(add_node(&directory, &ways, tag).await);
        }
        let others = hosts.split_off(1);
        let host = hosts.remove(0);
        let clock = Clock::manual(START_MS);
        let shutdown = Shutdown::new();
        let config = Config {
            gateway_id: NodeId::try_from(GATEWAY.to_owned()).unwrap(),
            region: REGION.to_owned(),
            public_origin: ORIGIN.to_owned(),
            public_url: format!("wss://{HOST}:8443"),
            drain_for: DRAIN_FOR,
        };
        let known = ways.clone();
        let dial = move |record: &NodeRecord| match known.lock().unwrap().get(&record.incarnation) {
            Some(way) => Ok(way.channel()),
            None => Err(DialError::new("no way to it")),
        };
        let names =
            names.map(|tags| Arc::new(Names { ways: ways.clone(), tags: Mutex::new(tags), asked: Mutex::default() }));
        let seeds = names.clone().map(|names| names as Arc<dyn Seeds>);
        let ways_to_nodes = Ways { dial: Arc::new(dial), seeds };
        let known_keys = Arc::clone(&verifier);
        let service =
            Service::new(config, ways_to_nodes, directory.clone(), known_keys, clock.clone(), shutdown.clone());
        let certified = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
        let certificate_pem = certified.cert.pem();
        let key = || PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let server_config = || {
            rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
                .with_no_client_auth()
                .with_single_cert(vec![certified.cert.der().clone()], key())
                .unwrap()
        };
        let plain = listen(&service, None, &shutdown).await;
        let tls = listen(&service, Some(server_config()), &shutdown).await;
        let endpoint =
            quinn::Endpoint::server(quic::server_config(server_config()).unwrap(), ([127, 0, 0, 1], 0).into()).unwrap();
        let quic = endpoint.local_addr().unwrap();
        let serving = service.clone();
        tokio::spawn(async move { serving.serve_quic(endpoint).await });
        service.handle().nodes_ready(nodes.into()).await;
        Self {
            service,
            verifier,
            host,
            others,
            directory,
            ways,
            names,
            clock,
            shutdown,
            plain,
            tls,
            quic,
            certificate_pem,
            signer,
        }
    }

    /// Another node comes, which a gateway learns of in time.
    pub(super) async fn add_node(&mut self, tag: u8) {
        self.others.push(add_node(&self.directory, &self.ways, tag).await);
    }

    /// Every node, by number.
    pub(super) fn nodes(&mut self) -> impl Iterator<Item = &mut Host> {
        std::iter::once(&mut self.host).chain(&mut self.others)
    }

    /// The node of that number.
    pub(super) fn node(&mut self, tag: u8) -> &mut Host {
        self.nodes().find(|host| host.incarnation == life(tag)).expect("there is such a node")
    }

    /// Puts on record that a node owns machine 1 of account 1.
    pub(super) async fn owned_by(&self, tag: u8) {
        let acquire = Acquire {
            machine: machine_key_1(),
            asker: life(tag),
            floor: Epoch::ZERO,
            replacing: None,
            cause: Cause::Link,
        };
        self.directory.acquire(acquire).await.unwrap();
    }

    pub(super) fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }

    pub(super) fn ticket(&self, number: u128) -> Ticket {
        Ticket {
            ticket_id: TicketId::try_from(number.to_be_bytes().as_slice()).unwrap(),
            region: REGION.to_owned(),
            account_id: account(1),
            user_id: user(1),
            role: Role::Owner,
            device_id: PublicKey::of(&device_key()).device_id(),
            expires_at: self.now().plus(TICKET_LIFETIME),
        }
    }

    pub(super) fn grant(&self) -> Grant {
        Grant {
            grant_id: GrantId::try_from([7; 16].as_slice()).unwrap(),
            account_id: account(1),
            user_id: user(1),
            role: Role::Owner,
            device_key: EncodedKey(PublicKey::of(&device_key())),
            expires_at: self.now().plus(GRANT_LIFETIME),
        }
    }

    pub(super) fn credential(&self) -> MachineCredential {
        MachineCredential {
            account_id: account(1),
            machine_id: machine(1),
            machine_key: EncodedKey(PublicKey::of(&machine_key())),
            serial: 1,
            region_pin: None,
            strict_audit: false,
            issued_at: self.now(),
            expires_at: self.now().plus(CREDENTIAL_LIFETIME),
        }
    }

    pub(super) fn sign<C: flydex_domain::token::Claims>(&self, claims: &C) -> String {
        self.signer.sign(claims)
    }
}

async fn add_node(directory: &Switched, ways: &KnownWays, tag: u8) -> Host {
    let host = host(tag);
    ways.lock().unwrap().insert(life(tag), host.way.clone());
    // A directory that is away hears of it when it is back.
    let _ = directory.renew(record(tag), 1).await;
    host
}

/// Names that lead to nodes by their numbers.
pub(super) struct Names {
    ways: KnownWays,
    tags: Mutex<Vec<u8>>,
    asked: Mutex<Vec<u8>>,
}

impl Names {
    /// Leads elsewhere from now on.
    pub(super) fn lead_to(&self, tags: &[u8]) {
        *self.tags.lock().unwrap() = tags.to_vec();
    }

    /// Who was asked so far, as often as it was.
    pub(super) fn asked(&self) -> Vec<u8> {
        self.asked.lock().unwrap().clone()
    }
}

impl Seeds for Names {
    fn addresses(&self) -> BoxFuture<'_, std::io::Result<Vec<String>>> {
        let tags = self.tags.lock().unwrap();
        Box::pin(std::future::ready(Ok(tags.iter().map(u8::to_string).collect())))
    }

    fn dial(&self, address: &str) -> Result<tonic::transport::Channel, DialError> {
        let tag = address.parse().map_err(DialError::new)?;
        self.asked.lock().unwrap().push(tag);
        let ways = self.ways.lock().unwrap();
        ways.get(&life(tag)).map(Way::channel).ok_or_else(|| DialError::new("no way to it"))
    }
}

/// Machine 1 of account 1.
pub(super) fn machine_key_1() -> MachineKey {
    let (account_id, machine_id) = (account(1), machine(1));
    MachineKey::new(Principal::Machine { account_id, machine_id }.scope(), machine_id)
}

async fn listen(service: &Service, tls: Option<rustls::ServerConfig>, shutdown: &Shutdown) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = flydex_runtime::http::serve(listener, tls.map(Arc::new), service.router(), shutdown.clone());
    tokio::spawn(serve);
    address
}

pub(super) fn device_key() -> SigningKey {
    SigningKey::from_bytes(&[11; 32])
}

pub(super) fn machine_key() -> SigningKey {
    SigningKey::from_bytes(&[12; 32])
}

pub(super) fn account(tag: u8) -> AccountId {
    AccountId::try_from([tag; 16].as_slice()).unwrap()
}

pub(super) fn user(tag: u8) -> UserId {
    UserId::try_from([tag; 16].as_slice()).unwrap()
}

pub(super) fn machine(tag: u8) -> MachineId {
    MachineId::try_from([tag; 16].as_slice()).unwrap()
}

/// A generous bound on what must happen; nothing waits for it to pass.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it happens soon")
}
