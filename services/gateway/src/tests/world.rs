//! A running gateway, its control plane's key, and the tokens that a test needs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::id::{AccountId, GrantId, MachineId, NodeId, TicketId, UserId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{CREDENTIAL_LIFETIME, GRANT_LIFETIME, TICKET_LIFETIME};
use flydex_domain::scope::Role;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, Grant, MachineCredential, Ticket, TokenSigner, TokenVerifier};
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::tls;
use flydex_store::directory::redis::{Endpoint, Keeper};
use flydex_store::directory::{Directory, InProcessDirectory, RedisDirectory};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;

use super::host::{Host, host};
use crate::{Config, Service, quic};

pub(super) const ORIGIN: &str = "https://localhost";
pub(super) const HOST: &str = "localhost";
pub(super) const REGION: &str = "local";
pub(super) const GATEWAY: &str = "gateway-1";
const START_MS: u64 = 1_800_000_000_000;

/// A gateway with a listener of each kind.
pub(super) struct World {
    pub(super) service: Service,
    pub(super) host: Host,
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
        Self::with_directory(Arc::new(InProcessDirectory::default())).await
    }

    pub(super) async fn with_directory(directory: Arc<dyn Directory>) -> Self {
        tls::install_provider();
        let signer = TokenSigner::from_seed("k1", &SecretKey::new([1; 32]));
        let verifier = Arc::new(TokenVerifier::new([signer.public()]));
        let (host, channel) = host();
        let clock = Clock::manual(START_MS);
        let shutdown = Shutdown::new();
        let config = Config {
            gateway_id: NodeId::try_from(GATEWAY.to_owned()).unwrap(),
            region: REGION.to_owned(),
            public_origin: ORIGIN.to_owned(),
        };
        let service = Service::new(config, channel, directory, verifier, clock.clone(), shutdown.clone());
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
        service.handle().ready().await;
        Self { service, host, clock, shutdown, plain, tls, quic, certificate_pem, signer }
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
            issued_at: self.now(),
            expires_at: self.now().plus(CREDENTIAL_LIFETIME),
        }
    }

    pub(super) fn sign<C: flydex_domain::token::Claims>(&self, claims: &C) -> String {
        self.signer.sign(claims)
    }
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

/// A directory that never answers: nobody runs its connection.
pub(super) fn down_directory() -> RedisDirectory {
    let endpoint = Endpoint::alone("redis://127.0.0.1").unwrap();
    RedisDirectory::new(Keeper::new(endpoint).0)
}

/// A generous bound on what must happen; nothing waits for it to pass.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it happens soon")
}
