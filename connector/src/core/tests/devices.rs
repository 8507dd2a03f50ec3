//! Who gets onto the machine's list, who is barred from it, and what a passkey adds.

use bytes::Bytes;
use ed25519_dalek::Signer as _;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as EventKind;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::approval::ApprovalAction;
use flydex_domain::command::{CommandKind, Decision, Outcome, Receipt, command_transcript};
use flydex_domain::device::{DeviceList, Holder};
use flydex_domain::encoding::sha256;
use flydex_domain::endorsement::IntroductionTerms;
use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::PASSKEY_PIN_WINDOW;
use flydex_domain::scope::Role;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::MachineCredential;
use flydex_proto::v1;
use prost::Message as _;
use tokio::sync::oneshot;

use super::approvals::{asked, opened, rendered};
use super::world::*;
use crate::codex::{AskedApproval, CodexEvent};
use crate::paired::{DeskPolicy, DeskRequest};

const SECRET: [u8; 32] = [0x5e; 32];

fn terms(device: u8, role: Role) -> IntroductionTerms {
    IntroductionTerms {
        origin: "https://relay.example".to_owned(),
        account_id: account(),
        machine_id: machine(),
        machine_key: PublicKey::of(&key(100)),
        device_key: PublicKey::of(&key(device)),
        role,
    }
}

/// An owner's word on a new device, as it should be.
fn endorse(world: &World, device: u8, list_version: u64) -> agent::EndorseDevice {
    agent::EndorseDevice {
        key_algorithm: "ed25519".to_owned(),
        key: Bytes::copy_from_slice(PublicKey::of(&key(device)).as_bytes()),
        role: agent::DeviceRole::Operator.into(),
        label: "laptop".to_owned(),
        expires_at_ms: world.clock.unix_millis() + 60_000,
        list_version,
        introduction_mac: Bytes::copy_from_slice(&terms(device, Role::Operator).mac(&SecretKey::new(SECRET))),
    }
}

async fn endorsed_by(world: &mut World, device: u8, endorse: agent::EndorseDevice) -> Receipt {
    world.send(device, session(device.into()), CommandKind::EndorseDevice, Body::EndorseDevice(endorse)).await;
    world.receipt().await
}

async fn list(world: &mut World) -> agent::DeviceList {
    world.send(1, session(1), CommandKind::ListDevices, Body::ListDevices(agent::ListDevices {})).await;
    let receipt = world.receipt().await;
    let Some(ResultKind::DeviceList(list)) = result(&receipt).kind else { panic!("no list") };
    list
}

fn stored(world: &World) -> DeviceList {
    serde_json::from_slice(&world.disks.devices.content()).unwrap()
}

async fn set(world: &mut World, policy: DeskPolicy) {
    world.policy.send_replace(policy);
    world.until_event(|event| matches!(event, EventKind::MachineChanged(_)).then_some(())).await;
}

async fn remove(world: &World, device: u8) {
    let (reply, answer) = oneshot::channel();
    world.desk.send(DeskRequest::Remove { device_id: device_id(device), reply }).await.unwrap();
    answer.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_device_that_an_owner_device_endorses_is_obeyed_and_knows_the_machine() {
    let mut world = World::start().await;
    let snapshot = world.attach(1, session(1)).await.snapshot.unwrap();
    assert_eq!((snapshot.device_list_version, snapshot.endorsement), (3, true));
    let word = endorse(&world, 9, 3);
    let receipt = endorsed_by(&mut world, 1, word).await;
    assert_eq!(receipt.outcome, Outcome::Executed);
    let Some(ResultKind::DeviceEndorsed(endorsed)) = result(&receipt).kind else { panic!("not endorsed") };
    assert_eq!((&endorsed.device_id[..], endorsed.list_version), (&device_id(9).as_bytes()[..], 4));
    let told = |event| match event {
        EventKind::MachineChanged(changed) => Some(changed.snapshot.unwrap().device_list_version),
        _ => None,
    };
    assert_eq!(world.until_event(told).await, 4);

    let attached = world.attach(9, session(9)).await;
    let introduction = attached.introduction.unwrap();
    assert_eq!(introduction.machine_key[..], PublicKey::of(&key(100)).as_bytes()[..]);
    assert!(introduction.role() == agent::DeviceRole::Operator);
    assert!(terms(9, Role::Operator).verify_mac(&SecretKey::new(SECRET), &introduction.mac));
    assert!(attached.snapshot.unwrap().own_role() == agent::DeviceRole::Operator);
    world.start_turn(9, session(9)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);

    // However much is open: it reads this from the receipt itself.
    for number in 0..100 {
        let reason = "r".repeat(1_000);
        let action = ApprovalAction { reason, ..asked(number).action };
        let crowding = AskedApproval { action, ..asked(number) };
        world.events.send(CodexEvent::ApprovalAsked(crowding)).await.unwrap();
        opened(&mut world).await;
    }
    let crowded = world.attach(9, session(8)).await;
    assert!(crowded.introduction.is_some());
    let told = crowded.snapshot.unwrap().approvals.len();
    for _ in told..100 {
        opened(&mut world).await;
    }

    let mut world = World::boot(world.crash().await, 8).await;
    world.own(1, 2).await;
    assert!(world.attach(9, session(9)).await.introduction.is_some());
    assert!(world.attach(1, session(1)).await.introduction.is_none());
    let listed = list(&mut world).await;
    let new = listed.devices.iter().find(|device| device.device_id[..] == device_id(9).as_bytes()[..]).unwrap();
    assert_eq!((new.label.as_str(), &new.endorsed_by[..]), ("laptop", &device_id(1).as_bytes()[..]));
}

#[tokio::test]
async fn nobody_but_an_owner_device_endorses_whatever_the_account_says() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.attach(3, session(3)).await;
    let word = endorse(&world, 9, 3);
    assert_eq!(endorsed_by(&mut world, 3, word).await.outcome, Outcome::Refused(ErrorCode::RoleInsufficient));
    // The relay says that the account lets the user operate only.
    let body = agent::CommandBody { kind: Some(Body::EndorseDevice(endorse(&world, 9, 3))) }.encode_to_vec();
    let header = world.header(1, session(1), CommandKind::EndorseDevice, &body);
    world.bring(1, session(1), Role::Operator, signed(1, &header, body)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::RoleInsufficient));
    assert!(stored(&world).get(&device_id(9)).is_none());
}

#[tokio::test]
async fn a_device_that_the_relay_puts_into_an_endorsement_is_not_enrolled() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let right = agent::CommandBody { kind: Some(Body::EndorseDevice(endorse(&world, 9, 3))) }.encode_to_vec();
    let forged = agent::CommandBody { kind: Some(Body::EndorseDevice(endorse(&world, 66, 3))) }.encode_to_vec();
    let header = world.header(1, session(1), CommandKind::EndorseDevice, &right);
    let mut swapped = signed(1, &header, right);
    swapped.body = forged.clone().into();
    world.bring(1, session(1), Role::Owner, swapped).await;
    assert_eq!(world.failure().await, ErrorCode::BodyMismatch);
    // Signed by the relay's own key, in the owner's name.
    let header = world.header(1, session(1), CommandKind::EndorseDevice, &forged);
    world.bring(1, session(1), Role::Owner, signed(66, &header, forged)).await;
    assert_eq!(world.failure().await, ErrorCode::SignatureInvalid);
    assert!(stored(&world).get(&device_id(66)).is_none());
}

#[tokio::test]
async fn of_two_endorsements_of_one_version_the_second_is_asked_again() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.attach(2, session(2)).await;
    let held = world.disks.journal.hold();
    let (first, second) = (endorse(&world, 9, 3), endorse(&world, 10, 3));
    world.send(1, session(1), CommandKind::EndorseDevice, Body::EndorseDevice(first)).await;
    world.send(2, session(2), CommandKind::EndorseDevice, Body::EndorseDevice(second)).await;
    drop(held);
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::DeviceListStale));
    let again = endorse(&world, 10, 4);
    assert_eq!(endorsed_by(&mut world, 2, again).await.outcome, Outcome::Executed);
    assert_eq!(stored(&world).version(), 5);
}

#[tokio::test]
async fn an_endorsement_lifts_no_tombstone_and_not_the_desks_no() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    remove(&world, 2).await;
    let word = endorse(&world, 2, 4);
    assert_eq!(endorsed_by(&mut world, 1, word).await.outcome, Outcome::Refused(ErrorCode::DeviceRevoked));
    let listed = list(&mut world).await;
    assert_eq!((listed.version, listed.removed_total), (4, 1));
    assert_eq!(listed.removed[0].device_id[..], device_id(2).as_bytes()[..]);

    world.seen.clear();
    set(&mut world, DeskPolicy { enrol_at_desk_only: true, ..DeskPolicy::default() }).await;
    let word = endorse(&world, 9, 4);
    assert_eq!(endorsed_by(&mut world, 1, word).await.outcome, Outcome::Refused(ErrorCode::EnrolmentAtDeskOnly));
    set(&mut world, DeskPolicy { paused: true, ..DeskPolicy::default() }).await;
    let word = endorse(&world, 9, 4);
    assert_eq!(endorsed_by(&mut world, 1, word).await.outcome, Outcome::Refused(ErrorCode::RemotePaused));
    set(&mut world, DeskPolicy::default()).await;
    let word = agent::EndorseDevice { expires_at_ms: world.clock.unix_millis(), ..endorse(&world, 9, 4) };
    assert_eq!(endorsed_by(&mut world, 1, word).await.outcome, Outcome::Refused(ErrorCode::EndorsementExpired));
    let word = agent::EndorseDevice { key: vec![0; 32].into(), ..endorse(&world, 9, 4) };
    assert_eq!(endorsed_by(&mut world, 1, word).await.outcome, Outcome::Refused(ErrorCode::BadRequest));
    assert!(stored(&world).get(&device_id(9)).is_none());
}

#[tokio::test]
async fn a_list_that_cannot_be_kept_endorses_nobody() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.disks.devices.fill_disk(true);
    let word = endorse(&world, 9, 3);
    assert_eq!(endorsed_by(&mut world, 1, word).await.outcome, Outcome::Refused(ErrorCode::StateUnusable));
    world.send(9, session(9), CommandKind::Attach, Body::Attach(agent::Attach::default())).await;
    assert_eq!(world.failure().await, ErrorCode::DeviceNotEnrolled);
}

#[tokio::test]
async fn a_desk_that_obeys_no_browser_ends_its_sessions_and_takes_none() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let (reply, answer) = oneshot::channel();
    let (holder, key, label) = (Holder::Program, PublicKey::of(&key(20)), "bot".to_owned());
    world.desk.send(DeskRequest::Enrol { holder, key, role: Role::Operator, label, reply }).await.unwrap();
    answer.await.unwrap().unwrap();
    world.policy.send_replace(DeskPolicy { refuse_browser_keys: true, ..DeskPolicy::default() });
    let ended = |kind: &v1::connector_frame::Kind| match kind {
        v1::connector_frame::Kind::Unsubscribed(unsubscribed) => unsubscribed.end.as_ref().map(|end| end.code),
        _ => None,
    };
    let code = world.until("end", ended).await;
    assert_eq!(ErrorCode::from_number(code), Some(ErrorCode::BrowserKeysRefused));
    for kind in [CommandKind::Attach, CommandKind::StartTurn] {
        let body =
            if kind == CommandKind::Attach { Body::Attach(agent::Attach::default()) } else { Body::StartTurn(turn()) };
        world.send(1, session(1), kind, body).await;
        assert_eq!(world.failure().await, ErrorCode::BrowserKeysRefused);
    }
    let (reply, answer) = oneshot::channel();
    let (holder, key, label) = (Holder::Browser, PublicKey::of(&super::world::key(21)), "phone".to_owned());
    world.desk.send(DeskRequest::Enrol { holder, key, role: Role::Owner, label, reply }).await.unwrap();
    assert_eq!(answer.await.unwrap(), Err(ErrorCode::BrowserKeysRefused));

    world.attach(20, session(20)).await;
    world.start_turn(20, session(20)).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
}

#[tokio::test]
async fn a_pause_and_a_removal_cut_what_has_not_reached_codex() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    world.attach(2, session(2)).await;
    let held = world.disks.journal.hold();
    world.start_turn(1, session(1)).await;
    // The command has arrived: its answer to the probe comes after it.
    probed(&mut world, 1).await;
    set(&mut world, DeskPolicy { paused: true, ..DeskPolicy::default() }).await;
    drop(held);
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::RemotePaused));

    set(&mut world, DeskPolicy::default()).await;
    let held = world.disks.journal.hold();
    world.start_turn(2, session(2)).await;
    probed(&mut world, 2).await;
    remove(&world, 2).await;
    drop(held);
    assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::DeviceRevoked));
    assert!(world.codex.script(|script| script.executed.is_empty()));
}

async fn probed(world: &mut World, device: u8) {
    let kind = Some(v1::device_message::Kind::Probe(v1::Probe { nonce: 1 }));
    let from = v1::FromSession {
        session_id: Bytes::copy_from_slice(session(device.into()).as_bytes()),
        device_id: Bytes::copy_from_slice(device_id(device).as_bytes()),
        role: Role::Owner.as_str().to_owned(),
        message: Some(v1::DeviceMessage { trace: None, kind }),
    };
    world.owner(1, v1::owner_frame::Kind::FromSession(from)).await;
    world.until_message("answer", |kind| matches!(kind, v1::machine_message::Kind::ProbeReply(_)).then_some(())).await;
}

#[tokio::test]
async fn an_account_that_is_strict_says_so_in_the_credential() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    let strict = MachineCredential { strict_audit: true, ..credential() };
    let of_another = flydex_domain::token::TokenSigner::from_seed("k", &SecretKey::new([66; 32]));
    for (number, token) in [world.signer.sign(&strict), of_another.sign(&credential())].into_iter().enumerate() {
        world.credential.send_replace(crate::api::SecretText::new(token));
        world.events.send(CodexEvent::ApprovalAsked(asked(u32::try_from(number).unwrap()))).await.unwrap();
        let approval = opened(&mut world).await;
        world.answer(1, &approval, Decision::Accept, rendered(&approval), |_, _| String::new()).await;
        assert_eq!(world.receipt().await.outcome, Outcome::Refused(ErrorCode::AuditUnavailable));
    }
    assert!(world.codex.script(|script| script.answered.is_empty()));
    world.credential.send_replace(crate::api::SecretText::new(world.signer.sign(&credential())));
    world.events.send(CodexEvent::ApprovalAsked(asked(7))).await.unwrap();
    let approval = opened(&mut world).await;
    world.answer(1, &approval, Decision::Accept, rendered(&approval), |_, _| String::new()).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
}

#[tokio::test]
async fn devices_hear_of_a_credential_that_changes_the_accounts_policy() {
    let mut world = World::start().await;
    world.attach(1, session(1)).await;
    for strict_audit in [true, false] {
        let token = world.signer.sign(&MachineCredential { strict_audit, ..credential() });
        world.credential.send_replace(crate::api::SecretText::new(token));
        let is_told = |event| match event {
            EventKind::MachineChanged(changed) => (changed.snapshot?.strict_audit == strict_audit).then_some(()),
            _ => None,
        };
        world.until_event(is_told).await;
    }
}

// === Passkeys ===

fn pin() -> agent::PinPasskey {
    agent::PinPasskey {
        credential_id: Bytes::from_static(b"passkey"),
        algorithm: agent::PasskeyAlgorithm::Ed25519.into(),
        key: Bytes::copy_from_slice(&key(77).verifying_key().to_bytes()),
    }
}

fn asserted(command: &v1::Command, signer: u8, flags: u8) -> v1::PasskeyAssertion {
    use base64::Engine as _;
    let hash = command_transcript(&command.header).sha256();
    let challenge = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash);
    let json = format!(r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"https://relay.example"}}"#);
    let data = [&sha256(b"relay.example")[..], &[flags, 0, 0, 0, 0]].concat();
    let signature = key(signer).sign(&[&data[..], &sha256(json.as_bytes())].concat());
    v1::PasskeyAssertion {
        credential_id: Bytes::from_static(b"passkey"),
        authenticator_data: data.into(),
        client_data_json: json.into(),
        signature: Bytes::copy_from_slice(&signature.to_bytes()),
    }
}

/// An accept that carries what `assert` makes of it.
async fn accept(
    world: &mut World,
    approval: &agent::Approval,
    assert: impl FnOnce(&v1::Command) -> Option<v1::PasskeyAssertion>,
) -> Outcome {
    let body = Body::AnswerApproval(agent::AnswerApproval { digest: rendered(approval).to_vec().into() });
    let body = agent::CommandBody { kind: Some(body) }.encode_to_vec();
    let mut header = world.header(1, session(1), CommandKind::AnswerApproval, &body);
    header.answer = Some(flydex_domain::command::ApprovalAnswer {
        approval_id: approval.approval_id.as_ref().try_into().unwrap(),
        generation: approval.generation.as_ref().try_into().unwrap(),
        decision: Decision::Accept,
    });
    let mut command = signed(1, &header, body);
    command.assertion = assert(&command);
    world.bring(1, session(1), Role::Owner, command).await;
    world.receipt().await.outcome
}

async fn enrolled_now(world: &World, device: u8) {
    let (reply, answer) = oneshot::channel();
    let (holder, key, label) = (Holder::Browser, PublicKey::of(&key(device)), "phone".to_owned());
    world.desk.send(DeskRequest::Enrol { holder, key, role: Role::Owner, label, reply }).await.unwrap();
    answer.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_high_risk_accept_needs_the_pinned_passkeys_word_on_this_very_command() {
    let mut world = World::start().await;
    enrolled_now(&world, 1).await;
    world.attach(1, session(1)).await;
    world.seen.clear();
    set(&mut world, DeskPolicy { passkey_for_high_risk: true, ..DeskPolicy::default() }).await;
    let high = crate::codex::AskedApproval { risk_high: true, ..asked(0) };
    world.events.send(CodexEvent::ApprovalAsked(high)).await.unwrap();
    let approval = opened(&mut world).await;
    assert!(approval.passkey_required);
    let refused = |code| Outcome::Refused(code);
    let missing = accept(&mut world, &approval, |command| Some(asserted(command, 77, 5))).await;
    assert_eq!(missing, refused(ErrorCode::PasskeyMissing));

    world.send(1, session(1), CommandKind::PinPasskey, Body::PinPasskey(pin())).await;
    assert_eq!(world.receipt().await.outcome, Outcome::Executed);
    assert_eq!(accept(&mut world, &approval, |_| None).await, refused(ErrorCode::PasskeyInvalid));
    let unverified = accept(&mut world, &approval, |command| Some(asserted(command, 77, 1))).await;
    assert_eq!(unverified, refused(ErrorCode::PasskeyInvalid));
    let of_another = accept(&mut world, &approval, |command| Some(asserted(command, 78, 5))).await;
    assert_eq!(of_another, refused(ErrorCode::PasskeyInvalid));
    let older = v1::Command { header: Bytes::from_static(b"an older command"), ..v1::Command::default() };
    let replayed = accept(&mut world, &approval, |_| Some(asserted(&older, 77, 5))).await;
    assert_eq!(replayed, refused(ErrorCode::PasskeyInvalid));
    assert!(world.codex.script(|script| script.answered.is_empty()));
    let right = accept(&mut world, &approval, |command| Some(asserted(command, 77, 5))).await;
    assert_eq!(right, Outcome::Executed);

    world.events.send(CodexEvent::ApprovalAsked(asked(1))).await.unwrap();
    let approval = opened(&mut world).await;
    assert!(!approval.passkey_required);
    assert_eq!(accept(&mut world, &approval, |_| None).await, Outcome::Executed);
}

#[tokio::test]
async fn a_passkey_is_pinned_once_soon_after_the_desks_yes_and_never_by_an_endorsement() {
    let mut world = World::start().await;
    enrolled_now(&world, 1).await;
    world.attach(1, session(1)).await;
    let pinned = Outcome::Refused(ErrorCode::PasskeyNotPinnable);
    let mut expected = Outcome::Executed;
    for _ in 0..2 {
        world.send(1, session(1), CommandKind::PinPasskey, Body::PinPasskey(pin())).await;
        assert_eq!(world.receipt().await.outcome, expected);
        expected = pinned;
    }
    let word = endorse(&world, 9, stored(&world).version());
    assert_eq!(endorsed_by(&mut world, 1, word).await.outcome, Outcome::Executed);
    world.attach(9, session(9)).await;
    world.send(9, session(9), CommandKind::PinPasskey, Body::PinPasskey(pin())).await;
    assert_eq!(world.receipt().await.outcome, pinned);

    enrolled_now(&world, 2).await;
    world.clock.advance(PASSKEY_PIN_WINDOW);
    world.attach(2, session(2)).await;
    world.send(2, session(2), CommandKind::PinPasskey, Body::PinPasskey(pin())).await;
    assert_eq!(world.receipt().await.outcome, pinned);
    assert!(stored(&world).get(&device_id(2)).unwrap().passkey.is_none());
    assert_eq!(UnixMillis(START).plus(PASSKEY_PIN_WINDOW), UnixMillis(world.clock.unix_millis()));
}
