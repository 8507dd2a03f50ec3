//! Between the frames of `machine.proto` and the domain's values. Content stays closed in both directions.

use std::time::Duration;

use bytes::Bytes;
use flydex_domain::command::SignedCommand;
use flydex_domain::epoch::Epoch;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::CommandId;
use flydex_domain::machine::message::{
    ConnectorFrame, ConnectorMessage, DeviceMessage, DeviceMessageKind, Event, Failure, MachineMessage,
    MachineMessageKind, MachineReport, OutcomeKind, OwnerMessage, ReceiptFacts, SignedReceipt, Stage, StatusNotice,
    StreamEnd, StreamVerdict, Trace, Transport,
};
use flydex_domain::revocation::DeviceCut;
use flydex_domain::secret::Payload;
use flydex_domain::stream::{StreamId, Verdict};
use flydex_domain::time::UnixMillis;
use flydex_proto::convert::{Malformed, kept_role, machine_status, wire_kept_role, wire_status};
use flydex_proto::v1;
use prost::Message as _;

// === Traces ===

fn trace(trace: Option<v1::TraceContext>) -> Option<Trace> {
    let trace = trace?;
    Some(Trace {
        trace_id: trace.trace_id.as_ref().try_into().ok()?,
        span_id: trace.span_id.as_ref().try_into().ok()?,
        flags: trace.flags,
    })
}

fn wire_trace(trace: Option<Trace>) -> Option<v1::TraceContext> {
    trace.map(|trace| v1::TraceContext {
        trace_id: copy(&trace.trace_id),
        span_id: copy(&trace.span_id),
        flags: trace.flags,
    })
}

// === From sessions ===

/// Reads a message of a session.
pub(crate) fn device_message(message: v1::DeviceMessage) -> Result<DeviceMessage, Malformed> {
    use v1::device_message::Kind;
    let kind = match message.kind.ok_or(Malformed::Missing("device message"))? {
        Kind::Command(command) => DeviceMessageKind::Command(Box::new(SignedCommand::try_from(command)?)),
        Kind::EventCredit(credit) => DeviceMessageKind::EventCredit(credit.bytes),
        Kind::BulkCredit(credit) => {
            DeviceMessageKind::BulkCredit { command_id: credit.command_id.as_ref().try_into()?, bytes: credit.bytes }
        }
        Kind::Probe(probe) => DeviceMessageKind::Probe { nonce: probe.nonce },
    };
    Ok(DeviceMessage { trace: trace(message.trace), kind })
}

/// The id of the command in a message, however malformed the rest is.
pub(crate) fn command_id(message: &v1::DeviceMessage) -> Option<CommandId> {
    let Some(v1::device_message::Kind::Command(command)) = &message.kind else { return None };
    let header = v1::CommandHeader::decode(command.header.clone()).ok()?;
    header.command_id.as_ref().try_into().ok()
}

fn wire_device_message(message: &DeviceMessage) -> v1::DeviceMessage {
    use v1::device_message::Kind;
    let kind = match &message.kind {
        DeviceMessageKind::Command(command) => Kind::Command(command.as_ref().into()),
        DeviceMessageKind::EventCredit(bytes) => Kind::EventCredit(v1::EventCredit { bytes: *bytes }),
        DeviceMessageKind::BulkCredit { command_id, bytes } => {
            Kind::BulkCredit(v1::BulkCredit { command_id: copy(command_id.as_bytes()), bytes: *bytes })
        }
        DeviceMessageKind::Probe { nonce } => Kind::Probe(v1::Probe { nonce: *nonce }),
    };
    v1::DeviceMessage { trace: wire_trace(message.trace), kind: Some(kind) }
}

// === From connectors ===

/// Reads how a connector is linked.
pub(crate) fn transport(transport: v1::Transport) -> Result<Transport, Malformed> {
    match transport {
        v1::Transport::Unspecified => Err(Malformed::Unknown("transport")),
        v1::Transport::Websocket => Ok(Transport::WebSocket),
        v1::Transport::Quic => Ok(Transport::Quic),
    }
}

/// Reads a frame of a connector.
pub(crate) fn connector_frame(frame: v1::ConnectorFrame) -> Result<ConnectorFrame, Malformed> {
    use v1::connector_frame::Kind;
    let epoch = frame.epoch.map(Epoch::try_from).transpose()?;
    let message = match frame.kind.ok_or(Malformed::Missing("connector frame"))? {
        Kind::Attached(attached) => ConnectorMessage::Attached { highest: required_epoch(attached.highest)? },
        Kind::Stale(stale) => ConnectorMessage::Stale { highest: required_epoch(stale.highest)? },
        Kind::Report(report) => ConnectorMessage::Report(MachineReport {
            status: machine_status(report.state(), report.code)?,
            codex_version: report.codex_version,
            read_only: report.read_only,
            paused: report.paused,
        }),
        Kind::ToSession(to_session) => ConnectorMessage::ToSession {
            session_id: to_session.session_id.as_ref().try_into()?,
            message: machine_message(to_session.message.ok_or(Malformed::Missing("machine message"))?)?,
        },
        Kind::Subscribed(subscribed) => ConnectorMessage::Subscribed {
            session_id: subscribed.session_id.as_ref().try_into()?,
            device_id: subscribed.device_id.as_ref().try_into()?,
            verdict: verdict(subscribed.verdict.ok_or(Malformed::Missing("verdict"))?)?,
        },
        Kind::Unsubscribed(unsubscribed) => ConnectorMessage::Unsubscribed {
            session_id: unsubscribed.session_id.as_ref().try_into()?,
            end: stream_end(unsubscribed.end.ok_or(Malformed::Missing("stream end"))?)?,
        },
        Kind::SharedEvent(shared) => ConnectorMessage::SharedEvent(event(shared)),
        Kind::DeviceRemoved(removed) => ConnectorMessage::DeviceRemoved(DeviceCut {
            device_id: removed.device_id.as_ref().try_into()?,
            keeps: kept_role(&removed.keeps)?,
        }),
    };
    Ok(ConnectorFrame { epoch, message })
}

fn required_epoch(epoch: Option<v1::Epoch>) -> Result<Epoch, Malformed> {
    epoch.ok_or(Malformed::Missing("epoch"))?.try_into()
}

fn machine_message(message: v1::MachineMessage) -> Result<MachineMessage, Malformed> {
    use v1::machine_message::Kind;
    let kind = match message.kind.ok_or(Malformed::Missing("machine message"))? {
        // A connector reports its state in a frame of its own.
        Kind::Status(_) => return Err(Malformed::Unknown("machine message")),
        Kind::Progress(progress) => MachineMessageKind::Progress {
            command_id: progress.command_id.as_ref().try_into()?,
            stage: stage(progress.state())?,
        },
        Kind::Receipt(signed) => MachineMessageKind::Receipt(receipt(signed)?),
        Kind::Verdict(wire) => MachineMessageKind::Verdict(verdict(wire)?),
        Kind::Event(wire) => MachineMessageKind::Event(event(wire)),
        Kind::Chunk(chunk) => MachineMessageKind::Chunk {
            command_id: chunk.command_id.as_ref().try_into()?,
            offset: chunk.offset,
            bytes: Payload::new(chunk.bytes),
        },
        Kind::ProbeReply(reply) => {
            MachineMessageKind::ProbeReply { nonce: reply.nonce, machine_time: UnixMillis(reply.machine_time_ms) }
        }
        Kind::Failure(wire) => MachineMessageKind::Failure(failure(&wire)?),
        Kind::StreamEnd(end) => MachineMessageKind::StreamEnd(stream_end(end)?),
    };
    Ok(MachineMessage { trace: trace(message.trace), kind })
}

fn stage(state: v1::ProgressState) -> Result<Stage, Malformed> {
    match state {
        v1::ProgressState::Unspecified => Err(Malformed::Unknown("progress")),
        v1::ProgressState::Accepted => Ok(Stage::Accepted),
        v1::ProgressState::Delivered => Ok(Stage::Delivered),
    }
}

/// Reads the facts of a receipt; its result stays closed and an error code of a newer machine is no obstacle.
fn receipt(signed: v1::SignedReceipt) -> Result<SignedReceipt, Malformed> {
    let receipt = v1::Receipt::decode(signed.receipt.clone()).map_err(|_| Malformed::Undecodable("receipt"))?;
    let outcome = match receipt.outcome() {
        v1::Outcome::Unspecified => return Err(Malformed::Unknown("outcome")),
        v1::Outcome::Executed => OutcomeKind::Executed,
        v1::Outcome::Refused => OutcomeKind::Refused,
        v1::Outcome::Unknown => OutcomeKind::Unknown,
    };
    let facts = ReceiptFacts {
        device_id: receipt.device_id.as_ref().try_into()?,
        command_id: receipt.command_id.as_ref().try_into()?,
        command_hash: receipt.command_hash.as_ref().try_into()?,
        outcome,
        bulk: receipt.bulk.is_some(),
    };
    Ok(SignedReceipt { receipt: Payload::new(signed.receipt), signature: signed.signature, facts })
}

fn verdict(verdict: v1::StreamVerdict) -> Result<StreamVerdict, Malformed> {
    use v1::stream_verdict::Verdict as Wire;
    let from = match verdict.verdict.ok_or(Malformed::Missing("verdict"))? {
        Wire::ResumedFrom(from) => Verdict::Resumed { from },
        Wire::GapAsOf(as_of) => Verdict::Gap { as_of },
    };
    Ok(StreamVerdict {
        command_id: verdict.command_id.as_ref().try_into()?,
        stream_id: StreamId(verdict.stream_id),
        boot_id: verdict.boot_id.as_ref().try_into()?,
        verdict: from,
    })
}

fn event(event: v1::Event) -> Event {
    Event { stream_id: StreamId(event.stream_id), seq: event.seq, body: Payload::new(event.body) }
}

fn stream_end(end: v1::StreamEnd) -> Result<StreamEnd, Malformed> {
    Ok(StreamEnd { stream_id: StreamId(end.stream_id), last_seq: end.last_seq, code: error_code(end.code)? })
}

fn failure(failure: &v1::Failure) -> Result<Failure, Malformed> {
    let command_id = if failure.command_id.is_empty() { None } else { Some(failure.command_id.as_ref().try_into()?) };
    let retry_after = Duration::from_millis(failure.retry_after_ms.into());
    Ok(Failure { code: error_code(failure.code)?, command_id, retry_after })
}

fn error_code(number: u32) -> Result<ErrorCode, Malformed> {
    ErrorCode::from_number(number).ok_or(Malformed::Unknown("error code"))
}

// === To sessions ===

/// Writes a message for a session.
pub(crate) fn wire_machine_message(message: MachineMessage) -> v1::MachineMessage {
    use v1::machine_message::Kind;
    let kind = match message.kind {
        MachineMessageKind::Status(notice) => Kind::Status(wire_notice(notice)),
        MachineMessageKind::Progress { command_id, stage } => Kind::Progress(v1::Progress {
            command_id: copy(command_id.as_bytes()),
            state: match stage {
                Stage::Accepted => v1::ProgressState::Accepted,
                Stage::Delivered => v1::ProgressState::Delivered,
            }
            .into(),
        }),
        MachineMessageKind::Receipt(receipt) => {
            Kind::Receipt(v1::SignedReceipt { receipt: receipt.receipt.expose().clone(), signature: receipt.signature })
        }
        MachineMessageKind::Verdict(verdict) => Kind::Verdict(wire_verdict(&verdict)),
        MachineMessageKind::Event(event) => {
            Kind::Event(v1::Event { stream_id: event.stream_id.0, seq: event.seq, body: event.body.expose().clone() })
        }
        MachineMessageKind::Chunk { command_id, offset, bytes } => Kind::Chunk(v1::BulkChunk {
            command_id: copy(command_id.as_bytes()),
            offset,
            bytes: bytes.expose().clone(),
        }),
        MachineMessageKind::ProbeReply { nonce, machine_time } => {
            Kind::ProbeReply(v1::ProbeReply { nonce, machine_time_ms: machine_time.0 })
        }
        MachineMessageKind::Failure(failure) => Kind::Failure(v1::Failure {
            code: failure.code.number().into(),
            command_id: failure.command_id.map(|command_id| copy(command_id.as_bytes())).unwrap_or_default(),
            retry_after_ms: millis(failure.retry_after),
        }),
        MachineMessageKind::StreamEnd(end) => Kind::StreamEnd(v1::StreamEnd {
            stream_id: end.stream_id.0,
            last_seq: end.last_seq,
            code: end.code.number().into(),
        }),
    };
    v1::MachineMessage { trace: wire_trace(message.trace), kind: Some(kind) }
}

fn wire_notice(notice: StatusNotice) -> v1::MachineStatus {
    let (state, code) = wire_status(notice.status);
    let transport = match notice.transport {
        None => v1::Transport::Unspecified,
        Some(Transport::WebSocket) => v1::Transport::Websocket,
        Some(Transport::Quic) => v1::Transport::Quic,
    };
    v1::MachineStatus {
        state: state.into(),
        code,
        boot_id: notice.boot_id.map(|boot_id| copy(boot_id.as_bytes())).unwrap_or_default(),
        since_ms: notice.since.0,
        transport: transport.into(),
        connector_version: notice.connector_version,
        codex_version: notice.codex_version,
        read_only: notice.read_only,
        paused: notice.paused,
        channel_bound: notice.channel_bound,
    }
}

fn wire_verdict(verdict: &StreamVerdict) -> v1::StreamVerdict {
    use v1::stream_verdict::Verdict as Wire;
    v1::StreamVerdict {
        command_id: copy(verdict.command_id.as_bytes()),
        stream_id: verdict.stream_id.0,
        boot_id: copy(verdict.boot_id.as_bytes()),
        verdict: Some(match verdict.verdict {
            Verdict::Resumed { from } => Wire::ResumedFrom(from),
            Verdict::Gap { as_of } => Wire::GapAsOf(as_of),
        }),
    }
}

// === To connectors ===

/// Writes a frame for a connector.
pub(crate) fn wire_owner_frame(epoch: Epoch, message: &OwnerMessage) -> v1::OwnerFrame {
    use v1::owner_frame::Kind;
    let kind = match message {
        OwnerMessage::Attach => Kind::Attach(v1::AttachOwner {}),
        OwnerMessage::FromSession { session_id, device_id, role, message } => Kind::FromSession(v1::FromSession {
            session_id: copy(session_id.as_bytes()),
            device_id: copy(device_id.as_bytes()),
            role: role.as_str().to_owned(),
            message: Some(wire_device_message(message)),
        }),
        OwnerMessage::SessionGone(session_id) => {
            Kind::SessionGone(v1::SessionGone { session_id: copy(session_id.as_bytes()) })
        }
        OwnerMessage::RemoveDevice(DeviceCut { device_id, keeps }) => Kind::RemoveDevice(v1::RemoveDevice {
            device_id: copy(device_id.as_bytes()),
            keeps: wire_kept_role(*keeps),
        }),
    };
    v1::OwnerFrame { epoch: Some(epoch.into()), kind: Some(kind) }
}

/// Whole milliseconds, as advice on the wire carries them.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

pub(crate) fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests;
