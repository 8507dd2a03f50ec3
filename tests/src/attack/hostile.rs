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

use crate::codex::CodexHome;
use crate::model::Model;
use crate::wait;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{ApprovalAnswer, CommandHeader, CommandKind, Decision, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::scope::Role;
use flydex_loadtest::device::{Device, body};
use flydex_proto::v1::{self, connector_frame, owner_frame};
use prost::Message as _;
use uuid::Uuid;

use super::Attack;
use super::approvals::digest_of;
use super::stand::{attach, now};
use super::tally::Tally;
use relay::{Hostile, Lies, account_id, machine_id};
use scene::{OWN_SESSION, PHONE_SESSION, Scene, Signed, machine_at};

mod relay;
mod scene;

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "hostile relay: pairing",
        tries: "its own key, account or role in a pairing; its key in place of the machine's",
        stopped_by: &["pairing_tampered"],
        run: |_, tally| Box::pin(pairing(tally)),
        regions: 1,
    },
    Attack {
        name: "hostile relay: commands",
        tries: "forged, altered, swapped, repeated, held back, all said again; its own device, and roles that it makes up",
        stopped_by: &[
            "device_not_enrolled",
            "not_admitted",
            "body_mismatch",
            "signature_invalid",
            "wrong_machine",
            "wrong_account",
            "role_insufficient",
            "unknown outcome",
            "stale owner",
            "device_revoked",
        ],
        run: |_, tally| Box::pin(commands(tally)),
        regions: 1,
    },
    Attack {
        name: "hostile relay: approvals",
        tries: "a harmless approval shown, a no turned into a yes, yeses of its own, receipts of control's key",
        stopped_by: &["digest_mismatch", "signature_invalid", "device_not_enrolled", "audit_unavailable"],
        run: |_, tally| Box::pin(approvals(tally)),
        regions: 1,
    },
];

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

async fn pairing(tally: Tally) -> anyhow::Result<()> {
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
        let ended = relay.pairing_failed().await?;
        ensure!(ended == ErrorCode::PairingTampered.name(), "{ended}");
        tally.stopped(&ended);
        ensure!(!connector.process_mut().ended().await?.success(), "it went on");
        relay.forget_pairing();
    }
    let (_, lines) = machine.command(&["devices", "list"]).await?;
    ensure!(lines.out.iter().any(|line| line.starts_with("none;")), "{lines:?}");
    Ok(())
}

async fn commands(tally: Tally) -> anyhow::Result<()> {
    let mut scene = Scene::start(tally).await?;
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
        scene.is_turned_away(session_id, code).await.context(what)?;
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
        scene.is_turned_away(PHONE_SESSION, code).await?;
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

    in_another_life(&mut scene, &right, prompt).await?;
    everything_said_again(&mut scene, prompt).await?;
    rights_only_shrink(&mut scene).await
}

/// In another life of the connector the same words run nothing.
async fn in_another_life(scene: &mut Scene, right: &Signed, prompt: &str) -> anyhow::Result<()> {
    let before = scene.boot_id;
    scene.connector.take().context("a connector")?.kill().await?;
    scene.connector = Some(scene.machine.run()?);
    scene.boot_id = scene.relay.rebooted(before).await?;
    scene.relay.own(&mut scene.from).await?;
    scene.attach().await?;
    scene.carry(right);
    ensure!(scene.receipt(PHONE_SESSION, right).await?.outcome == Outcome::Executed, "its first life's word stands");
    let old = scene.sign(&scene.phone, CommandKind::StartThread, scene.start_thread("held back"), |header| {
        header.boot_id = before;
    });
    scene.carry(&old);
    ensure!(scene.receipt(PHONE_SESSION, &old).await?.outcome == Outcome::Unknown, "a word for another life");
    scene.tally.stopped("unknown outcome");
    ensure!(scene.effects(prompt) == 1 && scene.effects("held back") == 0, "an effect after the restart");
    Ok(())
}

/// Every frame of every session, life and owner comes once more.
async fn everything_said_again(scene: &mut Scene, prompt: &str) -> anyhow::Result<()> {
    let before = scene.listed().await?;
    for as_it_is_now in [false, true] {
        scene.relay.say_all_again(&mut scene.from, as_it_is_now).await?;
    }
    let stale = scene.from.passed_over.iter().filter(|kind| matches!(kind, connector_frame::Kind::Stale(_))).count();
    ensure!(stale > 0, "what a former owner said was not turned away");
    scene.tally.stopped("stale owner");
    ensure!(scene.listed().await? == before, "the list of devices changed");
    let held_back = scene.effects("held back") + scene.effects("of the relay") + scene.effects("forged");
    ensure!(scene.effects(prompt) == 1 && held_back == 0, "an effect of what was said again");
    scene.attach().await
}

/// The relay makes up a session, a device, a role and whatever control could sign for them.
async fn the_relays_own_device_gets_nothing(scene: &mut Scene) -> anyhow::Result<()> {
    let own_id = scene.own.device_id();
    let attach_own =
        scene.sign(&scene.own, CommandKind::Attach, attach(), |header| header.session_id = Some(OWN_SESSION));
    scene.bring(OWN_SESSION, own_id, "owner", &attach_own.command);
    scene.is_turned_away(OWN_SESSION, ErrorCode::DeviceNotEnrolled).await.context("its own device")?;
    // The phone's own attach, recorded and brought in its session.
    let recorded = scene.sign(&scene.phone, CommandKind::Attach, attach(), |_| {});
    scene.bring(OWN_SESSION, scene.phone.device_id(), "owner", &recorded.command);
    scene.is_turned_away(OWN_SESSION, ErrorCode::NotAdmitted).await.context("a replayed attach")?;
    let list = Body::ListThreads(agent::ListThreads { limit: 10, ..agent::ListThreads::default() });
    let read = scene.sign(&scene.phone, CommandKind::ListThreads, list, |_| {});
    scene.bring(OWN_SESSION, scene.phone.device_id(), "owner", &read.command);
    scene.is_turned_away(OWN_SESSION, ErrorCode::NotAdmitted).await.context("a replayed read")?;
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
    scene.is_turned_away(PHONE_SESSION, ErrorCode::BodyMismatch).await.context("a swapped device")?;
    scene.bring(PHONE_SESSION, scene.phone.device_id(), "operator", &right.command);
    scene.is_refused(PHONE_SESSION, &right, ErrorCode::RoleInsufficient).await?;
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
        scene.is_refused(OWN_SESSION, &signed, ErrorCode::RoleInsufficient).await?;
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
    scene.is_turned_away(PHONE_SESSION, ErrorCode::DeviceRevoked).await.context("a removed device")?;
    let listed = scene.listed().await?;
    ensure!(listed.contains(&format!("{}\tremoved", scene.phone.device_id())), "{listed}");
    Ok(())
}

async fn approvals(tally: Tally) -> anyhow::Result<()> {
    let mut scene = Scene::start(tally).await?;
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
    scene.is_refused(PHONE_SESSION, &deceived, ErrorCode::DigestMismatch).await?;

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
        scene.is_turned_away(PHONE_SESSION, code).await.context(what)?;
    }

    // With a strict desk a receipt that control's key did not sign for this very command lets nothing happen.
    let (set, lines) = scene.machine.command(&["settings", "set", "strict_audit", "on"]).await?;
    ensure!(set, "{lines:?}");
    for token in ["", "v4.public.made-up", &relay::control().sign(&audit_receipt(&decline, &shown)?)] {
        let mut accept = answer(&scene, &scene.phone, of(Decision::Accept)?, right);
        accept.command.audit_receipt = token.to_owned();
        scene.carry(&accept);
        scene.is_refused(PHONE_SESSION, &accept, ErrorCode::AuditUnavailable).await?;
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
