//! The keys that control signs with, and their places in time. They belong to the server and to no account.

use flydex_domain::limits::TOKEN_KEYS_MAX;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::schedule::{Change, ScheduledKey};

use super::query::query;
use super::row::{Columns, millis};
use super::turn::Turn;
use super::{StoreError, Tx};

/// A signing key as it is kept.
pub struct KeptTokenKey {
    /// Its name, its public half and its place in time.
    pub key: ScheduledKey,
    /// What it signs with; absent once its tokens are not taken any more.
    pub seed: Option<SecretKey>,
}

impl Tx {
    /// The signing keys, oldest first.
    ///
    /// # Errors
    /// When the database does not answer, or a value is not of its form.
    pub async fn token_keys(&mut self) -> Result<Vec<KeptTokenKey>, StoreError> {
        let rows = query(
            "SELECT key_id, public_key, seed, made_at, signs_from, verifies_until FROM token_keys \
             ORDER BY made_at, key_id",
        )
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| kept(&Columns(row))).collect()
    }

    /// Keeps the first signing key, unless there is one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_first_token_key(&mut self, key: &KeptTokenKey) -> Result<(), StoreError> {
        self.take_turn_of(Turn::Server).await?;
        if self.token_keys().await?.is_empty() {
            self.insert_token_key(key).await?;
        }
        Ok(())
    }

    /// Keeps a key that follows on the others by a change. Keys that nothing is renewed by any more are forgotten.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too many keys are taken at once; when the database does not answer.
    pub async fn add_token_key(
        &mut self,
        key: &KeptTokenKey,
        change: Change,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let known = self.token_keys().await?;
        let excess = (known.len() + 1).saturating_sub(TOKEN_KEYS_MAX);
        for old in known.iter().take(excess) {
            if old.key.verifies(now) {
                return Err(StoreError::Full);
            }
            query("DELETE FROM token_keys WHERE key_id = $1").bind(&old.key.key_id).execute(self).await?;
        }
        query("UPDATE token_keys SET verifies_until = $1 WHERE verifies_until IS NULL OR verifies_until > $1")
            .bind(millis(change.older_until(now)))
            .execute(self)
            .await?;
        self.insert_token_key(key).await
    }

    /// Forgets the seeds of keys whose tokens are not taken any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_token_seeds(&mut self, now: UnixMillis) -> Result<u64, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let forgotten = query("UPDATE token_keys SET seed = NULL WHERE verifies_until <= $1 AND seed IS NOT NULL")
            .bind(millis(now));
        Ok(forgotten.execute(self).await?.rows_affected())
    }

    async fn insert_token_key(&mut self, kept: &KeptTokenKey) -> Result<(), StoreError> {
        query("INSERT INTO token_keys (key_id, public_key, seed, made_at, signs_from) VALUES ($1, $2, $3, $4, $5)")
            .bind(&kept.key.key_id)
            .bind(kept.key.public.as_slice())
            .bind(kept.seed.as_ref().map(|seed| seed.expose().to_vec()))
            .bind(millis(kept.key.made_at))
            .bind(millis(kept.key.signs_from))
            .execute(self)
            .await?;
        Ok(())
    }
}

fn kept(columns: &Columns<'_>) -> Result<KeptTokenKey, StoreError> {
    let key = ScheduledKey {
        key_id: columns.text("key_id")?,
        public: columns.hash("public_key")?,
        made_at: columns.time("made_at")?,
        signs_from: columns.time("signs_from")?,
        verifies_until: columns.optional_time("verifies_until")?,
    };
    Ok(KeptTokenKey { key, seed: columns.optional_hash("seed")?.map(SecretKey::new) })
}
