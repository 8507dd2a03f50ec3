//! A real Redis as a process of its own, and a bare connection to it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::NODES;

/// What Debian calls it; `PATH` is looked through.
const SERVER: &str = "redis-server";
/// Wait between tries to reach it, and how many there are.
const START_WAIT: Duration = Duration::from_millis(20);
const START_TRIES_MAX: u32 = 500;
/// How long the floor keeps its records, in milliseconds, as a region's are kept for a time.
const KEPT_MS: &str = "1209600000";
/// Keys beside those of machines: the life, the set of nodes, and a lease each.
const OTHER_KEYS: usize = 2 + NODES;
/// Records that one look asks for.
const PAGE: &str = "5000";

/// One Redis on loopback; it ends with this value.
pub(super) struct Redis {
    port: u16,
    _process: Child,
}

/// A key and its fields with their values by turns.
pub(super) type Record = (Vec<u8>, Vec<Vec<u8>>);

impl Redis {
    /// Starts an empty one that saves nothing.
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let mut command = Command::new(SERVER);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(folder).stdout(Stdio::null()).kill_on_drop(true);
        let _process = command.spawn().context("start redis-server: is it installed?")?;
        let redis = Self { port, _process };
        for _ in 0..START_TRIES_MAX {
            if let Ok(mut client) = redis.connect().await
                && client.ask(&["PING"]).await.is_ok()
            {
                return Ok(redis);
            }
            tokio::time::sleep(START_WAIT).await;
        }
        bail!("redis-server does not answer")
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Client { read: BufReader::new(read), write })
    }
}

/// One connection.
pub(super) struct Client {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

/// What it answers.
pub(super) enum Reply {
    Bytes(Vec<u8>),
    Number(i64),
    List(Vec<Reply>),
}

impl Client {
    pub(super) async fn ask(&mut self, words: &[&str]) -> anyhow::Result<Reply> {
        let mut request = Vec::new();
        write_request(&mut request, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        self.write.write_all(&request).await?;
        reply(&mut self.read).await
    }

    /// How many records of machines there are, once the nodes are back too.
    pub(super) async fn records(&mut self) -> anyhow::Result<usize> {
        let Reply::Number(keys) = self.ask(&["DBSIZE"]).await? else { bail!("a count is no number") };
        Ok(usize::try_from(keys)?.saturating_sub(OTHER_KEYS))
    }

    /// Every record of a machine.
    pub(super) async fn all_records(&mut self) -> anyhow::Result<Vec<Record>> {
        let (mut records, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let page = self.ask(&["SCAN", &cursor, "MATCH", "fd:machine:*", "COUNT", PAGE]).await?;
            let Reply::List(page) = page else { bail!("a page is no list") };
            let [Reply::Bytes(next), Reply::List(keys)] = &page[..] else { bail!("a page is no page") };
            cursor = String::from_utf8(next.clone())?;
            let keys: Vec<_> = keys.iter().filter_map(Reply::bytes).collect();
            let mut request = Vec::new();
            for key in &keys {
                write_request(&mut request, &[b"HGETALL", key]);
            }
            self.write.write_all(&request).await?;
            for key in keys {
                let Reply::List(fields) = reply(&mut self.read).await? else { bail!("a record is no list") };
                records.push((key.to_vec(), fields.iter().filter_map(Reply::bytes).map(<[u8]>::to_vec).collect()));
            }
            if cursor == "0" {
                records.sort();
                records.dedup();
                return Ok(records);
            }
        }
    }

    /// Waits until that many records name a link.
    pub(super) async fn until_linked(&mut self, machines: usize, patience: Duration) -> anyhow::Result<()> {
        let since = Instant::now();
        let is_linked = |(_, fields): &&Record| fields.iter().step_by(2).any(|field| field == b"lc");
        loop {
            let linked = self.all_records().await?.iter().filter(is_linked).count();
            if linked == machines {
                return Ok(());
            }
            ensure!(since.elapsed() < patience, "only {linked} of {machines} records have their link");
            tokio::time::sleep(START_WAIT).await;
        }
    }

    /// Writes the records over this connection alone, as fast as it takes them. How long that takes.
    pub(super) async fn write_all(self, records: &[Record]) -> anyhow::Result<Duration> {
        let Self { mut read, mut write } = self;
        let since = Instant::now();
        let writing = async {
            let mut request = Vec::new();
            for chunk in records.chunks(500) {
                request.clear();
                for (key, fields) in chunk {
                    let mut words: Vec<&[u8]> = vec![b"HSET", key];
                    words.extend(fields.iter().map(Vec::as_slice));
                    write_request(&mut request, &words);
                    write_request(&mut request, &[b"PEXPIRE", key, KEPT_MS.as_bytes()]);
                }
                write.write_all(&request).await?;
            }
            anyhow::Ok(())
        };
        let reading = async {
            for _ in 0..2 * records.len() {
                reply(&mut read).await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(writing, reading)?;
        Ok(since.elapsed())
    }
}

impl Reply {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) | Self::List(_) => None,
        }
    }
}

fn write_request(to: &mut Vec<u8>, words: &[&[u8]]) {
    to.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        to.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        to.extend_from_slice(word);
        to.extend_from_slice(b"\r\n");
    }
}

fn reply(from: &mut BufReader<OwnedReadHalf>) -> BoxFuture<'_, anyhow::Result<Reply>> {
    Box::pin(async move {
        let mut line = String::new();
        from.read_line(&mut line).await?;
        let (kind, rest) = line.trim_end().split_at_checked(1).context("the connection closed")?;
        Ok(match kind {
            "+" => Reply::Bytes(rest.as_bytes().to_vec()),
            ":" => Reply::Number(rest.parse()?),
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>()? + 2];
                from.read_exact(&mut bytes).await?;
                bytes.truncate(bytes.len() - 2);
                Reply::Bytes(bytes)
            }
            "*" => {
                let mut list = Vec::new();
                for _ in 0..rest.parse::<usize>()? {
                    list.push(reply(from).await?);
                }
                Reply::List(list)
            }
            _ => bail!("answered {line:?}"),
        })
    })
}
