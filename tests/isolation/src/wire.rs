//! A WebSocket of a peer: bytes with a lane out, messages in.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use flydex_proto::codec::{self, Lane, SUBPROTOCOL};
use flydex_proto::lanes::OnLane;
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// How long an answer may take on a computer that is busy with other things; nothing waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// One connection.
pub struct Wire {
    stream: WebSocketStream<TcpStream>,
}

/// What came in.
#[derive(Debug)]
pub enum Incoming {
    /// A frame without its lane.
    Frame(Bytes),
    /// The close, or the end without one.
    Closed(Option<u16>),
}

impl Wire {
    /// Opens `path`, as a page of `origin` where one is given.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn open(address: SocketAddr, host: &str, path: &str, origin: Option<&str>) -> anyhow::Result<Self> {
        let io = TcpStream::connect(address).await.context("connect")?;
        io.set_nodelay(true)?;
        let mut request = format!("ws://{host}{path}").into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
        if let Some(origin) = origin {
            headers.insert("origin", origin.parse()?);
        }
        let (stream, _) = tokio_tungstenite::client_async(request, io).await.context("open a WebSocket")?;
        Ok(Self { stream })
    }

    /// Sends a message on its lane.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, message: &(impl Message + OnLane)) -> anyhow::Result<()> {
        self.send_encoded(message.lane(), &message.encode_to_vec()).await
    }

    /// Sends a message that is encoded already.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_encoded(&mut self, lane: Lane, body: &[u8]) -> anyhow::Result<()> {
        self.feed(lane, body).await?;
        self.flush().await
    }

    /// Sends a message that is encoded already with the next that is flushed.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn feed(&mut self, lane: Lane, body: &[u8]) -> anyhow::Result<()> {
        let mut frame = Vec::with_capacity(body.len() + 1);
        frame.push(lane.byte());
        frame.extend_from_slice(body);
        self.stream.feed(WsMessage::Binary(Bytes::from(frame))).await.context("send a frame")
    }

    /// Sends what was fed.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.flush().await.context("send frames")
    }

    /// The next frame, or the end.
    ///
    /// # Errors
    /// When nothing comes for too long.
    pub async fn next(&mut self) -> anyhow::Result<Incoming> {
        let next = async {
            loop {
                return Ok(match self.stream.next().await {
                    Some(Ok(WsMessage::Binary(bytes))) => Incoming::Frame(codec::split_message(bytes)?.1),
                    Some(Ok(WsMessage::Close(frame))) => Incoming::Closed(frame.map(|frame| frame.code.into())),
                    Some(Ok(WsMessage::Text(_) | WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_))) => {
                        continue;
                    }
                    Some(Err(_)) | None => Incoming::Closed(None),
                });
            }
        };
        // A ping is no answer.
        tokio::time::timeout(PATIENCE, next).await.context("nothing comes any more")?
    }
}
