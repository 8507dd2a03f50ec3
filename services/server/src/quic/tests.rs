use std::net::Ipv4Addr;
use std::time::Duration;

use flydex_runtime::tls;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;

/// Time after which a connection is over by silence: what ends sooner ends by a word.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Leads the datagrams of one client to the endpoint that it is told.
struct Way {
    address: SocketAddr,
    to: watch::Sender<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Way {
    async fn to(first: SocketAddr) -> Self {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = near.local_addr().unwrap();
        let to = watch::Sender::new(first);
        let target = to.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut up, mut down) = (vec![0; 2048], vec![0; 2048]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut up) => {
                        client = Some(from);
                        let target = *target.borrow();
                        let _ = far.send_to(&up[..length], target).await;
                    }
                    Ok((length, from)) = far.recv_from(&mut down) => {
                        // One that the way leads to no more is dead for the client.
                        if let Some(client) = client.filter(|_| from == *target.borrow()) {
                            let _ = near.send_to(&down[..length], client).await;
                        }
                    }
                }
            }
        });
        Self { address, to, _tasks: tasks }
    }
}

fn listening(identity: &Identity) -> quinn::Endpoint {
    let endpoint = endpoint((Ipv4Addr::LOCALHOST, 0).into(), identity).unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Some(incoming) = accepting.accept().await {
            // What comes of a connection that another has is none.
            connections.extend(incoming.await);
        }
    });
    endpoint
}

async fn linked(address: SocketAddr, identity: &Identity) -> (quinn::Endpoint, Connection) {
    let config = tls::client_config(identity.self_made_pem(), &[SUBPROTOCOL.as_bytes()]).unwrap();
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(SILENCE_MAX.try_into().unwrap()));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    config.transport_config(Arc::new(transport));
    let client = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connection = client.connect_with(config, address, "localhost").unwrap().await.unwrap();
    (client, connection)
}

#[tokio::test]
async fn a_link_whose_gateway_died_is_ended_by_the_next_one_with_its_certificate() {
    tls::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::self_made(folder.path(), "localhost").unwrap();
    let (first, second) = (listening(&identity), listening(&identity));
    let way = Way::to(first.local_addr().unwrap()).await;
    let (_client, link) = linked(way.address, &identity).await;
    let (mut lane, _) = link.open_bi().await.unwrap();
    way.to.send_replace(second.local_addr().unwrap());
    let since = Instant::now();
    lane.write_all(b"ping").await.unwrap();
    assert!(matches!(link.closed().await, ConnectionError::Reset));
    assert!(since.elapsed() < SILENCE_MAX / 2, "{:?}", since.elapsed());
}

#[test]
fn only_who_has_the_same_private_key_makes_the_same_resets() {
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str| Identity::self_made(&folder.path().join(name), "localhost").unwrap();
    assert_eq!(made("one").derived(RESET), made("one").derived(RESET), "after a restart too");
    assert_ne!(made("one").derived(RESET), made("two").derived(RESET));
    assert_ne!(made("one").derived(RESET), made("one").derived(CONNECTION_ID));
}
