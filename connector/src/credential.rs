//! The machine's credential while the connector runs: renewed at half of its life, stored, and published.
//!
//! Each renewal and each further pairing counts the credential up. Whoever gets one hands it to the
//! [`Keyring`], which keeps the highest: a credential that lags behind would look like a cloned key.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::{
    CREDENTIAL_LIFETIME, CREDENTIAL_RETRY_MAX, RECONNECT_WAIT_MIN, REGIONS_REFRESH_INTERVAL, REGIONS_REFRESH_PAUSE,
};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{MachineCredential, TokenVerifier};
use flydex_runtime::clock::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError, MachineAuth, SecretText, TokenKey, verifier};
use crate::paired::{Entropy, RegionEndpoint, RegionReport};
use crate::record::PairedRecord;
use crate::regions::{Regions, ServerOrigin};
use crate::state::{StateDir, StateError};

/// What the machine proves itself with, as stored and as published to every part that needs it.
pub struct Keyring {
    state: StateDir,
    clock: Clock,
    key: Arc<SigningKey>,
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
}

impl CredentialError {
    /// What a script is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Api(error) => error.code(),
            Self::State(error) => error.code(),
            Self::Foreign => ErrorCode::CredentialInvalid,
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
        Self { state, clock, key, origin, record: Mutex::new(record), credential, verifier, regions }
    }

    /// What is stored now.
    #[must_use]
    pub fn record(&self) -> PairedRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The machine key.
    #[must_use]
    pub const fn key(&self) -> &Arc<SigningKey> {
        &self.key
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
        let keys = verifier(&token_keys);
        let now = UnixMillis(self.clock.unix_millis());
        let claims =
            keys.verify::<MachineCredential>(credential.expose(), now).map_err(|_| CredentialError::Foreign)?;
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = claims.account_id == record.account_id
            && claims.machine_id == record.machine_id
            && claims.machine_key.0 == PublicKey::of(&self.key);
        if !ours {
            return Err(CredentialError::Foreign);
        }
        if held(&record).is_some_and(|held| held.serial >= claims.serial) {
            return Ok(());
        }
        let newer = PairedRecord { credential, token_keys, ..record.clone() };
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

    /// Renews once.
    ///
    /// # Errors
    /// [`CredentialError`]; the old credential then stays.
    pub async fn renew(&self, api: &Api) -> Result<(), CredentialError> {
        let record = self.record();
        let machine =
            MachineAuth { machine_id: record.machine_id, key: &self.key, credential: record.credential.expose() };
        let answer = api.renew_credential(&machine).await?;
        self.adopt(answer.credential, answer.token_keys)?;
        self.adopt_regions(api.regions().await?)
    }

    /// Renews at half-life until `stop`; failures are tried again with growing waits.
    pub async fn keep_young(self: Arc<Self>, api: Api, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let wait = if failures == 0 { self.until_half_life() } else { backoff(failures) };
            tokio::select! {
                biased; // the stop comes first
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            match self.renew(&api).await {
                Ok(()) => {
                    failures = 0;
                    tracing::info!("machine credential renewed");
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(error.code = error.code().name(), "machine credential not renewed");
                }
            }
        }
    }

    /// Asks for the list of regions now and then, until `stop`; and soon when no region can be reached, then with a new
    /// credential too, for the pin may have moved. What does not help is done ever more rarely.
    pub async fn keep_regions(
        self: Arc<Self>,
        api: Api,
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
            if let Err(error) = self.ask_for_regions(&api, in_vain > 0).await {
                tracing::info!(error.code = error.code().name(), "the list of regions is not renewed");
            }
            let pause = REGIONS_REFRESH_PAUSE.saturating_mul(1 << in_vain.min(16)).min(REGIONS_REFRESH_INTERVAL);
            tokio::select! {
                biased; // the stop comes first
                () = stop.cancelled() => return,
                () = tokio::time::sleep(spread(pause)) => {}
            }
        }
    }

    async fn ask_for_regions(&self, api: &Api, stuck: bool) -> Result<(), CredentialError> {
        if stuck && self.renew(api).await.is_ok() {
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

/// The claims of the credential that is held, whatever its age: at the beginning of time nothing has expired.
fn held(record: &PairedRecord) -> Option<MachineCredential> {
    verifier(&record.token_keys).verify(record.credential.expose(), UnixMillis(0)).ok()
}

/// The only region that the account allows, as the stored credential says.
#[must_use]
pub fn region_pin(record: &PairedRecord) -> Option<String> {
    held(record)?.region_pin
}

fn backoff(failures: u32) -> Duration {
    RECONNECT_WAIT_MIN.saturating_mul(1 << failures.min(20)).min(CREDENTIAL_RETRY_MAX)
}
