//! The first frames of a session: nobody gets past them with less than a fresh ticket and its key.

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use flydex_domain::command::CommandKind;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{BootId, MachineId};
use flydex_loadtest::account::{PairedMachine, key_json};
use flydex_loadtest::device::Device;
use flydex_loadtest::hello::{hello, proof};
use flydex_loadtest::session::{Opened, Session};
use flydex_proto::codec::{Lane, VERSION, encode_message};
use flydex_proto::v1::{self, machine_message, session_down, session_up};
use reqwest::Method;
use serde_json::json;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::Attack;
use super::stand::{Client, Ground, REGION, Relay, api_code, attach};
use super::tally::Tally;
use crate::wait;

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "stolen tickets",
        tries: "a ticket without its key, twice, bent, of another relay; a grant of another device; a page elsewhere",
        stopped_by: &["proof_invalid", "ticket_used", "ticket_invalid", "grant_invalid", "not_found", "origin refused"],
        run: |ground, tally| Box::pin(stolen_tickets(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "first frames that are none",
        tries: "nothing, halves, other lanes, too much, other messages and other versions in place of a hello",
        stopped_by: &["frame_truncated", "frame_too_large", "unexpected_frame", "unsupported_version"],
        run: |ground, tally| Box::pin(no_hello(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "later frames that are none",
        tries: "cut, too large, on no lane, and a second hello in an open session",
        stopped_by: &["frame_truncated", "frame_too_large", "unexpected_frame"],
        run: |ground, tally| Box::pin(no_frame(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "machines of nobody",
        tries: "a machine that is not the account's: asked, opened and commanded",
        stopped_by: &["not_found", "machine_offline"],
        run: |ground, tally| Box::pin(nobodys_machine(ground, tally)),
        regions: 1,
    },
];

/// Says hello and signs the challenge with `signer`; the error of whatever refuses it.
async fn say(relay: &Relay, hello: v1::SessionHello, signer: &Device) -> anyhow::Result<()> {
    let mut session = relay.socket().await?;
    let ticket = hello.ticket.clone();
    session.send(Lane::Control, session_up::Kind::Hello(hello)).await?;
    let session_down::Kind::Challenge(challenge) = session.next().await? else { anyhow::bail!("no challenge") };
    session.send(Lane::Control, proof(&challenge, &ticket, relay.server.origin(), signer)?).await?;
    let session_down::Kind::Welcome(_) = session.next().await? else { anyhow::bail!("no welcome") };
    Ok(())
}

async fn is_not_welcome(
    relay: &Relay,
    hello: v1::SessionHello,
    signer: &Device,
    code: ErrorCode,
) -> anyhow::Result<()> {
    relay.tally.is_about(&say(relay, hello, signer).await.err().context(code.name())?, code)
}

async fn stolen_tickets(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let (relay, elsewhere) = tokio::try_join!(Relay::on(&ground, &tally), Relay::start())?;
    let region = relay.regions().swap_remove(0);
    let (device, other) = (Device::new(), Device::new());
    let (ticket, grant) = relay.account.ticket(&device, &relay.regions()[0]).await?;

    let copied = hello(&ticket, &grant, &device);
    is_not_welcome(&relay, copied.clone(), &other, ErrorCode::ProofInvalid).await?;
    // Whoever has no key has not used the ticket up.
    say(&relay, copied.clone(), &device).await?;
    is_not_welcome(&relay, copied, &device, ErrorCode::TicketUsed).await?;

    let (ticket, grant) = relay.account.ticket(&device, &relay.regions()[0]).await?;
    let (_, other_grant) = relay.account.ticket(&other, &region).await?;
    let (foreign_ticket, foreign_grant) = elsewhere.account.ticket(&device, REGION).await?;
    let mut bent = ticket.clone();
    bent.insert(ticket.len() / 2, 'A');
    for (ticket, grant, key, code) in [
        ("", grant.as_str(), &device, ErrorCode::TicketInvalid),
        ("garbage", &grant, &device, ErrorCode::TicketInvalid),
        (&bent, &grant, &device, ErrorCode::TicketInvalid),
        (&grant, &grant, &device, ErrorCode::TicketInvalid),
        (&foreign_ticket, &foreign_grant, &device, ErrorCode::TicketInvalid),
        (&ticket, &grant, &other, ErrorCode::TicketInvalid),
        (&ticket, "", &device, ErrorCode::GrantInvalid),
        (&ticket, &ticket, &device, ErrorCode::GrantInvalid),
        (&ticket, &other_grant, &device, ErrorCode::GrantInvalid),
        (&ticket, &foreign_grant, &device, ErrorCode::GrantInvalid),
    ] {
        is_not_welcome(&relay, hello(ticket, grant, key), key, code).await?;
    }

    let body = json!({ "device_key": key_json(&device.public_key()), "region": "elsewhere" });
    let (_, refused) = relay.account.call(Method::POST, "/api/tickets", Some(body)).await?;
    tally.stopped(api_code(&refused));
    assert_eq!(api_code(&refused), "not_found", "no ticket is made for a region that is not there");
    relay.socket_in(0, "https://elsewhere.example").await.err().context("another origin")?;
    tally.stopped("origin refused");
    say(&relay, hello(&ticket, &grant, &device), &device).await
}

async fn no_hello(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let device = Device::new();
    let (ticket, grant) = relay.account.ticket(&device, &relay.regions()[0]).await?;
    let right = hello(&ticket, &grant, &device);
    let future = v1::SessionHello { version: VERSION + 1, version_min: VERSION + 1, ..right.clone() };
    let past = v1::SessionHello { version: 0, version_min: 0, ..right.clone() };
    let whole = encode_message(Lane::Control, &up(session_up::Kind::Hello(right.clone())))?;
    let machine_id = Bytes::from_static(&[1; 16]);
    let unknown_lane = {
        let mut frame = BytesMut::from(&whole[..]);
        frame[0] = 9;
        frame.freeze()
    };
    for (what, frame, code) in [
        ("no byte at all", Bytes::new(), ErrorCode::FrameTruncated),
        ("half of a hello", whole.slice(..whole.len() / 2), ErrorCode::FrameTruncated),
        ("not protobuf", Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]), ErrorCode::FrameTruncated),
        ("a lane that is none", unknown_lane, ErrorCode::UnexpectedFrame),
        ("over the lane's limit", filled(Lane::Control.body_bytes_max() + 1), ErrorCode::FrameTooLarge),
        ("over every limit", filled(4 * Lane::Commands.body_bytes_max()), ErrorCode::FrameTooLarge),
        ("an empty message", Bytes::from_static(&[0]), ErrorCode::UnexpectedFrame),
        ("an open first", encode(session_up::Kind::Open(v1::OpenMachine { machine_id }))?, ErrorCode::UnexpectedFrame),
        ("only versions to come", encode(session_up::Kind::Hello(future))?, ErrorCode::UnsupportedVersion),
        ("only versions gone", encode(session_up::Kind::Hello(past))?, ErrorCode::UnsupportedVersion),
    ] {
        let mut session = relay.socket().await?;
        session.send_raw(frame).await.context(what)?;
        tally.is_about(&session.next().await.err().context(what)?, code).context(what)?;
    }
    let mut session = relay.socket().await?;
    session.send_text("hello").await?;
    tally.is_about(&session.next().await.err().context("text")?, ErrorCode::UnexpectedFrame)?;

    // A newer client that still speaks this version is welcome; so is everyone after those attacks.
    say(&relay, v1::SessionHello { version: VERSION + 9, ..right }, &device).await
}

async fn no_frame(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let device = Device::new();
    let (ticket, grant) = relay.account.ticket(&device, &relay.regions()[0]).await?;
    let again = encode(session_up::Kind::Hello(hello(&ticket, &grant, &device)))?;
    for (what, frame, code) in [
        ("cut", Bytes::from_static(&[0, 0x0a, 0x20, 1]), ErrorCode::FrameTruncated),
        ("too large", filled(Lane::Control.body_bytes_max() + 1), ErrorCode::FrameTooLarge),
        ("no lane", Bytes::from_static(&[200]), ErrorCode::UnexpectedFrame),
        ("a second hello", again, ErrorCode::UnexpectedFrame),
    ] {
        let mut session = relay.session(&relay.account, &device).await?;
        session.send_raw(frame).await?;
        tally.is_about(&session.next().await.err().context(what)?, code).context(what)?;
    }
    Ok(())
}

/// With one account there is no foreign machine; the relay looks under the account of the ticket and nowhere else,
/// so a machine that another account has and one that nobody has are the same question.
async fn nobodys_machine(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let device = Device::new();
    let mut session = relay.session(&relay.account, &device).await?;
    let machine_id = MachineId::from_uuid(Uuid::new_v4());
    let account_id = relay.account.account_id;
    let machine = PairedMachine { account_id, machine_id, machine_key: Device::new().public_key() };
    let opened = Opened { machine, boot_id: BootId::from_bytes([9; 16]) };

    let unopened = v1::device_message::Kind::Probe(v1::Probe { nonce: 1 });
    let wire_id = Bytes::copy_from_slice(machine_id.as_bytes());
    let message = Some(v1::DeviceMessage { trace: None, kind: Some(unopened) });
    let to = v1::ToMachine { machine_id: wire_id.clone(), message };
    session.send(Lane::Control, session_up::Kind::ToMachine(to)).await?;
    let session_down::Kind::MachineClosed(closed) = session.next().await? else { anyhow::bail!("not closed") };
    assert_eq!(closed.code, u32::from(ErrorCode::NotFound.number()));
    tally.stopped(ErrorCode::NotFound.name());

    ensure!(opening(&mut session, machine_id).await? == ErrorCode::MachineOffline, "not offline");
    let mut client = Client { session, opened, device, tally };
    let signed = client.sign(CommandKind::Attach, attach(), |_| {});
    client.is_turned_away(&signed, ErrorCode::MachineOffline).await
}

/// What opening a machine is answered that is not there for the session's account. While a directory is so young that it
/// does not know whose machines are, the answer is to ask again.
pub(super) async fn opening(session: &mut Session, machine_id: MachineId) -> anyhow::Result<ErrorCode> {
    let session = Mutex::new(session);
    wait::until("a machine's owner to be settled", async || {
        let mut session = session.lock().await;
        match opening_once(&mut session, machine_id).await {
            Ok(ErrorCode::Moving | ErrorCode::RateLimited) => None,
            answer => Some(answer),
        }
    })
    .await?
}

async fn opening_once(session: &mut Session, machine_id: MachineId) -> anyhow::Result<ErrorCode> {
    let machine_id = Bytes::copy_from_slice(machine_id.as_bytes());
    session.send(Lane::Control, session_up::Kind::Open(v1::OpenMachine { machine_id })).await?;
    let kind = session.next().await?;
    if let session_down::Kind::MachineClosed(closed) = &kind {
        return ErrorCode::from_number(closed.code).context("an unknown code");
    }
    let session_down::Kind::FromMachine(from) = kind else { anyhow::bail!("neither a status nor an end") };
    let Some(machine_message::Kind::Status(status)) = from.message.and_then(|message| message.kind) else {
        anyhow::bail!("no status")
    };
    ensure!(status.state == i32::from(v1::MachineState::Offline) && status.boot_id.is_empty(), "not offline");
    Ok(ErrorCode::MachineOffline)
}

fn up(kind: session_up::Kind) -> v1::SessionUp {
    v1::SessionUp { kind: Some(kind) }
}

fn encode(kind: session_up::Kind) -> anyhow::Result<Bytes> {
    Ok(encode_message(Lane::Control, &up(kind))?)
}

/// A frame of the control lane with a body of that many bytes.
fn filled(bytes: usize) -> Bytes {
    let mut frame = BytesMut::with_capacity(bytes + 1);
    frame.put_u8(Lane::Control.byte());
    frame.put_bytes(b'a', bytes);
    frame.freeze()
}
