//! A small region in this process: nodes of the real service behind real mTLS, and the words that their callers need.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_domain::id::{AccountId, GrantId, Incarnation, MachineId, NodeId, UserId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{CREDENTIAL_LIFETIME, GRANT_LIFETIME};
use flydex_domain::placement::{NodeRecord, NodeState};
use flydex_domain::scope::{MachineKey, Principal, Role};
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, Grant, MachineCredential, TokenSigner, TokenVerifier};
use flydex_gateway::tuned;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::mutual::authority::Authority;
use flydex_runtime::mutual::{self, Allowed, Expected, MutualTls, PeerIdentity, Role as ProcessRole};
use flydex_store::directory::Directory;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// The region's name.
pub(super) const REGION: &str = "local";
/// The gateway's name.
pub(super) const GATEWAY: &str = "gateway-1";
/// How long certificates hold: longer than any bench.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(86_400);

/// Who signs, and who is trusted.
pub(super) struct Region {
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
    signer: TokenSigner,
    device: SigningKey,
    authority: Authority,
    folder: tempfile::TempDir,
    gateway: MutualTls,
}

impl Region {
    pub(super) fn new() -> anyhow::Result<Self> {
        let (clock, folder) = (Clock::system(), tempfile::tempdir().context("make a folder")?);
        let authority = Authority::new().context("make an authority")?;
        let gateway = certified(&authority, folder.path(), ProcessRole::Gateway, GATEWAY, &clock)?;
        Ok(Self {
            clock,
            shutdown: Shutdown::new(),
            signer: TokenSigner::from_seed("bench", &SecretKey::new(rand::random())),
            device: SigningKey::from_bytes(&rand::random()),
            authority,
            folder,
            gateway,
        })
    }

    /// Starts a node with its gRPC behind mTLS on loopback.
    pub(super) async fn node(&self, name: &str, directory: Arc<dyn Directory>) -> anyhow::Result<NodeRecord> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let record = record(name, listener.local_addr()?)?;
        let config = flydex_machines::Config {
            node_id: record.node_id.clone(),
            incarnation: record.incarnation,
            address: record.address.clone(),
            region: REGION.to_owned(),
        };
        let verifier = Arc::new(TokenVerifier::new([self.signer.public()]));
        let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
        let service = flydex_machines::Service::new(config, directory, verifier, clock, shutdown);
        self.serve(name, listener, Routes::new(service.into_grpc()))?;
        Ok(record)
    }

    /// Serves other routes as a node would.
    pub(super) async fn stand_in(&self, name: &str, routes: Routes) -> anyhow::Result<NodeRecord> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let record = record(name, listener.local_addr()?)?;
        self.serve(name, listener, routes)?;
        Ok(record)
    }

    fn serve(&self, name: &str, listener: TcpListener, routes: Routes) -> anyhow::Result<()> {
        let mutual = certified(&self.authority, self.folder.path(), ProcessRole::Machines, name, &self.clock)?;
        let allowed = Allowed { roles: vec![ProcessRole::Gateway], region: Some(REGION.to_owned()) };
        let (stop, shutdown) = (self.shutdown.soft(), self.shutdown.clone());
        let serving = mutual::serve(listener, mutual, allowed, routes.into_axum_router(), stop, shutdown);
        self.shutdown.spawn(serving);
        Ok(())
    }

    /// A connection of its own to a node, as a gateway dials it.
    pub(super) fn dial(&self, node: &NodeRecord) -> Result<Channel, tonic::transport::Error> {
        let node_id = Some(node.node_id.as_str().to_owned());
        let expected = Expected { role: ProcessRole::Machines, region: Some(REGION.to_owned()), node_id };
        let endpoint = Endpoint::from_shared(node.address.clone())?;
        Ok(tuned(endpoint).connect_with_connector_lazy(self.gateway.connector(expected)))
    }

    /// What lets a machine's link in.
    pub(super) fn credential(&self, machine: MachineKey) -> String {
        let now = UnixMillis(self.clock.unix_millis());
        self.signer.sign(&MachineCredential {
            account_id: machine.account_id(),
            machine_id: machine.machine_id(),
            machine_key: EncodedKey(PublicKey::of(&self.device)),
            serial: 1,
            region_pin: None,
            strict_audit: false,
            issued_at: now,
            expires_at: now.plus(CREDENTIAL_LIFETIME),
        })
    }

    /// What lets a session in, and its token.
    pub(super) fn grant(&self, machine: MachineKey) -> (Grant, String) {
        let grant = Grant {
            grant_id: GrantId::from_uuid(Uuid::new_v4()),
            account_id: machine.account_id(),
            user_id: UserId::from_uuid(Uuid::from_u128(1)),
            role: Role::Owner,
            device_key: EncodedKey(PublicKey::of(&self.device)),
            expires_at: UnixMillis(self.clock.unix_millis()).plus(GRANT_LIFETIME),
        };
        let token = self.signer.sign(&grant);
        (grant, token)
    }
}

/// Machine and account of those numbers.
pub(super) fn machine_key(account: u128, machine: u128) -> MachineKey {
    let account_id = AccountId::from_uuid(Uuid::from_u128(account));
    let machine_id = MachineId::from_uuid(Uuid::from_u128(machine));
    MachineKey::new(Principal::Machine { account_id, machine_id }.scope(), machine_id)
}

/// Bytes as they travel.
pub(super) fn wire(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn record(name: &str, address: SocketAddr) -> anyhow::Result<NodeRecord> {
    Ok(NodeRecord {
        incarnation: Incarnation::from_bytes(rand::random()),
        node_id: NodeId::try_from(name.to_owned()).map_err(|error| anyhow::anyhow!("{error}"))?,
        address: format!("https://{address}"),
        state: NodeState::Active,
        machines: 0,
    })
}

fn certified(
    authority: &Authority,
    folder: &Path,
    role: ProcessRole,
    name: &str,
    clock: &Clock,
) -> anyhow::Result<MutualTls> {
    let process = PeerIdentity { region: REGION.to_owned(), role, node_id: name.to_owned() };
    let config = authority.write(folder, &process, clock.unix_millis(), CERTIFICATE_LIFETIME)?;
    Ok(MutualTls::load(config, clock.clone())?)
}
