//! Account sessions of browsers: the hash of the cookie's token, a rolling end, and the grant id they share.

use flydex_domain::id::{AccountSessionId, GrantId, UserId};
use flydex_domain::limits::USER_SESSIONS_MAX;
use flydex_domain::scope::AccountScope;
use flydex_domain::sign_in::{Presence, SignInMethod};
use flydex_domain::time::UnixMillis;

use super::accounts::user_of;
use super::query::query;
use super::row::{Columns, millis};
use super::turn::Turn;
use super::{StoreError, Tx, User};

/// One browser that is signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountSession {
    /// Which; not a secret.
    pub account_session_id: AccountSessionId,
    /// The id of every grant it gets.
    pub grant_id: GrantId,
    /// When it began.
    pub created_at: UnixMillis,
    /// When it was last used, to the hour.
    pub seen_at: UnixMillis,
    /// When it ends unless it is used.
    pub expires_at: UnixMillis,
    /// How its person signed in.
    pub method: SignInMethod,
    /// When the sign-in was that it goes back to.
    pub signed_in_at: UnixMillis,
    /// When its person last asserted a passkey in it, or proved as much.
    pub asserted_at: Option<UnixMillis>,
}

impl AccountSession {
    /// When its person was last there.
    #[must_use]
    pub const fn presence(&self) -> Presence {
        Presence { signed_in_at: self.signed_in_at, asserted_at: self.asserted_at }
    }
}

/// What a session's token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// Who.
    pub user: User,
    /// The account's name.
    pub account_name: String,
    /// The session.
    pub session: AccountSession,
    /// How many passkeys the user's person has.
    pub passkeys: u64,
}

impl Tx {
    /// Begins a session of a member; past the bound the user's oldest one ends, and is given back.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the user is no member of the account.
    pub async fn begin_session(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        session: &AccountSession,
        token_sha256: &[u8; 32],
    ) -> Result<Option<AccountSession>, StoreError> {
        self.member(scope, user_id).await?;
        let sessions = self.sessions(scope, user_id, session.created_at).await?;
        let oldest = sessions.iter().min_by_key(|session| session.seen_at).copied();
        let ended = oldest.filter(|_| sessions.len() as i64 >= USER_SESSIONS_MAX);
        if let Some(ended) = ended {
            self.end_session(scope, user_id, ended.account_session_id).await?;
        }
        query(
            "INSERT INTO account_sessions (account_session_id, account_id, user_id, token_sha256, grant_id, created_at, \
             seen_at, expires_at, method, asserted_at, signed_in_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(session.account_session_id.as_bytes().as_slice())
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .bind(token_sha256.as_slice())
        .bind(session.grant_id.as_bytes().as_slice())
        .bind(millis(session.created_at))
        .bind(millis(session.seen_at))
        .bind(millis(session.expires_at))
        .bind(session.method.name())
        .bind(session.asserted_at.map(millis))
        .bind(millis(session.signed_in_at))
        .execute(self)
        .await?;
        Ok(ended)
    }

    /// Whose session a token is, by its hash. Before any account: for the authenticator only.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none or it is past its end.
    pub async fn session_by_token(&mut self, token_sha256: &[u8; 32], now: UnixMillis) -> Result<SignedIn, StoreError> {
        let row = query(
            "SELECT s.account_session_id, s.grant_id, s.created_at, s.seen_at, s.expires_at, s.method, \
             s.asserted_at, s.signed_in_at, s.account_id, s.user_id, u.role, a.name, \
             (SELECT COUNT(*) FROM passkeys p JOIN users o ON o.user_id = p.user_id \
             WHERE COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id)) AS passkeys \
             FROM account_sessions s \
             JOIN users u ON u.account_id = s.account_id AND u.user_id = s.user_id \
             JOIN accounts a ON a.account_id = s.account_id \
             WHERE s.token_sha256 = $1 AND s.expires_at > $2 AND u.removed_at IS NULL",
        )
        .bind(token_sha256.as_slice())
        .bind(millis(now))
        .fetch_one(self)
        .await?;
        let columns = Columns(&row);
        Ok(SignedIn {
            user: user_of(&columns)?,
            account_name: columns.text("name")?,
            session: session_of(&columns)?,
            passkeys: columns.number("passkeys")?,
        })
    }

    /// Moves the end of a used session on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it ended meanwhile.
    pub async fn roll_session(&mut self, scope: AccountScope, session: &AccountSession) -> Result<(), StoreError> {
        let changed = query(
            "UPDATE account_sessions SET seen_at = $1, expires_at = $2 \
             WHERE account_id = $3 AND account_session_id = $4 AND expires_at <= $2",
        )
        .bind(millis(session.seen_at))
        .bind(millis(session.expires_at))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(session.account_session_id.as_bytes().as_slice())
        .execute(self)
        .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Notes that a session's person proved anew who they are, and gives it another token: who knew the old one does
    /// not profit from it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the session ended meanwhile.
    pub async fn assert_presence(
        &mut self,
        scope: AccountScope,
        account_session_id: AccountSessionId,
        token_sha256: &[u8; 32],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let changed = query(
            "UPDATE account_sessions SET token_sha256 = $1, asserted_at = $2 \
             WHERE account_id = $3 AND account_session_id = $4 AND expires_at > $2",
        )
        .bind(token_sha256.as_slice())
        .bind(millis(now))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(account_session_id.as_bytes().as_slice())
        .execute(self)
        .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// The live sessions of a user, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sessions(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        now: UnixMillis,
    ) -> Result<Vec<AccountSession>, StoreError> {
        let rows = query(
            "SELECT account_session_id, grant_id, created_at, seen_at, expires_at, method, asserted_at, signed_in_at \
             FROM account_sessions \
             WHERE account_id = $1 AND user_id = $2 AND expires_at > $3 ORDER BY created_at DESC",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .bind(millis(now))
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| session_of(&Columns(row))).collect()
    }

    /// Ends a session of a user and gives it back, so that its grants can be revoked.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the user has no such session.
    pub async fn end_session(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        account_session_id: AccountSessionId,
    ) -> Result<AccountSession, StoreError> {
        self.take_turn(scope).await?;
        let row = query(
            "DELETE FROM account_sessions WHERE account_id = $1 AND user_id = $2 AND account_session_id = $3 \
             RETURNING account_session_id, grant_id, created_at, seen_at, expires_at, method, asserted_at, signed_in_at",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .bind(account_session_id.as_bytes().as_slice())
        .fetch_one(self)
        .await?;
        session_of(&Columns(&row))
    }

    /// Ends every session of a user and gives them back.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_sessions(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
    ) -> Result<Vec<AccountSession>, StoreError> {
        self.take_turn(scope).await?;
        let rows = query(
            "DELETE FROM account_sessions WHERE account_id = $1 AND user_id = $2 \
             RETURNING account_session_id, grant_id, created_at, seen_at, expires_at, method, asserted_at, signed_in_at",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| session_of(&Columns(row))).collect()
    }

    /// Gives a session another grant id: what it gets from now on is not revoked with what it got before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it ended meanwhile.
    pub async fn renew_grant(
        &mut self,
        scope: AccountScope,
        account_session_id: AccountSessionId,
        grant_id: GrantId,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let changed =
            query("UPDATE account_sessions SET grant_id = $1 WHERE account_id = $2 AND account_session_id = $3")
                .bind(grant_id.as_bytes().as_slice())
                .bind(scope.account_id().as_bytes().as_slice())
                .bind(account_session_id.as_bytes().as_slice())
                .execute(self)
                .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Removes the sessions of every account that are past their end.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_expired_sessions(&mut self, now: UnixMillis) -> Result<u64, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let removed =
            query("DELETE FROM account_sessions WHERE expires_at <= $1").bind(millis(now)).execute(self).await?;
        Ok(removed.rows_affected())
    }
}

fn session_of(columns: &Columns<'_>) -> Result<AccountSession, StoreError> {
    Ok(AccountSession {
        account_session_id: columns.id("account_session_id")?,
        grant_id: columns.id("grant_id")?,
        created_at: columns.time("created_at")?,
        seen_at: columns.time("seen_at")?,
        expires_at: columns.time("expires_at")?,
        method: columns.named("method", SignInMethod::from_name)?,
        asserted_at: columns.optional_time("asserted_at")?,
        signed_in_at: columns.optional_time("signed_in_at")?.map_or_else(|| columns.time("created_at"), Ok)?,
    })
}
