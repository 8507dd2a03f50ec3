//! A way to a PostgreSQL that can fall silent, as one does whose host died: what is under way then is never answered
//! and never refused, while whoever connects anew is served.

use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are carried at a time.
const CARRIED_BYTES: usize = 16 * 1024;

/// What a way was last told.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    /// How often it was told: a connection is carried only while that is what it was when it came.
    times: u64,
    /// How many more questions each connection may ask before one question too many silences all of them.
    questions: usize,
}

/// A port on loopback behind which the PostgreSQL is.
pub struct Way {
    port: u16,
    silence: watch::Sender<Silence>,
    _tasks: JoinSet<()>,
}

impl Way {
    /// Opens a way to a port of this computer.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn to(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("open a way")?;
        let silence = watch::Sender::default();
        let mut tasks = JoinSet::new();
        let own = listener.local_addr()?.port();
        tasks.spawn(serve(listener, SocketAddr::from(([127, 0, 0, 1], port)), silence.clone()));
        Ok(Self { port: own, silence, _tasks: tasks })
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Takes every connection that there is out of service, with its sockets left open.
    pub fn fall_silent(&self) {
        self.fall_silent_after(0);
    }

    /// The same, once one of them has asked this often and was answered, and asks again.
    pub fn fall_silent_after(&self, questions: usize) {
        tell(&self.silence, questions);
    }
}

fn tell(silence: &watch::Sender<Silence>, questions: usize) {
    silence.send_modify(|silence| *silence = Silence { times: silence.times + 1, questions });
}

async fn serve(listener: TcpListener, to: SocketAddr, silence: watch::Sender<Silence>) {
    let mut carried = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let silence = silence.clone();
        carried.spawn(async move {
            let Ok(server) = TcpStream::connect(to).await else { return };
            carry(client, server, &silence).await;
        });
    }
}

/// Carries both directions until one ends or silence falls; then holds both sockets for as long as the way is there.
async fn carry(mut client: TcpStream, mut server: TcpStream, silence: &watch::Sender<Silence>) {
    let mut told = silence.subscribe();
    told.mark_unchanged();
    let mut left = None;
    let (mut question, mut answer) = (vec![0; CARRIED_BYTES], vec![0; CARRIED_BYTES]);
    loop {
        let carried = tokio::select! {
            biased;
            _ = told.changed() => {
                left = Some(told.borrow_and_update().questions);
                if left == Some(0) {
                    break;
                }
                continue;
            }
            // Whoever asks waits for the answer before it asks again, so what is read at once is one question.
            read = client.read(&mut question) => {
                if left == Some(0) {
                    tell(silence, 0);
                    break;
                }
                left = left.map(|questions| questions - 1);
                forward(read, &question, &mut server).await
            }
            read = server.read(&mut answer) => forward(read, &answer, &mut client).await,
        };
        if carried.is_none() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Writes what was read; nothing when that was the end, or nobody takes it.
async fn forward(read: io::Result<usize>, buffer: &[u8], to: &mut TcpStream) -> Option<()> {
    let read = read.ok().filter(|read| *read > 0)?;
    to.write_all(buffer.get(..read)?).await.ok()
}
