use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::approval::{ApprovalKind, FileChange};
use crate::id::AuditId;
use crate::secret::SecretKey;
use crate::token::TokenSigner;

const NOW: UnixMillis = UnixMillis(1_000_000);
const GENERATION: Generation = Generation::from_bytes([5; 32]);

fn action() -> ApprovalAction {
    ApprovalAction {
        kind: ApprovalKind::Command,
        command: "make test".to_owned(),
        cwd: "/work".to_owned(),
        network: Some("https://example.org".to_owned()),
        permissions: vec!["write:/work".to_owned()],
        changes: vec![FileChange {
            path: "a".to_owned(),
            kind: "update".to_owned(),
            moved_to: None,
            diff: "-x\n+y".to_owned(),
        }],
        reason: "tests".to_owned(),
    }
}

fn approval() -> Approval {
    Approval {
        binding: ApprovalBinding {
            machine_id: MachineId::from_uuid(Uuid::from_u128(2)),
            generation: GENERATION,
            approval_id: ApprovalId::from_bytes([4; 32]),
            expires_at: UnixMillis(NOW.0 + 1000),
            salt: [6; 16],
        },
        action: action(),
        offered: vec![Decision::Accept, Decision::Decline, Decision::Cancel],
        desk_only: false,
        passkey_required: false,
        state: State::Open,
    }
}

fn header(decision: Decision) -> ApprovalAnswer {
    ApprovalAnswer { approval_id: ApprovalId::from_bytes([4; 32]), generation: GENERATION, decision }
}

fn answered() -> Answered {
    Answered { device_id: DeviceId::from_bytes([1; 32]), decision: Decision::Decline, at: NOW }
}

fn check(approval: &Approval, decision: Decision) -> Result<(), ErrorCode> {
    let digest = digest(&approval.binding, &approval.action);
    admit(Some(approval), Some(GENERATION), &Answer { header: header(decision), digest: &digest }, NOW)
}

#[test]
fn an_open_approval_takes_what_it_offers() {
    for decision in [Decision::Accept, Decision::Decline, Decision::Cancel] {
        assert_eq!(check(&approval(), decision), Ok(()));
    }
    assert_eq!(check(&approval(), Decision::AcceptForSession), Err(ErrorCode::DecisionNotOffered));
}

#[test]
fn the_digest_of_anything_else_is_a_mismatch() {
    let approval = approval();
    let mut others = vec![vec![], vec![0; 32], digest(&approval.binding, &action())[..31].to_vec()];
    for change in [
        |action: &mut ApprovalAction| action.command.push(' '),
        |action: &mut ApprovalAction| action.cwd = "/".to_owned(),
        |action: &mut ApprovalAction| action.network = None,
        |action: &mut ApprovalAction| action.permissions.clear(),
        |action: &mut ApprovalAction| action.changes[0].diff.push('!'),
        |action: &mut ApprovalAction| action.reason.clear(),
    ] {
        let mut action = action();
        change(&mut action);
        others.push(digest(&approval.binding, &action).to_vec());
    }
    let other_salt = ApprovalBinding { salt: [7; 16], ..approval.binding };
    others.push(digest(&other_salt, &approval.action).to_vec());
    let other_end = ApprovalBinding { expires_at: UnixMillis(NOW.0 + 1001), ..approval.binding };
    others.push(digest(&other_end, &approval.action).to_vec());
    for digest in others {
        let answer = Answer { header: header(Decision::Accept), digest: &digest };
        assert_eq!(admit(Some(&approval), Some(GENERATION), &answer, NOW), Err(ErrorCode::DigestMismatch));
    }
}

#[test]
fn an_ended_approval_says_how_it_ended() {
    let unknown_end = State::Closed(End::Unknown(answered()));
    for (state, code) in [
        (State::Taken(answered()), ErrorCode::AlreadyAnswered),
        (State::Closed(End::Answered(answered())), ErrorCode::AlreadyAnswered),
        (unknown_end, ErrorCode::AlreadyAnswered),
        (State::Closed(End::AtDesk), ErrorCode::AlreadyAnswered),
        (State::Closed(End::Expired), ErrorCode::ApprovalExpired),
        (State::Closed(End::Withdrawn), ErrorCode::ApprovalWithdrawn),
        (State::Closed(End::CodexLost), ErrorCode::GenerationMismatch),
    ] {
        for decision in [Decision::Accept, Decision::Decline] {
            assert_eq!(check(&Approval { state, ..approval() }, decision), Err(code), "{state:?}");
        }
    }
}

#[test]
fn an_answer_at_its_deadline_is_late() {
    let approval = approval();
    let digest = digest(&approval.binding, &approval.action);
    let answer = Answer { header: header(Decision::Accept), digest: &digest };
    let at = |now| admit(Some(&approval), Some(GENERATION), &answer, now);
    assert_eq!(at(UnixMillis(NOW.0 + 999)), Ok(()));
    assert_eq!(at(UnixMillis(NOW.0 + 1000)), Err(ErrorCode::ApprovalExpired));
}

#[test]
fn an_approval_of_another_life_of_codex_is_a_mismatch() {
    let approval = approval();
    let digest = digest(&approval.binding, &approval.action);
    let answer = Answer { header: header(Decision::Accept), digest: &digest };
    let other = Some(Generation::from_bytes([9; 32]));
    assert_eq!(admit(Some(&approval), other, &answer, NOW), Err(ErrorCode::GenerationMismatch));
    assert_eq!(admit(Some(&approval), None, &answer, NOW), Err(ErrorCode::GenerationMismatch));
    assert_eq!(admit(None, other, &answer, NOW), Err(ErrorCode::GenerationMismatch));
    assert_eq!(admit(None, Some(GENERATION), &answer, NOW), Err(ErrorCode::ApprovalNotFound));
    let stale_header = ApprovalAnswer { generation: Generation::from_bytes([9; 32]), ..header(Decision::Accept) };
    let answer = Answer { header: stale_header, digest: &digest };
    assert_eq!(admit(Some(&approval), Some(GENERATION), &answer, NOW), Err(ErrorCode::GenerationMismatch));
}

#[test]
fn what_only_the_desk_may_answer_is_not_answered_remotely() {
    let approval = Approval { desk_only: true, ..approval() };
    assert_eq!(check(&approval, Decision::Accept), Err(ErrorCode::DeskOnly));
    assert_eq!(check(&approval, Decision::Decline), Err(ErrorCode::DeskOnly));
}

fn accept() -> Accept {
    Accept {
        account_id: AccountId::from_uuid(Uuid::from_u128(1)),
        machine_id: MachineId::from_uuid(Uuid::from_u128(2)),
        device_id: DeviceId::from_bytes([3; 32]),
        approval_id: ApprovalId::from_bytes([4; 32]),
        generation: GENERATION,
        command_id: CommandId::from_uuid(Uuid::from_u128(6)),
        command_hash: CommandHash::from_bytes([7; 32]),
    }
}

fn receipt(signer: &TokenSigner, change: impl FnOnce(&mut AuditReceipt)) -> String {
    let accept = accept();
    let mut receipt = AuditReceipt {
        audit_id: AuditId::from_uuid(Uuid::from_u128(8)),
        account_id: accept.account_id,
        machine_id: accept.machine_id,
        device_id: accept.device_id,
        approval_id: accept.approval_id,
        generation: accept.generation,
        command_id: accept.command_id,
        command_hash: accept.command_hash,
        expires_at: UnixMillis(NOW.0 + 60_000),
    };
    change(&mut receipt);
    signer.sign(&receipt)
}

#[test]
fn an_accept_needs_controls_word_on_exactly_this_or_a_record_first() {
    let signer = TokenSigner::from_seed("k", &SecretKey::new([1; 32]));
    let forger = TokenSigner::from_seed("k", &SecretKey::new([2; 32]));
    let verifier = TokenVerifier::new([signer.public()]);
    let audit = |token: Option<&str>, strict| audit(Decision::Accept, &accept(), token, &verifier, strict, NOW);
    let good = receipt(&signer, |_| {});
    assert_eq!(audit(Some(&good), true), Ok(Audit::Recorded));
    assert_eq!(audit(Some(&good), false), Ok(Audit::Recorded));
    let wrong = [
        receipt(&forger, |_| {}),
        receipt(&signer, |receipt| receipt.account_id = AccountId::from_uuid(Uuid::nil())),
        receipt(&signer, |receipt| receipt.machine_id = MachineId::from_uuid(Uuid::nil())),
        receipt(&signer, |receipt| receipt.device_id = DeviceId::from_bytes([0; 32])),
        receipt(&signer, |receipt| receipt.approval_id = ApprovalId::from_bytes([0; 32])),
        receipt(&signer, |receipt| receipt.generation = Generation::from_bytes([0; 32])),
        receipt(&signer, |receipt| receipt.command_id = CommandId::from_uuid(Uuid::nil())),
        receipt(&signer, |receipt| receipt.command_hash = CommandHash::from_bytes([0; 32])),
        receipt(&signer, |receipt| receipt.expires_at = UnixMillis(1)),
        "nonsense".to_owned(),
    ];
    for token in wrong.iter().map(|token| Some(token.as_str())).chain([None]) {
        assert_eq!(audit(token, true), Err(ErrorCode::AuditUnavailable));
        assert_eq!(audit(token, false), Ok(Audit::RecordFirst));
    }
}

#[test]
fn what_stops_something_never_waits_for_the_audit() {
    let verifier = TokenVerifier::default();
    for decision in [Decision::Decline, Decision::Cancel] {
        assert_eq!(audit(decision, &accept(), None, &verifier, true, NOW), Ok(Audit::After));
    }
}

proptest! {
    /// INV-APPROVE: an accept is admitted only while open, in time, of this life, offered, and with this digest.
    #[test]
    fn an_admitted_accept_meets_every_condition(
        now in 0_u64..2_000_000, generation in 4_u8..7, header_generation in 4_u8..7, offered: bool, desk_only: bool,
        open: bool, right_digest: bool, known: bool,
    ) {
        let mut approval = approval();
        approval.desk_only = desk_only;
        if !offered {
            approval.offered.retain(|decision| *decision != Decision::Accept);
        }
        if !open {
            approval.state = State::Taken(answered());
        }
        let mut digest = digest(&approval.binding, &approval.action);
        if !right_digest {
            digest[0] ^= 1;
        }
        let header = ApprovalAnswer {
            generation: Generation::from_bytes([header_generation; 32]),
            ..header(Decision::Accept)
        };
        let ruling = admit(
            known.then_some(&approval),
            Some(Generation::from_bytes([generation; 32])),
            &Answer { header, digest: &digest },
            UnixMillis(now),
        );
        let every = known && open && offered && !desk_only && right_digest && generation == 5
            && header_generation == 5 && now < NOW.0 + 1000;
        prop_assert_eq!(ruling.is_ok(), every);
    }
}
