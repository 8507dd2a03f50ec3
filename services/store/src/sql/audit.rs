//! The append-only audit of each account, chained record by record.

use flydex_domain::audit::check::ChainCheck;
use flydex_domain::audit::{AuditEntry, AuditKind, AuditOutcome, AuditRecord, ChainError, ChainHead};
use flydex_domain::command::Decision;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, AuditId, CommandId, DeviceId, MachineId, UserId};
use flydex_domain::limits::{API_PAGE_ROWS_MAX, AUDIT_SEARCH_ROWS_MAX};
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;

use super::query::{Row, query};
use super::row::{Columns, integer, millis};
use super::{StoreError, Tx};

/// The columns of a record; each query goes on with its own condition. They are named, or a statement that is
/// prepared would break when a newer program adds one.
macro_rules! select_records {
    ($condition:literal) => {
        concat!(
            "SELECT number, audit_id, kind, at, deferred, user_id, machine_id, device_id, approval_id, generation, \
             command_id, command_hash, decision, outcome, code, address_hash, previous_hash, hash FROM audit WHERE ",
            $condition
        )
    };
}

/// Which records are looked for; what is absent does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditSearch {
    /// What happened.
    pub kind: Option<AuditKind>,
    /// The machine it is about.
    pub machine_id: Option<MachineId>,
    /// The device it is about or came from.
    pub device_id: Option<DeviceId>,
    /// The user who acted.
    pub user_id: Option<UserId>,
    /// Not before this, by the record's own time.
    pub since: Option<UnixMillis>,
    /// Before this.
    pub until: Option<UnixMillis>,
}

/// A page of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPage {
    /// Newest first.
    pub records: Vec<AuditRecord>,
    /// Where the next page begins, unless this is the last; a page may be empty and have a next one.
    pub next_before: Option<u64>,
}

impl Tx {
    /// Appends to the account's chain and gives the record's number.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another append came first, or the record's id is on record.
    pub async fn append_audit(&mut self, scope: AccountScope, entry: &AuditEntry) -> Result<u64, StoreError> {
        self.take_turn(scope).await?;
        let before = self.audit_head(scope).await?;
        let after = before.append(scope.account_id(), entry);
        let kept = query(
            "INSERT INTO audit (account_id, number, audit_id, kind, at, deferred, user_id, machine_id, device_id, \
             approval_id, generation, command_id, command_hash, decision, outcome, code, address_hash, previous_hash, \
             hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) \
             ON CONFLICT DO NOTHING",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(integer(after.number))
        .bind(entry.audit_id.as_bytes().as_slice())
        .bind(entry.kind.name())
        .bind(millis(entry.at))
        .bind(i64::from(entry.deferred))
        .bind(entry.user_id.map(|id| id.as_bytes().to_vec()))
        .bind(entry.machine_id.map(|id| id.as_bytes().to_vec()))
        .bind(entry.device_id.map(|id| id.as_bytes().to_vec()))
        .bind(entry.approval_id.map(|id| id.as_bytes().to_vec()))
        .bind(entry.generation.map(|id| id.as_bytes().to_vec()))
        .bind(entry.command_id.map(|id| id.as_bytes().to_vec()))
        .bind(entry.command_hash.map(|hash| hash.as_bytes().to_vec()))
        .bind(entry.decision.map(Decision::name))
        .bind(entry.outcome.map(AuditOutcome::name))
        .bind(entry.code.map(ErrorCode::name))
        .bind(entry.address_hash.map(|hash| hash.to_vec()))
        .bind(before.hash.as_slice())
        .bind(after.hash.as_slice())
        .execute(self)
        .await?;
        if kept.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        let moved =
            query("UPDATE accounts SET audit_number = $1, audit_hash = $2 WHERE account_id = $3 AND audit_number = $4")
                .bind(integer(after.number))
                .bind(after.hash.as_slice())
                .bind(scope.account_id().as_bytes().as_slice())
                .bind(integer(before.number))
                .execute(self)
                .await?;
        if moved.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        Ok(after.number)
    }

    /// The head of the account's chain.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the account is gone.
    pub async fn audit_head(&mut self, scope: AccountScope) -> Result<ChainHead, StoreError> {
        self.head_of(scope.account_id()).await
    }

    /// A record by its id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn audit_record(&mut self, scope: AccountScope, audit_id: AuditId) -> Result<AuditRecord, StoreError> {
        self.take_turn(scope).await?;
        let row = query(select_records!("account_id = $1 AND audit_id = $2"))
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(audit_id.as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        record_of(&Columns(&row))
    }

    /// The intent that a device recorded here for a command; one that a machine recorded itself is not it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn audit_intent(
        &mut self,
        scope: AccountScope,
        device_id: DeviceId,
        command_id: CommandId,
    ) -> Result<AuditRecord, StoreError> {
        self.take_turn(scope).await?;
        let row = query(select_records!(
            "account_id = $1 AND command_id = $2 AND device_id = $3 AND kind = $4 \
             AND deferred = 0 ORDER BY number LIMIT 1"
        ))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(command_id.as_bytes().as_slice())
        .bind(device_id.as_bytes().as_slice())
        .bind(AuditKind::ApprovalIntent.name())
        .fetch_one(self)
        .await?;
        record_of(&Columns(&row))
    }

    /// Looks before a number, newest first: through [`AUDIT_SEARCH_ROWS_MAX`] records at most, for `rows_max` of them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn search_audit(
        &mut self,
        scope: AccountScope,
        search: &AuditSearch,
        before: Option<u64>,
        rows_max: u32,
    ) -> Result<AuditPage, StoreError> {
        let after_head = self.audit_head(scope).await?.number + 1;
        let before = before.map_or(after_head, |before| before.min(after_head));
        let lowest = before.saturating_sub(AUDIT_SEARCH_ROWS_MAX);
        let rows = query(select_records!(
            "account_id = $1 AND number < $2 AND number >= $3 AND at >= $4 AND at < $5 \
             AND (kind = $6 OR $6 IS NULL) AND (machine_id = $7 OR $7 IS NULL) \
             AND (device_id = $8 OR $8 IS NULL) AND (user_id = $9 OR $9 IS NULL) ORDER BY number DESC LIMIT $10"
        ))
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(integer(before))
        .bind(integer(lowest))
        .bind(search.since.map_or(0, millis))
        .bind(search.until.map_or(i64::MAX, millis))
        .bind(search.kind.map(AuditKind::name))
        .bind(search.machine_id.map(|id| id.as_bytes().to_vec()))
        .bind(search.device_id.map(|id| id.as_bytes().to_vec()))
        .bind(search.user_id.map(|id| id.as_bytes().to_vec()))
        .bind(i64::from(rows_max))
        .fetch_all(self)
        .await?;
        let records: Vec<_> = rows.iter().map(|row| record_of(&Columns(row))).collect::<Result<_, _>>()?;
        let is_full = records.len() >= rows_max as usize;
        let next = if is_full { records.last().map_or(lowest, |record| record.number) } else { lowest };
        Ok(AuditPage { records, next_before: Some(next).filter(|next| *next > 1) })
    }

    /// One page of the records after a number, oldest first; an empty one is the end.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_after(&mut self, scope: AccountScope, number: u64) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = self.rows_after(scope.account_id(), number).await?;
        rows.iter().map(|row| record_of(&Columns(row))).collect()
    }

    /// Walks the account's whole chain, page by page, and checks it against its head.
    ///
    /// # Errors
    /// When the database does not answer; the inner result says where the chain does not hold.
    pub async fn verify_audit(&mut self, scope: AccountScope) -> Result<Result<u64, ChainError>, StoreError> {
        self.verify_chain_of(scope.account_id(), None).await
    }

    /// Checks the chain of every account, and one of them against a head that was kept of it; for the operator, who
    /// holds the database anyway. An account of which only the kept head is left comes last.
    ///
    /// # Errors
    /// When the database does not answer; each inner result says where a chain does not hold.
    pub async fn verify_every_audit(
        &mut self,
        kept: Option<(AccountId, ChainHead)>,
    ) -> Result<Vec<(AccountId, Result<u64, ChainError>)>, StoreError> {
        let mut verdicts = Vec::new();
        let mut missing = kept;
        for account_id in self.account_ids().await? {
            let kept = missing.take_if(|(of, _)| *of == account_id).map(|(_, head)| head);
            verdicts.push((account_id, self.verify_chain_of(account_id, kept).await?));
        }
        if let Some((account_id, head)) = missing {
            verdicts.push((account_id, Err(ChainError::CutShort { found: 0, kept: head.number })));
        }
        Ok(verdicts)
    }

    async fn head_of(&mut self, account_id: AccountId) -> Result<ChainHead, StoreError> {
        let row = query("SELECT audit_number, audit_hash FROM accounts WHERE account_id = $1")
            .bind(account_id.as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        let columns = Columns(&row);
        Ok(ChainHead { number: columns.number("audit_number")?, hash: columns.hash("audit_hash")? })
    }

    async fn verify_chain_of(
        &mut self,
        account_id: AccountId,
        kept: Option<ChainHead>,
    ) -> Result<Result<u64, ChainError>, StoreError> {
        let head = self.head_of(account_id).await?;
        let mut check = ChainCheck::new(account_id, kept);
        loop {
            let rows = self.rows_after(account_id, check.at().number).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                if let Err(error) = check_row(&mut check, row) {
                    return Ok(Err(error));
                }
            }
        }
        let at = check.at();
        if at != head {
            return Ok(Err(ChainError::HeadMismatch { found: at.number }));
        }
        Ok(check.end().map(|head| head.number))
    }

    async fn rows_after(&mut self, account_id: AccountId, number: u64) -> Result<Vec<Row>, StoreError> {
        query(select_records!("account_id = $1 AND number > $2 ORDER BY number LIMIT $3"))
            .bind(account_id.as_bytes().as_slice())
            .bind(integer(number))
            .bind(i64::from(API_PAGE_ROWS_MAX))
            .fetch_all(self)
            .await
    }
}

fn check_row(check: &mut ChainCheck, row: &Row) -> Result<(), ChainError> {
    let unreadable = ChainError::Unreadable { number: check.at().number + 1 };
    let record = record_of(&Columns(row)).map_err(|_| unreadable)?;
    check.take(&record)
}

fn record_of(columns: &Columns<'_>) -> Result<AuditRecord, StoreError> {
    Ok(AuditRecord {
        number: columns.number("number")?,
        entry: AuditEntry {
            audit_id: columns.id("audit_id")?,
            kind: columns.named("kind", AuditKind::from_name)?,
            at: columns.time("at")?,
            deferred: columns.number("deferred")? != 0,
            user_id: columns.optional_id("user_id")?,
            machine_id: columns.optional_id("machine_id")?,
            device_id: columns.optional_id("device_id")?,
            approval_id: columns.optional_id("approval_id")?,
            generation: columns.optional_id("generation")?,
            command_id: columns.optional_id("command_id")?,
            command_hash: columns.optional_id("command_hash")?,
            decision: columns.optional_named("decision", Decision::from_name)?,
            outcome: columns.optional_named("outcome", AuditOutcome::from_name)?,
            code: columns.optional_named("code", ErrorCode::from_name)?,
            address_hash: columns.optional_hash("address_hash")?,
        },
        previous_hash: columns.hash("previous_hash")?,
        hash: columns.hash("hash")?,
    })
}
