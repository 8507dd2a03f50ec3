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
use flydex_tests::canary;
use flydex_tests::codex::{CodexHome, Daemon};
use flydex_tests::connector::{Connector, Machine};
use flydex_tests::model::Model;
use flydex_tests::server::{Server, Settings};
use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};

/// The region of a relay with every role in one process.
pub(super) const REGION: &str = "local";

/// The present, as the attacker's clock has it.
pub(super) fn now() -> UnixMillis {
    UnixMillis(Clock::system().unix_millis())
}

/// A relay with one account.
pub(super) struct Relay {
    pub(super) server: Server,
    pub(super) account: Account,
}

impl Relay {
    pub(super) async fn start() -> anyhow::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    async fn start_with(settings: Settings) -> anyhow::Result<Self> {
        flydex_runtime::tls::install_provider();
        let server = Server::start_with(settings).await?;
        let account = sign_in(server.owner_link()).await?;
        Ok(Self { server, account })
    }

    /// The same relay with its data and an empty memory.
    pub(super) async fn restarted(self) -> anyhow::Result<Self> {
        let server = self.server.stop().await?.start().await?;
        Ok(Self { server, ..self })
    }

    /// The same relay, after `meanwhile` without one.
    pub(super) async fn away(self, meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let stopped = self.server.stop().await?;
        meanwhile().await?;
        Ok(Self { server: stopped.start().await?, ..self })
    }

    pub(super) fn session_url(&self) -> String {
        format!("{}/v1/session", self.server.origin().replacen("http", "ws", 1))
    }

    /// Another browser that is signed in to the same account.
    pub(super) async fn another_browser(&self) -> anyhow::Result<Account> {
        let (status, link) = self.account.call(Method::POST, "/api/sign-in-links", Some(json!({}))).await?;
        ensure!(status.is_success(), "no link but {link}");
        sign_in(link["url"].as_str().context("a link")?).await
    }

    pub(super) async fn session(&self, account: &Account, device: &Device) -> anyhow::Result<Session> {
        let (ticket, grant) = account.ticket(device, REGION).await?;
        for (what, token) in [("ticket", &ticket), ("grant", &grant)] {
            canary::plant_signed(what, token);
        }
        Session::open_by(ticket, grant, device, &self.session_url(), account.origin()).await
    }
}

pub(super) async fn sign_in(link: &str) -> anyhow::Result<Account> {
    let account = Account::sign_in(link).await?;
    canary::plant_token("cookie", account.cookie());
    Ok(account)
}

/// A relay, the real Codex, and a machine that one device is paired with.
pub(super) struct Stand {
    // First, so that it ends before what it would miss.
    pub(super) connector: Option<Connector>,
    pub(super) relay: Relay,
    pub(super) device: Device,
    pub(super) paired: PairedMachine,
    pub(super) machine: Machine,
    pub(super) model: Model,
    _daemon: Daemon,
    codex: CodexHome,
}

impl Stand {
    pub(super) async fn start() -> anyhow::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    pub(super) async fn start_with(settings: Settings) -> anyhow::Result<Self> {
        let model = Model::start().await?;
        let codex = CodexHome::create(&model)?;
        let (daemon, relay) = tokio::try_join!(codex.start_daemon(), Relay::start_with(settings.clone()))?;
        let machine = Machine::new(relay.server.origin(), &codex)?.telling(&settings);
        let workspace = machine.workspace().to_string_lossy().into_owned();
        let (allowed, lines) = machine.command(&["directories", "add", &workspace]).await?;
        ensure!(allowed, "{lines:?}");
        let device = Device::new();
        let mut connector = machine.connect()?;
        let paired = pair(&relay.account, &device, "first phone", &mut connector).await?;
        machine.plant_secrets()?;
        canary::plant_bytes("device key", &device.secret_bytes());
        Ok(Self { connector: Some(connector), relay, device, paired, machine, model, _daemon: daemon, codex })
    }

    /// Another browser of the account with a device of its own, paired with the machine.
    pub(super) async fn second_device(&self, label: &str) -> anyhow::Result<(Account, Device)> {
        self.second_device_with(label, Device::new()).await
    }

    /// The same with a device of one's choice.
    pub(super) async fn second_device_with(&self, label: &str, device: Device) -> anyhow::Result<(Account, Device)> {
        let account = self.relay.another_browser().await?;
        let mut adding = self.machine.start(&["devices", "add"])?;
        pair(&account, &device, label, &mut adding).await?;
        Ok((account, device))
    }

    /// The machine paired as if it never had been, with a device of the same account.
    pub(super) async fn paired_anew(&self, device: &Device) -> anyhow::Result<(Connector, PairedMachine)> {
        let mut connector = self.machine.connect()?;
        let paired = pair(&self.relay.account, device, "phone again", &mut connector).await?;
        Ok((connector, paired))
    }

    /// Another computer with a copy of the machine's state.
    pub(super) fn copied(&self, state: &Path) -> anyhow::Result<Machine> {
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
    pub(super) async fn client(&self, account: &Account, device: Device) -> anyhow::Result<Client> {
        let session = self.relay.session(account, &device).await?;
        Client::opened(session, &self.paired, device).await
    }

    /// A command that starts a thread with that prompt.
    pub(super) fn start_thread(&self, text: &str) -> Body {
        let directory = self.machine.workspace().to_string_lossy().into_owned();
        Body::StartThread(agent::StartThread { directory, text: text.to_owned(), model: String::new() })
    }

    /// How often a prompt with that text came to the model.
    pub(super) fn effects(&self, text: &str) -> usize {
        self.model.requests().iter().filter(|request| request.prompt.contains(text)).count()
    }
}

pub(super) async fn pair(
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

/// A device with a session that has the machine open.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) opened: Opened,
    pub(super) device: Device,
}

/// A command as it travels.
pub(super) type Signed = (CommandHeader, v1::Command);

impl Client {
    /// Opens the machine.
    pub(super) async fn opened(mut session: Session, paired: &PairedMachine, device: Device) -> anyhow::Result<Self> {
        let opened = session.open_machine(paired).await?;
        Ok(Self { session, opened, device })
    }

    /// A command as it should be, but for what `change` does to its header before it is signed.
    pub(super) fn sign(&self, kind: CommandKind, content: Body, change: impl FnOnce(&mut CommandHeader)) -> Signed {
        let content = body(content);
        let session_id = (kind.class() == CommandClass::Read).then_some(self.session.session_id);
        let target = Target { machine: &self.opened.machine, boot_id: self.opened.boot_id, session_id, answer: None };
        let mut header = self.device.header(&target, kind, &content, now());
        change(&mut header);
        let command = self.device.sign(&header, content);
        (header, command)
    }

    /// Sends a command and waits for the machine's signed word.
    pub(super) async fn ask(&mut self, (header, command): &Signed) -> anyhow::Result<Receipt> {
        self.session.send_command(&self.opened, command.clone()).await?;
        Ok(self.session.receipt(&self.opened, header.command_id).await?.0)
    }

    /// Sends a command whose effect must not be, and that is not answered by the machine at all.
    pub(super) async fn is_turned_away(&mut self, signed: &Signed, code: ErrorCode) -> anyhow::Result<()> {
        match self.ask(signed).await {
            Ok(receipt) => bail!("{} expected, but the machine signed {:?}", code.name(), receipt.outcome),
            Err(error) => is_about(&error, code),
        }
    }

    /// Sends a command that the machine refuses with its signature.
    pub(super) async fn is_refused(&mut self, signed: &Signed, code: ErrorCode) -> anyhow::Result<Receipt> {
        let receipt = self.ask(signed).await.with_context(|| format!("{} expected", code.name()))?;
        ensure!(receipt.outcome == Outcome::Refused(code), "{} expected: {:?}", code.name(), receipt.outcome);
        Ok(receipt)
    }

    /// Admits the session to the machine.
    pub(super) async fn attach(&mut self) -> anyhow::Result<Receipt> {
        let signed = self.sign(CommandKind::Attach, attach(), |_| {});
        let receipt = self.ask(&signed).await?;
        ensure!(receipt.outcome == Outcome::Executed, "{:?}", receipt.outcome);
        Ok(receipt)
    }

    /// Everything that came until now: the machine and the relay have answered after it.
    pub(super) async fn received(&mut self) -> anyhow::Result<Vec<machine_message::Kind>> {
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
    pub(super) async fn event<T>(&mut self, pick: impl Fn(agent::agent_event::Kind) -> Option<T>) -> anyhow::Result<T> {
        loop {
            if let Some(picked) = pick(self.session.event().await?) {
                return Ok(picked);
            }
        }
    }
}

/// The body of an attach.
pub(super) fn attach() -> Body {
    Body::Attach(agent::Attach { cursor: None, client: "attacker".to_owned() })
}

/// Watches a thread from now on.
pub(super) fn watch(thread_id: &str) -> Body {
    Body::WatchThread(agent::WatchThread { thread_id: thread_id.to_owned(), cursor: None })
}

/// The content of a receipt.
pub(super) fn result(receipt: &Receipt) -> anyhow::Result<ResultKind> {
    agent::CommandResult::decode(receipt.result.expose().clone())?.kind.context("the receipt has no content")
}

/// Whether it was that code.
pub(super) fn is_about(error: &anyhow::Error, code: ErrorCode) -> anyhow::Result<()> {
    let text = format!("{error:#}");
    ensure!(text.ends_with(&format!(" {}", code.name())), "{} expected: {text}", code.name());
    Ok(())
}

/// The code of an error of the API.
pub(super) fn api_code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("no code")
}
