//! Passkeys: what authenticators' assertions are verified with. A user adds one in an account, and it is their person's in
//! all of theirs.

use flydex_domain::id::{PasskeyId, UserId};
use flydex_domain::limits::USER_PASSKEYS_MAX;
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, millis};
use super::{StoreError, Tx};

/// One passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// Which.
    pub passkey_id: PasskeyId,
    /// What the authenticator calls it.
    pub credential_id: Vec<u8>,
    /// Its public key, counter and flags, in the form of the WebAuthn library.
    pub public_key: String,
    /// What its user calls it.
    pub label: String,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When it last signed somebody in.
    pub used_at: Option<UnixMillis>,
}

impl Tx {
    /// Adds a passkey to a user.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is somebody's already, [`StoreError::Full`] when the user has too many.
    pub async fn add_passkey(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        passkey: &Passkey,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let passkeys = self.passkeys(scope, user_id).await?;
        if passkeys.len() as i64 >= USER_PASSKEYS_MAX {
            return Err(StoreError::Full);
        }
        query(
            "INSERT INTO passkeys (passkey_id, account_id, user_id, credential_id, credential, label, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(passkey.passkey_id.as_bytes().as_slice())
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .bind(passkey.credential_id.as_slice())
        .bind(&passkey.public_key)
        .bind(&passkey.label)
        .bind(millis(passkey.created_at))
        .execute(self)
        .await?;
        Ok(())
    }

    /// The passkeys of a user's person, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn passkeys(&mut self, scope: AccountScope, user_id: UserId) -> Result<Vec<Passkey>, StoreError> {
        let rows = query(
            "SELECT passkey_id, credential_id, credential, label, created_at, used_at FROM passkeys \
             WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
             ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) \
             WHERE u.account_id = $1 AND u.user_id = $2) ORDER BY created_at, passkey_id",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| passkey_of(&Columns(row))).collect()
    }

    /// The passkey that an authenticator calls so, if it is of a user's person; and it is nobody else's turn until
    /// the change ends, so that of two assertions with one count one counts. Across accounts: for the authenticator.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when that person has no such passkey.
    pub async fn passkey_by_credential(
        &mut self,
        credential_id: &[u8],
        user_id: UserId,
    ) -> Result<Passkey, StoreError> {
        if self.changes {
            let turn = query("UPDATE passkeys SET used_at = used_at WHERE credential_id = $1");
            turn.bind(credential_id).execute(self).await?;
        }
        let row = query(
            "SELECT p.passkey_id, p.credential_id, p.credential, p.label, p.created_at, p.used_at FROM passkeys p \
             JOIN users o ON o.user_id = p.user_id \
             JOIN users u ON COALESCE(u.person_id, u.user_id) = COALESCE(o.person_id, o.user_id) \
             WHERE p.credential_id = $1 AND u.user_id = $2",
        )
        .bind(credential_id)
        .bind(user_id.as_bytes().as_slice())
        .fetch_one(self)
        .await?;
        passkey_of(&Columns(&row))
    }

    /// Keeps a passkey's counter and flags after an assertion.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it was removed meanwhile.
    pub async fn use_passkey(
        &mut self,
        passkey_id: PasskeyId,
        credential: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let changed = query("UPDATE passkeys SET credential = $1, used_at = $2 WHERE passkey_id = $3")
            .bind(credential)
            .bind(millis(now))
            .bind(passkey_id.as_bytes().as_slice())
            .execute(self)
            .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Gives a passkey of a user's person another name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when they have no such passkey.
    pub async fn rename_passkey(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        passkey_id: PasskeyId,
        label: &str,
    ) -> Result<(), StoreError> {
        let changed = query(
            "UPDATE passkeys SET label = $4 \
             WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
             ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) \
             WHERE u.account_id = $1 AND u.user_id = $2) AND passkey_id = $3",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .bind(passkey_id.as_bytes().as_slice())
        .bind(label)
        .execute(self)
        .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Removes a passkey of a user's person.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when they have no such passkey.
    pub async fn remove_passkey(
        &mut self,
        scope: AccountScope,
        user_id: UserId,
        passkey_id: PasskeyId,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let removed = query(
            "DELETE FROM passkeys \
             WHERE user_id IN (SELECT o.user_id FROM users o JOIN users u \
             ON COALESCE(o.person_id, o.user_id) = COALESCE(u.person_id, u.user_id) \
             WHERE u.account_id = $1 AND u.user_id = $2) AND passkey_id = $3",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .bind(passkey_id.as_bytes().as_slice())
        .execute(self)
        .await?;
        if removed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }
}

fn passkey_of(columns: &Columns<'_>) -> Result<Passkey, StoreError> {
    Ok(Passkey {
        passkey_id: columns.id("passkey_id")?,
        credential_id: columns.bytes("credential_id")?.to_vec(),
        public_key: columns.text("credential")?,
        label: columns.text("label")?,
        created_at: columns.time("created_at")?,
        used_at: columns.optional_time("used_at")?,
    })
}
