//! One WebSocket: reads frames, and writes what an outbox holds.
//!
//! At most [`limits::UNSENT_BYTES_MAX`] bytes (or one frame, if that is longer) are handed to the socket before they
//! are flushed, so a frame of a more urgent lane waits behind no more than that. Small frames share a flush.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flydex_domain::error::{ErrorCode, Retry};
use flydex_domain::limits;
use flydex_proto::codec::{Lane, SUBPROTOCOL, split_message};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::MissedTickBehavior;

use crate::ending::{End, Ending};
use crate::frame::{FrameReader, Inbound};
use crate::outbox::Outbox;

/// The longest message: any lane's longest frame. The lane's own limit is checked after the lane is known.
const MESSAGE_BYTES_MAX: usize = 1 + longest_body();

/// Sets the bounds and the subprotocol of an upgrade.
///
/// # Errors
/// The response that refuses a client which does not ask for our subprotocol.
pub(crate) fn prepare(upgrade: WebSocketUpgrade, headers: &HeaderMap) -> Result<WebSocketUpgrade, Box<Response>> {
    let asked = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().any(asks_for_ours);
    if !asked {
        return Err(Box::new(refuse(ErrorCode::UnsupportedVersion)));
    }
    Ok(upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(limits::WEBSOCKET_READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(limits::UNSENT_BYTES_MAX + MESSAGE_BYTES_MAX)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX))
}

/// Answers a request that is refused before it becomes a WebSocket.
pub(crate) fn refuse(code: ErrorCode) -> Response {
    let status = axum::http::StatusCode::from_u16(code.http_status()).unwrap_or_default();
    let retry = match code.retry() {
        Retry::Never => "never",
        Retry::Later => "later",
        Retry::Refreshed => "refreshed",
    };
    // Every part is a constant of the code without quotes or backslashes.
    let body = format!(
        r#"{{"error":{{"code":"{}","number":{},"message":"{}","retry":"{retry}"}}}}"#,
        code.name(),
        code.number(),
        code.message(),
    );
    let mut response =
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response();
    if code.retry() == Retry::Later {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(limits::RETRY_AFTER.as_secs()));
    }
    response
}

fn asks_for_ours(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| value.split(',').any(|protocol| protocol.trim() == SUBPROTOCOL))
}

const fn longest_body() -> usize {
    let mut longest = 0;
    let mut index = 0;
    while index < Lane::ALL.len() {
        let bytes = Lane::ALL[index].body_bytes_max();
        if bytes > longest {
            longest = bytes;
        }
        index += 1;
    }
    longest
}

// === Reading ===

/// The reading half.
pub(crate) struct MessageReader {
    stream: SplitStream<WebSocket>,
    unreadable: bool,
}

impl MessageReader {
    pub(crate) fn new(stream: SplitStream<WebSocket>) -> Self {
        Self { stream, unreadable: false }
    }

    /// Waits a little for the peer to take the last frame and to close, since a socket that is dropped with unread
    /// bytes resets the connection and may take that frame along.
    pub(crate) async fn linger(mut self) {
        let peer_closes = async {
            if self.unreadable {
                return std::future::pending().await;
            }
            while let Some(Ok(_)) = self.stream.next().await {}
        };
        let _ = tokio::time::timeout(limits::CLOSE_TIMEOUT, peer_closes).await;
    }
}

impl FrameReader for MessageReader {
    async fn next(&mut self) -> Result<Inbound, End> {
        match self.stream.next().await {
            Some(Ok(Message::Binary(bytes))) => match split_message(bytes) {
                Ok((lane, body)) => Ok(Inbound::Frame(lane, body)),
                Err(error) => Err(error.code().into()),
            },
            Some(Ok(Message::Text(_))) => Err(ErrorCode::UnexpectedFrame.into()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Inbound::Alive),
            Some(Ok(Message::Close(_))) | None => Err(End::Gone),
            Some(Err(error)) => Err(self.failed(&error)),
        }
    }
}

impl MessageReader {
    fn failed(&mut self, error: &axum::Error) -> End {
        self.unreadable = true;
        match cause(error) {
            Some(Cause::TooLong) => ErrorCode::FrameTooLarge.into(),
            Some(Cause::NotTheProtocol) => ErrorCode::BadRequest.into(),
            None => End::Gone,
        }
    }
}

enum Cause {
    TooLong,
    NotTheProtocol,
}

fn cause(error: &axum::Error) -> Option<Cause> {
    use tokio_tungstenite::tungstenite::Error;
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    let error = std::error::Error::source(error)?.downcast_ref::<Error>()?;
    if let Error::Capacity(_) = error {
        return Some(Cause::TooLong);
    }
    // A peer that drops the connection without a close is gone, not wrong.
    if let Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) = error {
        return None;
    }
    if let Error::Protocol(_) | Error::Utf8(_) = error { Some(Cause::NotTheProtocol) } else { None }
}

// === Writing ===

/// Writes what `outbox` holds until it is finished, then the close frame. A socket that fails begins the end.
/// With `ping`, sends a WebSocket ping at that interval: a browser answers it without its page, which may sleep.
pub(crate) async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    outbox: Arc<Outbox>,
    ending: Ending,
    ping: Option<Duration>,
) {
    let patience = async {
        outbox.finished().await;
        tokio::time::sleep(limits::CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        written = write_all(&mut sink, &outbox, ping) => {
            if written.is_err() {
                ending.begin(End::Gone);
            }
        }
        () = patience => tracing::debug!("peer did not take its last frame"),
    }
}

async fn write_all(
    sink: &mut SplitSink<WebSocket, Message>,
    outbox: &Outbox,
    ping: Option<Duration>,
) -> Result<(), axum::Error> {
    let mut pings = tokio::time::interval(ping.unwrap_or(limits::PING_INTERVAL));
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        let frame = tokio::select! {
            frame = outbox.next() => frame,
            _ = pings.tick(), if ping.is_some() => {
                sink.send(Message::Ping(bytes::Bytes::new())).await?;
                continue;
            }
        };
        let Some(frame) = frame else { break };
        let mut unsent = frame.len();
        sink.feed(Message::Binary(frame)).await?;
        while unsent < limits::UNSENT_BYTES_MAX
            && let Some(frame) = outbox.try_next()
        {
            unsent += frame.len();
            sink.feed(Message::Binary(frame)).await?;
        }
        sink.flush().await?;
    }
    if let Some(code) = outbox.close_code() {
        sink.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await?;
    }
    Ok(())
}
