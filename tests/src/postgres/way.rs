//! A way to a PostgreSQL that can fall silent, as one does whose host died: what is under way then is never answered
//! and never refused, while whoever connects anew is served.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are carried at a time.
const CARRIED_BYTES: usize = 16 * 1024;

/// A port on loopback behind which the PostgreSQL is.
pub struct Way {
    port: u16,
    /// How often it fell silent: a connection is carried only while that is what it was when it came.
    silences: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Way {
    /// Opens a way to a port of this computer.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn to(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("open a way")?;
        let silences = watch::Sender::new(0);
        let mut tasks = JoinSet::new();
        let own = listener.local_addr()?.port();
        tasks.spawn(serve(listener, SocketAddr::from(([127, 0, 0, 1], port)), silences.subscribe()));
        Ok(Self { port: own, silences, _tasks: tasks })
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Takes every connection that there is out of service, with its sockets left open.
    pub fn fall_silent(&self) {
        self.silences.send_modify(|silences| *silences += 1);
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, silences: watch::Receiver<u64>) {
    let mut carried = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let silences = silences.clone();
        carried.spawn(async move {
            let Ok(server) = TcpStream::connect(to).await else { return };
            carry(client, server, silences).await;
        });
    }
}

/// Carries both directions until one ends or silence falls; then holds both sockets for as long as the way is there.
async fn carry(client: TcpStream, server: TcpStream, mut silences: watch::Receiver<u64>) {
    let since = *silences.borrow_and_update();
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (mut up, mut down) = ((client_read, server_write), (server_read, client_write));
    let silence = async { silences.wait_for(|silences| *silences != since).await.map(drop) };
    tokio::select! {
        biased;
        _ = silence => std::future::pending::<()>().await,
        () = copy(&mut up) => {}
        () = copy(&mut down) => {}
    }
}

async fn copy((from, to): &mut (tcp::OwnedReadHalf, tcp::OwnedWriteHalf)) {
    let mut buffer = vec![0; CARRIED_BYTES];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
