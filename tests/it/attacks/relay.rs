//! A relay that is wholly hostile: gateway, node, directory, database and control plane in one hand, with the key that
//! control signs with, between the real connector with the real Codex and a phone that keeps to the protocol.
//!
//! Nothing that it forges, swaps, alters, drops, replays or reorders gets a command, an approval, a device or content
//! through (INV-KEY, INV-ONCE, INV-APPROVE). What it *can* do, as long as payloads are not end-to-end encrypted:
//!
//! - refuse, delay and drop: then nothing happens, and no receipt says that anything did;
//! - read content that passes it, and forge what no machine signs: events of a stream (text, items, status), snapshots
//!   outside a receipt, progress and failures. Receipts, what is in them, and approvals are signed, and the phone
//!   believes only those to be final;
//! - take rights away: it can tell the machine to forget a device. Only the desk brings it back;
//! - say that the account is not strict: then accepts are recorded at the machine first. The desk's own
//!   `strict_audit` is out of its reach only as far as control's key is.
//!
//! The origin that serves the web app can do more, for its code holds the device keys; it is not part of this relay.

#![expect(clippy::wildcard_enum_match_arm, reason = "it looks at few of the many kinds that pass")]

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{
    ApprovalAnswer, CommandClass, CommandHeader, CommandKind, Decision, Outcome, Receipt, receipt_transcript,
};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, BootId, DeviceId, MachineId, SessionId};
use flydex_domain::scope::Role;
use flydex_loadtest::account::PairedMachine;
use flydex_loadtest::device::{Device, Target, body};
use flydex_proto::v1::{self, connector_frame, device_message, machine_message, owner_frame};
use flydex_tests::codex::{CodexHome, Daemon};
use flydex_tests::connector::{Connector, Machine};
use flydex_tests::model::Model;
use flydex_tests::wait;
use prost::Message as _;
use uuid::Uuid;

use super::approvals::digest_of;
use super::stand::{attach, now};
use hostile::{FromConnector, Hostile, Lies, account_id, machine_id};

mod hostile;

/// The session in which the phone is.
const PHONE_SESSION: SessionId = SessionId::from_uuid(Uuid::from_u128(0x01));
/// One that the relay makes up for itself.
const OWN_SESSION: SessionId = SessionId::from_uuid(Uuid::from_u128(0x66));

struct Scene {
    // First, so that it ends before what it would miss.
    connector: Option<Connector>,
    relay: Hostile,
    from: FromConnector,
    phone: Device,
    paired: PairedMachine,
    boot_id: BootId,
    machine: Machine,
    model: Model,
    /// The relay's own key.
    own: Device,
    _daemon: Daemon,
    _codex: CodexHome,
}

async fn machine_at(relay: &Hostile, model: &Model) -> anyhow::Result<(Machine, Daemon, CodexHome)> {
    let codex = CodexHome::create(model)?;
    let daemon = codex.start_daemon().await?;
    let machine = Machine::new(&relay.origin, &codex)?;
    let workspace = machine.workspace().to_string_lossy().into_owned();
    let (allowed, lines) = machine.command(&["directories", "add", &workspace]).await?;
    ensure!(allowed, "{lines:?}");
    Ok((machine, daemon, codex))
}

impl Scene {
    /// One honest pairing, after which the relay owns the machine's link.
    async fn start() -> anyhow::Result<Self> {
        flydex_runtime::tls::install_provider();
        let model = Model::start().await?;
        let (relay, mut from) = Hostile::start().await?;
        let (machine, daemon, codex) = machine_at(&relay, &model).await?;
        let phone = Device::new();
        let mut connector = machine.connect()?;
        let url = connector.pair_url().await?;
        let (terms, keys) = relay.phone_scans(&url, &phone, Lies::default())?;
        let (code, _) = connector.question().await?;
        ensure!(code == terms.short_code(), "another code");
        connector.answer(true).await?;
        let boot_id = relay.boot_id().await.with_context(|| connector.process().story())?;
        relay.own(&mut from).await?;
        let mac = relay.pairing_confirmed().await?;
        ensure!(terms.verify_mac(&keys.machine_to_device, &mac), "the machine's MAC does not hold");
        let paired =
            PairedMachine { account_id: account_id(), machine_id: machine_id(), machine_key: terms.machine_key };
        let (connector, own) = (Some(connector), Device::new());
        Ok(Self { connector, relay, from, phone, paired, boot_id, machine, model, own, _daemon: daemon, _codex: codex })
    }

    /// A command as the phone signs it, but for what `change` does before.
    fn sign(
        &self,
        device: &Device,
        kind: CommandKind,
        content: Body,
        change: impl FnOnce(&mut CommandHeader),
    ) -> Signed {
        let content = body(content);
        let session_id = (kind.class() == CommandClass::Read).then_some(PHONE_SESSION);
        let target = Target { machine: &self.paired, boot_id: self.boot_id, session_id, answer: None };
        let mut header = device.header(&target, kind, &content, now());
        change(&mut header);
        Signed { command: device.sign(&header, content), header }
    }

    fn start_thread(&self, text: &str) -> Body {
        let directory = self.machine.workspace().to_string_lossy().into_owned();
        Body::StartThread(agent::StartThread { directory, text: text.to_owned(), model: String::new() })
    }

    fn bring(&self, session_id: SessionId, device_id: DeviceId, role: &str, command: &v1::Command) {
        self.relay.bring(session_id, device_id, role, device_message::Kind::Command(command.clone()));
    }

    /// As the relay should: in the phone's session, in its name.
    fn carry(&self, signed: &Signed) {
        self.bring(PHONE_SESSION, self.phone.device_id(), "owner", &signed.command);
    }

    /// What the machine signed about a command; the phone believes nothing else.
    async fn receipt(&mut self, session_id: SessionId, signed: &Signed) -> anyhow::Result<Receipt> {
        let key = self.paired.machine_key;
        let wanted = |kind: &machine_message::Kind| {
            let machine_message::Kind::Receipt(signed_receipt) = kind else { return None };
            let receipt = v1::Receipt::decode(signed_receipt.receipt.clone()).ok()?;
            key.verify(receipt_transcript(&signed_receipt.receipt), &signed_receipt.signature).ok()?;
            let receipt = Receipt::try_from(receipt).ok()?;
            (receipt.command_id == signed.header.command_id).then_some(receipt)
        };
        self.from.message("a receipt", session_id, wanted).await
    }

    async fn failure(&mut self, session_id: SessionId) -> anyhow::Result<ErrorCode> {
        let wanted = |kind: &machine_message::Kind| match kind {
            machine_message::Kind::Failure(failure) => ErrorCode::from_number(failure.code),
            _ => None,
        };
        self.from.message("a failure", session_id, wanted).await
    }

    async fn attach(&mut self) -> anyhow::Result<()> {
        let signed = self.sign(&self.phone, CommandKind::Attach, attach(), |_| {});
        self.carry(&signed);
        ensure!(self.receipt(PHONE_SESSION, &signed).await?.outcome == Outcome::Executed, "not admitted");
        Ok(())
    }

    /// How often a prompt with that text came to the model.
    fn effects(&self, text: &str) -> usize {
        self.model.requests().iter().filter(|request| request.prompt.contains(text)).count()
    }

    /// Waits for a shown approval: its signed form, as it passes the relay.
    async fn approval(&mut self) -> anyhow::Result<agent::SignedApproval> {
        let opened = |body: &Bytes| {
            let event = agent::AgentEvent::decode(body.clone()).ok()?;
            match event.kind? {
                agent::agent_event::Kind::ApprovalOpened(signed) => Some(signed),
                _ => None,
            }
        };
        let wanted = |kind: &connector_frame::Kind| match kind {
            connector_frame::Kind::SharedEvent(event) => opened(&event.body),
            _ => None,
        };
        let found = self.from.passed_over.iter().find_map(wanted);
        match found {
            Some(signed) => Ok(signed),
            None => self.from.until("an approval", wanted).await,
        }
    }

    async fn listed(&self) -> anyhow::Result<String> {
        let (listed, lines) = self.machine.command(&["devices", "list"]).await?;
        ensure!(listed, "{lines:?}");
        Ok(lines.out.join("\n"))
    }
}

struct Signed {
    header: CommandHeader,
    command: v1::Command,
}

fn endorsing(device: &Device, role: agent::DeviceRole, list_version: u64) -> Body {
    Body::EndorseDevice(agent::EndorseDevice {
        key_algorithm: device.public_key().algorithm().to_owned(),
        key: Bytes::copy_from_slice(device.public_key().as_bytes()),
        role: role.into(),
        label: "tablet".to_owned(),
        expires_at_ms: now().0 + 60_000,
        list_version,
        introduction_mac: vec![1; 32].into(),
    })
}

#[tokio::test]
async fn a_hostile_relay_gets_no_key_account_or_role_of_its_own_through_a_pairing() -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    let (relay, _from) = Hostile::start().await?;
    let model = Model::start().await?;
    let (machine, _daemon, _codex) = machine_at(&relay, &model).await?;
    let (phone, own) = (Device::new(), Device::new());
    for lies in [
        Lies { device_key: Some(own.public_key()), ..Lies::default() },
        Lies { account_id: Some(AccountId::from_uuid(Uuid::from_u128(0xbad))), ..Lies::default() },
        Lies { phone_role: Some(Role::Viewer), ..Lies::default() },
        // The relay's key in place of the machine's: it would read along in the middle.
        Lies { phone_machine_key: Some(own.public_key()), ..Lies::default() },
    ] {
        let mut connector = machine.connect()?;
        let url = connector.pair_url().await?;
        relay.phone_scans(&url, &phone, lies)?;
        ensure!(relay.pairing_failed().await? == ErrorCode::PairingTampered.name(), "another end");
        ensure!(!connector.process_mut().ended().await?.success(), "it went on");
        relay.forget_pairing();
    }
    let (_, lines) = machine.command(&["devices", "list"]).await?;
    ensure!(lines.out.iter().any(|line| line.starts_with("none;")), "{lines:?}");
    Ok(())
}

#[tokio::test]
async fn a_hostile_relay_gets_no_command_device_or_content_through() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    let (phone_id, own_id) = (scene.phone.device_id(), scene.own.device_id());
    scene.attach().await?;
    the_relays_own_device_gets_nothing(&mut scene).await?;

    // What it alters, swaps and sends through another session.
    let prompt = "the one prompt of the phone";
    let right = scene.sign(&scene.phone, CommandKind::StartThread, scene.start_thread(prompt), |_| {});
    let mut other_body = right.command.clone();
    other_body.body = body(scene.start_thread("rm -rf of the relay"));
    let mut other_header = right.command.clone();
    let raised =
        CommandHeader { body_sha256: flydex_domain::encoding::sha256(&other_body.body), ..right.header.clone() };
    other_header.header = v1::CommandHeader::from(&raised).encode_to_vec().into();
    other_header.body = other_body.body.clone();
    let forged = scene.sign(&scene.own, CommandKind::StartThread, scene.start_thread("forged"), |header| {
        header.device_id = phone_id;
    });
    for (what, session_id, device_id, command, code) in [
        ("another body", PHONE_SESSION, phone_id, &other_body, ErrorCode::BodyMismatch),
        ("another header", PHONE_SESSION, phone_id, &other_header, ErrorCode::SignatureInvalid),
        ("its own signature", PHONE_SESSION, phone_id, &forged.command, ErrorCode::SignatureInvalid),
        ("its own session", OWN_SESSION, own_id, &right.command, ErrorCode::NotAdmitted),
        ("a session nobody attached", OWN_SESSION, phone_id, &right.command, ErrorCode::NotAdmitted),
    ] {
        scene.bring(session_id, device_id, "owner", command);
        ensure!(scene.failure(session_id).await? == code, "{what} was not turned away with {}", code.name());
    }
    // A word for another machine or account, routed here.
    type Change = fn(&mut CommandHeader);
    let elsewhere: [(Change, ErrorCode); 2] = [
        (|header| header.machine_id = MachineId::from_uuid(Uuid::from_u128(5)), ErrorCode::WrongMachine),
        (|header| header.account_id = AccountId::from_uuid(Uuid::from_u128(5)), ErrorCode::WrongAccount),
    ];
    for (change, code) in elsewhere {
        let signed = scene.sign(&scene.phone, CommandKind::StartThread, scene.start_thread("elsewhere"), change);
        scene.carry(&signed);
        ensure!(scene.failure(PHONE_SESSION).await? == code, "{} expected", code.name());
    }

    // It brings the true one four times, and a falsified receipt is no receipt.
    for _ in 0..4 {
        scene.carry(&right);
        ensure!(scene.receipt(PHONE_SESSION, &right).await?.outcome == Outcome::Executed, "not executed");
    }
    a_device_of_the_relay_is_not_endorsed(&mut scene).await?;
    // Codex has it; the model hears of it a moment later.
    let heard = async || (scene.effects(prompt) > 0).then_some(());
    wait::until("the one prompt", heard).await?;
    ensure!(
        scene.effects(prompt) == 1 && scene.effects("of the relay") == 0 && scene.effects("forged") == 0,
        "an effect"
    );

    // In another life of the connector the same words run nothing.
    let before = scene.boot_id;
    scene.connector.take().context("a connector")?.kill().await?;
    scene.connector = Some(scene.machine.run()?);
    scene.boot_id = scene.relay.rebooted(before).await?;
    scene.relay.own(&mut scene.from).await?;
    scene.attach().await?;
    scene.carry(&right);
    ensure!(scene.receipt(PHONE_SESSION, &right).await?.outcome == Outcome::Executed, "its first life's word stands");
    let old = scene.sign(&scene.phone, CommandKind::StartThread, scene.start_thread("held back"), |header| {
        header.boot_id = before;
    });
    scene.carry(&old);
    ensure!(scene.receipt(PHONE_SESSION, &old).await?.outcome == Outcome::Unknown, "a word for another life");
    ensure!(scene.effects(prompt) == 1 && scene.effects("held back") == 0, "an effect after the restart");
    rights_only_shrink(&mut scene).await
}

/// The relay makes up a session, a device, a role and whatever control could sign for them.
async fn the_relays_own_device_gets_nothing(scene: &mut Scene) -> anyhow::Result<()> {
    let own_id = scene.own.device_id();
    let attach_own =
        scene.sign(&scene.own, CommandKind::Attach, attach(), |header| header.session_id = Some(OWN_SESSION));
    scene.bring(OWN_SESSION, own_id, "owner", &attach_own.command);
    ensure!(scene.failure(OWN_SESSION).await? == ErrorCode::DeviceNotEnrolled, "its own device");
    // The phone's own attach, recorded and brought in its session.
    let recorded = scene.sign(&scene.phone, CommandKind::Attach, attach(), |_| {});
    scene.bring(OWN_SESSION, scene.phone.device_id(), "owner", &recorded.command);
    ensure!(scene.failure(OWN_SESSION).await? == ErrorCode::NotAdmitted, "a replayed attach");
    let list = Body::ListThreads(agent::ListThreads { limit: 10, ..agent::ListThreads::default() });
    let read = scene.sign(&scene.phone, CommandKind::ListThreads, list, |_| {});
    scene.bring(OWN_SESSION, scene.phone.device_id(), "owner", &read.command);
    ensure!(scene.failure(OWN_SESSION).await? == ErrorCode::NotAdmitted, "a replayed read");
    let content = scene.from.passed_over.iter().any(|kind| match kind {
        connector_frame::Kind::Subscribed(subscribed) => subscribed.session_id[..] == OWN_SESSION.as_bytes()[..],
        connector_frame::Kind::ToSession(to) => to.session_id[..] == OWN_SESSION.as_bytes()[..],
        _ => false,
    });
    ensure!(!content, "something was sent to the relay's own session");
    Ok(())
}

async fn a_device_of_the_relay_is_not_endorsed(scene: &mut Scene) -> anyhow::Result<()> {
    let tablet = Device::new();
    let right =
        scene.sign(&scene.phone, CommandKind::EndorseDevice, endorsing(&tablet, agent::DeviceRole::Viewer, 1), |_| {});
    let mut swapped = right.command.clone();
    swapped.body = body(endorsing(&scene.own, agent::DeviceRole::Owner, 1));
    scene.bring(PHONE_SESSION, scene.phone.device_id(), "owner", &swapped);
    ensure!(scene.failure(PHONE_SESSION).await? == ErrorCode::BodyMismatch, "a swapped device");
    scene.bring(PHONE_SESSION, scene.phone.device_id(), "operator", &right.command);
    let reduced = scene.receipt(PHONE_SESSION, &right).await?.outcome;
    ensure!(reduced == Outcome::Refused(ErrorCode::RoleInsufficient), "{reduced:?}");
    let again =
        scene.sign(&scene.phone, CommandKind::EndorseDevice, endorsing(&tablet, agent::DeviceRole::Viewer, 1), |_| {});
    scene.carry(&again);
    ensure!(scene.receipt(PHONE_SESSION, &again).await?.outcome == Outcome::Executed, "not endorsed");
    // The relay says that the viewer's user owns the account.
    let begin = scene.sign(&tablet, CommandKind::Attach, attach(), |header| header.session_id = Some(OWN_SESSION));
    scene.bring(OWN_SESSION, tablet.device_id(), "owner", &begin.command);
    ensure!(scene.receipt(OWN_SESSION, &begin).await?.outcome == Outcome::Executed, "the viewer may look");
    for (kind, content) in [
        (CommandKind::StartThread, scene.start_thread("of the relay, by a viewer")),
        (CommandKind::EndorseDevice, endorsing(&scene.own, agent::DeviceRole::Viewer, 2)),
    ] {
        let signed = scene.sign(&tablet, kind, content, |_| {});
        scene.bring(OWN_SESSION, tablet.device_id(), "owner", &signed.command);
        let outcome = scene.receipt(OWN_SESSION, &signed).await?.outcome;
        ensure!(outcome == Outcome::Refused(ErrorCode::RoleInsufficient), "{outcome:?}");
    }
    let listed = scene.listed().await?;
    ensure!(!listed.contains(&scene.own.device_id().to_string()), "{listed}");
    Ok(())
}

/// The relay may take rights away, and gives none; an epoch that it makes up moves the machine no further than that.
async fn rights_only_shrink(scene: &mut Scene) -> anyhow::Result<()> {
    let device_id = Bytes::copy_from_slice(scene.phone.device_id().as_bytes());
    // Without the fence's number nothing of it counts.
    scene.relay.say_as(
        0,
        owner_frame::Kind::RemoveDevice(v1::RemoveDevice { device_id: device_id.clone(), ..Default::default() }),
    );
    scene.from.until("stale", |kind| matches!(kind, connector_frame::Kind::Stale(_)).then_some(())).await?;
    scene.relay.say(owner_frame::Kind::RemoveDevice(v1::RemoveDevice { device_id, ..Default::default() }));
    scene.from.until("removed", |kind| matches!(kind, connector_frame::Kind::DeviceRemoved(_)).then_some(())).await?;
    let signed = scene.sign(&scene.phone, CommandKind::Attach, attach(), |_| {});
    scene.carry(&signed);
    ensure!(scene.failure(PHONE_SESSION).await? == ErrorCode::DeviceRevoked, "a removed device");
    let listed = scene.listed().await?;
    ensure!(listed.contains(&format!("{}\tremoved", scene.phone.device_id())), "{listed}");
    Ok(())
}

#[tokio::test]
async fn a_hostile_relay_gets_no_approval_through() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    scene.attach().await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("ran");
    let prompt = format!("[[esc echo ran >> {}]] [[say over]]", file.display());
    let begin = scene.sign(&scene.phone, CommandKind::StartThread, scene.start_thread(&prompt), |_| {});
    scene.carry(&begin);
    ensure!(scene.receipt(PHONE_SESSION, &begin).await?.outcome == Outcome::Executed, "not begun");
    let signed = scene.approval().await?;

    // It shows something harmless in its place: the phone sees that the machine did not sign that.
    let transcript = flydex_domain::approval::approval_transcript;
    scene.paired.machine_key.verify(transcript(&signed.approval), &signed.signature)?;
    let shown = agent::Approval::decode(signed.approval.clone())?;
    let harmless = agent::Approval { command: "ls".to_owned(), ..shown.clone() };
    let harmless_bytes = harmless.encode_to_vec();
    ensure!(scene.paired.machine_key.verify(transcript(&harmless_bytes), &signed.signature).is_err(), "it verified");

    let right = digest_of(&shown)?;
    let of = |decision| {
        let (approval_id, generation) = (shown.approval_id.as_ref().try_into()?, shown.generation.as_ref().try_into()?);
        anyhow::Ok(ApprovalAnswer { approval_id, generation, decision })
    };
    let answer = |scene: &Scene, device: &Device, decision: ApprovalAnswer, digest: [u8; 32]| {
        let content = Body::AnswerApproval(agent::AnswerApproval { digest: digest.to_vec().into() });
        scene.sign(device, CommandKind::AnswerApproval, content, |header| header.answer = Some(decision))
    };
    // Even a phone that was deceived into answering that signs for what nobody asks.
    let deceived = answer(&scene, &scene.phone, of(Decision::Accept)?, digest_of(&harmless)?);
    scene.carry(&deceived);
    let outcome = scene.receipt(PHONE_SESSION, &deceived).await?.outcome;
    ensure!(outcome == Outcome::Refused(ErrorCode::DigestMismatch), "{outcome:?}");

    // A no of the phone that it turns into a yes, and yeses of its own.
    let decline = answer(&scene, &scene.phone, of(Decision::Decline)?, right);
    let turned = CommandHeader { answer: Some(of(Decision::Accept)?), ..decline.header.clone() };
    let mut turned_command = decline.command.clone();
    turned_command.header = v1::CommandHeader::from(&turned).encode_to_vec().into();
    let mut forged = answer(&scene, &scene.own, of(Decision::Accept)?, right);
    let mut in_its_name = forged.header.clone();
    in_its_name.device_id = scene.phone.device_id();
    let in_its_name = scene.own.sign(&in_its_name, forged.command.body.clone());
    forged.command.audit_receipt = "v4.public.made-up".to_owned();
    for (what, device_id, command, code) in [
        ("a turned answer", scene.phone.device_id(), &turned_command, ErrorCode::SignatureInvalid),
        ("its own answer", scene.own.device_id(), &forged.command, ErrorCode::DeviceNotEnrolled),
        ("an answer in the phone's name", scene.phone.device_id(), &in_its_name, ErrorCode::SignatureInvalid),
    ] {
        scene.bring(PHONE_SESSION, device_id, "owner", command);
        ensure!(scene.failure(PHONE_SESSION).await? == code, "{what}");
    }

    // With a strict desk a receipt that control's key did not sign for this very command lets nothing happen.
    let (set, lines) = scene.machine.command(&["settings", "set", "strict_audit", "on"]).await?;
    ensure!(set, "{lines:?}");
    for token in ["", "v4.public.made-up", &hostile::control().sign(&audit_receipt(&decline, &shown)?)] {
        let mut accept = answer(&scene, &scene.phone, of(Decision::Accept)?, right);
        accept.command.audit_receipt = token.to_owned();
        scene.carry(&accept);
        let outcome = scene.receipt(PHONE_SESSION, &accept).await?.outcome;
        ensure!(outcome == Outcome::Refused(ErrorCode::AuditUnavailable), "{outcome:?}");
    }
    ensure!(!file.exists(), "it ran");
    scene.carry(&decline);
    ensure!(scene.receipt(PHONE_SESSION, &decline).await?.outcome == Outcome::Executed, "the phone's own no counts");
    ensure!(!file.exists(), "it ran");
    Ok(())
}

/// Control's word, by its own key, about another command than the one that it is sent with.
fn audit_receipt(signed: &Signed, shown: &agent::Approval) -> anyhow::Result<flydex_domain::token::AuditReceipt> {
    use flydex_domain::command::command_transcript;
    use flydex_domain::id::{AuditId, CommandHash};
    Ok(flydex_domain::token::AuditReceipt {
        audit_id: AuditId::from_uuid(Uuid::from_u128(1)),
        account_id: account_id(),
        machine_id: machine_id(),
        device_id: signed.header.device_id,
        approval_id: shown.approval_id.as_ref().try_into()?,
        generation: shown.generation.as_ref().try_into()?,
        command_id: signed.header.command_id,
        command_hash: CommandHash::from_bytes(command_transcript(&signed.command.header).sha256()),
        expires_at: flydex_domain::time::UnixMillis(now().0 + 60_000),
    })
}
