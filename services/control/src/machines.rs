//! The machines of an account, and the renewal of their credentials.

use axum::Json;
use axum::extract::State;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, DeviceId, MachineId};
use flydex_domain::limits::{CREDENTIAL_LIFETIME, CREDENTIAL_RETRY_WINDOW, DEVICE_LIST_MAX};
use flydex_domain::revocation::Revocation;
use flydex_domain::rotation::KeyRotation;
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, MachineCredential};
use flydex_store::sql::{Machine, Tx};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorBody};
use crate::extract::{Address, ApiJson, PathId};
use crate::machine_auth::{Shown, Signed};
use crate::principal::Browser;
use crate::service::{App, Control};
use crate::wire::{KeyRotationJson, PublicKeyJson, TokenKey, label, token_keys};

/// The machines that are paired and not revoked.
#[derive(Serialize, ToSchema)]
pub(crate) struct Machines {
    machines: Vec<MachineJson>,
}

#[derive(Serialize, ToSchema)]
struct MachineJson {
    #[schema(value_type = String)]
    machine_id: MachineId,
    label: String,
    #[schema(value_type = PublicKeyJson)]
    machine_key: EncodedKey,
    /// How its key followed on each one before, by its own signatures: who knows one of them finds the newest.
    #[schema(value_type = Vec<KeyRotationJson>)]
    key_rotations: Vec<KeyRotation>,
    /// The region it is linked in or was last; where it was paired as long as it was not linked yet.
    region: String,
    /// The only region that may serve it, where its owner keeps it in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    region_pin: Option<String>,
    #[schema(value_type = u64)]
    created_at_ms: UnixMillis,
    /// Its key was used twice: it has no link until it is paired again.
    quarantined: bool,
    /// What its connector said of itself when it was last paired.
    #[serde(skip_serializing_if = "Option::is_none")]
    connector_version: Option<String>,
}

/// A machine's new name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenameBody {
    label: String,
}

/// The region that a machine is kept in; null lets it go anywhere.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegionPinBody {
    // A body that leaves it out is a mistake, not a wish.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true)]
    region: Option<String>,
}

/// A machine's credential and the keys that everything from control verifies with.
#[derive(Serialize, ToSchema)]
pub(crate) struct CredentialJson {
    /// PASETO v4.public, a day.
    credential: String,
    token_keys: Vec<TokenKey>,
    /// What the account took from devices that the machine lists.
    device_cuts: Vec<DeviceCutJson>,
}

/// A device that may do less than the machine may believe.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceCutJson {
    #[schema(value_type = String)]
    device_id: DeviceId,
    /// The role that it keeps at most; null: it is removed.
    #[schema(value_type = Option<String>)]
    keeps: Option<Role>,
}

/// What a machine says when it asks for its next credential.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenewalBody {
    /// The devices on its list, to hear of those that the account cut while the machine was away.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    devices: Vec<DeviceId>,
}

/// Lists the account's machines in the order of their pairing.
#[utoipa::path(get, path = "/api/machines", tag = "machines", security(("cookie" = [])), responses(
    (status = 200, body = Machines), (status = "default", body = ErrorBody)))]
pub(crate) async fn list(State(control): State<App>, browser: Browser) -> Result<Json<Machines>, ApiError> {
    let mut tx = control.store.read().await?;
    let mut rotations = tx.key_rotations(browser.scope()).await?;
    let machines = tx.machines(browser.scope()).await?.into_iter().map(|machine| MachineJson {
        machine_id: machine.machine_id,
        label: machine.label,
        machine_key: EncodedKey(machine.key),
        key_rotations: rotations.remove(&machine.machine_id).unwrap_or_default(),
        region: region_of(&control, machine.link_region, machine.region),
        region_pin: machine.region_pin,
        created_at_ms: machine.created_at,
        quarantined: machine.quarantined,
        connector_version: machine.connector_version,
    });
    Ok(Json(Machines { machines: machines.collect() }))
}

/// Renames a machine.
#[utoipa::path(patch, path = "/api/machines/{id}", tag = "machines", security(("cookie" = [])),
    params(("id" = String, Path)),
    request_body = RenameBody, responses((status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn rename(
    State(control): State<App>,
    browser: Browser,
    PathId(machine_id): PathId<MachineId>,
    ApiJson(body): ApiJson<RenameBody>,
) -> Result<StatusCode, ApiError> {
    browser.require(Role::Owner)?;
    let label = label(&body.label)?;
    let scope = browser.scope();
    let mut tx = control.store.write().await?;
    tx.rename_machine(scope, machine_id, &label).await?;
    let entry = control.audit_entry(AuditKind::MachineRenamed, None);
    let user_id = Some(browser.user.user_id);
    tx.append_audit(scope, &AuditEntry { user_id, machine_id: Some(machine_id), ..entry }).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keeps a machine in one region, or lets it go anywhere. A new pin holds within seconds: its credentials so far open
/// no link any more, and its connector fetches the next. That it may go anywhere it hears with its next credential.
#[utoipa::path(put, path = "/api/machines/{id}/region-pin", tag = "machines", security(("cookie" = [])),
    params(("id" = String, Path)),
    request_body = RegionPinBody, responses((status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn pin(
    State(control): State<App>,
    browser: Browser,
    PathId(machine_id): PathId<MachineId>,
    ApiJson(body): ApiJson<RegionPinBody>,
) -> Result<StatusCode, ApiError> {
    browser.require(Role::Owner)?;
    if body.region.as_deref().is_some_and(|region| !control.config.has_region(region)) {
        return Err(ErrorCode::BadRequest.into());
    }
    let scope = browser.scope();
    let mut tx = control.store.write().await?;
    let machine = tx.machine(scope, machine_id).await?;
    tx.pin_machine(scope, machine_id, body.region.as_deref()).await?;
    if body.region.is_some() && body.region != machine.region_pin {
        let account_id = scope.account_id();
        let superseded = Revocation::Superseded { account_id, machine_id, serial: machine.credential_serial };
        tx.append_revocation(scope, superseded, control.now()).await?;
    }
    let entry = control.audit_entry(AuditKind::MachineRegionPinned, None);
    let user_id = Some(browser.user.user_id);
    tx.append_audit(scope, &AuditEntry { user_id, machine_id: Some(machine_id), ..entry }).await?;
    tx.commit().await?;
    control.revocations_committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a machine from the account for good; its links and sessions end.
#[utoipa::path(delete, path = "/api/machines/{id}", tag = "machines", security(("cookie" = [])),
    params(("id" = String, Path)), responses(
    (status = 204), (status = "default", body = ErrorBody)))]
pub(crate) async fn revoke(
    State(control): State<App>,
    browser: Browser,
    PathId(machine_id): PathId<MachineId>,
) -> Result<StatusCode, ApiError> {
    browser.require(Role::Owner)?;
    let scope = browser.scope();
    let now = control.now();
    browser.require_fresh(now)?;
    let mut tx = control.store.write().await?;
    tx.revoke_machine(scope, machine_id, now).await?;
    let revocation = Revocation::Machine { account_id: scope.account_id(), machine_id };
    tx.append_revocation(scope, revocation, now).await?;
    let entry = control.audit_entry(AuditKind::MachineRevoked, None);
    let user_id = Some(browser.user.user_id);
    tx.append_audit(scope, &AuditEntry { user_id, machine_id: Some(machine_id), ..entry }).await?;
    tx.commit().await?;
    control.revocations_committed();
    Ok(StatusCode::NO_CONTENT)
}

/// Renews a machine's credential. Each renewal follows from the last; an older one that returns is a cloned key, and
/// then none holds until the machine is paired again. The first by a new key ends the time of the one before.
#[utoipa::path(post, path = "/api/machines/{id}/credential", tag = "machines",
    security(("machine_credential" = [], "machine_timestamp" = [], "machine_signature" = [])),
    params(("id" = String, Path)), request_body = RenewalBody,
    responses((status = 200, body = CredentialJson), (status = "default", body = ErrorBody)))]
pub(crate) async fn renew_credential(
    State(control): State<App>,
    address: Address,
    PathId(machine_id): PathId<MachineId>,
    signed: Signed,
) -> Result<Json<CredentialJson>, ApiError> {
    control.rates.claims.check(address)?;
    let devices = listed_devices(&signed.body)?;
    let scope = signed.scope();
    let now = control.now();
    let mut tx = control.store.write().await?;
    let (machine, key) = signed.known(&mut tx, machine_id).await?;
    let (shown, newest) = (signed.credential.serial, machine.credential_serial);
    // A machine that has changed its key and does not know finishes that first: this is another, or one of before.
    if key != Shown::Current {
        return Err(quarantine(&control, tx, scope, machine_id, address).await);
    }
    let device_cuts = device_cuts(&mut tx, scope, devices).await?;
    if shown == newest {
        tx.advance_credential(scope, machine_id, newest, now).await?;
        let renewed = tx.machine(scope, machine_id).await?;
        let gives_up = tx.give_up_former_keys(scope, machine_id, now).await?;
        if gives_up {
            // Those before the one that was shown: by this key, or by one that is given up.
            let superseded = Revocation::Superseded { account_id: scope.account_id(), machine_id, serial: shown - 1 };
            tx.append_revocation(scope, superseded, now).await?;
        }
        tx.commit().await?;
        if gives_up {
            control.revocations_committed();
        }
        return Ok(Json(CredentialJson { device_cuts, ..credential_json(&control, scope.account_id(), &renewed) }));
    }
    let answer_was_lost = shown + 1 == newest && now.since(machine.credential_issued_at) < CREDENTIAL_RETRY_WINDOW;
    if answer_was_lost {
        return Ok(Json(CredentialJson { device_cuts, ..credential_json(&control, scope.account_id(), &machine) }));
    }
    if shown > newest {
        return Err(ErrorCode::CredentialInvalid.into());
    }
    Err(quarantine(&control, tx, scope, machine_id, address).await)
}

/// The devices that a machine says it lists; one of before says nothing.
fn listed_devices(body: &[u8]) -> Result<Vec<DeviceId>, ErrorCode> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let RenewalBody { devices } = serde_json::from_slice(body).map_err(|_| ErrorCode::BadRequest)?;
    if devices.len() <= DEVICE_LIST_MAX { Ok(devices) } else { Err(ErrorCode::BadRequest) }
}

/// Which of these devices may do less than anything. What the account does not know was let in at the machine, and is its
/// own matter.
async fn device_cuts(tx: &mut Tx, scope: AccountScope, devices: Vec<DeviceId>) -> Result<Vec<DeviceCutJson>, ApiError> {
    let mut cuts = Vec::new();
    for device_id in devices {
        match tx.device_right(scope, device_id).await? {
            None | Some(Some(Role::Owner)) => {}
            Some(keeps) => cuts.push(DeviceCutJson { device_id, keeps }),
        }
    }
    Ok(cuts)
}

/// Ends every credential that a machine has, here and by the revocation log at gateways and nodes. What to answer.
pub(crate) async fn quarantine(
    control: &Control,
    tx: Tx,
    scope: AccountScope,
    machine_id: MachineId,
    address: Address,
) -> ApiError {
    match end_credentials(control, tx, scope, machine_id, address).await {
        Ok(()) => ErrorCode::MachineKeyCloned.into(),
        Err(error) => error,
    }
}

async fn end_credentials(
    control: &Control,
    mut tx: Tx,
    scope: AccountScope,
    machine_id: MachineId,
    address: Address,
) -> Result<(), ApiError> {
    let now = control.now();
    let serial = tx.quarantine_machine(scope, machine_id, now).await?;
    let revocation = Revocation::Quarantine { account_id: scope.account_id(), machine_id, serial };
    tx.append_revocation(scope, revocation, now).await?;
    let entry = control.audit_entry(AuditKind::MachineKeyCloned, Some(address));
    tx.append_audit(scope, &AuditEntry { machine_id: Some(machine_id), ..entry }).await?;
    tx.commit().await?;
    control.revocations_committed();
    tracing::warn!(machine.id = %machine_id, account.id = %scope.account_id(), "machine key used twice");
    Ok(())
}

/// Where to look for a machine: a region that is not there any more is no place to look.
fn region_of(control: &Control, linked: Option<String>, paired: String) -> String {
    let known = |region: &String| control.config.has_region(region);
    linked.filter(known).unwrap_or_else(|| if known(&paired) { paired } else { control.config.region.clone() })
}

/// The newest credential of a machine. The same machine and policy of its account always give the same token.
pub(crate) fn credential_json(control: &Control, account_id: AccountId, machine: &Machine) -> CredentialJson {
    let credential = MachineCredential {
        account_id,
        machine_id: machine.machine_id,
        machine_key: EncodedKey(machine.key),
        serial: machine.credential_serial,
        region_pin: machine.region_pin.clone(),
        strict_audit: machine.strict_audit,
        issued_at: machine.credential_issued_at,
        expires_at: machine.credential_issued_at.plus(CREDENTIAL_LIFETIME),
    };
    let (credential, token_keys) = (control.tokens.sign(&credential), token_keys(&control.tokens.verifier));
    CredentialJson { credential, token_keys, device_cuts: Vec::new() }
}

impl CredentialJson {
    /// Takes the answer apart, to send it within another.
    pub(crate) fn into_parts(self) -> (String, Vec<TokenKey>) {
        (self.credential, self.token_keys)
    }
}
