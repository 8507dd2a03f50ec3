//! What must hold for any bytes: nothing panics, limits hold, and what was read is written back as it was.
//!
//! `frame`, `messages` and `agent` take raw bytes as a peer would send them. `lanes` and `command` are structured:
//! the bytes choose what is done, so that the fuzzer spends its time past the parsers.

use bytes::Bytes;
use flydex_agent_proto::v1 as agent_v1;
use flydex_domain::command::{CommandHeader, Receipt, SignedCommand};
use flydex_domain::epoch::Epoch;
use flydex_domain::key::PublicKey;
use flydex_domain::limits;
use flydex_domain::stream::Position;
use flydex_proto::codec::{self, Lane};
use flydex_proto::lanes::Lanes;
use flydex_proto::v1;
use prost::Message;

/// A whole WebSocket message, and the prefix of a QUIC frame.
pub fn frame(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok((lane, body)) = codec::split_message(bytes) {
        assert!(body.len() <= lane.body_bytes_max());
        assert_eq!(data[0], lane.byte());
        if let Ok(message) = codec::decode_body::<v1::SessionUp>(body) {
            let written = codec::encode_message(lane, &message).expect("it was no longer when it came");
            let (again, body) = codec::split_message(written).expect("it was just written");
            assert_eq!(again, lane);
            assert_eq!(body, message.encode_to_vec());
        }
    }
    let Some((prefix, _)) = data.split_first_chunk() else {
        return;
    };
    for lane in Lane::ALL {
        if let Ok(length) = codec::stream_length(lane, *prefix) {
            assert!(length <= lane.body_bytes_max());
        }
    }
}

/// Every message of the cluster, and the conversions into domain types.
pub fn messages(data: &[u8]) {
    stable::<v1::SessionUp>(data);
    stable::<v1::SessionDown>(data);
    stable::<v1::DeviceMessage>(data);
    stable::<v1::MachineMessage>(data);
    stable::<v1::LinkUp>(data);
    stable::<v1::LinkDown>(data);
    stable::<v1::ConnectorFrame>(data);
    stable::<v1::OwnerFrame>(data);
    stable::<v1::GatewayFrame>(data);
    stable::<v1::NodeFrame>(data);
    if let Some(header) = stable::<v1::CommandHeader>(data)
        && let Ok(header) = CommandHeader::try_from(header)
    {
        let again = CommandHeader::try_from(v1::CommandHeader::from(&header));
        assert!(again.is_ok_and(|again| again == header));
    }
    if let Some(key) = stable::<v1::PublicKey>(data)
        && let Ok(key) = PublicKey::try_from(key)
    {
        assert!(PublicKey::try_from(v1::PublicKey::from(key)).is_ok_and(|again| again == key));
    }
    if let Some(epoch) = stable::<v1::Epoch>(data)
        && let Ok(epoch) = Epoch::try_from(epoch)
    {
        assert!(Epoch::try_from(v1::Epoch::from(epoch)).is_ok_and(|again| again == epoch));
    }
    let _ = stable::<v1::Command>(data).map(SignedCommand::try_from);
    let _ = stable::<v1::Receipt>(data).map(Receipt::try_from);
    let _ = stable::<v1::Position>(data).map(Position::try_from);
}

/// Every message between device and connector.
pub fn agent(data: &[u8]) {
    stable::<agent_v1::CommandBody>(data);
    stable::<agent_v1::CommandResult>(data);
    stable::<agent_v1::AgentEvent>(data);
    stable::<agent_v1::SignedApproval>(data);
    stable::<agent_v1::Approval>(data);
}

/// A message that decodes must decode again from what it is written as, to the same bytes.
fn stable<M: Message + Default>(data: &[u8]) -> Option<M> {
    let message = M::decode(data).ok()?;
    let written = message.encode_to_vec();
    let again = M::decode(written.as_slice()).expect("what we write can be read");
    assert!(again.encode_to_vec() == written);
    Some(message)
}

/// The scheduler of a connection: each byte pair is one push (lane, size) or one pop.
pub fn lanes(data: &[u8]) {
    let mut lanes = Lanes::new();
    let mut waiting = [0_usize; Lane::ALL.len()];
    for pair in data.chunks_exact(2) {
        match Lane::try_from(pair[0]) {
            Ok(lane) => {
                let frame = Bytes::from(vec![pair[0]; usize::from(pair[1]) * 64]);
                waiting[usize::from(lane.byte())] += usize::from(lanes.push(lane, frame).is_ok());
            }
            Err(_) => take(&mut lanes, &mut waiting),
        }
        let queued: usize = Lane::ALL.iter().map(|lane| lanes.queued_bytes(*lane)).sum();
        assert!(queued <= limits::CONNECTION_QUEUE_BYTES_MAX);
    }
    while !lanes.is_empty() {
        take(&mut lanes, &mut waiting);
    }
    assert_eq!(waiting, [0; Lane::ALL.len()], "no frame is lost");
}

fn take(lanes: &mut Lanes, waiting: &mut [usize; Lane::ALL.len()]) {
    match lanes.pop() {
        Some((lane, _)) => {
            assert!(lane == Lane::Control || waiting[0] == 0, "nothing goes before a heartbeat");
            waiting[usize::from(lane.byte())] -= 1;
        }
        None => assert_eq!(*waiting, [0; Lane::ALL.len()], "what waits is given out"),
    }
}

/// A command header built from the bytes: with fields of the right shape it is taken, and written back as it was.
pub fn command(data: &[u8]) {
    let mut choices = Choices(data);
    let kind = choices.byte() % 32;
    let asks_for_answer = i32::from(kind) == i32::from(v1::CommandKind::AnswerApproval);
    let has_answer = choices.byte() % 2 == 0;
    let answer = has_answer.then(|| v1::ApprovalAnswer {
        approval_id: choices.bytes(32),
        generation: choices.bytes(32),
        decision: i32::from(choices.byte() % 6),
    });
    let well_formed = answer.as_ref().is_none_or(|answer| (1..=4).contains(&answer.decision));
    let header = v1::CommandHeader {
        command_id: choices.bytes(16),
        account_id: choices.bytes(16),
        machine_id: choices.bytes(16),
        device_id: choices.bytes(32),
        boot_id: choices.bytes(16),
        issued_at_ms: choices.number(),
        lifetime_ms: choices.number() as u32,
        kind: kind.into(),
        body_sha256: choices.bytes(32),
        session_id: if choices.byte() % 2 == 0 { Bytes::new() } else { choices.bytes(16) },
        answer,
    };
    let written = header.encode_to_vec();
    let Ok(read) = CommandHeader::try_from(header) else {
        return;
    };
    assert!(well_formed && asks_for_answer == has_answer, "an answer comes with its kind and no other");
    assert_eq!(v1::CommandHeader::from(&read).encode_to_vec(), written);
}

/// Bytes that choose; zeros once they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// Of that length, or sometimes one more.
    fn bytes(&mut self, length: usize) -> Bytes {
        let length = length + usize::from(self.byte() == 255);
        (0..length).map(|_| self.byte()).collect()
    }
}
