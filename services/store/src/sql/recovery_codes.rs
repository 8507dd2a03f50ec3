//! Recovery codes: a selector to find each by, and the hash of the whole. A user makes them, for their person.

use flydex_domain::id::UserId;
use flydex_domain::scope::AccountScope;
use flydex_domain::sign_in::RecoveryCode;
use flydex_domain::time::UnixMillis;

use super::accounts::user_of;
use super::query::query;
use super::row::{Columns, millis};
use super::{StoreError, Tx, User};

impl Tx {
    /// Keeps new codes of a user in place of every earlier one.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when one of them has the selector of another's: make others.
    pub async fn replace_recovery_codes(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        codes: &[RecoveryCode],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        query(
            "DELETE FROM recovery_codes \
             WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
             ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) \
             WHERE u.account_id = $1 AND u.user_id = $2)",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .execute(self)
        .await?;
        for code in codes {
            query(
                "INSERT INTO recovery_codes (selector, account_id, user_id, code_sha256, created_at) \
                 VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(code.selector())
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(user_id.as_bytes().as_slice())
            .bind(code.hash().as_slice())
            .bind(millis(now))
            .execute(self)
            .await?;
        }
        Ok(())
    }

    /// How many codes a user has left.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn recovery_codes_left(&mut self, scope: AccountScope, user_id: UserId) -> Result<u64, StoreError> {
        let row = query(
            "SELECT COUNT(*) AS left_over FROM recovery_codes \
             WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
             ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) \
             WHERE u.account_id = $1 AND u.user_id = $2)",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .fetch_one(self)
        .await?;
        Columns(&row).number("left_over")
    }

    /// Uses a code up and says whose it was. Before any account: for the sign-in only. A wrong one with a right
    /// selector uses nothing up.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is unknown or used.
    pub async fn take_recovery_code(&mut self, code: &RecoveryCode) -> Result<User, StoreError> {
        let row = query(
            "SELECT r.code_sha256, u.account_id, u.user_id, u.role FROM recovery_codes r \
             JOIN users u ON u.account_id = r.account_id AND u.user_id = r.user_id WHERE r.selector = $1",
        )
        .bind(code.selector())
        .fetch_optional(self)
        .await?;
        let Some(row) = row else {
            // The same work as for a code that is there.
            return if code.is_stored_as(&[0; 32]) { Err(StoreError::Conflict) } else { Err(StoreError::NotFound) };
        };
        let columns = Columns(&row);
        if !code.is_stored_as(&columns.hash("code_sha256")?) {
            return Err(StoreError::NotFound);
        }
        let user = user_of(&columns)?;
        let removed = query("DELETE FROM recovery_codes WHERE account_id = $1 AND selector = $2")
            .bind(user.account_id.as_bytes().as_slice())
            .bind(code.selector())
            .execute(self)
            .await?;
        if removed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(user) }
    }
}
