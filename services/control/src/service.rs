//! The service: its state, its start, and the handles that other parts of the process take.

use std::sync::Arc;

use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::audit::{AuditEntry, AuditKind};
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::AuditId;
use flydex_domain::limits::{
    BILLING_EVENT_KEPT, HOUSEKEEPING_INTERVAL, LINK_REPORT_BYTES_MAX, LOCAL_CONNECT_KEPT_AFTER, REVOCATION_HORIZON,
    REVOCATION_POLL_INTERVAL, REVOCATION_QUEUE_MAX, SIGN_IN_LINK_LIFETIME,
};
use flydex_domain::revocation::RevocationEntry;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::TokenVerifier;
use flydex_proto::v1::internal_server::{Internal, InternalServer};
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_store::{Sql, StoreError};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::config::Config;
use crate::extract::Address;
use crate::identities::{Provider, ProviderError};
use crate::internal::{Head, InternalApi};
use crate::metrics::Metrics;
use crate::passkeys::RelyingParty;
use crate::rate::Rates;
use crate::routes;
use crate::token_keys::{self, TokenKeys};
use crate::waiters::Waiters;

const ADDRESS_HASH_KEY: &str = "address_hash_key";

/// Rows of the revocation log that are read in one step.
const REVOCATION_PAGE_ROWS: u32 = 500;

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database does not answer.
    #[error("read the settings from the database")]
    Store(#[from] StoreError),
    /// None of the keys in the database can sign.
    #[error("no key to sign tokens with is in the database: make one with `flydex-server rotate-token-key`")]
    NoTokenKey,
    /// The identity provider cannot be used as it is set up.
    #[error("use the identity provider")]
    Provider(#[from] ProviderError),
}

/// What every handler shares.
pub(crate) struct Control {
    pub(crate) config: Config,
    pub(crate) store: Sql,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
    pub(crate) tokens: TokenKeys,
    pub(crate) rates: Rates,
    pub(crate) relying_party: RelyingParty,
    pub(crate) provider: Option<Arc<Provider>>,
    pub(crate) waiters: Waiters,
    pub(crate) metrics: Metrics,
    /// How far the log of revocations goes.
    pub(crate) head: Head,
    address_hash_key: SecretKey,
    revocations: broadcast::Sender<RevocationEntry>,
    revoked: Notify,
}

/// The shared state, as handlers take it.
pub(crate) type App = Arc<Control>;

impl Control {
    /// The present time.
    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }

    /// A new audit entry for something that happens now.
    pub(crate) fn audit_entry(&self, kind: AuditKind, address: Option<Address>) -> AuditEntry {
        let entry = AuditEntry::new(AuditId::from_uuid(Uuid::new_v4()), kind, self.now());
        AuditEntry { address_hash: address.map(|address| self.address_hash(address)), ..entry }
    }

    /// Says that revocations were committed, so that they are sent on at once.
    pub(crate) fn revocations_committed(&self) {
        self.revoked.notify_one();
        self.head.look();
    }

    /// Makes a one-time link for the account's owner, in place of every earlier one.
    async fn make_owner_link(&self) -> Result<String, StoreError> {
        let token = random_token();
        let now = self.now();
        let mut tx = self.store.write().await?;
        tx.replace_owner_link(&sha256(&token), now, now.plus(SIGN_IN_LINK_LIFETIME)).await?;
        tx.commit().await?;
        Ok(self.sign_in_url(&token))
    }

    /// The address of the page that uses a sign-in token; the token is in the fragment, which no server sees.
    pub(crate) fn sign_in_url(&self, token: &[u8; 32]) -> String {
        format!("{}/sign-in#{}", self.config.public_origin, URL_SAFE_NO_PAD.encode(token))
    }

    fn address_hash(&self, address: Address) -> [u8; 32] {
        let key = self.address_hash_key.expose();
        let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        hmac.update(address.0.to_string().as_bytes());
        hmac.finalize().into_bytes().into()
    }

    /// Sends the log on as it grows. A handler that was cancelled right after its commit loses nothing by it, and
    /// entries of other processes are found too.
    async fn follow_revocations(self: Arc<Self>, mut sent: u64) {
        let stopped = self.shutdown.soft();
        loop {
            if let Err(error) = self.send_revocations(&mut sent).await {
                tracing::warn!(error.code = ErrorCode::StoreUnavailable.name(), error = %error, "revocations late");
            }
            tokio::select! {
                () = stopped.cancelled() => return,
                () = self.revoked.notified() => {}
                () = tokio::time::sleep(REVOCATION_POLL_INTERVAL) => {}
            }
        }
    }

    /// Sends what is on record after `sent`, as far as the subscribers keep up. Without one nothing is sent: the
    /// first gets all that may still end something, so that a restart forgets no revocation.
    async fn send_revocations(&self, sent: &mut u64) -> Result<(), StoreError> {
        if self.revocations.receiver_count() == 0 || self.revocations.len() > REVOCATION_QUEUE_MAX / 2 {
            return Ok(());
        }
        for entry in self.revocations_after(*sent).await? {
            *sent = entry.number;
            self.metrics.revocation_sent(&entry.revocation);
            // A subscriber that went away meanwhile misses nothing that it still wants.
            let _ = self.revocations.send(entry);
        }
        Ok(())
    }

    /// The log after a number, oldest first: one page of it.
    pub(crate) async fn revocations_after(&self, number: u64) -> Result<Vec<RevocationEntry>, StoreError> {
        let mut tx = self.store.read().await?;
        tx.revocations_after(number, REVOCATION_PAGE_ROWS).await
    }

    async fn keep_house(self: Arc<Self>) {
        let stopped = self.shutdown.soft();
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                () = tokio::time::sleep(HOUSEKEEPING_INTERVAL) => {}
            }
            if let Err(error) = self.remove_ended().await {
                tracing::warn!(error.code = ErrorCode::StoreUnavailable.name(), error = %error, "housekeeping skipped");
            }
        }
    }

    pub(crate) async fn remove_ended(&self) -> Result<(), StoreError> {
        let now = self.now();
        self.waiters.forget_ended(now);
        let mut tx = self.store.write().await?;
        tx.remove_expired_sessions(now).await?;
        tx.remove_expired_links(now).await?;
        tx.remove_expired_invitations(now).await?;
        tx.remove_expired_attempts(now).await?;
        tx.forget_billing_events(now.minus(BILLING_EVENT_KEPT)).await?;
        tx.remove_local_connects_ended_before(now.minus(LOCAL_CONNECT_KEPT_AFTER)).await?;
        tx.commit().await?;
        token_keys::keep(self).await
    }
}

/// The control plane of one process.
#[derive(Clone)]
pub struct Service {
    control: App,
    owner_link: Option<Arc<str>>,
}

impl Service {
    /// Reads or makes the server's keys, and on a server without an account the owner link.
    ///
    /// # Errors
    /// When the database does not answer, or the identity provider cannot be used.
    pub async fn start(config: Config, store: Sql, clock: Clock, shutdown: Shutdown) -> Result<Self, StartError> {
        let mut tx = store.write().await?;
        let address_hash_key = SecretKey::new(tx.setting_or(ADDRESS_HASH_KEY, rand::random()).await?);
        let has_owner = tx.first_owner().await?.is_some();
        let horizon = UnixMillis(clock.unix_millis()).minus(REVOCATION_HORIZON);
        let forgotten = tx.revocation_before(horizon).await?;
        tx.commit().await?;
        let tokens = TokenKeys::load(&store, UnixMillis(clock.unix_millis())).await?;
        let (revocations, _) = broadcast::channel(REVOCATION_QUEUE_MAX);
        let provider = config.identity_provider.clone();
        let provider = provider.map(|it| Provider::new(it, &config.public_origin, clock.clone())).transpose()?;
        let control = Arc::new(Control {
            rates: Rates::new(&clock),
            relying_party: RelyingParty::new(&config.public_origin),
            provider: provider.map(Arc::new),
            waiters: Waiters::default(),
            metrics: Metrics::new(),
            head: Head::new(forgotten),
            config,
            store,
            clock,
            shutdown: shutdown.clone(),
            tokens,
            address_hash_key,
            revocations,
            revoked: Notify::new(),
        });
        let owner_link = if has_owner { None } else { Some(control.make_owner_link().await?.into()) };
        shutdown.spawn(Arc::clone(&control).keep_house());
        shutdown.spawn(token_keys::follow(Arc::clone(&control)));
        shutdown.spawn(Arc::clone(&control).follow_revocations(forgotten));
        Ok(Self { control, owner_link })
    }

    /// Every route under `/api`.
    pub fn router(&self) -> Router {
        routes::router(Arc::clone(&self.control))
    }

    /// What gateways and nodes ask of control. To be served by [`flydex_runtime::mutual::serve`], once in a process:
    /// callers without an identity are refused.
    pub fn internal(&self) -> InternalServer<impl Internal> {
        InternalServer::new(InternalApi::start(Arc::clone(&self.control)))
            .max_decoding_message_size(LINK_REPORT_BYTES_MAX)
    }

    /// The API's description (OpenAPI 3.1), as JSON.
    #[must_use]
    pub fn openapi_json() -> String {
        routes::openapi_json()
    }

    /// The keys that tickets, grants and machine credentials verify with.
    #[must_use]
    pub fn verifier(&self) -> Arc<TokenVerifier> {
        Arc::clone(&self.control.tokens.verifier)
    }

    /// Revocations as they come, after those of the last day that may still end something: these go to the first
    /// subscriber of a process. Others, and one who lags, read the log with [`Service::revocations_after`].
    #[must_use]
    pub fn revocations(&self) -> broadcast::Receiver<RevocationEntry> {
        let receiver = self.control.revocations.subscribe();
        self.control.revocations_committed();
        receiver
    }

    /// The log of revocations after a number, oldest first, in pages; the last page is empty.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revocations_after(&self, number: u64) -> Result<Vec<RevocationEntry>, StoreError> {
        self.control.revocations_after(number).await
    }

    /// The one-time link for the first sign-in, when this server has no account yet.
    #[must_use]
    pub fn owner_link(&self) -> Option<String> {
        self.owner_link.as_deref().map(str::to_owned)
    }

    #[cfg(test)]
    pub(crate) fn internal_api(&self) -> InternalApi {
        InternalApi::start(Arc::clone(&self.control))
    }

    #[cfg(test)]
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// A new one-time link that signs the first owner in; earlier ones end.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn new_owner_link(&self) -> Result<String, StoreError> {
        self.control.make_owner_link().await
    }
}

/// 32 bytes that nobody can guess.
pub(crate) fn random_token() -> [u8; 32] {
    rand::random()
}
