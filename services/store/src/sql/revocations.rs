//! The numbered log of what no longer holds. It is written within an account and read by the whole cluster.

use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::revocation::{Revocation, RevocationEntry};
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, integer, millis};
use super::turn::Turn;
use super::{StoreError, Tx};

impl Tx {
    /// Appends to the log. The revocation must be about the scope's account.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is about another.
    pub async fn append_revocation(
        &mut self,
        scope: AccountScope,
        revocation: Revocation,
        now: UnixMillis,
    ) -> Result<RevocationEntry, StoreError> {
        let (kind, account_id, subject) = parts(&revocation);
        if account_id != scope.account_id() {
            return Err(StoreError::NotFound);
        }
        self.take_turn(scope).await?;
        self.take_turn_of(Turn::Revocations).await?;
        let number = self.newest_revocation().await? + 1;
        query("INSERT INTO revocations (number, account_id, kind, subject, at, keeps) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(integer(number))
            .bind(account_id.as_bytes().as_slice())
            .bind(kind)
            .bind(subject)
            .bind(millis(now))
            .bind(keeps(&revocation).map(Role::as_str))
            .execute(self)
            .await?;
        Ok(RevocationEntry { number, at: now, revocation })
    }

    /// The number after which every entry is that was made at a time or later.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revocation_before(&mut self, time: UnixMillis) -> Result<u64, StoreError> {
        let row = query("SELECT COALESCE(MAX(number), 0) AS newest FROM revocations WHERE at < $1")
            .bind(millis(time))
            .fetch_one(self)
            .await?;
        Columns(&row).number("newest")
    }

    /// The entries of every account after a number, oldest first; for the cluster's own processes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revocations_after(&mut self, number: u64, rows_max: u32) -> Result<Vec<RevocationEntry>, StoreError> {
        let rows = query(
            "SELECT number, account_id, kind, subject, at, keeps FROM revocations WHERE number > $1 ORDER BY number LIMIT $2",
        )
        .bind(integer(number))
        .bind(i64::from(rows_max))
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| entry_of(&Columns(row))).collect()
    }

    async fn newest_revocation(&mut self) -> Result<u64, StoreError> {
        let row = query("SELECT COALESCE(MAX(number), 0) AS newest FROM revocations").fetch_one(self).await?;
        Columns(&row).number("newest")
    }
}

fn parts(revocation: &Revocation) -> (&'static str, AccountId, Vec<u8>) {
    match revocation {
        Revocation::User { account_id, user_id } => ("user", *account_id, user_id.as_bytes().to_vec()),
        Revocation::Grant { account_id, grant_id } => ("grant", *account_id, grant_id.as_bytes().to_vec()),
        Revocation::Device { account_id, device_id, .. } => ("device", *account_id, device_id.as_bytes().to_vec()),
        Revocation::Machine { account_id, machine_id } => ("machine", *account_id, machine_id.as_bytes().to_vec()),
        Revocation::Quarantine { account_id, machine_id, serial } => {
            ("quarantine", *account_id, with_serial(*machine_id, *serial))
        }
        Revocation::Superseded { account_id, machine_id, serial } => {
            ("superseded", *account_id, with_serial(*machine_id, *serial))
        }
    }
}

fn keeps(revocation: &Revocation) -> Option<Role> {
    match revocation {
        Revocation::Device { keeps, .. } => *keeps,
        Revocation::User { .. }
        | Revocation::Grant { .. }
        | Revocation::Machine { .. }
        | Revocation::Quarantine { .. }
        | Revocation::Superseded { .. } => None,
    }
}

fn entry_of(columns: &Columns<'_>) -> Result<RevocationEntry, StoreError> {
    let account_id = columns.id("account_id")?;
    let revocation = match columns.text("kind")?.as_str() {
        "user" => Revocation::User { account_id, user_id: columns.id("subject")? },
        "grant" => Revocation::Grant { account_id, grant_id: columns.id("subject")? },
        "device" => Revocation::Device {
            account_id,
            device_id: columns.id("subject")?,
            keeps: columns.optional_named("keeps", |name| name.parse().ok())?,
        },
        "machine" => Revocation::Machine { account_id, machine_id: columns.id("subject")? },
        "quarantine" => {
            let (machine_id, serial) = without_serial(columns.bytes("subject")?)?;
            Revocation::Quarantine { account_id, machine_id, serial }
        }
        "superseded" => {
            let (machine_id, serial) = without_serial(columns.bytes("subject")?)?;
            Revocation::Superseded { account_id, machine_id, serial }
        }
        _ => return Err(StoreError::Malformed { column: "kind" }),
    };
    Ok(RevocationEntry { number: columns.number("number")?, at: columns.time("at")?, revocation })
}

/// The machine's id, then the serial.
fn with_serial(machine_id: MachineId, serial: u64) -> Vec<u8> {
    [machine_id.as_bytes().as_slice(), &serial.to_be_bytes()].concat()
}

fn without_serial(subject: &[u8]) -> Result<(MachineId, u64), StoreError> {
    let malformed = || StoreError::Malformed { column: "subject" };
    let (machine_id, serial) = subject.split_last_chunk().ok_or_else(malformed)?;
    let machine_id = machine_id.try_into().map_err(|_| malformed())?;
    Ok((machine_id, u64::from_be_bytes(*serial)))
}
