use flydex_domain::id::{DeviceId, Incarnation, SessionId};
use flydex_domain::scope::Role;
use v1::machine_message::Kind;

use super::*;

const ID: [u8; 16] = [4; 16];

#[test]
fn what_a_connector_says_to_a_session_arrives_as_it_was_sent() {
    let kinds = [
        Kind::Progress(v1::Progress { command_id: copy(&ID), state: v1::ProgressState::Delivered.into() }),
        Kind::Receipt(receipt_of(v1::Outcome::Executed, 0)),
        Kind::Event(v1::Event { stream_id: 3, seq: 9, body: copy(b"opaque") }),
        Kind::Chunk(v1::BulkChunk { command_id: copy(&ID), offset: 16_384, bytes: copy(b"piece") }),
        Kind::ProbeReply(v1::ProbeReply { nonce: 7, machine_time_ms: 8 }),
        Kind::Failure(v1::Failure { code: 4016, command_id: copy(&ID), retry_after_ms: 500 }),
        Kind::Failure(v1::Failure { code: 1001, command_id: Bytes::new(), retry_after_ms: 0 }),
    ];
    for kind in kinds {
        let trace = v1::TraceContext { trace_id: copy(&[1; 16]), span_id: copy(&[2; 8]), flags: 1 };
        let sent = v1::MachineMessage { trace: Some(trace), kind: Some(kind) };
        assert!(wire_machine_message(to_session(sent.clone()).unwrap_or_else(|_| panic!("it is well formed"))) == sent);
    }
}

#[test]
fn what_a_device_says_arrives_at_the_connector_as_it_was_sent() {
    use v1::device_message::Kind;
    let kinds = [
        Kind::BulkCredit(v1::BulkCredit { command_id: copy(&ID), bytes: 5 }),
        Kind::Probe(v1::Probe { nonce: 7 }),
        Kind::EventCredit(v1::EventCredit { bytes: 6 }),
        Kind::Command(command()),
    ];
    for kind in kinds {
        let sent = v1::DeviceMessage { trace: None, kind: Some(kind) };
        let message = OwnerMessage::FromSession {
            session_id: SessionId::try_from(ID.as_slice()).unwrap(),
            device_id: DeviceId::from_bytes([5; 32]),
            role: Role::Viewer,
            message: device_message(sent.clone()).unwrap(),
        };
        let epoch = Epoch { counter: 3, incarnation: Incarnation::from_bytes([6; 16]) };
        let frame = wire_owner_frame(epoch, &message);
        let Some(v1::owner_frame::Kind::FromSession(from)) = frame.kind else { panic!("it is from a session") };
        assert!(from.message == Some(sent));
        assert_eq!((from.role.as_str(), frame.epoch.map(|epoch| epoch.counter)), ("viewer", Some(3)));
    }
}

#[test]
fn a_receipt_with_a_code_of_a_newer_machine_still_passes_and_one_without_an_outcome_does_not() {
    let newer = v1::MachineMessage { trace: None, kind: Some(Kind::Receipt(receipt_of(v1::Outcome::Refused, 9_999))) };
    let message = to_session(newer).unwrap();
    let MachineMessageKind::Receipt(receipt) = message.kind else { panic!("it is a receipt") };
    assert_eq!(receipt.facts.outcome, OutcomeKind::Refused);
    let kind = Some(Kind::Receipt(receipt_of(v1::Outcome::Unspecified, 0)));
    assert_eq!(to_session(v1::MachineMessage { trace: None, kind }), Err(Malformed::Unknown("outcome")));
}

#[test]
fn a_connector_cannot_send_a_status_in_the_actors_name() {
    let kind = Some(Kind::Status(v1::MachineStatus::default()));
    assert!(to_session(v1::MachineMessage { trace: None, kind }).is_err());
}

#[test]
fn the_id_of_a_malformed_command_is_found_for_the_answer() {
    let header = v1::CommandHeader { command_id: copy(&ID), ..Default::default() };
    let command = v1::Command { header: Bytes::from(header.encode_to_vec()), ..Default::default() };
    let message = v1::DeviceMessage { trace: None, kind: Some(v1::device_message::Kind::Command(command)) };
    assert_eq!(command_id(&message), CommandId::try_from(ID.as_slice()).ok());
    assert!(device_message(message).is_err());
}

fn to_session(message: v1::MachineMessage) -> Result<MachineMessage, Malformed> {
    let to = v1::ToSession { session_id: copy(&ID), message: Some(message) };
    let frame = v1::ConnectorFrame { epoch: None, kind: Some(v1::connector_frame::Kind::ToSession(to)) };
    let ConnectorMessage::ToSession { message, .. } = connector_frame(frame)?.message else {
        panic!("it is for a session");
    };
    Ok(message)
}

fn receipt_of(outcome: v1::Outcome, code: u32) -> v1::SignedReceipt {
    let receipt = v1::Receipt {
        device_id: copy(&[5; 32]),
        command_id: copy(&ID),
        command_hash: copy(&[6; 32]),
        outcome: outcome.into(),
        code,
        ..Default::default()
    };
    v1::SignedReceipt { receipt: Bytes::from(receipt.encode_to_vec()), signature: copy(&[7; 64]) }
}

fn command() -> v1::Command {
    let header = v1::CommandHeader {
        command_id: copy(&ID),
        account_id: copy(&ID),
        machine_id: copy(&ID),
        device_id: copy(&[5; 32]),
        boot_id: copy(&ID),
        issued_at_ms: 1,
        lifetime_ms: 2,
        kind: v1::CommandKind::StartTurn.into(),
        body_sha256: copy(&[8; 32]),
        session_id: Bytes::new(),
        answer: None,
    };
    v1::Command {
        header: Bytes::from(header.encode_to_vec()),
        body: copy(b"opaque"),
        signature: copy(&[9; 64]),
        audit_receipt: "receipt".to_owned(),
        assertion: None,
    }
}
