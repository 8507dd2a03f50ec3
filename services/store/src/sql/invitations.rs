//! Invitations to an account, by the hash of their token. One is used once, by whoever has it.

use flydex_domain::id::{InvitationId, UserId};
use flydex_domain::limits::INVITATIONS_OPEN_MAX;
use flydex_domain::scope::{AccountScope, Principal, Role};
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, millis};
use super::turn::Turn;
use super::{StoreError, Tx};

/// An invitation that nobody has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Which; not a secret.
    pub invitation_id: InvitationId,
    /// What the member will be.
    pub role: Role,
    /// What the owners will call them.
    pub label: String,
    /// The owner who made it.
    pub user_id: UserId,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ends.
    pub expires_at: UnixMillis,
}

/// What a token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invited {
    /// The account that invites.
    pub scope: AccountScope,
    /// Its name.
    pub account_name: String,
    /// The invitation.
    pub invitation: Invitation,
}

impl Tx {
    /// Keeps an invitation.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too many of the account's are open.
    pub async fn create_invitation(
        &mut self,
        scope: AccountScope,
        invitation: &Invitation,
        token_sha256: &[u8; 32],
    ) -> Result<(), StoreError> {
        if self.open_invitations(scope, invitation.created_at).await? >= INVITATIONS_OPEN_MAX.unsigned_abs() {
            return Err(StoreError::Full);
        }
        query(
            "INSERT INTO invitations (invitation_id, account_id, token_sha256, role, label, user_id, created_at, \
             expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(invitation.invitation_id.as_bytes().as_slice())
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(token_sha256.as_slice())
        .bind(invitation.role.as_str())
        .bind(&invitation.label)
        .bind(invitation.user_id.as_bytes().as_slice())
        .bind(millis(invitation.created_at))
        .bind(millis(invitation.expires_at))
        .execute(self)
        .await?;
        Ok(())
    }

    /// How many of the account's invitations are open.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_invitations(&mut self, scope: AccountScope, now: UnixMillis) -> Result<u64, StoreError> {
        self.take_turn(scope).await?;
        let row = query("SELECT COUNT(*) AS open FROM invitations WHERE account_id = $1 AND expires_at > $2")
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(millis(now))
            .fetch_one(self)
            .await?;
        Columns(&row).number("open")
    }

    /// The open invitations, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn invitations(&mut self, scope: AccountScope, now: UnixMillis) -> Result<Vec<Invitation>, StoreError> {
        let rows = query(
            "SELECT invitation_id, role, label, user_id, created_at, expires_at FROM invitations \
             WHERE account_id = $1 AND expires_at > $2 ORDER BY created_at DESC, invitation_id",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(millis(now))
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| invitation_of(&Columns(row))).collect()
    }

    /// Takes an open invitation back.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the account has no such invitation, or no more.
    pub async fn revoke_invitation(&mut self, scope: AccountScope, id: InvitationId) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let removed = query("DELETE FROM invitations WHERE account_id = $1 AND invitation_id = $2")
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(id.as_bytes().as_slice())
            .execute(self)
            .await?;
        if removed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Takes back every invitation that a user made.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_invitations_of(&mut self, scope: AccountScope, user_id: UserId) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        query("DELETE FROM invitations WHERE account_id = $1 AND user_id = $2")
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(user_id.as_bytes().as_slice())
            .execute(self)
            .await?;
        Ok(())
    }

    /// What a token opens, by its hash. Before any account: for who was invited only. In a change the account's turn
    /// is taken, so that what is found holds until the end of it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is unknown, used, taken back or past its end.
    pub async fn invited(&mut self, token_sha256: &[u8; 32], now: UnixMillis) -> Result<Invited, StoreError> {
        let row = query("SELECT account_id, user_id FROM invitations WHERE token_sha256 = $1 AND expires_at > $2")
            .bind(token_sha256.as_slice())
            .bind(millis(now))
            .fetch_one(self)
            .await?;
        let columns = Columns(&row);
        // Who invites lends the scope; the token proves that they did.
        let (account_id, user_id) = (columns.id("account_id")?, columns.id("user_id")?);
        let scope = Principal::User { account_id, user_id, role: Role::Owner }.scope();
        // The account first, then its row: in the same order as everybody else.
        self.take_turn(scope).await?;
        let row = query(
            "SELECT i.invitation_id, i.role, i.label, i.user_id, i.created_at, i.expires_at, a.name \
             FROM invitations i JOIN accounts a ON a.account_id = i.account_id \
             WHERE i.token_sha256 = $1 AND i.expires_at > $2",
        )
        .bind(token_sha256.as_slice())
        .bind(millis(now))
        .fetch_one(self)
        .await?;
        let columns = Columns(&row);
        Ok(Invited { scope, account_name: columns.text("name")?, invitation: invitation_of(&columns)? })
    }

    /// Removes the invitations that are past their end.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_expired_invitations(&mut self, now: UnixMillis) -> Result<u64, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let removed = query("DELETE FROM invitations WHERE expires_at <= $1").bind(millis(now)).execute(self).await?;
        Ok(removed.rows_affected())
    }
}

fn invitation_of(columns: &Columns<'_>) -> Result<Invitation, StoreError> {
    Ok(Invitation {
        invitation_id: columns.id("invitation_id")?,
        role: columns.named("role", |name| name.parse().ok())?,
        label: columns.text("label")?,
        user_id: columns.id("user_id")?,
        created_at: columns.time("created_at")?,
        expires_at: columns.time("expires_at")?,
    })
}
