//! One-time links that sign a browser in, by the hash of their token.

use flydex_domain::id::UserId;
use flydex_domain::limits::SIGN_IN_LINKS_OPEN_MAX;
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, millis};
use super::turn::Turn;
use super::{StoreError, Tx, User};

/// Whom a link signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInLink {
    /// The first owner; makes account and owner if there are none.
    Owner,
    /// A user of an account.
    User(User),
}

impl Tx {
    /// Keeps the server's owner link in place of every earlier one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn replace_owner_link(
        &mut self,
        token_sha256: &[u8; 32],
        now: UnixMillis,
        expires_at: UnixMillis,
    ) -> Result<(), StoreError> {
        self.take_turn_of(Turn::Server).await?;
        query("DELETE FROM sign_in_links WHERE account_id IS NULL").execute(self).await?;
        self.insert_link(token_sha256, None, now, expires_at).await
    }

    /// Keeps a link that signs a user in once more.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too many of the account's links are unused.
    pub async fn create_link(
        &mut self,
        scope: AccountScope,
        user: &User,
        token_sha256: &[u8; 32],
        now: UnixMillis,
        expires_at: UnixMillis,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let row = query("SELECT COUNT(*) AS open FROM sign_in_links WHERE account_id = $1 AND expires_at > $2")
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(millis(now))
            .fetch_one(self)
            .await?;
        if Columns(&row).count("open")? >= SIGN_IN_LINKS_OPEN_MAX {
            return Err(StoreError::Full);
        }
        self.insert_link(token_sha256, Some(user), now, expires_at).await
    }

    /// Uses a link up, by its token's hash. Before any account: for the sign-in only.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is unknown, used or past its end.
    pub async fn take_link(&mut self, token_sha256: &[u8; 32], now: UnixMillis) -> Result<SignInLink, StoreError> {
        let row = query(
            "DELETE FROM sign_in_links WHERE token_sha256 = $1 AND expires_at > $2 RETURNING account_id, user_id",
        )
        .bind(token_sha256.as_slice())
        .bind(millis(now))
        .fetch_one(self)
        .await?;
        let columns = Columns(&row);
        let Some(user_id) = columns.optional_id::<UserId>("user_id")? else {
            return Ok(SignInLink::Owner);
        };
        let row = query("SELECT account_id, user_id, role FROM users WHERE user_id = $1 AND removed_at IS NULL")
            .bind(user_id.as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        super::accounts::user_of(&Columns(&row)).map(SignInLink::User)
    }

    /// Removes a user's unused links.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_links_of(&mut self, scope: AccountScope, user_id: UserId) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        query("DELETE FROM sign_in_links WHERE account_id = $1 AND user_id = $2")
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(user_id.as_bytes().as_slice())
            .execute(self)
            .await?;
        Ok(())
    }

    /// Removes the links that are past their end.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_expired_links(&mut self, now: UnixMillis) -> Result<u64, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let removed = query("DELETE FROM sign_in_links WHERE expires_at <= $1").bind(millis(now)).execute(self).await?;
        Ok(removed.rows_affected())
    }

    async fn insert_link(
        &mut self,
        token_sha256: &[u8; 32],
        user: Option<&User>,
        now: UnixMillis,
        expires_at: UnixMillis,
    ) -> Result<(), StoreError> {
        query(
            "INSERT INTO sign_in_links (token_sha256, account_id, user_id, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(token_sha256.as_slice())
        .bind(user.map(|user| user.account_id.as_bytes().to_vec()))
        .bind(user.map(|user| user.user_id.as_bytes().to_vec()))
        .bind(millis(now))
        .bind(millis(expires_at))
        .execute(self)
        .await?;
        Ok(())
    }
}
