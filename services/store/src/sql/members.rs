//! Who is in an account. A user is a membership: what one person is in one account. Of the same person there may be
//! users in other accounts, and nothing that belongs to an account tells it of them. A member who left keeps the row,
//! marked, so that their devices' keys stay refused; coming back, the person is another user.

use flydex_domain::id::UserId;
use flydex_domain::limits::{ACCOUNT_MEMBERS_MAX, PERSON_ACCOUNTS_MAX};
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;

use super::accounts::user_of;
use super::query::query;
use super::row::{Columns, millis};
use super::{StoreError, Tx, User};

/// A user as the account knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The account, the user and the role.
    pub user: User,
    /// What the owners call them; empty for who made the account.
    pub label: String,
    /// Since when.
    pub joined_at: UnixMillis,
}

/// One account of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// What the person is there.
    pub user: User,
    /// The account's name.
    pub account_name: String,
}

/// What a person signs in with, of whichever of their users.
const FORGET_WAYS_IN: [&str; 3] = [
    "DELETE FROM passkeys WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
     ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) WHERE u.user_id = $1)",
    "DELETE FROM recovery_codes WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
     ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) WHERE u.user_id = $1)",
    "DELETE FROM identities WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
     ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) WHERE u.user_id = $1)",
];

impl Tx {
    /// The members, in the order in which they came.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn members(&mut self, scope: AccountScope) -> Result<Vec<Member>, StoreError> {
        let rows = query(
            "SELECT account_id, user_id, role, label, created_at FROM users \
             WHERE account_id = $1 AND removed_at IS NULL ORDER BY created_at, user_id",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| member_of(&Columns(row))).collect()
    }

    /// A member.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the account has no such member, or no more.
    pub async fn member(&mut self, scope: AccountScope, user_id: UserId) -> Result<Member, StoreError> {
        self.take_turn(scope).await?;
        let row = query(
            "SELECT account_id, user_id, role, label, created_at FROM users \
             WHERE account_id = $1 AND user_id = $2 AND removed_at IS NULL",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .fetch_one(self)
        .await?;
        member_of(&Columns(&row))
    }

    /// How many owners the account has.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn owner_count(&mut self, scope: AccountScope) -> Result<u64, StoreError> {
        self.take_turn(scope).await?;
        let row = query(
            "SELECT COUNT(*) AS owners FROM users WHERE account_id = $1 AND role = 'owner' AND removed_at IS NULL",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .fetch_one(self)
        .await?;
        Columns(&row).number("owners")
    }

    /// How many members the account has.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn member_count(&mut self, scope: AccountScope) -> Result<u64, StoreError> {
        self.take_turn(scope).await?;
        let row = query("SELECT COUNT(*) AS members FROM users WHERE account_id = $1 AND removed_at IS NULL")
            .bind(scope.account_id().as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        Columns(&row).number("members")
    }

    /// Adds a member: a new person, or the one who is `same_as` a user of whatever account.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the person is a member already, [`StoreError::Full`] when the account has as many
    /// as it may or the person is in as many, [`StoreError::NotFound`] when there is no such person.
    pub async fn add_member(
        &mut self,
        scope: AccountScope,
        member: &Member,
        same_as: Option<UserId>,
    ) -> Result<(), StoreError> {
        if self.member_count(scope).await? >= ACCOUNT_MEMBERS_MAX.unsigned_abs() {
            return Err(StoreError::Full);
        }
        let person_id = match same_as {
            None => member.user.user_id,
            Some(user_id) => {
                let accounts = self.memberships(user_id).await?;
                if accounts.iter().any(|membership| membership.user.account_id == scope.account_id()) {
                    return Err(StoreError::Conflict);
                }
                if accounts.len() as u64 >= PERSON_ACCOUNTS_MAX.unsigned_abs() {
                    return Err(StoreError::Full);
                }
                self.person_of(user_id).await?
            }
        };
        query(
            "INSERT INTO users (user_id, account_id, role, created_at, person_id, label) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(member.user.user_id.as_bytes().as_slice())
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(member.user.role.as_str())
        .bind(millis(member.joined_at))
        .bind(person_id.as_bytes().as_slice())
        .bind(&member.label)
        .execute(self)
        .await?;
        Ok(())
    }

    /// Gives a member another role.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_role(&mut self, scope: AccountScope, user_id: UserId, role: Role) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let changed = query("UPDATE users SET role = $1 WHERE account_id = $2 AND user_id = $3 AND removed_at IS NULL")
            .bind(role.as_str())
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(user_id.as_bytes().as_slice())
            .execute(self)
            .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Makes a member one no more, for good.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn remove_member(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let changed =
            query("UPDATE users SET removed_at = $1 WHERE account_id = $2 AND user_id = $3 AND removed_at IS NULL")
                .bind(millis(now))
                .bind(scope.account_id().as_bytes().as_slice())
                .bind(user_id.as_bytes().as_slice())
                .execute(self)
                .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Forgets how a person signed in who is a member nowhere any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_ways_in(&mut self, user_id: UserId) -> Result<(), StoreError> {
        for forget in FORGET_WAYS_IN {
            query(forget).bind(user_id.as_bytes().as_slice()).execute(self).await?;
        }
        Ok(())
    }

    /// The accounts of the person who is a user somewhere, first that of the user if they still are. Across accounts:
    /// for that person alone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn memberships(&mut self, user_id: UserId) -> Result<Vec<Membership>, StoreError> {
        let rows = query(
            "SELECT u.account_id, u.user_id, u.role, a.name FROM users u \
             JOIN accounts a ON a.account_id = u.account_id \
             WHERE COALESCE(u.person_id, u.user_id) = \
             (SELECT COALESCE(p.person_id, p.user_id) FROM users p WHERE p.user_id = $1) AND u.removed_at IS NULL \
             ORDER BY CASE WHEN u.user_id = $1 THEN 0 ELSE 1 END, u.created_at, u.user_id LIMIT $2",
        )
        .bind(user_id.as_bytes().as_slice())
        .bind(PERSON_ACCOUNTS_MAX)
        .fetch_all(self)
        .await?;
        let membership =
            |columns: Columns<'_>| Ok(Membership { user: user_of(&columns)?, account_name: columns.text("name")? });
        rows.iter().map(|row| membership(Columns(row))).collect()
    }

    async fn person_of(&mut self, user_id: UserId) -> Result<UserId, StoreError> {
        let row = query("SELECT COALESCE(person_id, user_id) AS person FROM users WHERE user_id = $1")
            .bind(user_id.as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        Columns(&row).id("person")
    }
}

fn member_of(columns: &Columns<'_>) -> Result<Member, StoreError> {
    Ok(Member {
        user: user_of(columns)?,
        label: columns.optional_text("label")?.unwrap_or_default(),
        joined_at: columns.time("created_at")?,
    })
}
