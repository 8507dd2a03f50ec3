//! `flydex run`: a paired machine, kept connected in the foreground until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::DESK_ANSWERS_MAX;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::{mpsc, watch};

use super::args::RunArguments;
use super::parts::{self, Front, Further};
use super::{Context, Problem};
use crate::api::Api;
use crate::audit::Uploader;
use crate::codex;
use crate::control::{Control, RunningFacts};
use crate::credential::Keyring;
use crate::helper::Readiness;
use crate::pair::Pairing;
use crate::pair::desk::Desk;
use crate::paired::PairedState;
use crate::record::{PairedRecord, Settings};
use crate::regions::ServerOrigin;
use crate::state::InstanceLock;

/// Time that a stop waits for what is under way, before it ends it.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(5);

/// Keeps a paired machine connected.
pub(super) async fn run(context: Context, arguments: RunArguments) -> Result<(), Problem> {
    let lock = context.state.lock()?;
    let not_paired = || Problem::of_code(ErrorCode::NotPaired);
    let record = PairedRecord::load(&context.state)?.ok_or_else(not_paired)?;
    let key = context.state.existing_machine_key()?.ok_or_else(not_paired)?;
    let origin: ServerOrigin = record.origin.parse()?;
    let api = Api::new(origin.clone(), record.trusted_pem.as_deref(), context.clock.clone())?;
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
        let Self { context, record, key, api, desk, front, readiness, shutdown, first, lock } = self;
        let (state, clock) = (context.state.clone(), context.clock.clone());
        let facts = facts(&record, front.port);
        let (paired_of, settings) = (record.clone(), Settings::load(&state)?);
        let origin = api.origin().clone();
        let keyring = Arc::new(Keyring::new(state.clone(), record, Arc::new(key), origin, clock.clone()));
        let spool = parts::open_spool(&state)?;
        let (policy_tx, policy) = watch::channel(settings.policy());
        let (core_tx, core_rx) = mpsc::channel(DESK_ANSWERS_MAX);
        let (status_tx, status) = watch::channel(None);
        let (codex, events) = codex::start(parts::codex_config(&settings), clock.clone(), shutdown.clone());
        let codex_status = codex.status();
        let (settings_tx, settings_rx) = watch::channel(settings);

        let control = Control {
            state: state.clone(),
            core: core_tx.clone(),
            core_status: status.clone(),
            codex_status: codex_status.clone(),
            keyring: Arc::clone(&keyring),
            settings: settings_tx,
            facts,
            shutdown: shutdown.clone(),
        };
        parts::listen(&context, control, &shutdown);
        shutdown.spawn(parts::follow_settings(settings_rx, policy_tx));
        shutdown.spawn(parts::follow_readiness(status.clone(), codex_status.clone(), readiness, shutdown.soft()));
        if let Some(pairing) = first {
            shutdown.spawn(parts::report_codex(pairing, status.clone(), codex_status.clone(), shutdown.soft()));
        }
        let uploader = Uploader { api: api.clone(), keyring: Arc::clone(&keyring), spool: spool.clone() };
        shutdown.spawn(uploader.run(shutdown.soft()));
        let further = Further {
            context: context.clone(),
            desk,
            api: api.clone(),
            keyring: Arc::clone(&keyring),
            core: core_tx,
            status,
            codex: codex_status,
            shutdown: shutdown.clone(),
        };
        shutdown.spawn(further.run(front.staged));
        shutdown.spawn(Arc::clone(&keyring).keep_young(api, shutdown.soft()));

        context.screen.line("connecting; flydex status tells more, and Ctrl-C ends it");
        let paired = PairedState {
            origin: paired_of.origin,
            account_id: paired_of.account_id,
            account_name: paired_of.account_name,
            machine_id: paired_of.machine_id,
            machine_label: paired_of.machine_label,
            machine_key: Arc::clone(keyring.key()),
            credential: keyring.credential(),
            verifier: keyring.verifier(),
            regions: keyring.regions(),
            policy,
        };
        let ended = parts::run_core(paired, state, codex, events, core_rx, status_tx, spool, shutdown.clone());
        let ended = Box::pin(ended).await;
        shutdown.drain(STOP_GRACE).await;
        drop(lock);
        ended.map_err(Problem::of_code)
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
