//! The commands that look at a connector or change what it may do, whether it runs or not.

use std::path::{Path, PathBuf};

use flydex_domain::device::{Device, Holder};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::DeviceId;
use flydex_domain::limits::LABEL_CHARS_MAX;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::EncodedKey;

use super::args::{DevicesArguments, DevicesCommand, DirectoriesArguments, DirectoriesCommand, TrustedKey};
use super::{Context, Problem, parts};
use crate::api::Api;
use crate::control::{self, Answer, ControlError, Request, Status};
use crate::pair::desk::{Desk, Paired};
use crate::pair::{Enrolment, Pairing, PairingRequest, Proposal, printable};
use crate::record::{self, Directory, PairedRecord, Settings};
use crate::regions::ServerOrigin;
use crate::release::{self, Told};

/// `flydex status`.
pub(super) async fn status(context: &Context, json: bool) -> Result<(), Problem> {
    let running = running_status(context).await?;
    let paired = PairedRecord::load(&context.state)?;
    if json {
        let value = serde_json::json!({
            "running": running.is_some(),
            "paired": paired.is_some(),
            "connector": running,
        });
        context.screen.line(&value.to_string());
        return Ok(());
    }
    match (running, paired) {
        (Some(status), _) => status.lines().iter().for_each(|line| context.screen.line(line)),
        (None, Some(record)) => {
            context.screen.line(&format!("paired    with account {} at {}", record.account_name, record.origin));
            context.screen.line("running   no; flydex run connects it");
        }
        (None, None) => context.screen.line("not paired; flydex connect pairs this computer"),
    }
    Ok(())
}

pub(crate) async fn running_status(context: &Context) -> Result<Option<Status>, Problem> {
    match control::ask(&context.state, &Request::Status).await {
        Ok(Answer::Status(status)) => Ok(Some(*status)),
        Ok(Answer::Done | Answer::Devices(_) | Answer::Refused(_)) => Err(Problem::of_code(ErrorCode::Internal)),
        Err(ControlError::NotRunning) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Asks the running connector; without one, takes its place for as long as `alone` needs.
async fn running_or<A>(
    context: &Context,
    request: &Request,
    alone: impl FnOnce() -> Result<A, Problem>,
    answered: impl FnOnce(Answer) -> Option<A>,
) -> Result<A, Problem> {
    match control::ask(&context.state, request).await {
        Ok(answer) => answered(answer).ok_or_else(|| Problem::of_code(ErrorCode::Internal)),
        Err(ControlError::NotRunning) => {
            let _lock = context.state.lock()?;
            alone()
        }
        Err(error) => Err(error.into()),
    }
}

/// `flydex pause` and `flydex resume`.
pub(super) async fn pause(context: &Context, paused: bool) -> Result<(), Problem> {
    let request = if paused { Request::Pause } else { Request::Resume };
    let alone = || {
        let settings = Settings { paused, ..Settings::load(&context.state)? };
        Ok(settings.store(&context.state)?)
    };
    running_or(context, &request, alone, |_| Some(())).await?;
    let said = if paused { "paused: nothing acts remotely; flydex resume lets it again" } else { "resumed" };
    context.screen.line(said);
    Ok(())
}

/// `flydex unpair`.
pub(super) async fn unpair(context: &Context) -> Result<(), Problem> {
    match control::ask(&context.state, &Request::Stop).await {
        Ok(_) => context.screen.line("the running connector stops"),
        Err(ControlError::NotRunning) => {}
        Err(error) => return Err(error.into()),
    }
    let _lock = lock_when_free(context).await?;
    let was_paired = !PairedRecord::load(&context.state).is_ok_and(|record| record.is_none());
    // What cannot be read cannot be said to the server; it is forgotten all the same.
    if let (Ok(Some(record)), Ok(Some(key))) =
        (PairedRecord::load(&context.state), context.state.existing_machine_key())
    {
        release::prepare(&context.state, &record, &key)?;
    }
    PairedRecord::forget(&context.state)?;
    if !was_paired {
        context.screen.line("this computer was not paired; its keys are gone all the same");
        return Ok(());
    }
    context.screen.line("unpaired: account, devices and machine key are forgotten");
    context.screen.line(match release::tell(&context.state, &context.clock).await? {
        Told::Yes => "the account has this computer no more",
        Told::Later => "the server cannot be told now: it is at the next start, or remove the machine in the web app",
    });
    Ok(())
}

/// The lock, once the connector that was told to stop has let it go.
async fn lock_when_free(context: &Context) -> Result<crate::state::InstanceLock, Problem> {
    use flydex_domain::limits::CONTROL_TIMEOUT;
    let free = async {
        loop {
            match context.state.lock() {
                Err(crate::state::StateError::AlreadyRunning { .. }) => {
                    tokio::time::sleep(flydex_domain::limits::PAIRING_POLL_INTERVAL).await;
                }
                settled => return settled,
            }
        }
    };
    match tokio::time::timeout(super::run::STOP_GRACE * 2 + CONTROL_TIMEOUT, free).await {
        Ok(settled) => Ok(settled?),
        Err(_) => Ok(context.state.lock()?),
    }
}

/// `flydex directories`.
pub(super) async fn directories(context: &Context, arguments: DirectoriesArguments) -> Result<(), Problem> {
    let mut settings = Settings::load(&context.state)?;
    match arguments.command {
        DirectoriesCommand::List => {
            if settings.directories.is_empty() {
                context.screen.line("none; flydex directories add FOLDER lets threads be started in one");
            }
            for directory in &settings.directories {
                context.screen.line(&format!("{}\t{}", directory.path, directory.label));
            }
            return Ok(());
        }
        DirectoriesCommand::Add { path, label } => {
            let path = folder(&path)?;
            let text = path.to_str().ok_or_else(|| no_folder(&path))?.to_owned();
            let own_name = || path.file_name().map_or_else(|| text.clone(), |name| name.to_string_lossy().into_owned());
            let label: String = printable(&label.unwrap_or_else(own_name)).chars().take(LABEL_CHARS_MAX).collect();
            settings.directories.retain(|directory| directory.path != text);
            settings.directories.push(Directory { path: text, label });
        }
        DirectoriesCommand::Remove { path } => {
            let given = path.canonicalize().unwrap_or(path);
            let before = settings.directories.len();
            settings.directories.retain(|directory| Path::new(&directory.path) != given);
            if settings.directories.len() == before {
                return Err(Problem::new(
                    ErrorCode::NotFound,
                    "that folder is not on the list",
                    "flydex directories list",
                ));
            }
        }
    }
    keep_settings(context, &settings).await
}

/// Writes the settings down; a running connector goes by them from now on.
pub(super) async fn keep_settings(context: &Context, settings: &Settings) -> Result<(), Problem> {
    settings.store(&context.state)?;
    match control::ask(&context.state, &Request::Reload).await {
        Ok(_) => context.screen.line("done; the running connector goes by it from now on"),
        Err(ControlError::NotRunning) => context.screen.line("done"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn folder(path: &Path) -> Result<PathBuf, Problem> {
    let path = path.canonicalize().map_err(|_| no_folder(path))?;
    if path.is_dir() { Ok(path) } else { Err(no_folder(&path)) }
}

fn no_folder(path: &Path) -> Problem {
    let cause = format!("{} is no folder that can be used", path.display());
    Problem::new(ErrorCode::DirectoryNotAllowed, &cause, "name an existing folder")
}

/// `flydex devices`.
pub(super) async fn devices(context: Context, arguments: DevicesArguments) -> Result<(), Problem> {
    match arguments.command {
        DevicesCommand::List => list(&context).await,
        DevicesCommand::Remove { device } => remove(&context, device).await,
        DevicesCommand::Trust { key, role, label } => trust(&context, key, role, label).await,
        DevicesCommand::Add { role } => Box::pin(add(context, role)).await,
    }
}

async fn list(context: &Context) -> Result<(), Problem> {
    let listed = match control::ask(&context.state, &Request::Devices).await {
        Ok(Answer::Devices(devices)) => *devices,
        Ok(Answer::Done | Answer::Status(_) | Answer::Refused(_)) => return Err(Problem::of_code(ErrorCode::Internal)),
        Err(ControlError::NotRunning) => record::load_devices(&context.state)?,
        Err(error) => return Err(error.into()),
    };
    if listed.devices().next().is_none() {
        context.screen.line("none; flydex devices add pairs one");
    }
    for device in listed.devices() {
        let (device_id, role, label, how) = (device.device_id(), device.role, printable(&device.label), how(device));
        context.screen.line(&format!("{device_id}\t{role}\t{label}\t{how}"));
    }
    for (device_id, _) in listed.removed() {
        context.screen.line(&format!("{device_id}\tremoved: only this computer can enrol it again"));
    }
    context.screen.line(&format!("list version {}", listed.version()));
    Ok(())
}

/// How a device came onto the list, and what the machine asks of it.
fn how(device: &Device) -> String {
    let came = match (device.introducer, device.holder) {
        (Some(introducer), _) => format!("endorsed by {}", introducer.device_id),
        (None, Holder::Browser) => "paired here".to_owned(),
        (None, Holder::Program) => "key typed in here".to_owned(),
    };
    if device.passkey.is_some() { format!("{came}, with a passkey") } else { came }
}

/// Puts a program's key on the list: the person at the desk alone vouches for it.
async fn trust(context: &Context, TrustedKey(key): TrustedKey, role: Role, label: String) -> Result<(), Problem> {
    let alone = || {
        let mut devices = record::load_devices(&context.state)?;
        let now = UnixMillis(context.clock.unix_millis());
        devices.trust(key, role, &label, now).map_err(Problem::of_code)?;
        Ok(record::store_devices(&context.state, &devices)?)
    };
    let request = Request::Trust { key: EncodedKey(key), role, label: label.clone() };
    running_or(context, &request, alone, |_| Some(())).await?;
    context.screen.line(&format!("trusted: {} may act as {role}", key.device_id()));
    Ok(())
}

/// Whether a browser may be paired at all.
pub(super) fn takes_browsers(context: &Context) -> Result<(), Problem> {
    if Settings::load(&context.state)?.refuse_browser_keys {
        let next = "flydex settings set refuse_browser_keys off, if a browser may be paired";
        return Err(Problem::new(ErrorCode::BrowserKeysRefused, "this computer obeys no browser", next));
    }
    Ok(())
}

async fn remove(context: &Context, device_id: DeviceId) -> Result<(), Problem> {
    let alone = || {
        let mut devices = record::load_devices(&context.state)?;
        if !devices.remove(&device_id, UnixMillis(context.clock.unix_millis())) {
            return Err(Problem::of_code(ErrorCode::NotFound));
        }
        Ok(record::store_devices(&context.state, &devices)?)
    };
    running_or(context, &Request::Remove { device_id }, alone, |_| Some(())).await?;
    context.screen.line("removed: this computer no longer obeys that device");
    Ok(())
}

/// Pairs a further device from this terminal; a running connector goes on meanwhile, and is told.
async fn add(context: Context, role: Role) -> Result<(), Problem> {
    takes_browsers(&context)?;
    let not_paired = || Problem::of_code(ErrorCode::NotPaired);
    let record = PairedRecord::load(&context.state)?.ok_or_else(not_paired)?;
    let key = context.state.existing_machine_key()?.ok_or_else(not_paired)?;
    let origin: ServerOrigin = record.origin.parse()?;
    let api = Api::new(origin, record.trusted_pem.as_deref(), context.clock.clone())?;
    let (mut desk, port) = Desk::new(context.screen.clone());
    parts::read_answers(&port);
    drop(port);
    let request = PairingRequest {
        machine_key: &key,
        machine_label: record.machine_label.clone(),
        role,
        credential: Some(record.credential.clone()),
    };
    let start = || Pairing::start(api.clone(), request.clone(), context.clock.clone(), &context.entropy);
    let Paired { pairing, proposal, enrolment } = desk.pair_afresh(start).await?;
    parts::same_machine(&record, &enrolment)?;
    enrol(&context, &proposal, enrolment).await?;
    context.screen.line("paired");
    report(&context, &pairing).await;
    Ok(())
}

async fn enrol(context: &Context, proposal: &Proposal, enrolment: Enrolment) -> Result<(), Problem> {
    let (key, role, label) = (proposal.device_key(), proposal.role(), proposal.device_label.clone());
    let Enrolment { credential, token_keys, .. } = enrolment;
    let request = Request::Enrol {
        key: EncodedKey(key),
        role,
        label: label.clone(),
        credential: credential.clone(),
        token_keys: token_keys.clone(),
    };
    let alone = || {
        let stored = PairedRecord::load(&context.state)?.ok_or_else(|| Problem::of_code(ErrorCode::NotPaired))?;
        PairedRecord { credential, token_keys, ..stored }.store(&context.state)?;
        Ok(record::enrol(&context.state, key, role, &label, UnixMillis(context.clock.unix_millis()))?)
    };
    running_or(context, &request, alone, |_| Some(())).await
}

/// Tells the new device how Codex stands, as far as the running connector knows.
async fn report(context: &Context, pairing: &Pairing) {
    match running_status(context).await {
        Ok(Some(status)) if matches!(status.codex.as_str(), "ready" | "read_only") => pairing.codex_ready().await,
        Ok(Some(_)) => pairing.failed(ErrorCode::CodexUnavailable).await,
        Ok(None) | Err(_) => {
            context.screen.line("flydex run connects this computer");
            pairing.failed(ErrorCode::MachineOffline).await;
        }
    }
}
