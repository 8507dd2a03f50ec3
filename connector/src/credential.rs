//! The machine's credential while the connector runs: renewed at half of its life, stored, and published.
//!
//! Each renewal and each further pairing counts the credential up. Whoever gets one hands it to the
//! [`Keyring`], which keeps the highest: a credential that lags behind would look like a cloned key.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::device::Device;
use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{
    CREDENTIAL_LIFETIME, CREDENTIAL_RETRY_MAX, LINK_SERVED_AFTER, MACHINE_KEY_ROTATED_AFTER, MACHINE_KEY_USED_AFTER,
    RECONNECT_WAIT_MIN, REGIONS_REFRESH_INTERVAL, REGIONS_REFRESH_PAUSE,
};
use flydex_domain::revocation::DeviceCut;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{MachineCredential, TokenVerifier};
use flydex_runtime::clock::Clock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError, CredentialAnswer, MachineAuth, SecretText, TokenKey, verifier};
use crate::paired::{DeskRequest, Entropy, RegionEndpoint, RegionReport};
use crate::record::PairedRecord;
use crate::regions::{Regions, ServerOrigin};
use crate::rotation::Pending;
use crate::state::{StateDir, StateError};

/// What the machine proves itself with, as stored and as published to every part that needs it.
pub struct Keyring {
    state: StateDir,
    clock: Clock,
    key: watch::Sender<Arc<SigningKey>>,
    /// One asks control for a credential at a time: each follows on the last.
    asking: tokio::sync::Mutex<()>,
    origin: ServerOrigin,
    record: Mutex<PairedRecord>,
    credential: watch::Sender<SecretText>,
    verifier: watch::Sender<Arc<TokenVerifier>>,
    regions: watch::Sender<Vec<RegionEndpoint>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")
    }
}

/// Why a credential was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The control plane could not be asked, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It could not be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is not for this machine.
    #[error("the credential is not for this machine")]
    Foreign,
    /// What the account took from a device could not be taken from it here.
    #[error("{}", .0.message())]
    Devices(ErrorCode),
}

impl CredentialError {
    /// What a script is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Api(error) => error.code(),
            Self::State(error) => error.code(),
            Self::Foreign => ErrorCode::CredentialInvalid,
            Self::Devices(code) => *code,
        }
    }
}

impl Keyring {
    /// Holds what is stored.
    #[must_use]
    pub fn new(
        state: StateDir,
        record: PairedRecord,
        key: Arc<SigningKey>,
        origin: ServerOrigin,
        clock: Clock,
    ) -> Self {
        let (credential, _) = watch::channel(record.credential.clone());
        let (verifier, _) = watch::channel(Arc::new(verifier(&record.token_keys)));
        let (regions, _) = watch::channel(record.regions.endpoints(&origin, record.trusted_pem.as_deref()));
        let ((key, _), asking) = (watch::channel(key), tokio::sync::Mutex::default());
        Self { state, clock, key, asking, origin, record: Mutex::new(record), credential, verifier, regions }
    }

    /// What is stored now.
    #[must_use]
    pub fn record(&self) -> PairedRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The machine key.
    #[must_use]
    pub fn key(&self) -> Arc<SigningKey> {
        self.key.borrow().clone()
    }

    /// Follows the machine key.
    #[must_use]
    pub fn keys(&self) -> watch::Receiver<Arc<SigningKey>> {
        self.key.subscribe()
    }

    /// Follows the newest credential.
    #[must_use]
    pub fn credential(&self) -> watch::Receiver<SecretText> {
        self.credential.subscribe()
    }

    /// Follows control's public keys.
    #[must_use]
    pub fn verifier(&self) -> watch::Receiver<Arc<TokenVerifier>> {
        self.verifier.subscribe()
    }

    /// Follows the entrances for links.
    #[must_use]
    pub fn regions(&self) -> watch::Receiver<Vec<RegionEndpoint>> {
        self.regions.subscribe()
    }

    /// Takes a credential on when it is for this machine and newer: stored first, then published.
    ///
    /// # Errors
    /// [`CredentialError::Foreign`] or [`CredentialError::State`]; the old one then stays.
    pub fn adopt(&self, credential: SecretText, token_keys: Vec<TokenKey>) -> Result<(), CredentialError> {
        self.take(credential, token_keys, false)
    }

    /// `cuts_are_heard`: what the account took from the machine's devices until then is taken here.
    fn take(
        &self,
        credential: SecretText,
        token_keys: Vec<TokenKey>,
        cuts_are_heard: bool,
    ) -> Result<(), CredentialError> {
        let keys = verifier(&token_keys);
        let now = UnixMillis(self.clock.unix_millis());
        let claims =
            keys.verify::<MachineCredential>(credential.expose(), now).map_err(|_| CredentialError::Foreign)?;
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = claims.account_id == record.account_id
            && claims.machine_id == record.machine_id
            && claims.machine_key.0 == PublicKey::of(&self.key());
        if !ours {
            return Err(CredentialError::Foreign);
        }
        if held(&record).is_some_and(|held| held.serial >= claims.serial) {
            return Ok(());
        }
        let key_since = record.key_since.or(Some(now));
        let cuts_heard_with = if cuts_are_heard { claims.serial } else { record.cuts_heard_with };
        let newer = PairedRecord { credential, token_keys, key_since, cuts_heard_with, ..record.clone() };
        newer.store(&self.state)?;
        self.credential.send_replace(newer.credential.clone());
        self.verifier.send_replace(Arc::new(keys));
        *record = newer;
        Ok(())
    }

    /// Takes the newest entrances on. None at all is no news.
    ///
    /// # Errors
    /// [`CredentialError::State`] when they cannot be stored; they are published all the same.
    pub fn adopt_regions(&self, regions: Regions) -> Result<(), CredentialError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = regions.endpoints(&self.origin, record.trusted_pem.as_deref());
        if endpoints.is_empty() || regions == record.regions {
            return Ok(());
        }
        self.regions.send_replace(endpoints);
        record.regions = regions;
        Ok(record.store(&self.state)?)
    }

    /// Renews once. What the account took from the machine's devices while it was away is taken from them first: a node
    /// tells a machine of such a cut by the age of its credential, and would hold the new one for young enough to know.
    ///
    /// # Errors
    /// [`CredentialError`]; the old credential then stays.
    pub async fn renew(&self, api: &Api, core: &mpsc::Sender<DeskRequest>) -> Result<(), CredentialError> {
        let asking = self.asking.lock().await;
        let (record, key) = (self.record(), self.key());
        if let Some(pending) = Pending::load(&self.state, &record, &key)? {
            // Control may have taken the next key already, and then takes this one for a stranger's.
            self.change(api, &record, &key, &pending).await?;
        } else {
            let machine =
                MachineAuth { machine_id: record.machine_id, key: &key, credential: record.credential.expose() };
            let listed = ask(core, |reply| DeskRequest::Devices { reply }).await?;
            let devices: Vec<_> = listed.devices().map(Device::device_id).collect();
            let answer = api.renew_credential(&machine, &devices).await?;
            let cuts = answer.device_cuts.into_iter().map(DeviceCut::from).collect();
            ask(core, |reply| DeskRequest::Cut { cuts, reply }).await?.map_err(CredentialError::Devices)?;
            self.take(answer.credential, answer.token_keys, true)?;
        }
        drop(asking);
        self.adopt_regions(api.regions().await?)
    }

    /// Changes the machine key, or ends the change that is under way.
    ///
    /// # Errors
    /// [`CredentialError`]; what was begun is asked for again with the next renewal, unless control refused it for good.
    pub async fn rotate(&self, api: &Api, entropy: &Entropy) -> Result<(), CredentialError> {
        let _asking = self.asking.lock().await;
        let (record, key) = (self.record(), self.key());
        let pending = match Pending::load(&self.state, &record, &key)? {
            Some(pending) => pending,
            None => {
                let now = UnixMillis(self.clock.unix_millis());
                Pending::begin(&self.state, &record, &key, entropy, now)?
            }
        };
        self.change(api, &record, &key, &pending).await
    }

    async fn change(
        &self,
        api: &Api,
        record: &PairedRecord,
        key: &SigningKey,
        pending: &Pending,
    ) -> Result<(), CredentialError> {
        let machine = MachineAuth { machine_id: record.machine_id, key, credential: record.credential.expose() };
        let answer = match api.rotate_key(&machine, &pending.statement).await {
            // It was not taken, and will not be: an older server does not know of such a thing.
            Err(error @ ApiError::Refused(ErrorCode::NotFound | ErrorCode::BadRequest | ErrorCode::Conflict)) => {
                Pending::abandon(&self.state)?;
                return Err(error.into());
            }
            answer => answer?,
        };
        self.take_key(pending, answer)
    }

    /// Takes the next key on with the first credential that names it: stored first, then put in its place, then used.
    fn take_key(&self, pending: &Pending, answer: CredentialAnswer) -> Result<(), CredentialError> {
        let keys = verifier(&answer.token_keys);
        let now = UnixMillis(self.clock.unix_millis());
        let claims =
            keys.verify::<MachineCredential>(answer.credential.expose(), now).map_err(|_| CredentialError::Foreign)?;
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = claims.account_id == record.account_id
            && claims.machine_id == record.machine_id
            && claims.machine_key == pending.statement.new_key;
        if !ours {
            return Err(CredentialError::Foreign);
        }
        let (credential, token_keys) = (answer.credential, answer.token_keys);
        let key_counter = pending.statement.counter;
        let newer = PairedRecord { credential, token_keys, key_counter, key_since: Some(now), ..record.clone() };
        newer.store(&self.state)?;
        let key = match pending.finish(&self.state) {
            Ok(key) => key,
            // The next start puts it in its place.
            Err(_) => pending.next_key(&self.state)?,
        };
        self.key.send_replace(Arc::new(key));
        self.credential.send_replace(newer.credential.clone());
        self.verifier.send_replace(Arc::new(keys));
        *record = newer;
        tracing::info!("machine key changed");
        Ok(())
    }

    /// Whether the key is so old that another should follow.
    fn is_key_old(&self) -> bool {
        let now = UnixMillis(self.clock.unix_millis());
        self.record().key_since.is_some_and(|since| now.since(since) >= MACHINE_KEY_ROTATED_AFTER)
    }

    /// Whether a change of the key is under way.
    fn is_changing(&self) -> bool {
        matches!(Pending::load(&self.state, &self.record(), &self.key()), Ok(Some(_)))
    }

    /// How long to wait before the next key is used besides: the link by it is there by then.
    fn until_key_is_used(&self) -> Duration {
        let (now, record) = (UnixMillis(self.clock.unix_millis()), self.record());
        let changed = record.key_since.filter(|_| record.key_counter > 0);
        changed.map_or(Duration::ZERO, |since| MACHINE_KEY_USED_AFTER.saturating_sub(now.since(since)))
    }

    /// Renews at half-life until `stop`, and soon when the present credential came by a pairing or a change of key, without
    /// word of the devices: after a change of key when its link is there, since that ends the time of the key before. And
    /// changes the key when it is old. Failures are tried again with growing waits.
    pub async fn keep_young(
        self: Arc<Self>,
        api: Api,
        core: mpsc::Sender<DeskRequest>,
        entropy: Entropy,
        stop: CancellationToken,
    ) {
        let mut failures = 0;
        let mut at_once = self.is_changing();
        let mut credential = self.credential();
        let mut asked_for = 0;
        loop {
            let record = self.record();
            let held = serial(&record);
            // Once for each: a server that never says is not asked without pause.
            let is_unheard = record.cuts_heard_with < held && asked_for < held;
            let wait = match failures {
                0 if at_once => Duration::ZERO,
                0 if is_unheard => self.until_key_is_used(),
                0 => self.until_half_life(),
                _ => backoff(failures),
            };
            tokio::select! {
                biased; // the stop comes first
                () = stop.cancelled() => return,
                Ok(()) = credential.changed(), if failures == 0 => continue,
                () = tokio::time::sleep(wait) => {}
            }
            (at_once, asked_for) = (false, held);
            match self.renew(&api, &core).await {
                Ok(()) => {
                    failures = 0;
                    tracing::info!("machine credential renewed");
                    if self.is_key_old()
                        && let Err(error) = self.rotate(&api, &entropy).await
                    {
                        tracing::warn!(error.code = error.code().name(), "machine key not changed");
                    }
                }
                // The core that would take the devices' rights is gone with everything else.
                Err(_) if stop.is_cancelled() => return,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(error.code = error.code().name(), "machine credential not renewed");
                }
            }
        }
    }

    /// Asks for the list of regions now and then, until `stop`; and soon when no region can be reached, then with a new
    /// credential too, for the pin may have moved. What does not help is done ever more rarely; it has helped when a link
    /// served afterwards.
    pub async fn keep_regions(
        self: Arc<Self>,
        api: Api,
        core: mpsc::Sender<DeskRequest>,
        mut report: watch::Receiver<RegionReport>,
        entropy: Entropy,
        stop: CancellationToken,
    ) {
        let mut in_vain = 0;
        loop {
            let [jitter] = entropy.bytes::<1>();
            let spread = |wait: Duration| wait.mul_f64(0.5 + f64::from(jitter) / 256.0);
            tokio::select! {
                biased; // the stop comes first
                () = stop.cancelled() => return,
                Ok(_) = report.wait_for(|report| report.stuck) => in_vain += 1,
                () = tokio::time::sleep(spread(REGIONS_REFRESH_INTERVAL)) => in_vain = 0,
            }
            if let Err(error) = self.ask_for_regions(&api, &core, in_vain > 0).await {
                tracing::info!(error.code = error.code().name(), "the list of regions is not renewed");
            }
            let doubled = REGIONS_REFRESH_PAUSE.saturating_mul(1 << u32::min(in_vain, 16).saturating_sub(1));
            let pause = doubled.min(REGIONS_REFRESH_INTERVAL);
            tokio::select! {
                biased; // the stop comes first
                () = stop.cancelled() => return,
                () = serves(&mut report) => in_vain = 0,
                () = tokio::time::sleep(spread(pause)) => {}
            }
        }
    }

    async fn ask_for_regions(
        &self,
        api: &Api,
        core: &mpsc::Sender<DeskRequest>,
        stuck: bool,
    ) -> Result<(), CredentialError> {
        if stuck && self.renew(api, core).await.is_ok() {
            return Ok(());
        }
        self.adopt_regions(api.regions().await?)
    }

    /// How long the present credential is still young; nothing when it is old.
    fn until_half_life(&self) -> Duration {
        let now = UnixMillis(self.clock.unix_millis());
        let Some(claims) = held(&self.record()) else {
            return Duration::ZERO;
        };
        let half = claims.expires_at.since(claims.issued_at).min(CREDENTIAL_LIFETIME) / 2;
        // A server whose credentials live no time at all is not asked without pause.
        let pause = if half < CREDENTIAL_RETRY_MAX { CREDENTIAL_RETRY_MAX } else { Duration::ZERO };
        claims.issued_at.plus(half).since(now).max(pause)
    }
}

/// Waits until a link has served for a while.
async fn serves(report: &mut watch::Receiver<RegionReport>) {
    // When nobody reports any more, nothing ever serves.
    while report.wait_for(|report| !report.stuck).await.is_ok() {
        let stuck_again = report.wait_for(|report| report.stuck);
        if tokio::time::timeout(LINK_SERVED_AFTER, stuck_again).await.is_err() {
            return;
        }
    }
    std::future::pending().await
}

/// The claims of the credential that is held, whatever its age: at the beginning of time nothing has expired.
fn held(record: &PairedRecord) -> Option<MachineCredential> {
    verifier(&record.token_keys).verify(record.credential.expose(), UnixMillis(0)).ok()
}

/// The serial of the stored credential.
#[must_use]
pub fn serial(record: &PairedRecord) -> u64 {
    held(record).map_or(0, |claims| claims.serial)
}

/// Asks the running core.
async fn ask<A>(
    core: &mpsc::Sender<DeskRequest>,
    request: impl FnOnce(oneshot::Sender<A>) -> DeskRequest,
) -> Result<A, CredentialError> {
    let (reply, answer) = oneshot::channel();
    let gone = || CredentialError::Devices(ErrorCode::GoingAway);
    core.send(request(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
}

/// The key that the stored credential names.
#[must_use]
pub fn named_key(record: &PairedRecord) -> Option<PublicKey> {
    held(record).map(|claims| claims.machine_key.0)
}

/// The only region that the account allows, as the stored credential says.
#[must_use]
pub fn region_pin(record: &PairedRecord) -> Option<String> {
    held(record)?.region_pin
}

fn backoff(failures: u32) -> Duration {
    RECONNECT_WAIT_MIN.saturating_mul(1 << failures.min(20)).min(CREDENTIAL_RETRY_MAX)
}
