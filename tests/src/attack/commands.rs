//! Commands that are not what they say, and sessions that are not admitted.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as Event;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, BootId, MachineId};
use flydex_domain::time::UnixMillis;
use flydex_loadtest::device::Device;
use flydex_proto::v1::machine_message;
use uuid::Uuid;

use super::Attack;
use super::stand::{Client, Ground, Stand, attach, now, result, watch};
use super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "forged commands",
        tries: "a command that is not the device's word for now and here: bent, swapped, another's, too old, too early",
        stopped_by: &[
            "signature_invalid",
            "body_mismatch",
            "device_not_enrolled",
            "wrong_account",
            "wrong_machine",
            "command_expired",
            "command_not_yet_valid",
            "lifetime_too_long",
            "unknown",
            "wrong_boot",
            "bad_request",
        ],
        run: |ground, tally| Box::pin(forged(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "repeated commands",
        tries: "a command again, under its id another, and again from another session",
        stopped_by: &["the same receipt", "command_id_reused"],
        run: |ground, tally| Box::pin(repeated(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "sessions without admission",
        tries: "reads, effects and attaches of a device that is not enrolled, and of one that has not attached",
        stopped_by: &["device_not_enrolled", "not_admitted", "nothing is sent"],
        run: |ground, tally| Box::pin(unadmitted(ground, tally)),
        regions: 1,
    },
];

/// Longer ago, or further ahead, than any clock is let off.
const FAR_MILLIS: u64 = 30 * 60 * 1000;

/// A first device that is attached, and what it is attached to.
async fn attached(stand: &mut Stand) -> anyhow::Result<Client> {
    let device = std::mem::take(&mut stand.device);
    let mut client = stand.client(&stand.relay.account, device).await?;
    client.attach().await?;
    Ok(client)
}

async fn forged(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let mut client = attached(&mut stand).await?;
    let forbidden = || stand.start_thread("must not begin");
    let start = CommandKind::StartThread;

    let (header, mut command) = client.sign(start, forbidden(), |_| {});
    let mut signature = command.signature.to_vec();
    signature[5] ^= 1;
    command.signature = signature.into();
    client.is_turned_away(&(header.clone(), command.clone()), ErrorCode::SignatureInvalid).await?;
    command.signature = Bytes::new();
    client.is_turned_away(&(header, command), ErrorCode::SignatureInvalid).await?;

    let (header, mut command) = client.sign(start, stand.start_thread("harmless"), |_| {});
    command.body = flydex_loadtest::device::body(forbidden());
    client.is_turned_away(&(header, command), ErrorCode::BodyMismatch).await?;

    // Signed by somebody else, in the device's name and in their own.
    let somebody = Device::new();
    let (header, command) = client.sign(start, forbidden(), |_| {});
    let forged = somebody.sign(&header, command.body.clone());
    client.is_turned_away(&(header, forged), ErrorCode::SignatureInvalid).await?;
    let (mut header, command) = client.sign(start, forbidden(), |_| {});
    header.device_id = somebody.device_id();
    let own = somebody.sign(&header, command.body);
    client.is_turned_away(&(header, own), ErrorCode::DeviceNotEnrolled).await?;

    let signed = client.sign(start, forbidden(), |it| it.account_id = AccountId::from_uuid(Uuid::new_v4()));
    client.is_turned_away(&signed, ErrorCode::WrongAccount).await?;
    let signed = client.sign(start, forbidden(), |it| it.machine_id = MachineId::from_uuid(Uuid::new_v4()));
    client.is_turned_away(&signed, ErrorCode::WrongMachine).await?;

    let past = UnixMillis(now().0 - FAR_MILLIS);
    let signed = client.sign(start, forbidden(), |it| it.issued_at = past);
    client.is_refused(&signed, ErrorCode::CommandExpired).await?;
    let ahead = UnixMillis(now().0 + FAR_MILLIS);
    let signed = client.sign(start, forbidden(), |it| it.issued_at = ahead);
    client.is_refused(&signed, ErrorCode::CommandNotYetValid).await?;
    let signed = client.sign(start, forbidden(), |it| it.lifetime = Duration::from_secs(601));
    client.is_refused(&signed, ErrorCode::LifetimeTooLong).await?;
    // An effect that was meant for another life may have been done in it: the machine does not say no.
    let signed = client.sign(start, forbidden(), |it| it.boot_id = BootId::from_bytes([9; 16]));
    assert_eq!(client.ask(&signed).await?.outcome, Outcome::Unknown);
    tally.stopped("unknown");
    let signed = client.sign(CommandKind::Attach, attach(), |it| it.boot_id = BootId::from_bytes([9; 16]));
    client.is_refused(&signed, ErrorCode::WrongBoot).await?;
    // The header says one thing, the body another.
    let signed = client.sign(CommandKind::Interrupt, forbidden(), |_| {});
    client.is_refused(&signed, ErrorCode::BadRequest).await?;

    let receipt = client.ask(&client.sign(start, stand.start_thread("may begin"), |_| {})).await?;
    assert_eq!(receipt.outcome, Outcome::Executed, "the device itself is heard as before");
    stand.model.request(|request| request.prompt.contains("may begin")).await?;
    assert_eq!(stand.effects("must not begin"), 0);
    Ok(())
}

async fn repeated(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let mut client = attached(&mut stand).await?;
    let begun = client.sign(CommandKind::StartThread, stand.start_thread("begin once"), |_| {});
    let first = client.ask(&begun).await?;
    assert_eq!(first.outcome, Outcome::Executed);
    let ResultKind::ThreadStarted(_) = result(&first)? else { anyhow::bail!("no thread") };
    for _ in 0..3 {
        ensure!(client.ask(&begun).await? == first, "a repeat got another receipt");
        tally.stopped("the same receipt");
    }
    let other = client.sign(CommandKind::StartThread, stand.start_thread("another word"), |header| {
        header.command_id = begun.0.command_id;
    });
    client.is_turned_away(&other, ErrorCode::CommandIdReused).await?;

    // From another session of the same device: the same receipt again.
    let Client { session, device, .. } = client;
    drop(session);
    let mut client = stand.client(&stand.relay.account, device).await?;
    client.attach().await?;
    ensure!(client.ask(&begun).await? == first, "a repeat over another session got another receipt");
    tally.stopped("the same receipt");

    let last = client.sign(CommandKind::StartThread, stand.start_thread("begin after"), |_| {});
    assert_eq!(client.ask(&last).await?.outcome, Outcome::Executed);
    for prompt in ["begin once", "begin after"] {
        stand.model.request(|request| request.prompt.contains(prompt)).await?;
    }
    assert_eq!((stand.effects("begin once"), stand.effects("another word")), (1, 0));
    Ok(())
}

/// A session got no content so far: nothing but the machine's status and what became of its own attempts.
async fn gets_nothing(client: &mut Client) -> anyhow::Result<()> {
    let is_content = |kind: &&machine_message::Kind| match kind {
        machine_message::Kind::Status(_)
        | machine_message::Kind::Progress(_)
        | machine_message::Kind::Failure(_)
        | machine_message::Kind::ProbeReply(_) => false,
        machine_message::Kind::Receipt(_)
        | machine_message::Kind::Verdict(_)
        | machine_message::Kind::Event(_)
        | machine_message::Kind::Chunk(_)
        | machine_message::Kind::StreamEnd(_) => true,
    };
    let content = client.received().await?.iter().filter(is_content).count();
    ensure!(content == 0, "{content} messages of content");
    client.tally.stopped("nothing is sent");
    Ok(())
}

async fn unadmitted(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let unpaired = stand.relay.another_browser().await?;
    let second = stand.second_device("second phone").await?;
    let mut client = attached(&mut stand).await?;
    let mut stranger = stand.client(&unpaired, Device::new()).await?;
    let mut silent = stand.client(&second.0, second.1).await?;

    let begin = client.sign(CommandKind::StartThread, stand.start_thread("[[gate go]] [[stream 20]]"), |_| {});
    let ResultKind::ThreadStarted(started) = result(&client.ask(&begin).await?)? else { anyhow::bail!("no thread") };
    let watching = client.sign(CommandKind::WatchThread, watch(&started.thread_id), |_| {});
    assert_eq!(client.ask(&watching).await?.outcome, Outcome::Executed);

    gets_nothing(&mut stranger).await.context("not enrolled")?;
    gets_nothing(&mut silent).await.context("not attached")?;
    are_turned_away(&stand, &mut stranger, &started.thread_id, ErrorCode::DeviceNotEnrolled).await?;
    let signed = stranger.sign(CommandKind::Attach, attach(), |_| {});
    stranger.is_turned_away(&signed, ErrorCode::DeviceNotEnrolled).await?;
    are_turned_away(&stand, &mut silent, &started.thread_id, ErrorCode::NotAdmitted).await?;
    // A read that was signed for another session, replayed here and signed for there.
    let bound_elsewhere = silent.sign(CommandKind::Attach, attach(), |header| {
        header.session_id = Some(client.session.session_id);
    });
    silent.is_turned_away(&bound_elsewhere, ErrorCode::NotAdmitted).await?;
    let unbound = silent.sign(CommandKind::Attach, attach(), |header| header.session_id = None);
    silent.is_turned_away(&unbound, ErrorCode::NotAdmitted).await?;

    stand.model.open("go");
    client.event(|event| matches!(event, Event::TurnEnded(_)).then_some(())).await?;
    gets_nothing(&mut stranger).await.context("not enrolled")?;
    gets_nothing(&mut silent).await.context("not attached")?;
    assert_eq!(stand.effects("from outside"), 0);

    // What the one lacked was nothing but to attach; the other never gets in.
    silent.attach().await?;
    let signed = stranger.sign(CommandKind::Attach, attach(), |_| {});
    stranger.is_turned_away(&signed, ErrorCode::DeviceNotEnrolled).await
}

/// Every way to ask for something, each turned away with the code.
async fn are_turned_away(stand: &Stand, client: &mut Client, thread_id: &str, code: ErrorCode) -> anyhow::Result<()> {
    let thread_id = thread_id.to_owned();
    let list = agent::ListThreads { cursor: String::new(), limit: 10, archived: false, search: String::new() };
    let read = agent::ReadThread { thread_id: thread_id.clone(), cursor: String::new(), max_bytes: 1024 };
    for (kind, content) in [
        (CommandKind::ListThreads, Body::ListThreads(list)),
        (CommandKind::ReadThread, Body::ReadThread(read)),
        (CommandKind::WatchThread, watch(&thread_id)),
        (CommandKind::ArchiveThread, Body::ArchiveThread(agent::ArchiveThread { thread_id })),
        (CommandKind::StartThread, stand.start_thread("from outside")),
    ] {
        let signed = client.sign(kind, content, |_| {});
        client.is_turned_away(&signed, code).await.context(kind.name())?;
    }
    Ok(())
}
