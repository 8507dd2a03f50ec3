//! One table of every message of a WebSocket and of a link, down to the last choice in it, and what is answered to whom.
//! A message, a kind of command or a choice without a row fails, as does a row without a message.

#![expect(clippy::wildcard_enum_match_arm, reason = "one caller or answer is told from all others")]

use std::collections::BTreeSet;

use anyhow::Context as _;
use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::scope::Role;
use flydex_proto::codec::Lane;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::link_down::Kind as LinkDownKind;
use flydex_proto::v1::link_up::Kind as LinkUpKind;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::session_down::Kind as Down;
use flydex_proto::v1::session_up::Kind as Up;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};

use crate::chance::Chance;
use crate::connector::Connector;
use crate::known::Known;
use crate::schema::{Schema, Variant};
use crate::session::{self, Ended, Session, is_sign};
use crate::stand::{HOST, Stand};
use crate::tenant::{Tenant, copy};
use crate::wire::{Incoming, Wire};

/// Who says it. Devices of the account are its viewer, operator and owner; `OtherAccount` has a device and a connector of
/// its own; `WrongMachine` is a connector of the same account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Anonymous,
    OtherAccount,
    Viewer,
    Operator,
    Owner,
    WrongMachine,
    Connector,
}

const CALLERS: [Caller; 7] = [
    Caller::Anonymous,
    Caller::OtherAccount,
    Caller::Viewer,
    Caller::Operator,
    Caller::Owner,
    Caller::WrongMachine,
    Caller::Connector,
];

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The connection ends with that code.
    Ends(ErrorCode),
    /// The machine does not take it, with that code.
    Fails(ErrorCode),
    /// The other side of the relay gets it.
    Passes,
    /// The gateway answers it itself.
    Answers,
    /// The machine's status comes, and says that it is not there.
    Offline,
    /// The machine's status comes, and says that it is there.
    Online,
    /// Nothing: neither side hears of it.
    Silent,
}

const PASS: Expect = Expect::Passes;
const DONE: Expect = Expect::Answers;
const NONE: Expect = Expect::Silent;
/// Before the hello, or a second hello.
const TURN: Expect = Expect::Ends(ErrorCode::UnexpectedFrame);
/// A machine of another account is as one that is not there.
const GONE: Expect = Expect::Fails(ErrorCode::MachineOffline);
/// A role that is too low.
const ROLE: Expect = Expect::Fails(ErrorCode::Forbidden);
const TICKET: Expect = Expect::Ends(ErrorCode::TicketInvalid);
const CREDENTIAL: Expect = Expect::Ends(ErrorCode::CredentialInvalid);
/// Nothing that a connector says to a session.
const BAD: Expect = Expect::Ends(ErrorCode::BadRequest);
const ON: Expect = Expect::Online;
const OFF: Expect = Expect::Offline;

type Row = (&'static str, [Expect; 7]);

/// Frames of a device.
#[rustfmt::skip]
const SESSION: &[Row] = &[
    //                                                              anonymous other viewer operator owner wrong connector
    ("hello",                                                      [TICKET, DONE, DONE, DONE, DONE, TICKET, TICKET]),
    ("proof",                                                      [TURN,   TURN, TURN, TURN, TURN, TURN,   TURN]),
    ("open",                                                       [TURN,   OFF,  ON,   ON,   ON,   TURN,   TURN]),
    ("close",                                                      [TURN,   NONE, NONE, NONE, NONE, TURN,   TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_ATTACH",          [TURN, GONE, PASS, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_LIST_THREADS",    [TURN, GONE, PASS, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_READ_THREAD",     [TURN, GONE, PASS, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_LIST_MODELS",     [TURN, GONE, PASS, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_WATCH_THREAD",    [TURN, GONE, PASS, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_UNWATCH_THREAD",  [TURN, GONE, PASS, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_LIST_DEVICES",    [TURN, GONE, PASS, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_START_THREAD",    [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_START_TURN",      [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_STEER",           [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_INTERRUPT",       [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_RENAME_THREAD",   [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_ARCHIVE_THREAD",  [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_UNARCHIVE_THREAD", [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_REVIEW",          [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_ANSWER_APPROVAL", [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_ANSWER_QUESTION", [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_ENDORSE_DEVICE",  [TURN, GONE, ROLE, ROLE, PASS, TURN, TURN]),
    ("to_machine.message.command.header.COMMAND_KIND_PIN_PASSKEY",     [TURN, GONE, ROLE, PASS, PASS, TURN, TURN]),
    ("to_machine.message.event_credit",                            [TURN,   NONE, NONE, NONE, NONE, TURN,   TURN]),
    ("to_machine.message.bulk_credit",                             [TURN,   NONE, PASS, PASS, PASS, TURN,   TURN]),
    ("to_machine.message.probe",                                   [TURN,   GONE, PASS, PASS, PASS, TURN,   TURN]),
    ("ping",                                                       [TURN,   DONE, DONE, DONE, DONE, TURN,   TURN]),
];

/// Frames of a connector; those for a session name one of the account, with the machine open and watched.
#[rustfmt::skip]
const LINK: &[Row] = &[
    //                                                  anonymous   other viewer      operator    owner       wrong connector
    ("hello",                                          [CREDENTIAL, DONE, CREDENTIAL, CREDENTIAL, CREDENTIAL, DONE, DONE]),
    ("proof",                                          [TURN,       TURN, TURN,       TURN,       TURN,       TURN, TURN]),
    ("ping",                                           [TURN,       DONE, TURN,       TURN,       TURN,       DONE, DONE]),
    ("pong",                                           [TURN,       NONE, TURN,       TURN,       TURN,       NONE, NONE]),
    ("frame.attached",                                 [TURN,       NONE, TURN,       TURN,       TURN,       NONE, NONE]),
    ("frame.stale",                                    [TURN,       NONE, TURN,       TURN,       TURN,       NONE, NONE]),
    ("frame.report",                                   [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.to_session.message.status",                [TURN,       BAD,  TURN,       TURN,       TURN,       BAD,  BAD]),
    ("frame.to_session.message.progress",              [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.to_session.message.receipt",               [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.to_session.message.verdict.resumed_from",  [TURN,       NONE, TURN,       TURN,       TURN,       NONE, NONE]),
    ("frame.to_session.message.verdict.gap_as_of",     [TURN,       NONE, TURN,       TURN,       TURN,       NONE, NONE]),
    ("frame.to_session.message.event",                 [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.to_session.message.chunk",                 [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.to_session.message.probe_reply",           [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.to_session.message.failure",               [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.to_session.message.stream_end",            [TURN,       NONE, TURN,       TURN,       TURN,       NONE, NONE]),
    ("frame.subscribed.verdict.resumed_from",          [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.subscribed.verdict.gap_as_of",             [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.unsubscribed",                             [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.shared_event",                             [TURN,       NONE, TURN,       TURN,       TURN,       NONE, PASS]),
    ("frame.device_removed",                           [TURN,       NONE, TURN,       TURN,       TURN,       NONE, NONE]),
];

#[test]
fn every_message_of_a_socket_or_link_has_a_row_and_every_row_a_message() -> anyhow::Result<()> {
    let schema = Schema::load()?;
    for (root, rows) in [("SessionUp", SESSION), ("LinkUp", LINK)] {
        let described: BTreeSet<String> = schema.variants(root)?.iter().map(|variant| variant.0.join(".")).collect();
        let listed: BTreeSet<String> = rows.iter().map(|(row, _)| (*row).to_owned()).collect();
        assert_eq!(described, listed, "{root}");
        assert_eq!(listed.len(), rows.len(), "{root}: a row stands twice");
    }
    Ok(())
}

#[tokio::test]
async fn every_frame_of_a_device_is_answered_as_the_table_says() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut cast = Cast::assemble().await?;
    for (row, expected) in SESSION {
        for (caller, expected) in CALLERS.into_iter().zip(expected) {
            let seen = cast.device_says(row, caller).await.with_context(|| format!("{row} of {caller:?}"))?;
            if seen != *expected {
                wrong.push(format!("{row} of {caller:?}: expected {expected:?}, got {seen:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn every_frame_of_a_connector_is_answered_as_the_table_says() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut cast = Cast::assemble().await?;
    for (row, expected) in LINK {
        for (caller, expected) in CALLERS.into_iter().zip(expected) {
            let seen = cast.connector_says(row, caller).await.with_context(|| format!("{row} of {caller:?}"))?;
            if seen != *expected {
                wrong.push(format!("{row} of {caller:?}: expected {expected:?}, got {seen:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Everyone who speaks, at one relay.
struct Cast {
    schema: Schema,
    stand: Stand,
    chance: Chance,
    /// The account that every row is about.
    tenant: Tenant,
    stranger: Tenant,
    neighbour: Tenant,
    connector: Connector,
    strange_connector: Connector,
    wrong_connector: Connector,
    links: u64,
}

impl Cast {
    async fn assemble() -> anyhow::Result<Self> {
        let (stand, mut chance) = (Stand::start().await?, Chance::new(4));
        let (tenant, stranger) = (Tenant::new(&mut chance, 1_000), Tenant::new(&mut chance, 2_000));
        let neighbour = tenant.neighbour(&mut chance);
        let connector = Connector::attach(&stand, &tenant, 1).await?;
        let strange_connector = Connector::attach(&stand, &stranger, 1).await?;
        let wrong_connector = Connector::attach(&stand, &neighbour, 1).await?;
        let schema = Schema::load()?;
        Ok(Self {
            schema,
            stand,
            chance,
            tenant,
            stranger,
            neighbour,
            connector,
            strange_connector,
            wrong_connector,
            links: 1,
        })
    }

    fn sample(&self, root: &str, row: &str, known: &Known) -> anyhow::Result<DynamicMessage> {
        let variant = Variant(row.split('.').map(str::to_owned).collect());
        self.schema.sample(root, &variant, known)
    }

    // === Devices ===

    async fn device_says(&mut self, row: &str, caller: Caller) -> anyhow::Result<Expect> {
        let (who, role) = match caller {
            Caller::OtherAccount => (self.stranger.clone(), Role::Owner),
            Caller::Viewer => (self.tenant.clone(), Role::Viewer),
            Caller::Operator => (self.tenant.clone(), Role::Operator),
            Caller::Owner => (self.tenant.clone(), Role::Owner),
            Caller::Anonymous | Caller::WrongMachine | Caller::Connector => {
                return self.unknown_says(row, caller).await;
            }
        };
        let who = who.colleague(&mut self.chance);
        if row == "hello" {
            Session::open(&self.stand, &who, role, &mut self.chance).await?;
            return Ok(Expect::Answers);
        }
        let mut session = Session::open(&self.stand, &who, role, &mut self.chance).await?;
        let own = caller != Caller::OtherAccount;
        let machine_id = *self.tenant.machine_id.as_bytes();
        if row != "open" {
            session.open_machine(&machine_id, own).await?;
        }
        let mut known = who.known.clone();
        known.set("machine_id", Value::Bytes(copy(&machine_id)));
        known.set("session_id", Value::Bytes(session.session_id.clone()));
        known.set("device_id", Value::Bytes(copy(who.device_id().as_bytes())));
        known.set("command_id", Value::Bytes(copy(&self.chance.bytes::<16>())));
        let mut sample = self.sample("SessionUp", row, &known)?;
        Tenant::commands_in(&mut sample, &|command| who.complete(command))?;
        self.connector.take_log();
        session.take_log();
        session.send(sample.transcode_to::<v1::SessionUp>()?.kind.context("a kind")?).await?;
        self.outcome(&mut session, row, own).await
    }

    /// What comes of what a session has said: everything until a sign, through the machine where it is the caller's own.
    async fn outcome(&mut self, session: &mut Session, row: &str, own: bool) -> anyhow::Result<Expect> {
        let sign: [u8; 16] = self.chance.bytes();
        let machine_id = *self.tenant.machine_id.as_bytes();
        if row == "open" || row == "close" {
            session.send(Up::Ping(v1::Ping { nonce: u64::MAX })).await?;
        } else if own {
            session.ask_for_sign(&machine_id, sign).await?;
        } else if row != "ping" {
            // Nobody is there to give a sign; the node says so, after all else.
            session.say(&machine_id, v1::device_message::Kind::Probe(v1::Probe { nonce: 2 })).await?;
        }
        let mut seen = Expect::Silent;
        let mut failures = 0;
        loop {
            match session.next().await? {
                Err(Ended(code)) => return Ok(Expect::Ends(code_of(code)?)),
                Ok(Down::Pong(pong)) if pong.nonce == u64::MAX && row == "close" => return Ok(seen),
                Ok(Down::Pong(pong)) if pong.nonce == u64::MAX => {}
                Ok(Down::Pong(_)) if row == "ping" && !own => return Ok(Expect::Answers),
                Ok(Down::Pong(_)) => seen = Expect::Answers,
                Ok(kind) if is_sign(&kind, &sign) => {
                    let passed = self.connector.take_log().iter().filter(|frame| is_from_session(frame)).count() > 1;
                    return Ok(if passed { Expect::Passes } else { seen });
                }
                Ok(Down::FromMachine(from)) => match from.message.and_then(|message| message.kind) {
                    Some(Said::Status(status)) if row == "open" => {
                        let ready = status.state() == v1::MachineState::CodexReady;
                        return Ok(if ready { Expect::Online } else { Expect::Offline });
                    }
                    Some(Said::Failure(failure)) => {
                        failures += 1;
                        let last = !own && failure.command_id.is_empty();
                        if last && (row != "to_machine.message.probe" || failures == 2) {
                            return Ok(seen);
                        }
                        seen = Expect::Fails(code_of(failure.code)?);
                    }
                    _ => {}
                },
                Ok(_) => {}
            }
        }
    }

    /// One who cannot open a session says it first thing, with such tokens as it has.
    async fn unknown_says(&mut self, row: &str, caller: Caller) -> anyhow::Result<Expect> {
        let mut wire = session::connect(&self.stand).await?;
        let mut sample = self.sample("SessionUp", row, &self.tenant.known)?.transcode_to::<v1::SessionUp>()?;
        if let Some(Up::Hello(hello)) = &mut sample.kind {
            let token = match caller {
                Caller::WrongMachine => self.neighbour.credential(&self.stand),
                Caller::Connector => self.tenant.credential(&self.stand),
                _ => String::new(),
            };
            *hello = v1::SessionHello {
                version: 1,
                version_min: 1,
                ticket: token.clone(),
                grant: token,
                device_key: Some(self.tenant.device_key().into()),
                ..v1::SessionHello::default()
            };
        }
        wire.send(&sample).await?;
        let Incoming::Frame(frame) = wire.next().await? else { anyhow::bail!("closed without a word") };
        match v1::SessionDown::decode(frame)?.kind {
            Some(Down::End(end)) => Ok(Expect::Ends(code_of(end.code)?)),
            _ => Ok(Expect::Answers),
        }
    }

    // === Connectors ===

    async fn connector_says(&mut self, row: &str, caller: Caller) -> anyhow::Result<Expect> {
        let linked = matches!(caller, Caller::OtherAccount | Caller::WrongMachine | Caller::Connector);
        if !linked || row == "hello" || row == "proof" {
            return self.stranger_links(row, caller, linked).await;
        }
        // The session that every row is about watches its machine.
        let tenant = self.tenant.clone();
        let mut victim = Session::ready(&self.stand, &tenant, &mut self.chance).await?;
        let attach = tenant.command(v1::CommandKind::Attach, self.chance.bytes(), &victim.session_id);
        victim.say(tenant.machine_id.as_bytes(), v1::device_message::Kind::Command(attach)).await?;
        let seq = victim.watched().await?;
        let frame = self.frame(row, caller, &victim, seq)?;
        let (connector, who) = match caller {
            Caller::OtherAccount => (&mut self.strange_connector, self.stranger.clone()),
            Caller::WrongMachine => (&mut self.wrong_connector, self.neighbour.clone()),
            _ => (&mut self.connector, tenant.clone()),
        };
        // What the link says next is handled after it, and so is what its own session asks.
        let mut own = Session::ready(&self.stand, &who, &mut self.chance).await?;
        connector.take_log();
        victim.take_log();
        connector.send(v1::LinkUp { kind: Some(frame) }).await?;
        if row == "ping" || row == "pong" {
            connector.send(v1::LinkUp { kind: Some(LinkUpKind::Ping(v1::Ping { nonce: 99 })) }).await?;
            return pongs(connector, row).await;
        }
        let ended = tokio::select! {
            settled = settle(&mut own, &who, &mut self.chance) => settled.map(|_| None)?,
            state = connector.changed(u64::MAX) => state?.ended,
        };
        if let Some(code) = ended {
            self.replace(caller, &who).await?;
            return Ok(Expect::Ends(code_of(code)?));
        }
        let passed = settle(&mut victim, &tenant, &mut self.chance).await?;
        Ok(if passed { Expect::Passes } else { Expect::Silent })
    }

    fn frame(&mut self, row: &str, caller: Caller, victim: &Session, seq: u64) -> anyhow::Result<LinkUpKind> {
        let mut known = self.tenant.known.clone();
        known.set("session_id", Value::Bytes(victim.session_id.clone()));
        known.set("seq", Value::U64(seq + 1));
        known.set("last_seq", Value::U64(seq));
        let mut sample = self.sample("LinkUp", row, &known)?.transcode_to::<v1::LinkUp>()?;
        let connector = match caller {
            Caller::OtherAccount => &self.strange_connector,
            Caller::WrongMachine => &self.wrong_connector,
            _ => &self.connector,
        };
        if let Some(LinkUpKind::Frame(frame)) = &mut sample.kind {
            frame.epoch = connector.state().wire_epoch();
            match &mut frame.kind {
                Some(FromConnector::Stale(stale)) => stale.highest = connector.state().wire_epoch(),
                Some(FromConnector::Report(report)) => {
                    report.state = v1::MachineState::CodexReady.into();
                    report.codex_version = format!("{}", self.chance.number());
                    report.code = 0;
                }
                Some(FromConnector::ToSession(to)) => {
                    if let Some(Said::Receipt(receipt)) = to.message.as_mut().and_then(|message| message.kind.as_mut())
                    {
                        let command = self.tenant.command(v1::CommandKind::Steer, self.chance.bytes(), &Bytes::new());
                        let header = v1::CommandHeader::decode(command.header.clone())?;
                        *receipt = crate::connector::receipt(&self.tenant, &header, &command.header);
                    }
                }
                _ => {}
            }
        }
        sample.kind.context("a kind")
    }

    /// One who has no link, or whose link is just being opened.
    async fn stranger_links(&mut self, row: &str, caller: Caller, linked: bool) -> anyhow::Result<Expect> {
        let who = match caller {
            Caller::OtherAccount => self.stranger.clone(),
            Caller::WrongMachine => self.neighbour.clone(),
            _ => self.tenant.clone(),
        };
        if linked {
            self.links += 1;
            let mut connector = Connector::attach(&self.stand, &who, self.links).await?;
            let seen = if row == "hello" {
                Expect::Answers
            } else {
                let proof = v1::LinkProof { signature: copy(&[1; 64]), channel_bound: false };
                connector.send(v1::LinkUp { kind: Some(LinkUpKind::Proof(proof)) }).await?;
                Expect::Ends(code_of(connector.changed(1).await?.ended.unwrap_or_default())?)
            };
            self.replace(caller, &who).await?;
            return Ok(seen);
        }
        let mut sample = self.sample("LinkUp", row, &who.known)?.transcode_to::<v1::LinkUp>()?;
        if let Some(LinkUpKind::Hello(hello)) = &mut sample.kind {
            (hello.version, hello.version_min) = (1, 1);
            hello.connector_version = String::new();
            hello.credential = match caller {
                Caller::Anonymous => String::new(),
                Caller::Viewer => who.grant(&self.stand, Role::Viewer),
                Caller::Operator => who.grant(&self.stand, Role::Operator),
                _ => who.grant(&self.stand, Role::Owner),
            };
        }
        let mut wire = Wire::open(self.stand.address, HOST, "/v1/link", None).await?;
        wire.send_encoded(Lane::Control, &sample.encode_to_vec()).await?;
        let Incoming::Frame(frame) = wire.next().await? else { anyhow::bail!("closed without a word") };
        match v1::LinkDown::decode(frame)?.kind {
            Some(LinkDownKind::End(end)) => Ok(Expect::Ends(code_of(end.code)?)),
            _ => Ok(Expect::Answers),
        }
    }

    /// A link took the place of the one that was there; another takes its place.
    async fn replace(&mut self, caller: Caller, who: &Tenant) -> anyhow::Result<()> {
        self.links += 1;
        let connector = Connector::attach(&self.stand, who, self.links).await?;
        // Two lives of a connector that take turns would be a cloned key.
        match caller {
            Caller::OtherAccount => self.strange_connector = connector,
            Caller::WrongMachine => self.wrong_connector = connector,
            _ => self.connector = connector,
        }
        Ok(())
    }
}

/// Waits for a sign; whether anything else came before it.
async fn settle(session: &mut Session, who: &Tenant, chance: &mut Chance) -> anyhow::Result<bool> {
    let sign: [u8; 16] = chance.bytes();
    session.ask_for_sign(who.machine_id.as_bytes(), sign).await?;
    let mut passed = false;
    loop {
        match session.next().await? {
            Err(Ended(code)) => anyhow::bail!("the session ended: {code}"),
            Ok(kind) if is_sign(&kind, &sign) => return Ok(passed),
            Ok(_) => passed = true,
        }
    }
}

async fn pongs(connector: &Connector, row: &str) -> anyhow::Result<Expect> {
    let mut answered = 0;
    let expected = if row == "ping" { 2 } else { 1 };
    let counting = async {
        loop {
            for frame in connector.take_log() {
                if let Ok(v1::LinkDown { kind: Some(LinkDownKind::Pong(pong)) }) = v1::LinkDown::decode(frame) {
                    answered += 1;
                    if pong.nonce == 99 {
                        return;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::wire::PATIENCE, counting).await.context("no pong")?;
    Ok(if answered >= expected && row == "ping" { Expect::Answers } else { Expect::Silent })
}

fn is_from_session(frame: &Bytes) -> bool {
    let Ok(v1::LinkDown { kind: Some(LinkDownKind::Frame(frame)) }) = v1::LinkDown::decode(frame.clone()) else {
        return false;
    };
    matches!(frame.kind, Some(v1::owner_frame::Kind::FromSession(_)))
}

fn code_of(number: u32) -> anyhow::Result<ErrorCode> {
    ErrorCode::from_number(number).with_context(|| format!("no code has the number {number}"))
}
