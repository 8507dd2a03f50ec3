//! `flydex run`: a paired machine, kept connected in the foreground until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::DESK_REQUESTS_MAX;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{mpsc, watch};

use super::args::RunArguments;
use super::parts::{self, Front, Further, Progress};
use super::{Context, Problem};
use crate::api::Api;
use crate::audit::Uploader;
use crate::codex;
use crate::control::{Control, RunningFacts};
use crate::core::{self, CoreConfig};
use crate::credential::Keyring;
use crate::helper::Readiness;
use crate::pair::Pairing;
use crate::pair::desk::Desk;
use crate::paired::{DeskPolicy, PairedState};
use crate::record::{PairedRecord, Settings};
use crate::regions::ServerOrigin;
use crate::release;
use crate::rotation;
use crate::state::InstanceLock;

/// Time that a stop waits for what is under way, before it ends it.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(5);

/// Keeps a paired machine connected.
pub(super) async fn run(context: Context, arguments: RunArguments) -> Result<(), Problem> {
    let lock = context.state.lock()?;
    context.state.check_files()?;
    let not_paired = || Problem::of_code(ErrorCode::NotPaired);
    let record = PairedRecord::load(&context.state)?.ok_or_else(not_paired)?;
    let key = rotation::settled_key(&context.state, &record)?.ok_or_else(not_paired)?;
    let origin: ServerOrigin = record.origin.parse()?;
    let api = Api::new(origin.clone(), record.trusted_pem.as_deref(), context.clock.clone())?;
    // What the last account has not heard yet does not keep this one waiting.
    let _ = release::tell(&context.state, &context.clock).await;
    let shutdown = Shutdown::new();
    parts::end_on_signals(&shutdown);
    let (desk, port) = Desk::new(context.screen.clone());
    parts::read_answers(&port);
    let (readiness, _) = watch::channel(Readiness::Connecting);
    let front = Front::open(&context, arguments.port, origin, port, &readiness, &shutdown).await;
    let serving = Serving { context, record, key, api, desk, front, readiness, shutdown, first: None, lock };
    Box::pin(serving.serve()).await
}

/// Everything that a run needs.
pub(super) struct Serving {
    pub(super) context: Context,
    pub(super) record: PairedRecord,
    pub(super) key: SigningKey,
    pub(super) api: Api,
    pub(super) desk: Desk,
    pub(super) front: Front,
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) shutdown: Shutdown,
    /// The pairing that this run began with; its phone waits for Codex.
    pub(super) first: Option<Pairing>,
    pub(super) lock: InstanceLock,
}

impl Serving {
    /// Starts every part and waits for the end of the core.
    pub(super) async fn serve(self) -> Result<(), Problem> {
        let (facts, settings) = (facts(&self.record, self.front.port), Settings::load(&self.context.state)?);
        let Self { context, record, key, api, desk, front, readiness, shutdown, first, lock } = self;
        let (state, clock) = (context.state.clone(), context.clock.clone());
        let (policy_tx, policy) = watch::channel(settings.policy());
        let keyring = Keyring::new(state.clone(), record.clone(), Arc::new(key), api.origin().clone(), clock.clone());
        let keyring = Arc::new(keyring);
        let paired = paired(record, &keyring, policy);
        let spool = parts::open_spool(&context)?;
        let (requests, desk_rx) = mpsc::channel(DESK_REQUESTS_MAX);
        let (status_tx, status) = watch::channel(None);
        let entropy = context.entropy.clone();
        let core = CoreConfig::in_folder(state.path(), paired, spool.clone(), desk_rx, status_tx, entropy);
        let core = core.map_err(|error| Problem::core(&error))?;
        let region_report = core.region_report.subscribe();
        let (codex, events) = codex::start(parts::codex_config(&context, &settings), clock.clone(), shutdown.clone());
        let (settings_tx, settings_rx) = watch::channel(settings);

        let progress = Progress { core: status.clone(), codex: codex.status(), stop: shutdown.soft() };
        let control = Control {
            state,
            core: requests.clone(),
            core_status: status,
            codex_status: codex.status(),
            unfollowed: codex.unfollowed(),
            region_report: region_report.clone(),
            keyring: Arc::clone(&keyring),
            api: api.clone(),
            entropy: context.entropy.clone(),
            settings: settings_tx,
            facts,
            shutdown: shutdown.clone(),
        };
        parts::listen(&context, control, &shutdown);
        shutdown.spawn(parts::follow_settings(settings_rx, policy_tx, codex.clone()));
        shutdown.spawn(progress.clone().show(readiness));
        shutdown.spawn(progress.clone().say(context.screen.clone(), !api.origin().is_encrypted()));
        if let Some(pairing) = first {
            shutdown.spawn(progress.clone().report(pairing));
        }
        let uploader = Uploader { api: api.clone(), keyring: Arc::clone(&keyring), spool };
        shutdown.spawn(uploader.run(shutdown.soft()));
        let further = Further {
            context: context.clone(),
            desk,
            api: api.clone(),
            keyring: Arc::clone(&keyring),
            core: requests.clone(),
            progress,
            shutdown: shutdown.clone(),
        };
        shutdown.spawn(further.run(front.staged));
        let entropy = context.entropy.clone();
        shutdown.spawn(Arc::clone(&keyring).keep_regions(
            api.clone(),
            requests.clone(),
            region_report,
            entropy,
            shutdown.soft(),
        ));
        shutdown.spawn(keyring.keep_young(api, requests, context.entropy.clone(), shutdown.soft()));

        context.screen.line("connecting; flydex status tells more, and Ctrl-C ends it");
        let ended = Box::pin(core::run(core, codex, events, clock, shutdown.clone())).await;
        shutdown.drain(STOP_GRACE).await;
        drop(lock);
        ended.map_err(|error| Problem::core(&error))
    }
}

fn paired(record: PairedRecord, keyring: &Keyring, policy: watch::Receiver<DeskPolicy>) -> PairedState {
    PairedState {
        origin: record.origin,
        account_id: record.account_id,
        account_name: record.account_name,
        machine_id: record.machine_id,
        machine_label: record.machine_label,
        machine_key: keyring.keys(),
        credential: keyring.credential(),
        verifier: keyring.verifier(),
        regions: keyring.regions(),
        policy,
    }
}

fn facts(record: &PairedRecord, helper_port: Option<u16>) -> RunningFacts {
    RunningFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        origin: record.origin.clone(),
        account_id: record.account_id,
        account_name: record.account_name.clone(),
        machine_id: record.machine_id,
        machine_label: record.machine_label.clone(),
        helper_port,
    }
}
