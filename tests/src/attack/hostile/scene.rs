//! A phone that keeps to the protocol and a machine with the real Codex; the hostile relay is all that is between them.

#![expect(clippy::wildcard_enum_match_arm, reason = "it looks at few of the many kinds that pass")]

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{CommandClass, CommandHeader, CommandKind, Outcome, Receipt, receipt_transcript};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{BootId, DeviceId, SessionId};
use flydex_loadtest::account::PairedMachine;
use flydex_loadtest::device::{Device, Target, body};
use flydex_proto::v1::{self, connector_frame, device_message, machine_message};
use prost::Message as _;
use uuid::Uuid;

use super::super::stand::{attach, now};
use super::super::tally::Tally;
use super::relay::{FromConnector, Hostile, Lies, account_id, machine_id};
use crate::codex::{CodexHome, Daemon};
use crate::connector::{Connector, Machine};
use crate::model::Model;

/// The session in which the phone is.
pub(super) const PHONE_SESSION: SessionId = SessionId::from_uuid(Uuid::from_u128(0x01));
/// One that the relay makes up for itself.
pub(super) const OWN_SESSION: SessionId = SessionId::from_uuid(Uuid::from_u128(0x66));

/// A phone and a machine with the relay between them.
pub(super) struct Scene {
    // First, so that it ends before what it would miss.
    pub(super) connector: Option<Connector>,
    pub(super) relay: Hostile,
    pub(super) from: FromConnector,
    pub(super) phone: Device,
    pub(super) paired: PairedMachine,
    pub(super) boot_id: BootId,
    pub(super) machine: Machine,
    pub(super) model: Model,
    /// The relay's own key.
    pub(super) own: Device,
    pub(super) tally: Tally,
    _daemon: Daemon,
    _codex: CodexHome,
}

/// A machine at the relay, which is not paired.
pub(super) async fn machine_at(relay: &Hostile, model: &Model) -> anyhow::Result<(Machine, Daemon, CodexHome)> {
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
    pub(super) async fn start(tally: Tally) -> anyhow::Result<Self> {
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
        Ok(Self {
            connector,
            relay,
            from,
            phone,
            paired,
            boot_id,
            machine,
            model,
            own,
            tally,
            _daemon: daemon,
            _codex: codex,
        })
    }

    /// A command as the phone signs it, but for what `change` does before.
    pub(super) fn sign(
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

    pub(super) fn start_thread(&self, text: &str) -> Body {
        let directory = self.machine.workspace().to_string_lossy().into_owned();
        Body::StartThread(agent::StartThread { directory, text: text.to_owned(), model: String::new() })
    }

    pub(super) fn bring(&self, session_id: SessionId, device_id: DeviceId, role: &str, command: &v1::Command) {
        self.relay.bring(session_id, device_id, role, device_message::Kind::Command(command.clone()));
    }

    /// As the relay should: in the phone's session, in its name.
    pub(super) fn carry(&self, signed: &Signed) {
        self.bring(PHONE_SESSION, self.phone.device_id(), "owner", &signed.command);
    }

    /// What the machine signed about a command; the phone believes nothing else.
    pub(super) async fn receipt(&mut self, session_id: SessionId, signed: &Signed) -> anyhow::Result<Receipt> {
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

    pub(super) async fn is_turned_away(&mut self, session_id: SessionId, code: ErrorCode) -> anyhow::Result<()> {
        let told = self.failure(session_id).await?;
        ensure!(told == code, "{} expected: {}", code.name(), told.name());
        self.tally.stopped(code.name());
        Ok(())
    }

    pub(super) async fn is_refused(
        &mut self,
        session_id: SessionId,
        signed: &Signed,
        code: ErrorCode,
    ) -> anyhow::Result<()> {
        let outcome = self.receipt(session_id, signed).await?.outcome;
        ensure!(outcome == Outcome::Refused(code), "{} expected: {outcome:?}", code.name());
        self.tally.stopped(code.name());
        Ok(())
    }

    pub(super) async fn failure(&mut self, session_id: SessionId) -> anyhow::Result<ErrorCode> {
        let wanted = |kind: &machine_message::Kind| match kind {
            machine_message::Kind::Failure(failure) => ErrorCode::from_number(failure.code),
            _ => None,
        };
        self.from.message("a failure", session_id, wanted).await
    }

    pub(super) async fn attach(&mut self) -> anyhow::Result<()> {
        let signed = self.sign(&self.phone, CommandKind::Attach, attach(), |_| {});
        self.carry(&signed);
        ensure!(self.receipt(PHONE_SESSION, &signed).await?.outcome == Outcome::Executed, "not admitted");
        Ok(())
    }

    /// How often a prompt with that text came to the model.
    pub(super) fn effects(&self, text: &str) -> usize {
        self.model.requests().iter().filter(|request| request.prompt.contains(text)).count()
    }

    /// Waits for a shown approval: its signed form, as it passes the relay.
    pub(super) async fn approval(&mut self) -> anyhow::Result<agent::SignedApproval> {
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

    pub(super) async fn listed(&self) -> anyhow::Result<String> {
        let (listed, lines) = self.machine.command(&["devices", "list"]).await?;
        ensure!(listed, "{lines:?}");
        Ok(lines.out.join("\n"))
    }
}

/// A command and what it says of itself.
pub(super) struct Signed {
    pub(super) header: CommandHeader,
    pub(super) command: v1::Command,
}
