//! Paired machines, their keys, and the chain of their credentials.

use flydex_domain::id::MachineId;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::ACCOUNT_MACHINES_MAX;
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;
use sqlx::Row as _;

use super::row::{Columns, integer, millis};
use super::{StoreError, Tx};

const SELECT_MACHINE: &str = "SELECT m.machine_id, m.label, m.region, m.created_at, m.revoked_at, m.credential_serial, \
     m.credential_issued_at, k.algorithm, k.public_key FROM machines m \
     JOIN machine_keys k ON k.account_id = m.account_id AND k.machine_id = m.machine_id AND k.retired_at IS NULL \
     WHERE m.account_id = $1 AND m.machine_id = $2";

const SELECT_MACHINES: &str = "SELECT m.machine_id, m.label, m.region, m.created_at, m.revoked_at, m.credential_serial, \
     m.credential_issued_at, k.algorithm, k.public_key FROM machines m \
     JOIN machine_keys k ON k.account_id = m.account_id AND k.machine_id = m.machine_id AND k.retired_at IS NULL \
     WHERE m.account_id = $1 AND m.revoked_at IS NULL ORDER BY m.created_at, m.machine_id";

/// A paired computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Which.
    pub machine_id: MachineId,
    /// What its owner calls it.
    pub label: String,
    /// Its key.
    pub key: PublicKey,
    /// The region it was paired in.
    pub region: String,
    /// When it was paired.
    pub created_at: UnixMillis,
    /// Whether it was removed from the account.
    pub revoked: bool,
    /// The serial of the newest credential.
    pub credential_serial: u64,
    /// When that one was issued.
    pub credential_issued_at: UnixMillis,
}

/// A machine that is being paired.
#[derive(Clone, Debug)]
pub struct NewMachine {
    /// Which.
    pub machine_id: MachineId,
    /// What the desk calls it.
    pub label: String,
    /// Its key.
    pub key: PublicKey,
    /// The region it is paired in.
    pub region: String,
}

impl Tx {
    /// Pairs a machine with the scope's account, or again with the one it is in, and counts its credential up.
    ///
    /// # Errors
    /// [`StoreError::Full`] when the account has too many; [`StoreError::Conflict`] when the machine is in another
    /// account, has another key or was revoked.
    pub async fn pair_machine(
        &mut self,
        scope: AccountScope,
        machine: &NewMachine,
        now: UnixMillis,
    ) -> Result<Machine, StoreError> {
        match self.machine(scope, machine.machine_id).await {
            Ok(known) if known.revoked || known.key != machine.key => return Err(StoreError::Conflict),
            Ok(known) => {
                let serial = known.credential_serial;
                self.advance_credential(scope, machine.machine_id, serial, now).await?;
            }
            Err(StoreError::NotFound) => self.insert_machine(scope, machine, now).await?,
            Err(error) => return Err(error),
        }
        self.machine(scope, machine.machine_id).await
    }

    /// A machine of the account, revoked or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn machine(&mut self, scope: AccountScope, machine_id: MachineId) -> Result<Machine, StoreError> {
        let row = sqlx::query(SELECT_MACHINE)
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(machine_id.as_bytes().as_slice())
            .fetch_one(self.connection())
            .await?;
        machine_of(&Columns(&row))
    }

    /// The machines that are not revoked, in the order of their pairing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn machines(&mut self, scope: AccountScope) -> Result<Vec<Machine>, StoreError> {
        let rows = sqlx::query(SELECT_MACHINES)
            .bind(scope.account_id().as_bytes().as_slice())
            .fetch_all(self.connection())
            .await?;
        rows.iter().map(|row| machine_of(&Columns(row))).collect()
    }

    /// Renames a machine.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn rename_machine(
        &mut self,
        scope: AccountScope,
        machine_id: MachineId,
        label: &str,
    ) -> Result<(), StoreError> {
        let changed = sqlx::query(
            "UPDATE machines SET label = $1 WHERE account_id = $2 AND machine_id = $3 AND revoked_at IS NULL",
        )
        .bind(label)
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .execute(self.connection())
        .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Removes a machine from the account for good.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revoke_machine(
        &mut self,
        scope: AccountScope,
        machine_id: MachineId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let changed = sqlx::query(
            "UPDATE machines SET revoked_at = $1 WHERE account_id = $2 AND machine_id = $3 AND revoked_at IS NULL",
        )
        .bind(millis(now))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .execute(self.connection())
        .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Counts the credential up by one, if `serial` is still the newest.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not.
    pub async fn advance_credential(
        &mut self,
        scope: AccountScope,
        machine_id: MachineId,
        serial: u64,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let changed = sqlx::query(
            "UPDATE machines SET credential_serial = $1, credential_issued_at = $2 \
             WHERE account_id = $3 AND machine_id = $4 AND credential_serial = $5 AND revoked_at IS NULL",
        )
        .bind(integer(serial) + 1)
        .bind(millis(now))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .bind(integer(serial))
        .execute(self.connection())
        .await?;
        if changed.rows_affected() == 0 { Err(StoreError::Conflict) } else { Ok(()) }
    }

    async fn insert_machine(
        &mut self,
        scope: AccountScope,
        machine: &NewMachine,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS known FROM machines WHERE account_id = $1 AND revoked_at IS NULL")
            .bind(scope.account_id().as_bytes().as_slice())
            .fetch_one(self.connection())
            .await?;
        if row.try_get::<i64, _>("known")? >= ACCOUNT_MACHINES_MAX {
            return Err(StoreError::Full);
        }
        sqlx::query(
            "INSERT INTO machines (machine_id, account_id, label, region, created_at, credential_serial, \
             credential_issued_at) VALUES ($1, $2, $3, $4, $5, 1, $5)",
        )
        .bind(machine.machine_id.as_bytes().as_slice())
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(&machine.label)
        .bind(&machine.region)
        .bind(millis(now))
        .execute(self.connection())
        .await?;
        sqlx::query(
            "INSERT INTO machine_keys (account_id, machine_id, algorithm, public_key, created_at) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine.machine_id.as_bytes().as_slice())
        .bind(machine.key.algorithm())
        .bind(machine.key.as_bytes())
        .bind(millis(now))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

fn machine_of(columns: &Columns<'_>) -> Result<Machine, StoreError> {
    Ok(Machine {
        machine_id: columns.id("machine_id")?,
        label: columns.text("label")?,
        key: columns.key("algorithm", "public_key")?,
        region: columns.text("region")?,
        created_at: columns.time("created_at")?,
        revoked: columns.optional_time("revoked_at")?.is_some(),
        credential_serial: columns.number("credential_serial")?,
        credential_issued_at: columns.time("credential_issued_at")?,
    })
}
