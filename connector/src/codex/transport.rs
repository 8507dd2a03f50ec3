//! One connection to an app-server: text messages in and out, over a WebSocket or over lines.

use std::io;
use std::process::Stdio;

use flydex_domain::limits::{CODEX_EXIT_TIMEOUT, CODEX_INBOUND_MAX, CODEX_MESSAGE_BYTES_MAX, CODEX_OUTBOUND_MAX};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::rpc::{self, Client, Inbound};

/// Messages larger than this, in bytes, are parsed away from the executor's threads.
const PARSE_ASIDE_BYTES: usize = 256 * 1024;

/// A connection that is being read and written.
pub(super) struct Connection {
    /// Asks over it.
    pub(super) client: Client,
    /// Everything that comes but the answers to plain requests; ends with the connection.
    pub(super) inbound: mpsc::Receiver<Inbound>,
    /// Its tasks, which end after `stop` is dropped.
    pub(super) tasks: TaskTracker,
    /// Ends the connection when dropped; an app-server of our own ends with it.
    pub(super) stop: DropGuard,
}

/// Opens the WebSocket on a connected socket.
pub(super) async fn over_socket(stream: UnixStream) -> io::Result<Connection> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(CODEX_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(CODEX_MESSAGE_BYTES_MAX));
    let (socket, _) = tokio_tungstenite::client_async_with_config("ws://localhost/", stream, Some(config))
        .await
        .map_err(io::Error::other)?;
    Ok(serve_socket(socket))
}

fn serve_socket(socket: WebSocketStream<UnixStream>) -> Connection {
    let (mut sink, mut stream) = socket.split();
    let (outbound, mut to_write) = mpsc::channel::<String>(CODEX_OUTBOUND_MAX);
    let (read, inbound) = mpsc::channel(CODEX_INBOUND_MAX);
    let client = Client::new(outbound);
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tasks.spawn(async move {
        while let Some(Some(text)) = stopped.run_until_cancelled(to_write.recv()).await {
            if sink.send(Message::text(text)).await.is_err() {
                break;
            }
        }
        // The peer may be gone already.
        let _ = sink.close().await;
    });
    let answers = client.clone();
    let stopped = stop.clone();
    tasks.spawn(async move {
        while let Some(Some(Ok(message))) = stopped.run_until_cancelled(stream.next()).await {
            let Message::Text(text) = message else { continue };
            if !deliver(text.to_string(), &answers, &read).await {
                break;
            }
        }
        answers.close();
    });
    tasks.close();
    Connection { client, inbound, tasks, stop: stop.drop_guard() }
}

/// Starts an app-server of our own and speaks over its standard input and output.
pub(super) fn over_child(mut command: Command) -> io::Result<(Connection, Option<u32>)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let pid = child.id();
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the child has no pipes"));
    };
    let (outbound, to_write) = mpsc::channel::<String>(CODEX_OUTBOUND_MAX);
    let (read, inbound) = mpsc::channel(CODEX_INBOUND_MAX);
    let client = Client::new(outbound);
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    tasks.spawn(write_lines(child, stdin, to_write, stop.clone()));
    let answers = client.clone();
    tasks.spawn(async move {
        let mut lines = FramedRead::new(stdout, LinesCodec::new_with_max_length(CODEX_MESSAGE_BYTES_MAX));
        while let Some(Ok(line)) = lines.next().await {
            if !deliver(line, &answers, &read).await {
                break;
            }
        }
        answers.close();
    });
    tasks.close();
    Ok((Connection { client, inbound, tasks, stop: stop.drop_guard() }, pid))
}

/// Writes until it is stopped or the child ends; then closes the child's input, which ends it.
async fn write_lines(
    mut child: Child,
    mut stdin: ChildStdin,
    mut to_write: mpsc::Receiver<String>,
    stop: CancellationToken,
) {
    loop {
        let text = tokio::select! {
            text = to_write.recv() => text,
            () = stop.cancelled() => None,
            _ = child.wait() => None,
        };
        let Some(mut text) = text else { break };
        text.push('\n');
        if stdin.write_all(text.as_bytes()).await.is_err() {
            break;
        }
    }
    drop(stdin);
    if tokio::time::timeout(CODEX_EXIT_TIMEOUT, child.wait()).await.is_err() {
        // Its end is then the operating system's business; the handle reaps it.
        let _ = child.kill().await;
    }
}

/// Hands a message on; false when nobody takes messages any more.
async fn deliver(text: String, client: &Client, read: &mpsc::Sender<Inbound>) -> bool {
    let parsed = if text.len() > PARSE_ASIDE_BYTES {
        tokio::task::spawn_blocking(move || rpc::parse(&text)).await.ok().flatten()
    } else {
        rpc::parse(&text)
    };
    let ordered = match parsed {
        None => return true,
        Some(Inbound::Response { id, outcome }) => {
            client.complete(id, outcome).map(|outcome| Inbound::Response { id, outcome })
        }
        Some(other) => Some(other),
    };
    match ordered {
        None => true,
        Some(message) => read.send(message).await.is_ok(),
    }
}
