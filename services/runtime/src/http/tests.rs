//! How many connections a listener takes at once, and how many of them from one address.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::{Pin, pin};

use axum::routing::get;
use futures_util::FutureExt as _;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::{Identity, client_config, install_provider};

const ANSWER: &str = "served";
/// How often somebody within is served while somebody else waits at the door.
const MEANWHILE: usize = 100;

/// A door with so many places for connections and for handshakes.
fn door(connections: usize, handshakes: usize, acceptor: Option<TlsAcceptor>) -> Door {
    let router = Router::new().route("/", get(async || ANSWER));
    let (connections, handshakes) = (Places::new(connections), Places::new(handshakes));
    Door { acceptor, router, shutdown: Shutdown::new(), connections, handshakes }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A connection that the door takes for one from there.
async fn from(door: &Door, peer: &str) -> TcpStream {
    let (listener, address) = listen().await;
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let place = door.connections.any().await.unwrap();
    door.admit(far.unwrap().0, (peer.parse::<IpAddr>().unwrap(), 1).into(), place);
    near.unwrap()
}

/// Asks once, over a connection that stays.
async fn is_served(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(ANSWER.as_bytes()) {
        answer.push(stream.read_u8().await?);
    }
    Ok(())
}

/// Whether somebody still waits after another was served many times.
async fn waits_while_served(
    mut waiting: Pin<&mut impl Future>,
    within: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> bool {
    for _ in 0..MEANWHILE {
        if waiting.as_mut().now_or_never().is_some() {
            return false;
        }
        is_served(within).await.unwrap();
    }
    true
}

#[tokio::test]
async fn a_listener_holds_its_connections_and_the_next_one_waits_for_a_place() {
    let (listener, address) = listen().await;
    tokio::spawn(async move { door(2, 1, None).serve(listener).await });
    let (mut first, mut second) =
        (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
    is_served(&mut first).await.unwrap();
    is_served(&mut second).await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    let mut waiting = pin!(is_served(&mut third));
    assert!(waits_while_served(waiting.as_mut(), &mut first).await, "there are more connections than places");
    drop(second);
    waiting.await.unwrap();
}

#[tokio::test]
async fn one_address_has_half_of_the_connections_and_further_ones_of_it_are_closed() {
    let door = door(4, 1, None);
    let (mut first, mut second) = (from(&door, "192.0.2.1").await, from(&door, "192.0.2.1").await);
    is_served(&mut first).await.unwrap();
    is_served(&mut second).await.unwrap();
    assert!(is_served(&mut from(&door, "192.0.2.1").await).await.is_err(), "it has more than its share");
    is_served(&mut from(&door, "198.51.100.7").await).await.unwrap();
    is_served(&mut first).await.unwrap();
}

#[tokio::test]
async fn one_address_has_half_of_the_handshakes_and_whoever_is_over_waits() {
    install_provider();
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::self_made(folder.path(), "localhost").unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(identity.server_config(&[b"http/1.1"]).unwrap()));
    let connector = TlsConnector::from(Arc::new(client_config(identity.self_made_pem(), &[b"http/1.1"]).unwrap()));
    let shake = async |stream: TcpStream| -> TlsStream<TcpStream> {
        let shaken = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await;
        shaken.expect("a place in a handshake, in time")
    };
    let door = door(100, 2, Some(acceptor));
    let silent = from(&door, "192.0.2.1").await;
    let mut waiting = pin!(shake(from(&door, "192.0.2.1").await));
    let mut other = shake(from(&door, "198.51.100.7").await).await;
    assert!(waits_while_served(waiting.as_mut(), &mut other).await, "one address has more than its share");
    let _silent_too = from(&door, "203.0.113.1").await;
    let mut third = pin!(shake(from(&door, "203.0.113.77").await));
    assert!(waits_while_served(third.as_mut(), &mut other).await, "there are more handshakes than places");
    drop(silent);
    let (mut waited, mut third) = tokio::join!(waiting, third);
    is_served(&mut waited).await.unwrap();
    is_served(&mut third).await.unwrap();
}
