//! Accounts and their users.

use flydex_domain::audit::ChainHead;
use flydex_domain::id::{AccountId, UserId};
use flydex_domain::scope::{AccountScope, Principal, Role};
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, integer, millis};
use super::{StoreError, Tx};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Which.
    pub account_id: AccountId,
    /// What its owner calls it.
    pub name: String,
}

/// A member of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The account.
    pub account_id: AccountId,
    /// Who.
    pub user_id: UserId,
    /// What they may do.
    pub role: Role,
}

impl User {
    /// The user as a principal; for authenticators, after they verified the proof.
    #[must_use]
    pub const fn principal(&self) -> Principal {
        Principal::User { account_id: self.account_id, user_id: self.user_id, role: self.role }
    }
}

impl Tx {
    /// Makes an account with an empty audit.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn create_account(&mut self, account: &Account, now: UnixMillis) -> Result<(), StoreError> {
        let head = ChainHead::start(account.account_id);
        query(
            "INSERT INTO accounts (account_id, name, created_at, audit_number, audit_hash) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(account.account_id.as_bytes().as_slice())
        .bind(&account.name)
        .bind(millis(now))
        .bind(integer(head.number))
        .bind(head.hash.as_slice())
        .execute(self)
        .await?;
        Ok(())
    }

    /// The scope's account.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is gone.
    pub async fn account(&mut self, scope: AccountScope) -> Result<Account, StoreError> {
        let row = query("SELECT account_id, name FROM accounts WHERE account_id = $1")
            .bind(scope.account_id().as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        let columns = Columns(&row);
        Ok(Account { account_id: columns.id("account_id")?, name: columns.text("name")? })
    }

    /// Whether the account lets an approval act only with control's receipt.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is gone.
    pub async fn strict_audit(&mut self, scope: AccountScope) -> Result<bool, StoreError> {
        let row = query("SELECT strict_audit FROM accounts WHERE account_id = $1")
            .bind(scope.account_id().as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        Ok(Columns(&row).number("strict_audit")? != 0)
    }

    /// Says whether the account lets an approval act only with control's receipt. Whether that is a change.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn set_strict_audit(&mut self, scope: AccountScope, strict: bool) -> Result<bool, StoreError> {
        self.take_turn(scope).await?;
        let changed = query("UPDATE accounts SET strict_audit = $1 WHERE account_id = $2 AND strict_audit <> $1")
            .bind(i64::from(strict))
            .bind(scope.account_id().as_bytes().as_slice())
            .execute(self)
            .await?;
        Ok(changed.rows_affected() > 0)
    }

    /// Every account; for the operator's own checks over the whole database.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn account_ids(&mut self) -> Result<Vec<AccountId>, StoreError> {
        let rows = query("SELECT account_id FROM accounts ORDER BY account_id").fetch_all(self).await?;
        rows.iter().map(|row| Columns(row).id("account_id")).collect()
    }

    /// Adds a user to the account that the user names; for those who make accounts and members.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn create_user(&mut self, user: &User, now: UnixMillis) -> Result<(), StoreError> {
        query("INSERT INTO users (user_id, account_id, role, created_at) VALUES ($1, $2, $3, $4)")
            .bind(user.user_id.as_bytes().as_slice())
            .bind(user.account_id.as_bytes().as_slice())
            .bind(user.role.as_str())
            .bind(millis(now))
            .execute(self)
            .await?;
        Ok(())
    }

    /// The first owner of the first account that has one. Before any account: for the owner link only.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn first_owner(&mut self) -> Result<Option<User>, StoreError> {
        let row = query(
            "SELECT u.user_id, u.account_id, u.role FROM users u JOIN accounts a ON a.account_id = u.account_id \
             WHERE u.role = 'owner' AND u.removed_at IS NULL \
             ORDER BY a.created_at, a.account_id, u.created_at, u.user_id LIMIT 1",
        )
        .fetch_optional(self)
        .await?;
        row.map(|row| user_of(&Columns(&row))).transpose()
    }
}

pub(super) fn user_of(columns: &Columns<'_>) -> Result<User, StoreError> {
    Ok(User {
        account_id: columns.id("account_id")?,
        user_id: columns.id("user_id")?,
        role: columns.named("role", |name| name.parse().ok())?,
    })
}
