//! What is attacked: a relay and, where it matters, a paired machine with the real Codex. There is no browser: the
//! attacker speaks the protocol itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{CommandClass, CommandHeader, CommandKind, Outcome, Receipt};
use flydex_domain::error::ErrorCode;
use flydex_domain::time::UnixMillis;
use flydex_loadtest::account::{Account, PairedMachine};
use flydex_loadtest::device::{Device, Target, body};
use flydex_loadtest::session::{Opened, Session};
use flydex_proto::codec::Lane;
use flydex_proto::v1::{self, machine_message, session_down, session_up};
use flydex_runtime::clock::Clock;
use prost::Message as _;
use serde_json::Value;

pub use super::relay::{Ground, Place, REGION, Relay, sign_in};
use super::tally::Tally;
use crate::canary;
use crate::codex::{CodexHome, Daemon};
use crate::connector::{Connector, Machine};
use crate::model::Model;
use crate::server::Settings;
use crate::wait;

/// The present, as the attacker's clock has it.
pub fn now() -> UnixMillis {
    UnixMillis(Clock::system().unix_millis())
}

/// A relay, the real Codex, and a machine that one device is paired with.
pub struct Stand {
    // First, so that it ends before what it would miss.
    /// The machine's connector.
    pub connector: Option<Connector>,
    /// The relay.
    pub relay: Relay,
    /// The device that is paired.
    pub device: Device,
    /// The machine as the device knows it.
    pub paired: PairedMachine,
    /// The machine.
    pub machine: Machine,
    /// The model behind Codex.
    pub model: Model,
    /// The shared app-server.
    pub daemon: Option<Daemon>,
    /// Codex's home.
    pub codex: CodexHome,
}

impl Stand {
    /// Everything, around a fresh relay in one process.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    /// The same with these settings.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn start_with(settings: Settings) -> anyhow::Result<Self> {
        Self::around(Relay::start_with(settings.clone()).await?, &settings).await
    }

    /// Everything, around a fresh relay or a fresh account of the cluster.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn on(ground: &Ground, tally: &Tally) -> anyhow::Result<Self> {
        Self::around(Relay::on(ground, tally).await?, &Settings::default()).await
    }

    async fn around(relay: Relay, settings: &Settings) -> anyhow::Result<Self> {
        let model = Model::start().await?;
        let codex = CodexHome::create(&model)?;
        let daemon = codex.start_daemon().await?;
        let machine = Machine::new(relay.server.origin(), &codex)?.telling(settings);
        let workspace = machine.workspace().to_string_lossy().into_owned();
        let (allowed, lines) = machine.command(&["directories", "add", &workspace]).await?;
        ensure!(allowed, "{lines:?}");
        let device = Device::new();
        let mut connector = machine.connect()?;
        let paired = pair(&relay.account, &device, "first phone", &mut connector).await?;
        machine.plant_secrets()?;
        canary::plant_bytes("device key", &device.secret_bytes());
        let (connector, daemon) = (Some(connector), Some(daemon));
        Ok(Self { connector, relay, device, paired, machine, model, daemon, codex })
    }

    /// Another machine of an account, with a connector and a device of its own, beside the same Codex.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn another_machine(&self, account: &Account) -> anyhow::Result<Other> {
        let machine = Machine::new(self.relay.server.origin(), &self.codex)?;
        let device = Device::new();
        let mut connector = machine.connect()?;
        let paired = pair(account, &device, "phone of another machine", &mut connector).await?;
        Ok(Other { connector, paired, device, machine })
    }

    /// Another browser of the account with a device of its own, paired with the machine.
    ///
    /// # Errors
    /// When a step is refused.
    pub async fn second_device(&self, label: &str) -> anyhow::Result<(Account, Device)> {
        self.second_device_with(label, Device::new()).await
    }

    /// The same with a device of one's choice.
    ///
    /// # Errors
    /// When a step is refused.
    pub async fn second_device_with(&self, label: &str, device: Device) -> anyhow::Result<(Account, Device)> {
        let account = self.relay.another_browser().await?;
        let mut adding = self.machine.start(&["devices", "add"])?;
        pair(&account, &device, label, &mut adding).await?;
        Ok((account, device))
    }

    /// The machine paired as if it never had been, with a device of the same account.
    ///
    /// # Errors
    /// When a step is refused.
    pub async fn paired_anew(&self, device: &Device) -> anyhow::Result<(Connector, PairedMachine)> {
        let mut connector = self.machine.connect()?;
        let paired = pair(&self.relay.account, device, "phone again", &mut connector).await?;
        Ok((connector, paired))
    }

    /// Another computer with a copy of the machine's state.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copied(&self, state: &Path) -> anyhow::Result<Machine> {
        let copy = Machine::new(self.relay.server.origin(), &self.codex)?;
        std::fs::create_dir_all(copy.state())?;
        for entry in std::fs::read_dir(state)? {
            let entry = entry?;
            std::fs::copy(entry.path(), copy.state().join(entry.file_name()))?;
        }
        std::fs::set_permissions(copy.state(), std::fs::Permissions::from_mode(0o700))?;
        Ok(copy)
    }

    /// A session of a device with the machine open, not attached.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn client(&self, account: &Account, device: Device) -> anyhow::Result<Client> {
        let session = self.relay.session(account, &device).await?;
        self.client_of(session, &self.paired, device).await
    }

    /// A session that the machine has admitted, as soon as it is linked.
    ///
    /// # Errors
    /// When it never is.
    pub async fn client_when_linked(&self, device: &Device) -> anyhow::Result<Client> {
        wait::until("the machine to be linked", async || {
            let mut client = self.client(&self.relay.account, device.clone()).await.ok()?;
            client.attach().await.ok()?;
            Some(client)
        })
        .await
    }

    /// An open session with a machine open in it, not attached.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn client_of(
        &self,
        mut session: Session,
        machine: &PairedMachine,
        device: Device,
    ) -> anyhow::Result<Client> {
        let opened = session.open_machine(machine).await?;
        Ok(Client { session, opened, device, tally: self.relay.tally.clone() })
    }

    /// A command that starts a thread with that prompt.
    pub fn start_thread(&self, text: &str) -> Body {
        let directory = self.machine.workspace().to_string_lossy().into_owned();
        Body::StartThread(agent::StartThread { directory, text: text.to_owned(), model: String::new() })
    }

    /// How often a prompt with that text came to the model.
    pub fn effects(&self, text: &str) -> usize {
        self.model.requests().iter().filter(|request| request.prompt.contains(text)).count()
    }
}

/// Pairs a device with the machine of a connector that asks.
///
/// # Errors
/// When a step is refused.
pub async fn pair(
    account: &Account,
    device: &Device,
    label: &str,
    connector: &mut Connector,
) -> anyhow::Result<PairedMachine> {
    let url = connector.pair_url().await?;
    let pairing = account.redeem(&url, device, label).await?;
    connector.question().await?;
    connector.answer(true).await?;
    account.paired(&pairing).await.with_context(|| connector.process().story())
}

/// A machine besides the first.
pub struct Other {
    /// Its connector.
    pub connector: Connector,
    /// The machine as its device knows it.
    pub paired: PairedMachine,
    /// The device that is paired with it.
    pub device: Device,
    /// The machine.
    pub machine: Machine,
}

/// A device with a session that has the machine open.
pub struct Client {
    /// The session.
    pub session: Session,
    /// The machine.
    pub opened: Opened,
    /// The device.
    pub device: Device,
    /// What its attempts were stopped by.
    pub tally: Tally,
}

/// A command as it travels.
pub type Signed = (CommandHeader, v1::Command);

impl Client {
    /// Opens the machine in a session, for who keeps no tally.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn opened(mut session: Session, paired: &PairedMachine, device: Device) -> anyhow::Result<Self> {
        let opened = session.open_machine(paired).await?;
        Ok(Self { session, opened, device, tally: Tally::default() })
    }

    /// A command as it should be, but for what `change` does to its header before it is signed.
    pub fn sign(&self, kind: CommandKind, content: Body, change: impl FnOnce(&mut CommandHeader)) -> Signed {
        let content = body(content);
        let session_id = (kind.class() == CommandClass::Read).then_some(self.session.session_id);
        let target = Target { machine: &self.opened.machine, boot_id: self.opened.boot_id, session_id, answer: None };
        let mut header = self.device.header(&target, kind, &content, now());
        change(&mut header);
        let command = self.device.sign(&header, content);
        (header, command)
    }

    /// Sends a command and waits for the machine's signed word.
    ///
    /// # Errors
    /// When the machine does not sign an answer.
    pub async fn ask(&mut self, (header, command): &Signed) -> anyhow::Result<Receipt> {
        self.session.send_command(&self.opened, command.clone()).await?;
        Ok(self.session.receipt(&self.opened, header.command_id).await?.0)
    }

    /// Sends a command whose effect must not be, and that is not answered by the machine at all.
    ///
    /// # Errors
    /// When it is answered otherwise.
    pub async fn is_turned_away(&mut self, signed: &Signed, code: ErrorCode) -> anyhow::Result<()> {
        match self.ask(signed).await {
            Ok(receipt) => bail!("{} expected, but the machine signed {:?}", code.name(), receipt.outcome),
            Err(error) => self.tally.is_about(&error, code),
        }
    }

    /// Sends a command that the machine refuses with its signature.
    ///
    /// # Errors
    /// When it is answered otherwise.
    pub async fn is_refused(&mut self, signed: &Signed, code: ErrorCode) -> anyhow::Result<Receipt> {
        let receipt = self.ask(signed).await.with_context(|| format!("{} expected", code.name()))?;
        ensure!(receipt.outcome == Outcome::Refused(code), "{} expected: {:?}", code.name(), receipt.outcome);
        self.tally.stopped(code.name());
        Ok(receipt)
    }

    /// Admits the session to the machine.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn attach(&mut self) -> anyhow::Result<Receipt> {
        let signed = self.sign(CommandKind::Attach, attach(), |_| {});
        let receipt = self.ask(&signed).await?;
        ensure!(receipt.outcome == Outcome::Executed, "{:?}", receipt.outcome);
        Ok(receipt)
    }

    /// Everything that came until now: the machine and the relay have answered after it.
    ///
    /// # Errors
    /// When the session ends first.
    pub async fn received(&mut self) -> anyhow::Result<Vec<machine_message::Kind>> {
        let machine_id = Bytes::copy_from_slice(self.opened.machine.machine_id.as_bytes());
        let kind = Some(v1::device_message::Kind::Probe(v1::Probe { nonce: 7 }));
        let message = Some(v1::DeviceMessage { trace: None, kind });
        self.session.send(Lane::Control, session_up::Kind::ToMachine(v1::ToMachine { machine_id, message })).await?;
        let mut received = Vec::new();
        loop {
            if let session_down::Kind::FromMachine(from) = self.session.next().await?
                && let Some(kind) = from.message.and_then(|message| message.kind)
            {
                if matches!(&kind, machine_message::Kind::ProbeReply(_)) {
                    return Ok(received);
                }
                received.push(kind);
            }
        }
    }

    /// Waits for an event that `pick` takes.
    ///
    /// # Errors
    /// When the session ends first.
    pub async fn event<T>(&mut self, pick: impl Fn(agent::agent_event::Kind) -> Option<T>) -> anyhow::Result<T> {
        loop {
            if let Some(picked) = pick(self.session.event().await?) {
                return Ok(picked);
            }
        }
    }
}

/// The body of an attach.
pub fn attach() -> Body {
    Body::Attach(agent::Attach { cursor: None, client: "attacker".to_owned() })
}

/// Watches a thread from now on.
pub fn watch(thread_id: &str) -> Body {
    Body::WatchThread(agent::WatchThread { thread_id: thread_id.to_owned(), cursor: None })
}

/// The content of a receipt.
///
/// # Errors
/// When it has none.
pub fn result(receipt: &Receipt) -> anyhow::Result<ResultKind> {
    agent::CommandResult::decode(receipt.result.expose().clone())?.kind.context("the receipt has no content")
}

/// Whether it was that code.
///
/// # Errors
/// When it was another.
pub fn is_about(error: &anyhow::Error, code: ErrorCode) -> anyhow::Result<()> {
    let text = format!("{error:#}");
    ensure!(text.ends_with(&format!(" {}", code.name())), "{} expected: {text}", code.name());
    Ok(())
}

/// The code of an error of the API.
pub fn api_code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("no code")
}
