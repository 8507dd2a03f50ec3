//! The connector's side of Codex, alone: its handle and its events against the real Codex.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind and passes the others over")]

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use flydex_agent_proto::v1::{self, agent_event, command_body, command_result, item};
use flydex_connector::codex::{
    self, AllowedDirectory, AskedApproval, CodexConfig, CodexEvent, CodexHandle, CodexStatus, Refused, RequestKey,
    Resolution, ThreadId, WatchId,
};
use flydex_domain::id::CommandId;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_tests::codex::{CodexHome, Daemon, Desk};
use flydex_tests::model::Model;
use flydex_tests::wait;
use tokio::sync::mpsc;
use uuid::Uuid;

/// A model, a Codex that is shared, a program at the desk, and the connector attached to it.
pub(crate) struct Stage {
    pub(crate) model: Model,
    pub(crate) home: CodexHome,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) desk: Desk,
    pub(crate) client: Client,
}

/// The connector's side of Codex.
pub(crate) struct Client {
    pub(crate) handle: CodexHandle,
    events: mpsc::Receiver<CodexEvent>,
    shutdown: Shutdown,
}

/// Sets the stage, with the desk's policy as given.
pub(crate) async fn stage_with(adjust: impl FnOnce(&mut CodexConfig)) -> anyhow::Result<Stage> {
    let model = Model::start().await?;
    let home = CodexHome::create(&model)?;
    let daemon = home.start_daemon().await?;
    let desk = Desk::connect(daemon.socket()).await?;
    let mut config = config(&home);
    adjust(&mut config);
    let mut client = Client::start(config);
    client.ready().await?;
    Ok(Stage { model, home, daemon: Some(daemon), desk, client })
}

/// Sets the stage with the default policy.
pub(crate) async fn stage() -> anyhow::Result<Stage> {
    stage_with(|_| {}).await
}

/// A connector's configuration for that home, with its workspace as the one allowed folder.
pub(crate) fn config(home: &CodexHome) -> CodexConfig {
    CodexConfig {
        program: Some(home.binary().to_owned()),
        codex_home: Some(home.path()),
        directories: vec![AllowedDirectory { path: home.workspace(), label: "workspace".to_owned() }],
        connector_version: "0.0.0".to_owned(),
        ..CodexConfig::default()
    }
}

pub(crate) fn command_id() -> CommandId {
    CommandId::from_uuid(Uuid::now_v7())
}

impl Client {
    pub(crate) fn start(config: CodexConfig) -> Self {
        let shutdown = Shutdown::new();
        let (handle, events) = codex::start(config, Clock::system(), shutdown.clone());
        Self { handle, events, shutdown }
    }

    /// Waits until Codex answers; gives its version and generation.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<(String, flydex_domain::id::Generation)> {
        self.event("codex to be ready", |event| match event {
            CodexEvent::Status(CodexStatus::Ready { version, generation, .. }) => Some((version, generation)),
            _ => None,
        })
        .await
    }

    /// The first event that fits; those before it are passed over.
    pub(crate) async fn event<T>(
        &mut self,
        what: &str,
        mut fits: impl FnMut(CodexEvent) -> Option<T>,
    ) -> anyhow::Result<T> {
        loop {
            let event = wait::within(what, self.events.recv()).await?.context("the events ended")?;
            if let Some(found) = fits(event) {
                return Ok(found);
            }
        }
    }

    /// The first event of a thread's stream that fits.
    pub(crate) async fn thread_event<T>(
        &mut self,
        what: &str,
        mut fits: impl FnMut(agent_event::Kind) -> Option<T>,
    ) -> anyhow::Result<T> {
        self.event(what, |event| match event {
            CodexEvent::Thread { event, .. } => fits(event.kind?),
            _ => None,
        })
        .await
    }

    pub(crate) async fn watch(&mut self, thread_id: &str) -> anyhow::Result<Result<v1::ThreadSnapshot, Refused>> {
        let thread_id: ThreadId = thread_id.parse()?;
        let asked = WatchId(u64::from(u32::from_be_bytes(rand_bytes())));
        self.handle.watch(&thread_id, asked).await.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
        self.event("the snapshot", |event| match event {
            CodexEvent::Watched { watch_id, outcome, .. } if watch_id == asked => Some(outcome),
            _ => None,
        })
        .await
    }

    pub(crate) async fn watched(&mut self, thread_id: &str) -> anyhow::Result<v1::ThreadSnapshot> {
        self.watch(thread_id).await?.map_err(|refused| anyhow::anyhow!("{refused:?}"))
    }

    pub(crate) async fn start_turn(&self, thread_id: &str, text: &str) -> Result<v1::TurnAccepted, Refused> {
        let body = v1::StartTurn { thread_id: thread_id.to_owned(), text: text.to_owned(), ..Default::default() };
        let result = self.handle.execute(command_id(), command_body::Kind::StartTurn(body)).await?;
        match result.kind {
            Some(command_result::Kind::TurnAccepted(accepted)) => Ok(accepted),
            _ => Err(flydex_domain::error::ErrorCode::Internal.into()),
        }
    }

    pub(crate) async fn turn_ended(&mut self) -> anyhow::Result<v1::TurnEnded> {
        self.thread_event("the turn's end", |kind| match kind {
            agent_event::Kind::TurnEnded(ended) => Some(ended),
            _ => None,
        })
        .await
    }

    pub(crate) async fn approval(&mut self) -> anyhow::Result<AskedApproval> {
        self.event("an approval", |event| match event {
            CodexEvent::ApprovalAsked(asked) => Some(asked),
            _ => None,
        })
        .await
    }

    pub(crate) async fn resolution(&mut self, of: &RequestKey) -> anyhow::Result<Resolution> {
        self.event("the request's end", |event| match event {
            CodexEvent::RequestResolved { key, how } if key == *of => Some(how),
            _ => None,
        })
        .await
    }

    pub(crate) async fn item_completed(&mut self, wanted: fn(&item::Kind) -> bool) -> anyhow::Result<v1::Item> {
        self.thread_event("an item's end", |kind| match kind {
            agent_event::Kind::ItemCompleted(event) => event.item.filter(|item| item.kind.as_ref().is_some_and(wanted)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        drop(self.events);
        if !self.shutdown.drain(wait::PATIENCE).await {
            bail!("the connector's tasks did not end");
        }
        Ok(())
    }
}

fn rand_bytes() -> [u8; 4] {
    let bytes = *Uuid::new_v4().as_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

/// A program that starts Codex in that home as its user would, with the model's key in its environment.
pub(crate) fn wrapper(home: &CodexHome) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = home.workspace().join("codex-with-key");
    let key = flydex_tests::codex::home::API_KEY_VARIABLE;
    let text = format!("#!/bin/sh\n{key}=scripted HOME={0:?} exec {1:?} \"$@\"\n", home.workspace(), home.binary());
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
