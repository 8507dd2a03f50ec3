//! The first of two steps of a passkey or of a sign-in at a provider, by the hash of a token in the browser's cookie.

use flydex_domain::id::AccountSessionId;
use flydex_domain::limits::ATTEMPTS_OPEN_MAX;
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, millis};
use super::turn::Turn;
use super::{StoreError, Tx};

/// What an attempt is for; one for another purpose is as good as none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// Signing in with a passkey.
    PasskeySignIn,
    /// Adding a passkey.
    PasskeyAddition,
    /// A fresh assertion in a session.
    Assertion,
    /// Signing in at a provider.
    Identity,
    /// Linking with an identity at a provider.
    IdentityLink,
}

impl AttemptKind {
    const fn name(self) -> &'static str {
        match self {
            Self::PasskeySignIn => "passkey_sign_in",
            Self::PasskeyAddition => "passkey_addition",
            Self::Assertion => "assertion",
            Self::Identity => "identity",
            Self::IdentityLink => "identity_link",
        }
    }
}

/// What the second step is checked against.
pub struct Attempt {
    /// The session that began it; none where nobody was signed in.
    pub account_session_id: Option<AccountSessionId>,
    /// The challenge and whatever else the first step fixed, as its authenticator wrote it.
    pub state: String,
}

impl Tx {
    /// Keeps an attempt.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too many are under way.
    pub async fn begin_attempt(
        &mut self,
        token_sha256: &[u8; 32],
        kind: AttemptKind,
        attempt: &Attempt,
        now: UnixMillis,
        expires_at: UnixMillis,
    ) -> Result<(), StoreError> {
        let row = query("SELECT COUNT(*) AS open FROM attempts WHERE expires_at > $1")
            .bind(millis(now))
            .fetch_one(self)
            .await?;
        if Columns(&row).count("open")? >= ATTEMPTS_OPEN_MAX {
            return Err(StoreError::Full);
        }
        query(
            "INSERT INTO attempts (token_sha256, kind, account_session_id, state, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(token_sha256.as_slice())
        .bind(kind.name())
        .bind(attempt.account_session_id.map(|id| id.as_bytes().to_vec()))
        .bind(&attempt.state)
        .bind(millis(now))
        .bind(millis(expires_at))
        .execute(self)
        .await?;
        Ok(())
    }

    /// Uses an attempt up, by its token's hash. Before any account: for the sign-in only.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is unknown, used, for something else or past its end.
    pub async fn take_attempt(
        &mut self,
        token_sha256: &[u8; 32],
        kind: AttemptKind,
        now: UnixMillis,
    ) -> Result<Attempt, StoreError> {
        let row = query(
            "DELETE FROM attempts WHERE token_sha256 = $1 AND kind = $2 AND expires_at > $3 \
             RETURNING account_session_id, state",
        )
        .bind(token_sha256.as_slice())
        .bind(kind.name())
        .bind(millis(now))
        .fetch_one(self)
        .await?;
        let columns = Columns(&row);
        Ok(Attempt { account_session_id: columns.optional_id("account_session_id")?, state: columns.text("state")? })
    }

    /// Removes the attempts that are past their end.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_expired_attempts(&mut self, now: UnixMillis) -> Result<u64, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let removed = query("DELETE FROM attempts WHERE expires_at <= $1").bind(millis(now)).execute(self).await?;
        Ok(removed.rows_affected())
    }
}
