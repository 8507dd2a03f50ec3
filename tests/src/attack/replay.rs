//! What was said once is said again: by others, elsewhere and later. It was right when it was said, so that nothing but
//! its place and its time can stop it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as Event;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{CommandKind, Outcome, Receipt};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::CommandId;
use flydex_loadtest::hello::hello;
use flydex_proto::codec::{Lane, decode_body, split_message};
use flydex_proto::v1::{self, device_message, session_down, session_up};
use prost::Message as _;

use super::Attack;
use super::approvals::{accept, answer, asked, digest_of};
use super::stand::{Client, Ground, Relay, Stand};
use super::tally::Tally;
use crate::codex::CodexHome;

/// What a repeat of an effect is stopped by: it is answered, and not done.
const SAME_RECEIPT: &str = "the same receipt";

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "replayed frames",
        tries: "every frame of a device again: alone, in its other session, by another device, at another machine, by \
                another account, after the connector and after Codex began another life",
        stopped_by: &[
            "proof_invalid",
            "unexpected_frame",
            SAME_RECEIPT,
            "not_admitted",
            "device_not_enrolled",
            "wrong_machine",
            "wrong_account",
            "not_found",
        ],
        run: |ground, tally| Box::pin(replayed(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "accepts held back",
        tries: "an accept that the relay holds back until Codex has begun another life",
        stopped_by: &["generation_mismatch"],
        run: |ground, tally| Box::pin(held_back(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "replays in another region",
        tries: "a ticket, a grant and every command of one region in another",
        stopped_by: &["ticket_wrong_region", "machine_offline", "not_admitted"],
        run: |ground, tally| Box::pin(elsewhere(ground, tally)),
        regions: 2,
    },
];

/// What a device said, and what it was answered.
struct Recording {
    frames: Vec<Bytes>,
    receipts: BTreeMap<CommandId, Receipt>,
}

/// A command of a recording.
struct Said {
    command_id: CommandId,
    kind: CommandKind,
    wire: v1::Command,
}

impl Recording {
    /// The commands in their order.
    fn commands(&self) -> anyhow::Result<Vec<Said>> {
        let mut commands = Vec::new();
        for frame in &self.frames {
            let session_up::Kind::ToMachine(to) = up(frame)? else { continue };
            let Some(device_message::Kind::Command(wire)) = to.message.and_then(|message| message.kind) else {
                continue;
            };
            let header = v1::CommandHeader::decode(wire.header.clone())?;
            let header = flydex_domain::command::CommandHeader::try_from(header)?;
            commands.push(Said { command_id: header.command_id, kind: header.kind, wire });
        }
        Ok(commands)
    }
}

fn up(frame: &Bytes) -> anyhow::Result<session_up::Kind> {
    let (_, body) = split_message(frame.clone())?;
    decode_body::<v1::SessionUp>(body)?.kind.context("an empty message")
}

/// A whole conversation: admitted, read, begun, approved, renamed.
async fn conversation(client: &mut Client, stand: &Stand, prompt: &str) -> anyhow::Result<Recording> {
    let mut receipts = BTreeMap::new();
    let mut keep = |receipt: Receipt| {
        ensure!(receipt.outcome == Outcome::Executed, "{:?}", receipt.outcome);
        receipts.insert(receipt.command_id, receipt.clone());
        Ok(receipt)
    };
    keep(client.attach().await?)?;
    let list = agent::ListThreads { cursor: String::new(), limit: 10, archived: false, search: String::new() };
    let signed = client.sign(CommandKind::ListThreads, Body::ListThreads(list), |_| {});
    keep(client.ask(&signed).await?)?;
    let signed = client.sign(CommandKind::StartThread, stand.start_thread(prompt), |_| {});
    keep(client.ask(&signed).await?)?;
    let shown = asked(client).await?;
    let signed = answer(client, accept(&shown)?, digest_of(&shown)?);
    keep(client.ask(&signed).await?)?;
    let name = agent::RenameThread { thread_id: shown.thread_id, name: "said once".to_owned() };
    let signed = client.sign(CommandKind::RenameThread, Body::RenameThread(name), |_| {});
    keep(client.ask(&signed).await?)?;
    Ok(Recording { frames: client.session.sent().to_vec(), receipts })
}

async fn replayed(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("ran");
    let prompt = format!("[[esc echo ran >> {}]] [[say over]] said once", file.display());
    let second = stand.second_device("second phone").await?;
    let other_account = stand.relay.another_account().await?;
    let of_account = stand.another_machine(&stand.relay.account).await?;
    let of_other = stand.another_machine(&other_account).await?;

    let device = std::mem::take(&mut stand.device);
    let mut first = stand.client(&stand.relay.account, device).await?;
    let recording = conversation(&mut first, &stand, &prompt).await?;
    stand.model.request(|request| !request.outputs.is_empty()).await?;
    let before = stand.effects("said once");

    alone(&stand.relay, &recording).await.context("alone")?;
    let Client { session, device, .. } = first;
    drop(session);
    let mut again = stand.client(&stand.relay.account, device).await?;
    again.attach().await?;
    to_its_machine(&mut again, &recording).await.context("in another session")?;
    let mut second = stand.client(&second.0, second.1).await?;
    second.attach().await?;
    is_turned_away(&mut second, &recording, ErrorCode::DeviceNotEnrolled).await.context("by another device")?;

    let session = stand.relay.session(&stand.relay.account, &of_account.device).await?;
    let mut elsewhere = stand.client_of(session, &of_account.paired, of_account.device).await?;
    elsewhere.attach().await?;
    is_turned_away(&mut elsewhere, &recording, ErrorCode::WrongMachine).await.context("at another machine")?;
    let session = stand.relay.session(&other_account, &of_other.device).await?;
    let mut stranger = stand.client_of(session, &of_other.paired, of_other.device).await?;
    stranger.attach().await?;
    is_turned_away(&mut stranger, &recording, ErrorCode::WrongAccount).await.context("by another account")?;
    is_not_found(&mut stranger, &recording).await.context("by another account, as it was said")?;

    let Client { session, device, .. } = again;
    drop(session);
    tokio::try_join!(of_account.connector.stop(), of_other.connector.stop())?;
    let again = in_later_lives(&mut stand, device, &recording).await?;
    drop(again);
    ensure!(stand.effects("said once") == before, "a prompt came again");
    ensure!(std::fs::read_to_string(&file)? == "ran\n", "a command ran again");
    Ok(())
}

/// The connector is started anew, and then Codex is; each time the device's own words come again.
async fn in_later_lives(
    stand: &mut Stand,
    device: flydex_loadtest::device::Device,
    recording: &Recording,
) -> anyhow::Result<Client> {
    stand.connector.take().context("a connector")?.stop().await?;
    stand.connector = Some(stand.machine.run()?);
    let mut again = stand.client(&stand.relay.account, device).await?;
    again.attach().await?;
    to_its_machine(&mut again, recording).await.context("in another life of the connector")?;
    restart_codex(stand, &mut again).await?;
    to_its_machine(&mut again, recording).await.context("in another life of Codex")?;
    let signed = again.sign(CommandKind::StartThread, stand.start_thread("said anew"), |_| {});
    ensure!(again.ask(&signed).await?.outcome == Outcome::Executed, "the device itself is heard as before");
    stand.model.request(|request| request.prompt.contains("said anew")).await?;
    Ok(again)
}

/// Every frame on a socket that said nothing else; hello and proof as the two belong together.
async fn alone(relay: &Relay, recording: &Recording) -> anyhow::Result<()> {
    let mut hello = None;
    for frame in &recording.frames {
        let mut session = relay.socket().await?;
        let code = match up(frame)? {
            session_up::Kind::Hello(_) => {
                hello = Some(frame.clone());
                continue;
            }
            session_up::Kind::Proof(_) => {
                session.send_raw(hello.clone().context("a hello")?).await?;
                let session_down::Kind::Challenge(_) = session.next().await? else { bail!("no challenge") };
                ErrorCode::ProofInvalid
            }
            session_up::Kind::Open(_)
            | session_up::Kind::Close(_)
            | session_up::Kind::ToMachine(_)
            | session_up::Kind::Ping(_) => ErrorCode::UnexpectedFrame,
        };
        session.send_raw(frame.clone()).await?;
        relay.tally.is_about(&session.next().await.err().context("it was taken")?, code)?;
    }
    Ok(())
}

/// Its own device says it again to its machine, and is answered what it was answered, or that reads end with their
/// session.
async fn to_its_machine(client: &mut Client, recording: &Recording) -> anyhow::Result<()> {
    for said in recording.commands()? {
        client.session.send_command(&client.opened, said.wire).await?;
        let told = client.session.receipt(&client.opened, said.command_id).await;
        match recording.receipts.get(&said.command_id).filter(|_| acts(said.kind)) {
            Some(receipt) => {
                let (told, _) = told.with_context(|| said.kind.name())?;
                ensure!(told.outcome == receipt.outcome, "{}: {:?}", said.kind.name(), told.outcome);
                ensure!(told.command_hash == receipt.command_hash, "{}: of other bytes", said.kind.name());
                client.tally.stopped(SAME_RECEIPT);
            }
            None => client.tally.is_about(&told.err().context(said.kind.name())?, ErrorCode::NotAdmitted)?,
        }
    }
    Ok(())
}

fn acts(kind: CommandKind) -> bool {
    kind.class() == flydex_domain::command::CommandClass::Effect
}

/// Said in a session of somebody else to the machine that is open there.
async fn is_turned_away(client: &mut Client, recording: &Recording, code: ErrorCode) -> anyhow::Result<()> {
    for said in recording.commands()? {
        is_turned_away_too(client, said, code).await?;
    }
    Ok(())
}

async fn is_turned_away_too(client: &mut Client, said: Said, code: ErrorCode) -> anyhow::Result<()> {
    client.session.send_command(&client.opened, said.wire).await?;
    let told = client.session.receipt(&client.opened, said.command_id).await;
    client.tally.is_about(&told.err().context(said.kind.name())?, code).context(said.kind.name())
}

/// Said as it was, in a session for which that machine is not there.
async fn is_not_found(client: &mut Client, recording: &Recording) -> anyhow::Result<()> {
    for frame in &recording.frames {
        let session_up::Kind::ToMachine(_) = up(frame)? else { continue };
        client.session.send_raw(frame.clone()).await?;
        let closed = loop {
            if let session_down::Kind::MachineClosed(closed) = client.session.next().await? {
                break closed;
            }
        };
        ensure!(closed.code == u32::from(ErrorCode::NotFound.number()), "closed with {}", closed.code);
        client.tally.stopped(ErrorCode::NotFound.name());
    }
    Ok(())
}

/// Codex dies and begins another life; the connector has found it when this returns.
async fn restart_codex(stand: &mut Stand, client: &mut Client) -> anyhow::Result<()> {
    let connector = stand.connector.as_ref().context("a connector")?;
    connector.process().must_log("codex is not available", "it was killed");
    stand.daemon.take().context("a daemon")?.kill().await?;
    stand.daemon = Some(stand.codex.start_daemon().await?);
    let list = || agent::ListThreads { cursor: String::new(), limit: 1, archived: false, search: String::new() };
    loop {
        let signed = client.sign(CommandKind::ListThreads, Body::ListThreads(list()), |_| {});
        match client.ask(&signed).await?.outcome {
            Outcome::Executed => return Ok(()),
            Outcome::Refused(_) | Outcome::Unknown => tokio::task::yield_now().await,
        }
    }
}

async fn held_back(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("ran");
    let device = std::mem::take(&mut stand.device);
    let mut client = stand.client(&stand.relay.account, device).await?;
    client.attach().await?;
    let prompt = format!("[[esc echo ran >> {}]] [[say over]]", file.display());
    let signed = client.sign(CommandKind::StartThread, stand.start_thread(&prompt), |_| {});
    ensure!(client.ask(&signed).await?.outcome == Outcome::Executed, "not begun");
    let shown = asked(&mut client).await?;
    let held = answer(&client, accept(&shown)?, digest_of(&shown)?);
    restart_codex(&mut stand, &mut client).await?;
    client.is_refused(&held, ErrorCode::GenerationMismatch).await?;
    ensure!(!file.exists(), "it ran in another life");

    let signed = client.sign(CommandKind::StartThread, stand.start_thread(&prompt), |_| {});
    ensure!(client.ask(&signed).await?.outcome == Outcome::Executed, "not begun anew");
    let shown = asked(&mut client).await?;
    let signed = answer(&client, accept(&shown)?, digest_of(&shown)?);
    ensure!(client.ask(&signed).await?.outcome == Outcome::Executed, "a right answer is taken");
    client.event(|event| matches!(event, Event::ApprovalClosed(_)).then_some(())).await
}

async fn elsewhere(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("ran");
    let prompt = format!("[[esc echo ran >> {}]] [[say over]] said once", file.display());
    let device = std::mem::take(&mut stand.device);
    let mut client = stand.client(&stand.relay.account, device).await?;
    let recording = conversation(&mut client, &stand, &prompt).await?;
    stand.model.request(|request| !request.outputs.is_empty()).await?;
    let before = stand.effects("said once");
    let Client { session, opened, device, .. } = client;
    drop(session);
    let (account, regions) = (&stand.relay.account, stand.relay.regions());
    // Where the machine is not: its link is in one of the two.
    let [near, far] = regions.as_slice() else { bail!("not two regions") };
    let (ticket, grant) = account.ticket(&device, near).await?;
    let mut session = stand.relay.socket_in(1, account.origin()).await?;
    session.send(Lane::Control, session_up::Kind::Hello(hello(&ticket, &grant, &device))).await?;
    tally.is_about(&session.next().await.err().context("a ticket of another region")?, ErrorCode::TicketWrongRegion)?;

    let (ticket, grant) = account.ticket(&device, far).await?;
    let mut session = stand.relay.socket_in(1, account.origin()).await?;
    session.enter(&ticket, &grant, &device, account.origin()).await?;
    let machine_id = Bytes::copy_from_slice(stand.paired.machine_id.as_bytes());
    session.send(Lane::Control, session_up::Kind::Open(v1::OpenMachine { machine_id })).await?;
    let mut client = Client { session, opened, device, tally };
    for said in recording.commands()? {
        // Reads end with their session, wherever the machine is.
        let code = if acts(said.kind) { ErrorCode::MachineOffline } else { ErrorCode::NotAdmitted };
        is_turned_away_too(&mut client, said, code).await?;
    }
    ensure!(stand.effects("said once") == before, "a prompt came again");
    ensure!(std::fs::read_to_string(&file)? == "ran\n", "a command ran again");
    Ok(())
}
