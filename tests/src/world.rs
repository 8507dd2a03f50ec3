//! Everything at once: model, Codex, relay, machine and a phone, as a person would have them.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::browser::{Browser, Scheme};
use crate::codex::{CodexHome, Daemon, Desk};
use crate::connector::{Connector, Machine};
use crate::model::Model;
use crate::phone::Phone;
use crate::server::{Server, Settings};

/// The whole of FlyDex around one machine. Everything ends when it is dropped.
pub struct World {
    /// The browser; first, so that it is gone before what it shows.
    pub browser: Browser,
    /// The model behind Codex.
    pub model: Model,
    /// Codex's home.
    pub codex: CodexHome,
    /// The shared app-server.
    pub daemon: Daemon,
    /// The relay.
    pub server: Server,
    /// The machine's state.
    pub machine: Machine,
}

/// A world with a phone that is paired and shows the machine's threads.
pub struct Paired {
    /// The phone.
    pub phone: Phone,
    /// The connector; it ends before what it would miss.
    pub connector: Connector,
    /// All but the phone and the connector.
    pub world: World,
}

impl World {
    /// Starts everything but the connector.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    async fn start_with(settings: Settings) -> anyhow::Result<Self> {
        let model = Model::start().await?;
        let codex = CodexHome::create(&model)?;
        let (daemon, server) = tokio::try_join!(codex.start_daemon(), Server::start_with(settings.clone()))?;
        let machine = Machine::new(server.origin(), &codex)?.telling(&settings);
        Ok(Self { browser: Browser::start()?, model, codex, daemon, server, machine })
    }

    /// Starts everything, signs a phone in and pairs it.
    ///
    /// # Errors
    /// When a part does not come up or the pairing fails.
    pub async fn paired() -> anyhow::Result<Paired> {
        Self::paired_with(Settings::default()).await
    }

    /// Starts everything as [`World::paired`], with these settings.
    ///
    /// # Errors
    /// When a part does not come up or the pairing fails.
    pub async fn paired_with(settings: Settings) -> anyhow::Result<Paired> {
        let world = Self::start_with(settings).await?;
        world.allow_workspace().await?;
        let phone = world.phone().await?;
        phone.sign_in(world.server.owner_link()).await?;
        let mut connector = world.machine.connect()?;
        pair(&phone, &mut connector).await?;
        Ok(Paired { phone, connector, world })
    }

    /// A phone in a fresh profile.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn phone(&self) -> anyhow::Result<Phone> {
        Ok(Phone::new(self.browser.phone().await?))
    }

    /// A phone that prefers dark.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn dark_phone(&self) -> anyhow::Result<Phone> {
        Ok(Phone::new(self.browser.open(Scheme::Dark, 390, 844).await?))
    }

    /// Lets threads be started in the workspace.
    ///
    /// # Errors
    /// When the connector's own command refuses.
    pub async fn allow_workspace(&self) -> anyhow::Result<()> {
        let workspace = self.machine.workspace().to_string_lossy().into_owned();
        let (allowed, lines) = self.machine.command(&["directories", "add", &workspace]).await?;
        ensure!(allowed, "flydex directories add: {:?}", lines.err);
        Ok(())
    }

    /// A client at the desk.
    ///
    /// # Errors
    /// When the app-server does not answer.
    pub async fn desk(&self) -> anyhow::Result<Desk> {
        Desk::connect(self.daemon.socket()).await
    }

    /// A thread that was begun at the desk with `prompt` and has ended its first turn; its id.
    ///
    /// # Errors
    /// When Codex does not do it.
    pub async fn thread(&self, prompt: &str) -> anyhow::Result<String> {
        let mut desk = self.desk().await?;
        let thread_id = desk.start_thread(&self.codex.workspace()).await?;
        desk.start_turn(&thread_id, prompt).await?;
        desk.turn_ended(&thread_id).await?;
        Ok(thread_id)
    }
}

/// Leads a pairing to its end: both screens show the same digits, the desk says yes.
///
/// # Errors
/// When a step does not come, or the digits differ.
pub async fn pair(phone: &Phone, connector: &mut Connector) -> anyhow::Result<()> {
    let url = connector.pair_url().await?;
    let shown = phone.scan(&url).await?;
    let (code, _) = connector.question().await?;
    ensure!(digits(&shown) == digits(&code), "the phone shows {shown}, the desk {code}");
    connector.answer(true).await?;
    phone.open_paired().await.with_context(|| connector.process().story())
}

/// The digits in a text, whatever stands between them.
#[must_use]
pub fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

impl Paired {
    /// Opens on the phone a thread that was begun at the desk; its id.
    ///
    /// # Errors
    /// When it does not appear.
    pub async fn open_new_thread(&self, title: &str) -> anyhow::Result<String> {
        let thread_id = self.world.thread(&format!("{title} [[say ready]]")).await?;
        self.phone.open_thread(title).await?;
        self.phone.reads("ready").await?;
        Ok(thread_id)
    }

    /// A second phone that is signed in to the same account and paired with the same machine.
    ///
    /// # Errors
    /// When a step fails.
    pub async fn second_phone(&self) -> anyhow::Result<Phone> {
        let second = self.world.phone().await?;
        second.sign_in(&self.phone.sign_in_link().await?).await?;
        let mut adding = self.world.machine.start(&["devices", "add"])?;
        pair(&second, &mut adding).await?;
        Ok(second)
    }

    /// Writes what all parts said, for the message of a failed flow.
    #[must_use]
    pub fn story(&self) -> String {
        let parts =
            [self.world.server.process().story(), self.connector.process().story(), self.world.codex.daemon_log()];
        parts.join("\n")
    }

    /// The origin of the relay.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.world.server.origin()
    }

    /// The folder that threads work in.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        self.world.machine.workspace()
    }
}
