//! Paired machines, their keys, and the chain of their credentials.

use flydex_domain::id::MachineId;
use flydex_domain::key::PublicKey;
use flydex_domain::limits::ACCOUNT_MACHINES_MAX;
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, integer, millis};
use super::{StoreError, Tx};

/// The columns of a machine, its key, and its account's policy; each query goes on with its own condition.
macro_rules! select_machines {
    ($condition:literal) => {
        concat!(
            "SELECT m.machine_id, m.label, m.region, m.created_at, m.revoked_at, m.credential_serial, \
             m.credential_issued_at, m.quarantined_at, m.quarantined_serial, m.connector_version, \
             m.link_region, m.region_pin, a.strict_audit, k.algorithm, k.public_key \
             FROM machines m JOIN accounts a ON a.account_id = m.account_id \
             JOIN machine_keys k ON k.account_id = m.account_id AND k.machine_id = m.machine_id AND k.retired_at IS NULL WHERE m.account_id = $1 AND ",
            $condition
        )
    };
}

const SELECT_MACHINE: &str = select_machines!("m.machine_id = $2");

const SELECT_MACHINES: &str = select_machines!("m.revoked_at IS NULL ORDER BY m.created_at, m.machine_id");

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
    /// Whether its key was used twice and it was not paired again since.
    pub quarantined: bool,
    /// Credentials up to this serial do not hold any more; zero when it never was quarantined.
    pub quarantined_serial: u64,
    /// What its connector said of itself when it was last paired.
    pub connector_version: Option<String>,
    /// The region it is linked in, or was last, as a node reported it.
    pub link_region: Option<String>,
    /// The only region that may serve it.
    pub region_pin: Option<String>,
    /// Whether its account lets an approval act only with control's receipt.
    pub strict_audit: bool,
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
    /// What its connector says it is.
    pub connector_version: Option<String>,
}

impl Tx {
    /// Pairs a machine with the scope's account, or again with the one it is in, which counts its credential up and
    /// ends its quarantine.
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
                self.paired_again(scope, machine).await?;
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
        self.take_turn(scope).await?;
        let row = query(SELECT_MACHINE)
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(machine_id.as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        machine_of(&Columns(&row))
    }

    /// The machines that are not revoked, in the order of their pairing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn machines(&mut self, scope: AccountScope) -> Result<Vec<Machine>, StoreError> {
        let rows = query(SELECT_MACHINES).bind(scope.account_id().as_bytes().as_slice()).fetch_all(self).await?;
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
        self.take_turn(scope).await?;
        let changed =
            query("UPDATE machines SET label = $1 WHERE account_id = $2 AND machine_id = $3 AND revoked_at IS NULL")
                .bind(label)
                .bind(scope.account_id().as_bytes().as_slice())
                .bind(machine_id.as_bytes().as_slice())
                .execute(self)
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
        self.take_turn(scope).await?;
        let changed = query(
            "UPDATE machines SET revoked_at = $1 WHERE account_id = $2 AND machine_id = $3 AND revoked_at IS NULL",
        )
        .bind(millis(now))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .execute(self)
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
        self.take_turn(scope).await?;
        let changed = query(
            "UPDATE machines SET credential_serial = $1, credential_issued_at = $2 \
             WHERE account_id = $3 AND machine_id = $4 AND credential_serial = $5 AND revoked_at IS NULL",
        )
        .bind(integer(serial) + 1)
        .bind(millis(now))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .bind(integer(serial))
        .execute(self)
        .await?;
        if changed.rows_affected() == 0 { Err(StoreError::Conflict) } else { Ok(()) }
    }

    /// Ends every credential that a machine has, until it is paired again. The serial of the newest of them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn quarantine_machine(
        &mut self,
        scope: AccountScope,
        machine_id: MachineId,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        self.take_turn(scope).await?;
        let row = query(
            "UPDATE machines SET quarantined_at = $1, quarantined_serial = credential_serial \
             WHERE account_id = $2 AND machine_id = $3 AND revoked_at IS NULL RETURNING quarantined_serial",
        )
        .bind(millis(now))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine_id.as_bytes().as_slice())
        .fetch_one(self)
        .await?;
        Columns(&row).number("quarantined_serial")
    }

    async fn paired_again(&mut self, scope: AccountScope, machine: &NewMachine) -> Result<(), StoreError> {
        query(
            "UPDATE machines SET quarantined_at = NULL, connector_version = $1 \
             WHERE account_id = $2 AND machine_id = $3",
        )
        .bind(&machine.connector_version)
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine.machine_id.as_bytes().as_slice())
        .execute(self)
        .await?;
        Ok(())
    }

    async fn insert_machine(
        &mut self,
        scope: AccountScope,
        machine: &NewMachine,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let row = query("SELECT COUNT(*) AS known FROM machines WHERE account_id = $1 AND revoked_at IS NULL")
            .bind(scope.account_id().as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        if Columns(&row).count("known")? >= ACCOUNT_MACHINES_MAX {
            return Err(StoreError::Full);
        }
        let kept = query(
            "INSERT INTO machines (machine_id, account_id, label, region, created_at, credential_serial, \
             credential_issued_at, connector_version) VALUES ($1, $2, $3, $4, $5, 1, $5, $6) \
             ON CONFLICT DO NOTHING",
        )
        .bind(machine.machine_id.as_bytes().as_slice())
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(&machine.label)
        .bind(&machine.region)
        .bind(millis(now))
        .bind(&machine.connector_version)
        .execute(self)
        .await?;
        if kept.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        query(
            "INSERT INTO machine_keys (account_id, machine_id, algorithm, public_key, created_at) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(machine.machine_id.as_bytes().as_slice())
        .bind(machine.key.algorithm())
        .bind(machine.key.as_bytes())
        .bind(millis(now))
        .execute(self)
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
        quarantined: columns.optional_time("quarantined_at")?.is_some(),
        quarantined_serial: columns.number("quarantined_serial")?,
        connector_version: columns.optional_text("connector_version")?,
        link_region: columns.optional_text("link_region")?,
        region_pin: columns.optional_text("region_pin")?,
        strict_audit: columns.number("strict_audit")? != 0,
    })
}
