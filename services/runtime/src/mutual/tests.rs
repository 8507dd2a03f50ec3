use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use http::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::*;
use crate::clock::Clock;
use crate::lifecycle::Shutdown;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A process's files, in a folder that lives as long.
struct Process {
    config: MutualConfig,
    mutual: MutualTls,
    _folder: TempDir,
}

fn identity(region: &str, role: Role, node_id: &str) -> PeerIdentity {
    PeerIdentity { region: region.to_owned(), role, node_id: node_id.to_owned() }
}

fn process(authority: &Authority, region: &str, role: Role, node_id: &str) -> Process {
    process_at(authority, &identity(region, role, node_id), Clock::system())
}

/// A process whose certificate was made at the time of `clock`, by which it also judges its own.
fn process_at(authority: &Authority, identity: &PeerIdentity, clock: Clock) -> Process {
    let folder = tempfile::tempdir().unwrap();
    let config = authority.write(folder.path(), identity, clock.unix_millis(), DAY).unwrap();
    let mutual = MutualTls::load(config.clone(), clock).unwrap();
    Process { config, mutual, _folder: folder }
}

fn allowed(roles: &[Role]) -> Allowed {
    Allowed { roles: roles.to_vec(), region: Some("eu".to_owned()) }
}

fn expected(role: Role, node_id: &str) -> Expected {
    Expected { role, region: Some("eu".to_owned()), node_id: Some(node_id.to_owned()) }
}

/// Serves who asks until the test's runtime ends.
async fn serving(server: &Process, allowed: Allowed) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router =
        Router::new().route("/who", get(|Extension(peer): Extension<PeerIdentity>| async move { peer.to_string() }));
    tokio::spawn(serve(listener, server.mutual.clone(), allowed, router, CancellationToken::new(), Shutdown::new()));
    address
}

fn uri(address: SocketAddr) -> Uri {
    format!("http://{address}/who").parse().unwrap()
}

/// Asks a server who we are to it.
async fn ask(connector: &Connector, address: SocketAddr) -> Result<String, String> {
    let stream = connector.connect(&uri(address)).await.map_err(|error| error.to_string())?;
    ask_over(stream, address).await
}

async fn ask_over(stream: TlsStream<TcpStream>, address: SocketAddr) -> Result<String, String> {
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let request = http::Request::get(uri(address)).body(axum::body::Body::empty()).unwrap();
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), 1024).await;
    Ok(String::from_utf8(body.map_err(|error| error.to_string())?.to_vec()).unwrap())
}

#[tokio::test]
async fn each_side_knows_the_other_by_its_certificate() {
    let authority = Authority::new().unwrap();
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let gateway = process(&authority, "eu", Role::Gateway, "gateway-1");
    let address = serving(&node, allowed(&[Role::Gateway])).await;
    let connector = gateway.mutual.connector(expected(Role::Machines, "node-1"));
    assert_eq!(ask(&connector, address).await.unwrap(), "spiffe://flydex/eu/gateway/gateway-1");
    let stream = connector.connect(&uri(address)).await.unwrap();
    let tls = stream.get_ref().1;
    assert_eq!(tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(tls.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_server_refuses_clients_of_another_role_region_or_authority() {
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let address = serving(&node, allowed(&[Role::Gateway])).await;
    let of_role = process(&authority, "eu", Role::Machines, "node-2");
    let of_region = process(&authority, "us", Role::Gateway, "gateway-1");
    let of_authority = process(&stranger, "eu", Role::Gateway, "gateway-1");
    // It trusts our server, so that only its own certificate is at fault.
    std::fs::write(&of_authority.config.ca_file, authority.pem() + &stranger.pem()).unwrap();
    assert!(of_authority.mutual.reload().unwrap());
    for client in [of_role, of_region, of_authority] {
        let connector = client.mutual.connector(expected(Role::Machines, "node-1"));
        assert!(ask(&connector, address).await.is_err(), "{} was let in", client.mutual.identity());
    }
}

#[tokio::test]
async fn an_expired_certificate_lets_nobody_in_and_cannot_be_loaded() {
    let authority = Authority::new().unwrap();
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let address = serving(&node, allowed(&[Role::Gateway])).await;
    let long_ago = Clock::manual(Clock::system().unix_millis() - 2 * 24 * 3_600_000);
    let gateway = process_at(&authority, &identity("eu", Role::Gateway, "gateway-1"), long_ago);
    assert!(ask(&gateway.mutual.connector(expected(Role::Machines, "node-1")), address).await.is_err());
    assert!(matches!(MutualTls::load(gateway.config, Clock::system()), Err(MutualError::Tls(_))));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let authority = Authority::new().unwrap();
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let address = serving(&node, allowed(&[Role::Gateway])).await;
    let mut config =
        (*Arc::new(node.mutual.client_config(&Arc::new(expected(Role::Machines, "node-1"))).unwrap())).clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("flydex.invalid").unwrap();
    let asked = match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => ask_over(stream, address).await,
        Err(error) => Err(error.to_string()),
    };
    assert!(asked.is_err());
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_client_refuses_a_server_that_is_not_the_one_it_calls() {
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let gateway = process(&authority, "eu", Role::Gateway, "gateway-1");
    let connector = gateway.mutual.connector(expected(Role::Machines, "node-1"));
    for impostor in [
        process(&authority, "eu", Role::Gateway, "node-1"),
        process(&authority, "eu", Role::Machines, "node-2"),
        process(&authority, "us", Role::Machines, "node-1"),
        process(&stranger, "eu", Role::Machines, "node-1"),
    ] {
        let address = serving(&impostor, allowed(&[Role::Gateway])).await;
        let refused = connector.connect(&uri(address)).await;
        assert!(matches!(refused, Err(ConnectError::Handshake(_))), "{} may serve", impostor.mutual.identity());
    }
}

#[tokio::test]
async fn an_older_version_of_tls_is_refused() {
    let authority = Authority::new().unwrap();
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let address = serving(&node, allowed(&[Role::Gateway])).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&client_hello_of_tls_1_2()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let protocol_version = 70;
    assert_eq!(answer.first(), Some(&21), "an alert");
    assert_eq!(answer.last(), Some(&protocol_version));
}

/// RFC 5246, with ECDHE_ECDSA and P-256, and no word of TLS 1.3.
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let extensions =
        [&[0, 10, 0, 4, 0, 2, 0, 23][..], &[0, 11, 0, 2, 1, 0], &[0, 13, 0, 4, 0, 2, 4, 3], &[0, 23, 0, 0]].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u16::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

#[tokio::test]
async fn no_connection_is_resumed_from_another() {
    let authority = Authority::new().unwrap();
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let gateway = process(&authority, "eu", Role::Gateway, "gateway-1");
    let address = serving(&node, allowed(&[Role::Gateway])).await;
    let mut config = gateway.mutual.client_config(&Arc::new(expected(Role::Machines, "node-1"))).unwrap();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let connector = TlsConnector::from(Arc::new(config));
    for _ in 0..2 {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("flydex.invalid").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        ask_over(stream, address).await.unwrap();
    }
}

#[tokio::test]
async fn new_files_are_used_by_the_next_connection_and_open_ones_live_on() {
    let (authority, successor) = (Authority::new().unwrap(), Authority::new().unwrap());
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let gateway = process(&authority, "eu", Role::Gateway, "gateway-1");
    let address = serving(&node, allowed(&[Role::Gateway])).await;
    let connector = gateway.mutual.connector(expected(Role::Machines, "node-1"));
    let open = connector.connect(&uri(address)).await.unwrap();

    let now = Clock::system().unix_millis();
    for process in [&node, &gateway] {
        let issued = successor.issue(&process.mutual.identity(), now, 2 * DAY).unwrap();
        successor.write_to(&process.config, &issued).unwrap();
    }
    assert!(node.mutual.reload().unwrap());
    assert!(ask(&connector, address).await.is_err(), "the gateway does not trust the successor yet");
    assert!(gateway.mutual.reload().unwrap());
    assert!(!gateway.mutual.reload().unwrap(), "nothing has changed since");
    assert!(ask(&connector, address).await.is_ok());
    assert!(ask_over(open, address).await.is_ok());
}

#[test]
fn files_that_do_not_fit_leave_the_ones_before_in_use() {
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let (before, now) = (node.mutual.holds_until(), Clock::system().unix_millis());
    let issued = authority.issue(&node.mutual.identity(), now, 2 * DAY).unwrap();

    std::fs::write(&node.config.certificate_file, "half a file").unwrap();
    assert!(matches!(node.mutual.reload(), Err(MutualError::Empty { .. })));
    assert!(!node.mutual.reload().unwrap(), "it is spoken of once");
    std::fs::write(&node.config.certificate_file, &issued.certificate_pem).unwrap();
    assert!(matches!(node.mutual.reload(), Err(MutualError::Tls(_))), "the key is still the one before");
    std::fs::write(&node.config.ca_file, stranger.pem()).unwrap();
    std::fs::write(&node.config.key_file, &issued.key_pem).unwrap();
    assert!(matches!(node.mutual.reload(), Err(MutualError::Tls(_))), "the authority is another");
    let other = authority.issue(&identity("eu", Role::Control, "node-1"), now, DAY).unwrap();
    authority.write_to(&node.config, &other).unwrap();
    assert!(matches!(node.mutual.reload(), Err(MutualError::OtherProcess { .. })));
    std::fs::remove_file(&node.config.key_file).unwrap();
    assert!(matches!(node.mutual.reload(), Err(MutualError::File { .. })));
    assert_eq!(node.mutual.holds_until(), before);

    authority.write_to(&node.config, &issued).unwrap();
    assert!(node.mutual.reload().unwrap());
    assert_eq!(node.mutual.holds_until(), (Duration::from_millis(now) + 2 * DAY).as_secs());
}

#[test]
fn a_certificate_with_two_names_or_none_is_of_nobody() {
    let authority = Authority::new().unwrap();
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let uri = node.mutual.identity().to_string();
    for uris in [vec![], vec![uri.clone(), uri.replace("machines", "control")]] {
        let issued = authority.issue_uris(&uris, Clock::system().unix_millis(), DAY).unwrap();
        authority.write_to(&node.config, &issued).unwrap();
        let refused = MutualTls::load(node.config.clone(), Clock::system());
        assert!(matches!(refused, Err(MutualError::Identity(IdentityError::Unnamed))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_is_found_without_a_word() {
    let authority = Authority::new().unwrap();
    let node = process(&authority, "eu", Role::Machines, "node-1");
    let shutdown = Shutdown::new();
    node.mutual.watch(&shutdown).unwrap();
    let now = Clock::system().unix_millis();
    let issued = authority.issue(&node.mutual.identity(), now, 2 * DAY).unwrap();
    authority.write_to(&node.config, &issued).unwrap();
    let renewed = async {
        while node.mutual.holds_until() != (Duration::from_millis(now) + 2 * DAY).as_secs() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.unwrap();
}
