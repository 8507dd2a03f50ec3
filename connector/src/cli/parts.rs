//! The small tasks around the core of a running connector: its page, its keyboard, its socket, and the wishes
//! that come through them.

use std::io::BufRead as _;
use std::sync::Arc;

use flydex_domain::device::Holder;
use flydex_domain::error::{ErrorCode, Retry};
use flydex_domain::scope::Role;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Context, Problem, desk_side};
use crate::api::Api;
use crate::codex::{Allowed, AllowedDirectory, CodexConfig, CodexHandle, CodexStatus};
use crate::control::Control;
use crate::credential::Keyring;
use crate::helper::{Helper, HelperConfig, PageToken, Readiness};
use crate::pair::desk::{Desk, DeskAnswer, DeskPort, Paired};
use crate::pair::{Pairing, PairingRequest};
use crate::paired::{CoreStatus, DeskPolicy, DeskRequest, LinkStatus, SPOOL_FILE};
use crate::record::Settings;
use crate::regions::ServerOrigin;
use crate::spool::Spool;
use crate::storage::FileStorage;

/// The first SIGINT or SIGTERM begins the stop, a second one ends everything.
pub(super) fn end_on_signals(shutdown: &Shutdown) {
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        if shutdown.on_signals().await.is_err() {
            tracing::warn!(error.code = ErrorCode::Internal.name(), "signals cannot be listened for");
        }
    });
}

/// Reads the terminal's lines as answers. The thread is left behind at the end: nothing can wake a read.
pub(super) fn read_answers(desk: &DeskPort) {
    let answers = desk.answers.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let yes = matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
            if answers.blocking_send(DeskAnswer { yes, question: None }).is_err() {
                return;
            }
        }
    });
}

/// The helper, when its port was free, and what the relay's page wishes through it.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) port: Option<u16>,
    pub(super) staged: mpsc::Receiver<()>,
}

impl Front {
    /// Serves the helper. A taken port is said, and everything else goes on in the terminal.
    pub(super) async fn open(
        context: &Context,
        port: u16,
        origin: ServerOrigin,
        desk: DeskPort,
        readiness: &watch::Sender<Readiness>,
        shutdown: &Shutdown,
    ) -> Self {
        let (staged_tx, staged) = mpsc::channel(1);
        let helper = match Helper::bind(port).await {
            Ok(helper) => helper,
            Err(error) => {
                let code = error.code();
                context.screen.line(&format!("{error} [{code}]; going on in the terminal"));
                return Self { port: None, staged };
            }
        };
        let token = PageToken::draw(&context.entropy);
        context.screen.line(&format!("page {}", *helper.page_url(&token)));
        let port = helper.port();
        helper
            .serve(HelperConfig { origin, token, desk, staged: staged_tx, readiness: readiness.subscribe() }, shutdown);
        Self { port: Some(port), staged }
    }
}

/// Where Codex is, and what the desk lets it do.
pub(crate) fn codex_config(context: &Context, settings: &Settings) -> CodexConfig {
    let Allowed { directories, session_acceptance, allow_unguarded } = allowed(settings);
    CodexConfig { directories, session_acceptance, allow_unguarded, ..context.codex.clone() }
}

fn allowed(settings: &Settings) -> Allowed {
    let directory = |directory: &crate::record::Directory| AllowedDirectory {
        path: directory.path.clone().into(),
        label: directory.label.clone(),
    };
    Allowed {
        directories: settings.directories.iter().map(directory).collect(),
        session_acceptance: settings.session_acceptance,
        allow_unguarded: settings.allow_unguarded,
    }
}

/// Serves the CLI's socket. Without it the connector runs all the same, and says so.
pub(super) fn listen(context: &Context, control: Control, shutdown: &Shutdown) {
    match control.listen() {
        Ok(listener) => shutdown.spawn(Arc::new(control).serve(listener)),
        Err(_) => {
            let path = context.state.file(crate::control::SOCKET_FILE);
            context.screen.line(&format!("cannot listen on {}: flydex status will not see this run", path.display()));
        }
    }
}

/// Turns what the desk chose into what the core, its links and Codex go by.
pub(super) async fn follow_settings(
    mut settings: watch::Receiver<Settings>,
    policy: watch::Sender<DeskPolicy>,
    codex: CodexHandle,
) {
    while settings.changed().await.is_ok() {
        let next = settings.borrow_and_update().clone();
        // Codex first: what the core offers must be takeable.
        codex.allow(allowed(&next));
        policy.send_replace(next.policy());
    }
}

/// How far the core and Codex are, followed by those who tell others of it.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) core: watch::Receiver<Option<CoreStatus>>,
    pub(super) codex: watch::Receiver<CodexStatus>,
    pub(super) stop: CancellationToken,
}

impl Progress {
    /// Keeps what the helper says of the connector true.
    pub(super) async fn show(mut self, readiness: watch::Sender<Readiness>) {
        loop {
            let now = readiness_of(*self.core.borrow_and_update(), &self.codex.borrow_and_update());
            readiness.send_replace(now);
            if !self.changed().await {
                return;
            }
        }
    }

    /// Tells the phone that has just been paired once sessions can reach this machine and Codex answers, or why
    /// Codex never will.
    pub(super) async fn report(mut self, pairing: Pairing) {
        loop {
            let link = self.core.borrow_and_update().map(|core| core.link);
            let attached = matches!(link, Some(LinkStatus::Attached(_)));
            let codex = self.codex.borrow_and_update().clone();
            match codex {
                CodexStatus::Ready { .. } if attached => return pairing.codex_ready().await,
                CodexStatus::Unavailable(code) if code.retry() == Retry::Never => return pairing.failed(code).await,
                CodexStatus::Ready { .. } | CodexStatus::Unavailable(_) | CodexStatus::Starting => {}
            }
            if !self.changed().await {
                return;
            }
        }
    }

    /// False when nothing will change any more.
    pub(super) async fn changed(&mut self) -> bool {
        tokio::select! {
            biased; // the stop comes first
            () = self.stop.cancelled() => false,
            changed = self.core.changed() => changed.is_ok(),
            changed = self.codex.changed() => changed.is_ok(),
        }
    }
}

fn readiness_of(core: Option<CoreStatus>, codex: &CodexStatus) -> Readiness {
    match (core.map_or(LinkStatus::Down(None), |core| core.link), codex) {
        (LinkStatus::Down(_), _) => Readiness::Connecting,
        (LinkStatus::Linked(_) | LinkStatus::Attached(_), CodexStatus::Starting) => Readiness::CodexStarting,
        (LinkStatus::Linked(_) | LinkStatus::Attached(_), CodexStatus::Ready { .. }) => Readiness::CodexReady,
        (LinkStatus::Linked(_) | LinkStatus::Attached(_), CodexStatus::Unavailable(_)) => Readiness::CodexUnavailable,
    }
}

/// Pairs further devices while the connector runs, when a page of the relay wishes it and the desk agrees.
pub(super) struct Further {
    pub(super) context: Context,
    pub(super) desk: Desk,
    pub(super) api: Api,
    pub(super) keyring: Arc<Keyring>,
    pub(super) core: mpsc::Sender<DeskRequest>,
    pub(super) progress: Progress,
    pub(super) shutdown: Shutdown,
}

impl Further {
    /// Serves one wish after the other until the stop.
    pub(super) async fn run(mut self, mut staged: mpsc::Receiver<()>) {
        let soft = self.shutdown.soft();
        loop {
            tokio::select! {
                biased; // the stop comes first
                () = soft.cancelled() => return,
                wish = staged.recv() => {
                    if wish.is_none() {
                        return;
                    }
                }
            }
            let outcome = tokio::select! {
                biased; // a device that is enrolled is kept, even when the stop comes with it
                outcome = self.pair() => outcome,
                () = soft.cancelled() => return,
            };
            match outcome {
                Ok(()) => self.context.screen.line("paired"),
                Err(problem) => self.context.screen.line(&problem.text()),
            }
            // What was wished in the meantime was meant for this pairing.
            while staged.try_recv().is_ok() {}
        }
    }

    async fn pair(&mut self) -> Result<(), Problem> {
        desk_side::takes_browsers(&self.context)?;
        if !self.desk.may_draw().await {
            return Err(Problem::of_code(ErrorCode::PairingRefused));
        }
        let (record, key) = (self.keyring.record(), self.keyring.key());
        let request = PairingRequest {
            machine_key: &key,
            machine_label: record.machine_label.clone(),
            role: Role::Owner,
            credential: Some(record.credential.clone()),
        };
        let (api, clock, entropy) = (&self.api, &self.context.clock, &self.context.entropy);
        let start = || Pairing::start(api.clone(), request.clone(), clock.clone(), entropy);
        let Paired { pairing, proposal, enrolment } = self.desk.pair_afresh(start).await?;
        same_machine(&record, &enrolment)?;
        let adopted = self.keyring.adopt(enrolment.credential, enrolment.token_keys);
        adopted.map_err(|error| Problem::of_code(error.code()))?;
        let (reply, answer) = oneshot::channel();
        let (key, role, label) = (proposal.device_key(), proposal.role(), proposal.device_label.clone());
        let gone = || Problem::of_code(ErrorCode::GoingAway);
        self.core
            .send(DeskRequest::Enrol { holder: Holder::Browser, key, role, label, reply })
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(Problem::of_code)?;
        self.shutdown.spawn(self.progress.clone().report(pairing));
        Ok(())
    }
}

/// A further device belongs to the same account and machine, or to none.
pub(super) fn same_machine(
    record: &crate::record::PairedRecord,
    enrolment: &crate::pair::Enrolment,
) -> Result<(), Problem> {
    if enrolment.account_id == record.account_id && enrolment.machine_id == record.machine_id {
        return Ok(());
    }
    let next = "sign the device in to the account of this computer, or run flydex unpair first";
    Err(Problem::new(ErrorCode::WrongAccount, "the device is signed in to another account", next))
}

/// The audit records that control does not have yet.
pub(super) fn open_spool(context: &Context) -> Result<Spool, Problem> {
    let file = FileStorage::new(context.state.file(SPOOL_FILE));
    Spool::open(Box::new(file)).map_err(|error| Problem::core(&error))
}
