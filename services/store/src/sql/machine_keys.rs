//! The keys that a machine has had, and its statements of how each followed on the one before.

use std::collections::BTreeMap;

use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::MACHINE_KEY_ROTATIONS_MAX;
use flydex_domain::rotation::KeyRotation;
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, millis};
use super::{StoreError, Tx};

/// A key that another followed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormerKey {
    /// When.
    pub retired_at: UnixMillis,
    /// Whether the machine has used the one that followed since, so that this one is taken no more.
    pub is_given_up: bool,
}

impl Tx {
    /// The statements of every machine of the account that is not revoked, oldest first.
    ///
    /// # Errors
    /// When the database does not answer, or a statement is not one.
    pub async fn key_rotations(
        &mut self,
        scope: AccountScope,
    ) -> Result<BTreeMap<MachineId, Vec<KeyRotation>>, StoreError> {
        let rows = query(
            "SELECT k.machine_id, k.rotation FROM machine_keys k JOIN machines m ON m.account_id = k.account_id \
             AND m.machine_id = k.machine_id WHERE k.account_id = $1 AND k.rotation IS NOT NULL \
             AND m.revoked_at IS NULL",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .fetch_all(self)
        .await?;
        let mut rotations: BTreeMap<MachineId, Vec<KeyRotation>> = BTreeMap::new();
        for row in &rows {
            let columns = Columns(row);
            rotations.entry(columns.id("machine_id")?).or_default().push(rotation_of(&columns)?);
        }
        for of_machine in rotations.values_mut() {
            of_machine.sort_by_key(|rotation| rotation.counter);
        }
        Ok(rotations)
    }

    /// A machine's last statement, if it ever changed its key.
    ///
    /// # Errors
    /// When the database does not answer, or the statement is not one.
    pub async fn last_key_rotation(
        &mut self,
        scope: AccountScope,
        machine_id: MachineId,
    ) -> Result<Option<KeyRotation>, StoreError> {
        self.take_turn(scope).await?;
        let row = query(
            "SELECT rotation FROM machine_keys \
             WHERE account_id = $1 AND machine_id = $2 AND retired_at IS NULL AND rotation IS NOT NULL",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .fetch_optional(self)
        .await?;
        row.map(|row| rotation_of(&Columns(&row))).transpose()
    }

    /// A key that a machine had and that another followed on; absent when it is no such key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn former_key(
        &mut self,
        scope: AccountScope,
        machine_id: MachineId,
        key: &PublicKey,
    ) -> Result<Option<FormerKey>, StoreError> {
        self.take_turn(scope).await?;
        let row = query(
            "SELECT retired_at, given_up_at FROM machine_keys \
             WHERE account_id = $1 AND machine_id = $2 AND public_key = $3 AND retired_at IS NOT NULL",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .bind(key.as_bytes())
        .fetch_optional(self)
        .await?;
        let former = |columns: Columns<'_>| {
            let is_given_up = columns.optional_time("given_up_at")?.is_some();
            Ok(FormerKey { retired_at: columns.time("retired_at")?, is_given_up })
        };
        row.map(|row| former(Columns(&row))).transpose()
    }

    /// Gives the keys up that a machine had: it has used the one that followed. Whether any was taken until now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn give_up_former_keys(
        &mut self,
        scope: AccountScope,
        machine_id: MachineId,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        self.take_turn(scope).await?;
        let given_up = query(
            "UPDATE machine_keys SET given_up_at = $1 \
             WHERE account_id = $2 AND machine_id = $3 AND retired_at IS NOT NULL AND given_up_at IS NULL",
        )
        .bind(millis(now))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .execute(self)
        .await?;
        Ok(given_up.rows_affected() > 0)
    }

    /// Puts the next key in the place of a machine's present one. The oldest statements make room.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the present key is another one, or the next was one of the machine's before.
    pub async fn rotate_machine_key(
        &mut self,
        scope: AccountScope,
        machine_id: MachineId,
        rotation: &KeyRotation,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let retired = query(
            "UPDATE machine_keys SET retired_at = $1 \
             WHERE account_id = $2 AND machine_id = $3 AND public_key = $4 AND retired_at IS NULL",
        )
        .bind(millis(now))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .bind(rotation.old_key.0.as_bytes())
        .execute(self)
        .await?;
        if retired.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        let statement = serde_json::to_string(rotation).map_err(|_| StoreError::Malformed { column: "rotation" })?;
        let kept = query(
            "INSERT INTO machine_keys (account_id, machine_id, algorithm, public_key, created_at, rotation) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .bind(rotation.new_key.0.algorithm())
        .bind(rotation.new_key.0.as_bytes())
        .bind(millis(now))
        .bind(&statement)
        .execute(self)
        .await?;
        if kept.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        self.forget_oldest_keys(scope, machine_id).await
    }

    /// The machines of any account that a key is the present one of. Whoever asks has seen a signature by it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn machines_of_key(&mut self, key: &PublicKey) -> Result<Vec<(AccountId, MachineId)>, StoreError> {
        let rows = query(
            "SELECT k.account_id, k.machine_id FROM machine_keys k JOIN machines m ON m.account_id = k.account_id \
             AND m.machine_id = k.machine_id WHERE k.public_key = $1 AND k.retired_at IS NULL AND m.revoked_at IS NULL",
        )
        .bind(key.as_bytes())
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| Ok((Columns(row).id("account_id")?, Columns(row).id("machine_id")?))).collect()
    }

    async fn forget_oldest_keys(&mut self, scope: AccountScope, machine_id: MachineId) -> Result<(), StoreError> {
        query(
            "DELETE FROM machine_keys WHERE account_id = $1 AND machine_id = $2 AND public_key IN \
             (SELECT public_key FROM machine_keys WHERE account_id = $1 AND machine_id = $2 \
             AND retired_at IS NOT NULL ORDER BY retired_at DESC LIMIT 1000 OFFSET $3)",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .bind(MACHINE_KEY_ROTATIONS_MAX)
        .execute(self)
        .await?;
        Ok(())
    }
}

fn rotation_of(columns: &Columns<'_>) -> Result<KeyRotation, StoreError> {
    serde_json::from_str(&columns.text("rotation")?).map_err(|_| StoreError::Malformed { column: "rotation" })
}
