//! The append-only audit of each account, chained record by record.

use flydex_domain::audit::{AuditEntry, AuditKind, AuditOutcome, AuditRecord, ChainError, ChainHead, verify_next};
use flydex_domain::command::Decision;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, AuditId, CommandId, DeviceId};
use flydex_domain::limits::API_PAGE_ROWS_MAX;
use flydex_domain::scope::AccountScope;

use super::query::query;
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

    /// At most `rows_max` records before a number, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn audit_before(
        &mut self,
        scope: AccountScope,
        before: Option<u64>,
        rows_max: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = query(select_records!("account_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3"))
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(integer(before.unwrap_or(u64::MAX)))
            .bind(i64::from(rows_max))
            .fetch_all(self)
            .await?;
        rows.iter().map(|row| record_of(&Columns(row))).collect()
    }

    /// Walks the account's whole chain, page by page, and checks it against its head.
    ///
    /// # Errors
    /// When the database does not answer; the inner result says where the chain does not hold.
    pub async fn verify_audit(&mut self, scope: AccountScope) -> Result<Result<u64, ChainError>, StoreError> {
        self.verify_chain_of(scope.account_id()).await
    }

    /// Checks the chain of every account; for the operator, who holds the database anyway.
    ///
    /// # Errors
    /// When the database does not answer; each inner result says where a chain does not hold.
    pub async fn verify_every_audit(&mut self) -> Result<Vec<(AccountId, Result<u64, ChainError>)>, StoreError> {
        let mut verdicts = Vec::new();
        for account_id in self.account_ids().await? {
            verdicts.push((account_id, self.verify_chain_of(account_id).await?));
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

    async fn verify_chain_of(&mut self, account_id: AccountId) -> Result<Result<u64, ChainError>, StoreError> {
        let head = self.head_of(account_id).await?;
        let mut at = ChainHead::start(account_id);
        loop {
            let records = self.records_after(account_id, at.number).await?;
            for record in &records {
                at = match verify_next(account_id, &at, record) {
                    Ok(after) => after,
                    Err(error) => return Ok(Err(error)),
                };
            }
            if records.is_empty() {
                break;
            }
        }
        if at == head { Ok(Ok(at.number)) } else { Ok(Err(ChainError::HeadMismatch { found: at.number })) }
    }

    async fn records_after(&mut self, account_id: AccountId, number: u64) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = query(select_records!("account_id = $1 AND number > $2 ORDER BY number LIMIT $3"))
            .bind(account_id.as_bytes().as_slice())
            .bind(integer(number))
            .bind(i64::from(API_PAGE_ROWS_MAX))
            .fetch_all(self)
            .await?;
        rows.iter().map(|row| record_of(&Columns(row))).collect()
    }
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
