//! Sizes of what is inside a frame, checked where it enters.
//!
//! A frame is within the limit of its lane when it arrives, but it leaves in another wrapping. Holding the content to
//! its own limit here makes every wrapping of it fit, so one peer's frame never breaks another peer's connection.

use flydex_domain::error::ErrorCode;
use flydex_domain::limits;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as ConnectorKind;
use flydex_proto::v1::device_message::Kind as DeviceKind;
use flydex_proto::v1::machine_message::Kind as MachineKind;

/// Checks what a device sends to a machine.
///
/// # Errors
/// [`ErrorCode::FrameTooLarge`].
pub(crate) fn check_device_message(message: &v1::DeviceMessage) -> Result<(), ErrorCode> {
    match &message.kind {
        Some(DeviceKind::Command(command)) => at_most(&[
            (command.header.len(), limits::COMMAND_HEADER_BYTES_MAX),
            (command.body.len(), limits::COMMAND_BODY_BYTES_MAX),
            (
                command.signature.len()
                    + command.audit_receipt.len()
                    + command.assertion.as_ref().map_or(0, prost::Message::encoded_len),
                limits::COMMAND_EXTRA_BYTES_MAX,
            ),
        ]),
        Some(DeviceKind::BulkCredit(credit)) => at_most(&[(credit.command_id.len(), limits::ID_BYTES_MAX)]),
        Some(DeviceKind::EventCredit(_) | DeviceKind::Probe(_)) | None => Ok(()),
    }
}

/// Checks what a connector sends to its owner.
///
/// # Errors
/// [`ErrorCode::FrameTooLarge`].
pub(crate) fn check_connector_frame(frame: &v1::ConnectorFrame) -> Result<(), ErrorCode> {
    match &frame.kind {
        Some(ConnectorKind::Report(report)) => at_most(&[(report.codex_version.len(), limits::VERSION_TEXT_BYTES_MAX)]),
        Some(ConnectorKind::SharedEvent(event)) => at_most(&[(event.body.len(), limits::EVENT_BODY_BYTES_MAX)]),
        Some(ConnectorKind::ToSession(to)) => to.message.as_ref().map_or(Ok(()), check_machine_message),
        Some(ConnectorKind::Subscribed(subscribed)) => subscribed.verdict.as_ref().map_or(Ok(()), check_verdict),
        Some(
            ConnectorKind::Attached(_)
            | ConnectorKind::Stale(_)
            | ConnectorKind::Unsubscribed(_)
            | ConnectorKind::DeviceRemoved(_),
        )
        | None => Ok(()),
    }
}

fn check_machine_message(message: &v1::MachineMessage) -> Result<(), ErrorCode> {
    match &message.kind {
        Some(MachineKind::Event(event)) => at_most(&[(event.body.len(), limits::EVENT_BODY_BYTES_MAX)]),
        Some(MachineKind::Chunk(chunk)) => at_most(&[
            (chunk.bytes.len(), limits::BULK_CHUNK_BYTES_MAX),
            (chunk.command_id.len(), limits::ID_BYTES_MAX),
        ]),
        Some(MachineKind::Receipt(receipt)) => {
            at_most(&[(receipt.receipt.len() + receipt.signature.len(), limits::RECEIPT_BYTES_MAX)])
        }
        Some(MachineKind::Status(status)) => at_most(&[
            (status.codex_version.len(), limits::VERSION_TEXT_BYTES_MAX),
            (status.connector_version.len(), limits::VERSION_TEXT_BYTES_MAX),
        ]),
        Some(MachineKind::Verdict(verdict)) => check_verdict(verdict),
        Some(MachineKind::Progress(progress)) => at_most(&[(progress.command_id.len(), limits::ID_BYTES_MAX)]),
        Some(MachineKind::Failure(failure)) => at_most(&[(failure.command_id.len(), limits::ID_BYTES_MAX)]),
        Some(MachineKind::ProbeReply(_) | MachineKind::StreamEnd(_)) | None => Ok(()),
    }
}

fn check_verdict(verdict: &v1::StreamVerdict) -> Result<(), ErrorCode> {
    at_most(&[(verdict.command_id.len(), limits::ID_BYTES_MAX), (verdict.boot_id.len(), limits::ID_BYTES_MAX)])
}

fn at_most(sizes: &[(usize, usize)]) -> Result<(), ErrorCode> {
    if sizes.iter().any(|(bytes, limit)| bytes > limit) { Err(ErrorCode::FrameTooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use flydex_proto::codec::encode_message;
    use flydex_proto::lanes::OnLane as _;

    use super::*;

    fn machine_message(kind: MachineKind) -> v1::MachineMessage {
        let trace = v1::TraceContext { trace_id: vec![1; 16].into(), span_id: vec![1; 8].into(), flags: 1 };
        v1::MachineMessage { trace: Some(trace), kind: Some(kind) }
    }

    #[test]
    fn the_largest_content_fits_every_wrapping_and_one_byte_more_is_refused() {
        let event = |bytes| MachineKind::Event(v1::Event { stream_id: 9, seq: u64::MAX, body: zeroes(bytes) });
        let chunk = |bytes| {
            MachineKind::Chunk(v1::BulkChunk { command_id: zeroes(16), offset: u32::MAX, bytes: zeroes(bytes) })
        };
        let receipt = |bytes| MachineKind::Receipt(v1::SignedReceipt { receipt: zeroes(bytes), signature: zeroes(0) });
        let largest = [
            (event as fn(usize) -> MachineKind, limits::EVENT_BODY_BYTES_MAX),
            (chunk, limits::BULK_CHUNK_BYTES_MAX),
            (receipt, limits::RECEIPT_BYTES_MAX),
        ];
        for (kind, bytes) in largest {
            let message = machine_message(kind(bytes));
            assert_eq!(check_machine_message(&message), Ok(()));
            let from = v1::FromMachine { machine_id: zeroes(16), message: Some(message) };
            let down = v1::SessionDown { kind: Some(v1::session_down::Kind::FromMachine(from)) };
            assert!(encode_message(down.lane(), &down).is_ok());
            let too_large = machine_message(kind(bytes + 1));
            assert_eq!(check_machine_message(&too_large), Err(ErrorCode::FrameTooLarge));
        }
    }

    #[test]
    fn the_largest_command_fits_the_owners_wrapping() {
        let command = v1::Command {
            header: zeroes(limits::COMMAND_HEADER_BYTES_MAX),
            body: zeroes(limits::COMMAND_BODY_BYTES_MAX),
            signature: zeroes(64),
            audit_receipt: "r".repeat(limits::COMMAND_EXTRA_BYTES_MAX - 64),
            assertion: None,
        };
        let message = v1::DeviceMessage { trace: None, kind: Some(DeviceKind::Command(command)) };
        assert_eq!(check_device_message(&message), Ok(()));
        let from = v1::FromSession {
            session_id: zeroes(16),
            device_id: zeroes(32),
            role: "operator".to_owned(),
            message: Some(message),
        };
        let frame = v1::OwnerFrame {
            epoch: Some(v1::Epoch { counter: u64::MAX, incarnation: zeroes(16) }),
            kind: Some(v1::owner_frame::Kind::FromSession(from)),
        };
        let down = v1::LinkDown { kind: Some(v1::link_down::Kind::Frame(frame)) };
        assert!(encode_message(down.lane(), &down).is_ok());
    }

    fn zeroes(bytes: usize) -> Bytes {
        vec![0; bytes].into()
    }
}
