//! The keys that control signs tokens with: kept in the database, read again and again by every control process.
//!
//! A new key is made by the first process that finds the newest one old, or by `flydex-server rotate-token-key`. Every
//! process tells it to its followers as soon as it sees it, and signs with it from the time on that is kept with it, so
//! that no process signs with what another does not know. Without the database a process goes on by what it knows.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{TOKEN_KEY_TOLD_BEFORE, TOKEN_KEYS_LOOK_INTERVAL};
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::schedule::{self, Change, ScheduledKey};
use flydex_domain::token::{Claims, TokenSigner, TokenVerifier};
use flydex_store::sql::KeptTokenKey;
use flydex_store::{Sql, StoreError};

use crate::service::{Control, StartError};

/// Where the first key was kept before there were several, and still is made.
const TOKEN_SEED: &str = "token_signing_seed";

/// What tokens are signed and verified with, now.
pub(crate) struct TokenKeys {
    signer: RwLock<Arc<TokenSigner>>,
    /// What everybody verifies with.
    pub(crate) verifier: Arc<TokenVerifier>,
    /// Every key there was: a credential is renewed whichever of them signed it.
    pub(crate) ever: TokenVerifier,
}

/// Makes a key that follows on those in the database; its name.
///
/// # Errors
/// [`StoreError::Full`] when too many keys are in use at once; when the database does not answer.
pub async fn rotate_token_key(store: &Sql, change: Change, now: UnixMillis) -> Result<String, StoreError> {
    let fresh = fresh(SecretKey::new(rand::random()), now, change.signs_from(now));
    let mut tx = store.write().await?;
    tx.add_token_key(&fresh, change, now).await?;
    tx.commit().await?;
    Ok(fresh.key.key_id)
}

impl TokenKeys {
    /// Reads the keys, after making the first where there is none.
    pub(crate) async fn load(store: &Sql, now: UnixMillis) -> Result<Self, StartError> {
        let mut tx = store.write().await?;
        if tx.token_keys().await?.is_empty() {
            let seed = SecretKey::new(tx.setting_or(TOKEN_SEED, rand::random()).await?);
            tx.keep_first_token_key(&fresh(seed, now, UnixMillis(0))).await?;
        }
        let kept = tx.token_keys().await?;
        tx.commit().await?;
        let signer = signer(&kept, now).ok_or(StartError::NoTokenKey)?;
        let keys = Self {
            signer: RwLock::new(Arc::new(signer)),
            verifier: Arc::new(TokenVerifier::default()),
            ever: TokenVerifier::default(),
        };
        keys.publish(&kept, now);
        Ok(keys)
    }

    /// Signs with the key whose time it is.
    pub(crate) fn sign<C: Claims>(&self, claims: &C) -> String {
        let signer = Arc::clone(&self.signer.read().unwrap_or_else(PoisonError::into_inner));
        signer.sign(claims)
    }

    /// Goes by these keys from now on.
    fn publish(&self, kept: &[KeptTokenKey], now: UnixMillis) {
        let named = |key: &ScheduledKey| (key.key_id.clone(), key.public);
        self.ever.replace(kept.iter().map(|kept| named(&kept.key)));
        let verifying = kept.iter().filter(|kept| kept.key.verifies(now));
        self.verifier.replace(verifying.map(|kept| named(&kept.key)));
        if let Some(signer) = signer(kept, now) {
            let mut current = self.signer.write().unwrap_or_else(PoisonError::into_inner);
            if current.public() != signer.public() {
                tracing::info!("another key signs tokens");
                *current = Arc::new(signer);
            }
        }
    }
}

/// Follows the keys in the database and their times.
pub(crate) async fn follow(control: Arc<Control>) {
    let stopped = control.shutdown.soft();
    let (mut kept, mut published) = (Vec::new(), Vec::new());
    loop {
        let looked = look(&control).await;
        let now = control.now();
        match looked {
            Ok(keys) => kept = keys,
            Err(error) => {
                tracing::warn!(error.code = ErrorCode::StoreUnavailable.name(), error = %error, "token keys late");
            }
        }
        let due = times(&kept, now);
        if due != published && !kept.is_empty() {
            control.tokens.publish(&kept, now);
            published = due;
        }
        tokio::select! {
            () = stopped.cancelled() => return,
            () = tokio::time::sleep(TOKEN_KEYS_LOOK_INTERVAL) => {}
        }
    }
}

/// Makes the next key when it is time, and forgets the seeds of those that are over.
pub(crate) async fn keep(control: &Control) -> Result<(), StoreError> {
    let now = control.now();
    let keys: Vec<_> = look(control).await?.into_iter().map(|kept| kept.key).collect();
    if schedule::is_due(&keys, now) {
        let change = Change { lead: TOKEN_KEY_TOLD_BEFORE, compromised: false };
        rotate_token_key(&control.store, change, now).await?;
        tracing::info!("the next key for tokens was made");
    }
    let mut tx = control.store.write().await?;
    tx.forget_token_seeds(now).await?;
    tx.commit().await
}

async fn look(control: &Control) -> Result<Vec<KeptTokenKey>, StoreError> {
    control.store.read().await?.token_keys().await
}

/// What must be published anew when it changes: which keys there are, which are taken, and which signs.
fn times(kept: &[KeptTokenKey], now: UnixMillis) -> Vec<(String, bool, bool)> {
    let keys: Vec<_> = kept.iter().map(|kept| kept.key.clone()).collect();
    let signing = schedule::signing(&keys, now).cloned();
    keys.iter().map(|key| (key.key_id.clone(), key.verifies(now), signing.as_ref() == Some(key))).collect()
}

fn signer(kept: &[KeptTokenKey], now: UnixMillis) -> Option<TokenSigner> {
    let keys: Vec<_> = kept.iter().map(|kept| kept.key.clone()).collect();
    let signing = schedule::signing(&keys, now)?;
    let seed = kept.iter().find(|kept| kept.key.key_id == signing.key_id)?.seed.as_ref()?;
    Some(TokenSigner::from_seed(&signing.key_id, seed))
}

fn fresh(seed: SecretKey, made_at: UnixMillis, signs_from: UnixMillis) -> KeptTokenKey {
    let (_, public) = TokenSigner::from_seed("", &seed).public();
    // The name follows from the key, so that another seed never has the same one.
    let key_id = URL_SAFE_NO_PAD.encode(&sha256(&public)[..9]);
    let key = ScheduledKey { key_id, public, made_at, signs_from, verifies_until: None };
    KeptTokenKey { key, seed: Some(seed) }
}
