use bytes::Bytes;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::command::{ApprovalAnswer, command_transcript};
use crate::encoding::sha256;
use crate::id::{ApprovalId, CommandId, Generation};
use crate::key::{PublicKey, sign};
use crate::secret::Payload;

const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn session(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

fn situation() -> Situation {
    Situation {
        account_id: AccountId::from_uuid(Uuid::from_u128(1)),
        machine_id: MachineId::from_uuid(Uuid::from_u128(2)),
        boot_id: BootId::from_bytes([3; 16]),
        now: NOW,
        paused: false,
        browser_keys_refused: false,
        journal_writable: true,
        has_room: true,
        low_water: UnixMillis(0),
    }
}

fn devices(role: Role) -> DeviceList {
    let mut devices = DeviceList::default();
    devices.enrol(PublicKey::of(&key(1)), role, "phone", UnixMillis(0)).unwrap();
    devices
}

fn header(kind: CommandKind) -> CommandHeader {
    let situation = situation();
    let is_read = kind.class() == CommandClass::Read;
    CommandHeader {
        command_id: CommandId::from_uuid(Uuid::from_u128(7)),
        account_id: situation.account_id,
        machine_id: situation.machine_id,
        device_id: PublicKey::of(&key(1)).device_id(),
        boot_id: situation.boot_id,
        issued_at: NOW,
        lifetime: Duration::from_secs(60),
        kind,
        body_sha256: sha256(b"body"),
        session_id: is_read.then(|| session(9)),
        answer: (kind == CommandKind::AnswerApproval).then(|| ApprovalAnswer {
            approval_id: ApprovalId::from_bytes([4; 32]),
            generation: Generation::from_bytes([5; 32]),
            decision: Decision::Accept,
        }),
    }
}

/// The bytes stand for the whole header: what matters is that they are what was signed.
fn signed(header: CommandHeader) -> SignedCommand {
    let header_bytes = Bytes::from(format!("{header:?}"));
    let signature = sign(&key(1), command_transcript(&header_bytes));
    SignedCommand {
        header,
        header_bytes,
        body: Payload::new(Bytes::from_static(b"body")),
        signature: Bytes::copy_from_slice(&signature),
        audit_receipt: None,
        assertion: None,
    }
}

fn arrival(command: &SignedCommand) -> Arrival<'_> {
    let device_id = PublicKey::of(&key(1)).device_id();
    Arrival {
        command,
        session_id: session(9),
        session_device_id: device_id,
        account_role: Role::Owner,
        admitted_as: Some(device_id),
    }
}

fn ruled(situation: &Situation, command: &SignedCommand) -> Ruling {
    rule(situation, &devices(Role::Owner), &arrival(command), || None)
}

fn changed(kind: CommandKind, change: impl FnOnce(&mut CommandHeader)) -> SignedCommand {
    let mut header = header(kind);
    change(&mut header);
    signed(header)
}

#[test]
fn an_admitted_owner_passes_with_every_kind() {
    for kind in CommandKind::ALL {
        assert_eq!(ruled(&situation(), &signed(header(kind))), Ruling::Pass(Role::Owner), "{}", kind.name());
    }
}

#[test]
fn what_is_not_proven_is_turned_away_and_never_signed() {
    for kind in CommandKind::ALL {
        let check = |command: &SignedCommand, code| assert_eq!(ruled(&situation(), command), Ruling::Turned(code));
        let other = AccountId::from_uuid(Uuid::from_u128(99));
        check(&changed(kind, |header| header.account_id = other), ErrorCode::WrongAccount);
        let other = MachineId::from_uuid(Uuid::from_u128(99));
        check(&changed(kind, |header| header.machine_id = other), ErrorCode::WrongMachine);
        let other = PublicKey::of(&key(2)).device_id();
        check(&changed(kind, |header| header.device_id = other), ErrorCode::DeviceNotEnrolled);

        let mut command = signed(header(kind));
        command.signature = Bytes::from_static(&[0; 64]);
        check(&command, ErrorCode::SignatureInvalid);
        command.signature = Bytes::new();
        check(&command, ErrorCode::SignatureInvalid);

        let mut command = signed(header(kind));
        command.body = Payload::new(Bytes::from_static(b"other"));
        check(&command, ErrorCode::BodyMismatch);

        let mut command = signed(header(kind));
        command.header_bytes = Bytes::from_static(b"other");
        check(&command, ErrorCode::SignatureInvalid);
    }
}

#[test]
fn a_signature_by_another_enrolled_device_is_not_this_devices() {
    let mut devices = devices(Role::Owner);
    devices.enrol(PublicKey::of(&key(2)), Role::Owner, "tablet", UnixMillis(0)).unwrap();
    let mut command = signed(header(CommandKind::StartTurn));
    command.signature = Bytes::copy_from_slice(&sign(&key(2), command_transcript(&command.header_bytes)));
    let ruling = rule(&situation(), &devices, &arrival(&command), || None);
    assert_eq!(ruling, Ruling::Turned(ErrorCode::SignatureInvalid));
}

#[test]
fn a_removed_device_is_told_so() {
    let mut devices = devices(Role::Owner);
    devices.remove(&PublicKey::of(&key(1)).device_id(), NOW);
    let command = signed(header(CommandKind::StartTurn));
    let ruling = rule(&situation(), &devices, &arrival(&command), || None);
    assert_eq!(ruling, Ruling::Turned(ErrorCode::DeviceRevoked));
}

#[test]
fn everything_but_attach_needs_an_admitted_session() {
    for kind in CommandKind::ALL {
        let command = signed(header(kind));
        for admitted_as in [None, Some(PublicKey::of(&key(2)).device_id())] {
            let ruling =
                rule(&situation(), &devices(Role::Owner), &Arrival { admitted_as, ..arrival(&command) }, || None);
            let expected = if kind == CommandKind::Attach {
                Ruling::Pass(Role::Owner)
            } else {
                Ruling::Turned(ErrorCode::NotAdmitted)
            };
            assert_eq!(ruling, expected, "{}", kind.name());
        }
    }
}

#[test]
fn a_session_of_another_device_brings_nothing() {
    for kind in CommandKind::ALL {
        let command = signed(header(kind));
        let session_device_id = PublicKey::of(&key(2)).device_id();
        let ruling =
            rule(&situation(), &devices(Role::Owner), &Arrival { session_device_id, ..arrival(&command) }, || None);
        assert_eq!(ruling, Ruling::Turned(ErrorCode::NotAdmitted), "{}", kind.name());
    }
}

#[test]
fn a_read_belongs_to_its_session_and_an_effect_to_none() {
    for kind in CommandKind::ALL {
        let (other, code) = match kind.class() {
            CommandClass::Read => (None, ErrorCode::NotAdmitted),
            CommandClass::Effect => (Some(session(9)), ErrorCode::BadRequest),
        };
        let command = changed(kind, |header| header.session_id = other);
        assert_eq!(ruled(&situation(), &command), Ruling::Turned(code), "{}", kind.name());
    }
    let command = changed(CommandKind::Attach, |header| header.session_id = Some(session(10)));
    assert_eq!(ruled(&situation(), &command), Ruling::Turned(ErrorCode::NotAdmitted));
}

#[test]
fn lifetime_and_skew_are_judged_by_the_machines_clock() {
    let check = |issued_at: UnixMillis, lifetime: u64, expected| {
        let command = changed(CommandKind::StartTurn, |header| {
            header.issued_at = issued_at;
            header.lifetime = Duration::from_secs(lifetime);
        });
        assert_eq!(ruled(&situation(), &command), expected, "{issued_at} {lifetime}");
    };
    let edge = NOW.minus(Duration::from_secs(60)).minus(COMMAND_SKEW_MAX);
    check(edge, 60, Ruling::Pass(Role::Owner));
    check(UnixMillis(edge.0 - 1), 60, Ruling::Refused(ErrorCode::CommandExpired));
    check(NOW.plus(COMMAND_SKEW_MAX), 60, Ruling::Pass(Role::Owner));
    check(UnixMillis(NOW.plus(COMMAND_SKEW_MAX).0 + 1), 60, Ruling::Refused(ErrorCode::CommandNotYetValid));
    check(NOW, 600, Ruling::Pass(Role::Owner));
    check(NOW, 601, Ruling::Refused(ErrorCode::LifetimeTooLong));
}

#[test]
fn an_effect_of_another_life_is_unknown_and_a_read_of_it_is_refused() {
    for kind in CommandKind::ALL {
        let command = changed(kind, |header| header.boot_id = BootId::from_bytes([9; 16]));
        let expected = match kind.class() {
            CommandClass::Read => Ruling::Refused(ErrorCode::WrongBoot),
            CommandClass::Effect => Ruling::Unknown,
        };
        assert_eq!(ruled(&situation(), &command), expected, "{}", kind.name());
    }
}

#[test]
fn an_effect_below_low_water_is_unknown_even_when_it_has_expired() {
    let situation = Situation { low_water: NOW, ..situation() };
    assert_eq!(ruled(&situation, &signed(header(CommandKind::StartTurn))), Ruling::Unknown);
    let old = changed(CommandKind::StartTurn, |header| header.issued_at = UnixMillis(1));
    assert_eq!(ruled(&situation, &old), Ruling::Unknown);
    let above = changed(CommandKind::StartTurn, |header| header.issued_at = UnixMillis(NOW.0 + 1));
    assert_eq!(ruled(&situation, &above), Ruling::Pass(Role::Owner));
    assert_eq!(ruled(&situation, &signed(header(CommandKind::ListThreads))), Ruling::Pass(Role::Owner));
}

#[test]
fn a_repeat_gets_the_known_outcome_whatever_has_changed() {
    let command = signed(header(CommandKind::StartTurn));
    let late = Situation {
        now: NOW.plus(Duration::from_secs(86_400)),
        boot_id: BootId::from_bytes([8; 16]),
        paused: true,
        journal_writable: false,
        has_room: false,
        low_water: NOW.plus(Duration::from_secs(1)),
        ..situation()
    };
    for state in [
        Known::UnderWay,
        Known::LeftOpen,
        Known::Settled(Outcome::Executed),
        Known::Settled(Outcome::Refused(ErrorCode::TurnRunning)),
        Known::Settled(Outcome::Unknown),
    ] {
        let remembered = Remembered { hash: command.hash(), state };
        let ruling = rule(&late, &devices(Role::Viewer), &arrival(&command), || Some(remembered));
        assert_eq!(ruling, Ruling::Repeat(state));
    }
}

#[test]
fn the_same_id_with_another_hash_is_refused() {
    let command = signed(header(CommandKind::StartTurn));
    let remembered = Remembered { hash: CommandHash::from_bytes([1; 32]), state: Known::Settled(Outcome::Executed) };
    let ruling = rule(&situation(), &devices(Role::Owner), &arrival(&command), || Some(remembered));
    assert_eq!(ruling, Ruling::Refused(ErrorCode::CommandIdReused));
}

#[test]
fn nobody_who_is_turned_away_learns_what_is_remembered() {
    let mut command = signed(header(CommandKind::StartTurn));
    command.signature = Bytes::from_static(&[0; 64]);
    let ruling = rule(&situation(), &devices(Role::Owner), &arrival(&command), || panic!("must not be looked up"));
    assert_eq!(ruling, Ruling::Turned(ErrorCode::SignatureInvalid));
}

#[test]
fn the_lesser_of_list_and_account_decides() {
    for kind in CommandKind::ALL {
        for listed in [Role::Viewer, Role::Operator, Role::Owner] {
            for account_role in [Role::Viewer, Role::Operator, Role::Owner] {
                let command = signed(header(kind));
                let arrival = Arrival { account_role, ..arrival(&command) };
                let role = listed.min(account_role);
                let expected = if role >= kind.least_role() {
                    Ruling::Pass(role)
                } else {
                    Ruling::Refused(ErrorCode::RoleInsufficient)
                };
                assert_eq!(rule(&situation(), &devices(listed), &arrival, || None), expected, "{}", kind.name());
            }
        }
    }
}

#[test]
fn while_paused_nothing_acts_and_reads_work() {
    let situation = Situation { paused: true, ..situation() };
    for kind in CommandKind::ALL {
        let expected = match kind.class() {
            CommandClass::Read => Ruling::Pass(Role::Owner),
            CommandClass::Effect => Ruling::Refused(ErrorCode::RemotePaused),
        };
        assert_eq!(ruled(&situation, &signed(header(kind))), expected, "{}", kind.name());
    }
}

#[test]
fn without_a_journal_only_what_stops_something_works() {
    let situation = Situation { journal_writable: false, ..situation() };
    for kind in CommandKind::ALL {
        for decision in [Decision::Accept, Decision::AcceptForSession, Decision::Decline, Decision::Cancel] {
            let command = changed(kind, |header| {
                if let Some(answer) = &mut header.answer {
                    answer.decision = decision;
                }
            });
            let stops = kind == CommandKind::Interrupt
                || (kind == CommandKind::AnswerApproval && matches!(decision, Decision::Decline | Decision::Cancel));
            let expected = if kind.class() == CommandClass::Read || stops {
                Ruling::Pass(Role::Owner)
            } else {
                Ruling::Refused(ErrorCode::JournalUnavailable)
            };
            assert_eq!(ruled(&situation, &command), expected, "{} {}", kind.name(), decision.name());
        }
    }
}

#[test]
fn a_busy_machine_still_stops_things() {
    let situation = Situation { has_room: false, ..situation() };
    let busy = Ruling::Refused(ErrorCode::MachineBusy);
    assert_eq!(ruled(&situation, &signed(header(CommandKind::StartTurn))), busy);
    assert_eq!(ruled(&situation, &signed(header(CommandKind::ListThreads))), busy);
    assert_eq!(ruled(&situation, &signed(header(CommandKind::Interrupt))), Ruling::Pass(Role::Owner));
}

proptest! {
    /// INV-KEY: whatever a relay alters, nothing passes that the device did not sign in this form.
    #[test]
    fn no_altered_command_passes(at in 0_usize..10_000, bit in 0_u8..8, part in 0_u8..3, kind in 0_usize..16) {
        let mut command = signed(header(CommandKind::ALL[kind]));
        let target = match part {
            0 => &mut command.header_bytes,
            1 => &mut command.signature,
            _ => {
                let mut body = command.body.expose().to_vec();
                let index = at % body.len();
                body[index] ^= 1 << bit;
                command.body = Payload::new(body.into());
                &mut Bytes::new()
            }
        };
        if !target.is_empty() {
            let mut bytes = target.to_vec();
            let index = at % bytes.len();
            bytes[index] ^= 1 << bit;
            *target = bytes.into();
        }
        prop_assert!(matches!(ruled(&situation(), &command), Ruling::Turned(_)));
    }

    /// INV-FINAL: an effect that may have run in another life is never refused as if it had not.
    #[test]
    fn an_absent_effect_of_another_life_is_never_refused_or_passed(
        issued_at in any::<u64>(), lifetime in any::<u32>(), paused: bool, journal_writable: bool, has_room: bool,
        boot in 4_u8..200,
    ) {
        let situation = Situation { paused, journal_writable, has_room, ..situation() };
        let command = changed(CommandKind::StartTurn, |header| {
            header.issued_at = UnixMillis(issued_at);
            header.lifetime = Duration::from_millis(lifetime.into());
            header.boot_id = BootId::from_bytes([boot; 16]);
        });
        prop_assert_eq!(ruled(&situation, &command), Ruling::Unknown);
    }
}
