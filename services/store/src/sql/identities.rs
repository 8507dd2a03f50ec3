//! Which user, and so which person, an identity at a provider belongs to, by what the provider calls itself and them.

use flydex_domain::id::{IdentityId, UserId};
use flydex_domain::limits::USER_IDENTITIES_MAX;
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;

use super::accounts::user_of;
use super::query::query;
use super::row::{Columns, millis};
use super::{StoreError, Tx, User};

/// A user's link with an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which.
    pub identity_id: IdentityId,
    /// The provider, as it calls itself.
    pub issuer: String,
    /// The user, as the provider calls them.
    pub subject: String,
    /// When it was linked.
    pub created_at: UnixMillis,
    /// When it last signed somebody in.
    pub used_at: Option<UnixMillis>,
}

impl Tx {
    /// Links a user with an identity.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is somebody's already, [`StoreError::Full`] when the user has too many.
    pub async fn link_identity(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        identity: &Identity,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let identities = self.identities(scope, user_id).await?;
        if identities.len() as i64 >= USER_IDENTITIES_MAX {
            return Err(StoreError::Full);
        }
        query(
            "INSERT INTO identities (identity_id, account_id, user_id, issuer, subject, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(identity.identity_id.as_bytes().as_slice())
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .bind(&identity.issuer)
        .bind(&identity.subject)
        .bind(millis(identity.created_at))
        .execute(self)
        .await?;
        Ok(())
    }

    /// The identities of a user, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn identities(&mut self, scope: AccountScope, user_id: UserId) -> Result<Vec<Identity>, StoreError> {
        let rows = query(
            "SELECT identity_id, issuer, subject, created_at, used_at FROM identities \
             WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
             ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) \
             WHERE u.account_id = $1 AND u.user_id = $2) ORDER BY created_at, identity_id",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| identity_of(&Columns(row))).collect()
    }

    /// Whose identity it is, and notes its use. Before any account: for the sign-in only.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when nobody is linked with it.
    pub async fn use_identity(&mut self, issuer: &str, subject: &str, now: UnixMillis) -> Result<User, StoreError> {
        let row = query(
            "SELECT u.account_id, u.user_id, u.role FROM identities i \
             JOIN users u ON u.account_id = i.account_id AND u.user_id = i.user_id \
             WHERE i.issuer = $1 AND i.subject = $2",
        )
        .bind(issuer)
        .bind(subject)
        .fetch_one(self)
        .await?;
        let user = user_of(&Columns(&row))?;
        query("UPDATE identities SET used_at = $1 WHERE issuer = $2 AND subject = $3")
            .bind(millis(now))
            .bind(issuer)
            .bind(subject)
            .execute(self)
            .await?;
        Ok(user)
    }

    /// Removes a user's link with an identity.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the user has no such link.
    pub async fn unlink_identity(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        identity_id: IdentityId,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let removed = query(
            "DELETE FROM identities \
             WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
             ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) \
             WHERE u.account_id = $1 AND u.user_id = $2) AND identity_id = $3",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .bind(identity_id.as_bytes().as_slice())
        .execute(self)
        .await?;
        if removed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }
}

fn identity_of(columns: &Columns<'_>) -> Result<Identity, StoreError> {
    Ok(Identity {
        identity_id: columns.id("identity_id")?,
        issuer: columns.text("issuer")?,
        subject: columns.text("subject")?,
        created_at: columns.time("created_at")?,
        used_at: columns.optional_time("used_at")?,
    })
}
