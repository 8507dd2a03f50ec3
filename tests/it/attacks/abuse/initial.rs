//! A way to the relay over UDP that sees what kind of packets pass, and can keep the answers to itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UdpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// A long header with the fixed bit and the type Retry, of version 1 (RFC 9000, section 17.2.5).
const RETRY: u8 = 0xf0;

/// All that comes to it goes on from one socket; so the relay sees one peer.
pub(super) struct Way {
    pub(super) address: SocketAddr,
    retries: Arc<AtomicUsize>,
    _carrying: DropGuard,
}

/// What becomes of the relay's answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    Pass,
    /// As if the address were forged.
    AreLost,
}

impl Way {
    pub(super) async fn to(relay: SocketAddr, answers: Answers) -> anyhow::Result<Self> {
        let (front, back) = (socket().await?, socket().await?);
        back.connect(relay).await?;
        let address = front.local_addr()?;
        let retries = Arc::<AtomicUsize>::default();
        let (stop, counted) = (CancellationToken::new(), retries.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move { carry(front, back, answers, counted).await }));
        Ok(Self { address, retries, _carrying: stop.drop_guard() })
    }

    /// How often the relay asked for a proof of the address.
    pub(super) fn retries(&self) -> usize {
        self.retries.load(Ordering::Relaxed)
    }
}

async fn socket() -> std::io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await
}

async fn carry(front: UdpSocket, back: UdpSocket, answers: Answers, retries: Arc<AtomicUsize>) -> std::io::Result<()> {
    let (mut there, mut here) = (vec![0; DATAGRAM_BYTES_MAX], vec![0; DATAGRAM_BYTES_MAX]);
    let mut client = None;
    loop {
        tokio::select! {
            received = front.recv_from(&mut there) => {
                let (length, from) = received?;
                client = Some(from);
                back.send(&there[..length]).await?;
            }
            length = back.recv(&mut here) => {
                let datagram = &here[..length?];
                if datagram.first().is_some_and(|first| first & RETRY == RETRY) {
                    retries.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(client) = client.filter(|_| answers == Answers::Pass) {
                    front.send_to(datagram, client).await?;
                }
            }
        }
    }
}
