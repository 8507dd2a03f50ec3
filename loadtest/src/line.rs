//! The network of one user, where a scenario gives it one: every byte is under way for a while, and a line may fall
//! silent, so that neither side hears from the other and no socket closes (half-open).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes read at once, and pieces under way on each side of one connection.
const PIECE_BYTES: usize = 16 * 1024;
const PIECES_MAX: usize = 1024;
/// Room between a session and its line, in bytes: what a socket would hold.
const ROOM_BYTES: usize = 64 * 1024;

/// One user's line. What it carries ends with its sockets.
#[derive(Debug)]
pub(crate) struct Line {
    each_way: Duration,
    /// Counted up when all that is open falls silent.
    silenced: watch::Sender<u64>,
}

impl Line {
    /// A line on which an answer takes so long at least.
    pub(crate) fn new(round_trip: Duration) -> Arc<Self> {
        Arc::new(Self { each_way: round_trip / 2, silenced: watch::Sender::new(0) })
    }

    /// Everything that is open goes silent for good; what is opened later works.
    pub(crate) fn silence(&self) {
        self.silenced.send_modify(|silenced| *silenced += 1);
    }

    /// Opens a connection over it.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) async fn connect(self: &Arc<Self>, to: impl tokio::net::ToSocketAddrs) -> std::io::Result<DuplexStream> {
        let far = TcpStream::connect(to).await?;
        let (near, end) = tokio::io::duplex(ROOM_BYTES);
        self.carry(end, far)?;
        tokio::time::sleep(self.each_way * 2).await;
        Ok(near)
    }

    /// Takes connections on loopback and carries them to `far`.
    ///
    /// # Errors
    /// When no port can be had.
    pub(crate) async fn listen(self: &Arc<Self>, far: SocketAddr) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, line) = (listener.local_addr()?, self.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let line = line.clone();
                tokio::spawn(async move {
                    // A connection takes a round trip before anything can be said on it.
                    tokio::time::sleep(line.each_way * 2).await;
                    if let Ok(far) = TcpStream::connect(far).await {
                        let _ = near.set_nodelay(true);
                        let _ = line.carry(near, far);
                    }
                });
            }
        });
        Ok(address)
    }

    fn carry(&self, near: impl AsyncRead + AsyncWrite + Send + 'static, far: TcpStream) -> std::io::Result<()> {
        far.set_nodelay(true)?;
        let (near_rx, near_tx) = split(near);
        let (far_rx, far_tx) = far.into_split();
        tokio::spawn(one_way(near_rx, far_tx, self.each_way, self.silenced.subscribe()));
        tokio::spawn(one_way(far_rx, near_tx, self.each_way, self.silenced.subscribe()));
        Ok(())
    }
}

/// Carries one direction until it ends; a silent one keeps its sockets until the line is gone.
async fn one_way(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin + Send + 'static,
    delay: Duration,
    mut silenced: watch::Receiver<u64>,
) {
    let (pieces_tx, mut pieces) = mpsc::channel::<(Instant, Bytes)>(PIECES_MAX);
    let reading = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE_BYTES);
            match from.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if pieces_tx.send((Instant::now() + delay, buffer.split().freeze())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The other side hears of the end.
        let _ = to.shutdown().await;
    };
    let carrying = async { tokio::join!(reading, writing) };
    tokio::select! {
        biased;
        Ok(()) = silenced.changed() => {}
        _ = carrying => return,
    }
    // Neither end is told; both find out by themselves, and the line's end closes what is left.
    while silenced.changed().await.is_ok() {}
    drop(to);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(60);

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn round(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Duration {
        let since = Instant::now();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
        since.elapsed()
    }

    #[tokio::test]
    async fn an_answer_takes_a_round_trip_at_least_and_so_does_a_connection() {
        let (line, far) = (Line::new(ROUND_TRIP), echo().await);
        let since = Instant::now();
        let mut near = line.connect(far).await.unwrap();
        assert!(since.elapsed() >= ROUND_TRIP);
        assert!(round(&mut near).await >= ROUND_TRIP);
        let since = Instant::now();
        let mut near = TcpStream::connect(line.listen(far).await.unwrap()).await.unwrap();
        round(&mut near).await;
        assert!(since.elapsed() >= 2 * ROUND_TRIP);
    }

    #[tokio::test]
    async fn a_silent_line_closes_nothing_and_carries_what_is_opened_later() {
        let (line, far) = (Line::new(Duration::ZERO), echo().await);
        let mut near = line.connect(far).await.unwrap();
        round(&mut near).await;
        line.silence();
        near.write_all(b"ping").await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(100), near.read_u8()).await;
        assert!(nothing.is_err(), "neither bytes nor an end");
        round(&mut line.connect(far).await.unwrap()).await;
    }
}
