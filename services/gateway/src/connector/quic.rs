//! Links over QUIC: one connection, and on it one bidirectional stream for each lane.
//!
//! The connector opens the streams; the first byte of each names its lane, and each lane has one. A frame is a
//! big-endian `u32` length and a body, in both directions. A lane that is not opened yet keeps what is sent on it.
//! The TLS exporter binds the proof to this very connection, and is required: nothing can sit between the ends.

use std::sync::Arc;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits;
use flydex_proto::codec::{LENGTH_PREFIX_BYTES, Lane, SUBPROTOCOL};
use flydex_proto::v1;
use flydex_runtime::tls::EXPORTER_LABEL;
use futures_util::StreamExt as _;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::oneshot;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec, LengthDelimitedCodecError};

use crate::Gateway;
use crate::admission::Handshake;
use crate::auth::Binding;
use crate::connector::link;
use crate::ending::{End, Ending};
use crate::frame::{FrameReader, Inbound};
use crate::metrics::Peer;
use crate::outbox::{Framing, Outbox};

const LANES: usize = Lane::ALL.len();

/// What a gateway's QUIC endpoint needs: TLS 1.3, our ALPN, no early data, and bounded streams and windows.
///
/// # Errors
/// When `tls` does not offer the cipher suite that QUIC's first packets need.
pub fn server_config(mut tls: rustls::ServerConfig) -> Result<quinn::ServerConfig, NoInitialCipherSuite> {
    tls.alpn_protocols = vec![SUBPROTOCOL.as_bytes().to_vec()];
    tls.max_early_data_size = 0;
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(LANES as u32))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits::QUIC_LANE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(limits::QUIC_LINK_WINDOW_BYTES))
        .send_window(limits::QUIC_SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(limits::QUIC_IDLE_TIMEOUT.try_into().ok());
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.max_incoming(limits::QUIC_INCOMING_MAX).transport_config(Arc::new(transport));
    Ok(config)
}

/// Accepts links until the drain is over.
pub(crate) async fn serve(gateway: Arc<Gateway>, endpoint: quinn::Endpoint) {
    let (soft, hard) = (gateway.shutdown.soft(), gateway.shutdown.hard());
    loop {
        let incoming = tokio::select! {
            () = hard.cancelled() => return,
            () = async { soft.cancelled().await; gateway.registry.emptied().await } => return,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        match admit(&gateway, &incoming) {
            Ok(Admitted::Run(handshake)) => gateway.shutdown.spawn(run(gateway.clone(), incoming, handshake)),
            Ok(Admitted::ProveAddress) => {
                // It may retry, so this cannot fail; if it did, the peer would try again by itself.
                let _ = incoming.retry();
            }
            Err(code) => {
                gateway.metrics.ended(Peer::QuicLink, code.into());
                incoming.refuse();
            }
        }
    }
}

enum Admitted {
    Run(Handshake),
    /// Places are scarce: a forged address must not take one.
    ProveAddress,
}

fn admit(gateway: &Gateway, incoming: &quinn::Incoming) -> Result<Admitted, ErrorCode> {
    if gateway.shutdown.soft().is_cancelled() {
        return Err(ErrorCode::GoingAway);
    }
    if gateway.admission.handshakes_are_scarce() && incoming.may_retry() {
        return Ok(Admitted::ProveAddress);
    }
    gateway.admission.handshake(Some(incoming.remote_address().ip())).map(Admitted::Run)
}

async fn run(gateway: Arc<Gateway>, incoming: quinn::Incoming, handshake: Handshake) {
    let soft = gateway.shutdown.soft();
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, async { incoming.accept()?.await }) => accepted,
        // Who is not in yet goes elsewhere.
        () = soft.cancelled() => return,
    };
    let Ok(Ok(connection)) = accepted else {
        tracing::debug!("quic handshake failed");
        return;
    };
    let mut exporter = [0; 32];
    if connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &[]).is_err() {
        return;
    }
    let outbox = Arc::new(Outbox::new(Framing::Stream));
    let ending = Ending::default();
    let (mut reader, senders) = LaneReader::new(connection.clone());
    let carrier = link::Carrier {
        transport: v1::Transport::Quic,
        binding: Binding { exporter: Some(exporter), required: true },
        outbox: outbox.clone(),
        ending: ending.clone(),
    };
    let serve = async {
        let end = Box::pin(link::run(&gateway, &mut reader, &carrier, handshake)).await;
        gateway.metrics.ended(Peer::QuicLink, end);
        link::finish(&outbox, end);
        drop(reader);
    };
    tokio::join!(serve, write(senders, &outbox, &ending));
    let code = outbox.close_code().unwrap_or_else(|| ErrorCode::Internal.close_code());
    connection.close(VarInt::from_u32(code.into()), b"");
}

// === Reading ===

type LaneFrames = FramedRead<RecvStream, LengthDelimitedCodec>;

/// The connection's lanes as they are opened.
struct LaneReader {
    connection: Connection,
    lanes: [Option<LaneFrames>; LANES],
    opening: Option<(SendStream, RecvStream)>,
    writers: [Option<oneshot::Sender<SendStream>>; LANES],
}

impl LaneReader {
    fn new(connection: Connection) -> (Self, [oneshot::Receiver<SendStream>; LANES]) {
        let mut writers = [const { None }; LANES];
        let receivers = std::array::from_fn(|index| {
            let (sender, receiver) = oneshot::channel();
            writers[index] = Some(sender);
            receiver
        });
        (Self { connection, lanes: [const { None }; LANES], opening: None, writers }, receivers)
    }

    /// Takes a stream that the connector opened on a lane.
    fn opened(&mut self, byte: u8) -> Result<(), End> {
        let lane = Lane::try_from(byte).map_err(|error| error.code())?;
        let index = usize::from(lane.byte());
        let (Some((send, recv)), Some(writer)) = (self.opening.take(), self.writers[index].take()) else {
            return Err(ErrorCode::UnexpectedFrame.into());
        };
        // Most urgent first, as the scheduler of a WebSocket does.
        let _ = send.set_priority(i32::from(Lane::Bulk.byte()) - i32::from(lane.byte()));
        let codec = LengthDelimitedCodec::builder()
            .big_endian()
            .length_field_length(LENGTH_PREFIX_BYTES)
            .max_frame_length(lane.body_bytes_max())
            .new_codec();
        self.lanes[index] = Some(FramedRead::with_capacity(recv, codec, limits::WEBSOCKET_READ_BYTES));
        // The writer waits for it, or the link has ended.
        let _ = writer.send(send);
        Ok(())
    }
}

impl FrameReader for LaneReader {
    async fn next(&mut self) -> Result<Inbound, End> {
        loop {
            let [control, commands, events, bulk] = &mut self.lanes;
            // The order of the lanes; each may only delay the ones after it of its own link.
            let byte = tokio::select! {
                biased;
                frame = next_of(Lane::Control, control) => return frame,
                frame = next_of(Lane::Commands, commands) => return frame,
                frame = next_of(Lane::Events, events) => return frame,
                frame = next_of(Lane::Bulk, bulk) => return frame,
                byte = lane_byte(&self.connection, &mut self.opening) => byte?,
            };
            self.opened(byte)?;
        }
    }
}

async fn next_of(lane: Lane, frames: &mut Option<LaneFrames>) -> Result<Inbound, End> {
    let Some(frames) = frames else { return std::future::pending().await };
    match frames.next().await {
        Some(Ok(body)) => Ok(Inbound::Frame(lane, body.freeze())),
        Some(Err(error)) if error.get_ref().is_some_and(|error| error.is::<LengthDelimitedCodecError>()) => {
            Err(ErrorCode::FrameTooLarge.into())
        }
        Some(Err(error)) if error.kind() == std::io::ErrorKind::Other => Err(ErrorCode::FrameTruncated.into()),
        Some(Err(_)) | None => Err(End::Gone),
    }
}

/// The first byte of the next stream. What was read is kept in `opening`, so this is safe to cancel.
async fn lane_byte(connection: &Connection, opening: &mut Option<(SendStream, RecvStream)>) -> Result<u8, End> {
    let (_, recv) = match opening {
        Some(streams) => streams,
        None => opening.insert(connection.accept_bi().await.map_err(|_| End::Gone)?),
    };
    let mut byte = [0];
    match recv.read(&mut byte).await {
        Ok(Some(1)) => Ok(byte[0]),
        Ok(_) => Err(ErrorCode::FrameTruncated.into()),
        Err(_) => Err(End::Gone),
    }
}

// === Writing ===

/// Writes every lane until the outbox is finished. A stream that fails begins the end.
async fn write(streams: [oneshot::Receiver<SendStream>; LANES], outbox: &Outbox, ending: &Ending) {
    let [control, commands, events, bulk] = streams;
    let lanes = async {
        tokio::join!(
            write_lane(control, Lane::Control, outbox, ending),
            write_lane(commands, Lane::Commands, outbox, ending),
            write_lane(events, Lane::Events, outbox, ending),
            write_lane(bulk, Lane::Bulk, outbox, ending),
        );
    };
    let patience = async {
        outbox.finished().await;
        tokio::time::sleep(limits::CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        () = lanes => {}
        () = patience => tracing::debug!("peer did not take its last frame"),
    }
}

async fn write_lane(stream: oneshot::Receiver<SendStream>, lane: Lane, outbox: &Outbox, ending: &Ending) {
    // Without the stream there is nobody to write to: the link ended before the lane was opened.
    let Ok(mut stream) = stream.await else { return };
    while let Some(frame) = outbox.next_from(lane).await {
        if stream.write_chunk(frame).await.is_err() {
            return ending.begin(End::Gone);
        }
    }
    if lane == Lane::Control && stream.finish().is_ok() {
        // The last frame has arrived, or the connection is gone.
        let _ = stream.stopped().await;
    }
}
