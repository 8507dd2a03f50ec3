//! Pairings in progress and their claims. They exist before there is an account: each is reached by its id, and
//! the caller proves its right to it by a token, a redeem key or the session that redeemed it.

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, AccountSessionId, ClaimId, LocalConnectId, MachineId, UserId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::LOCAL_CONNECTS_OPEN_MAX;
use flydex_domain::local_connect::{Lifecycle, Stage};
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, integer, millis};
use super::turn::Turn;
use super::{StoreError, Tx};

/// The columns of a pairing and its claim; each query goes on with its own condition.
macro_rules! select_local_connects {
    ($condition:literal) => {
        concat!(
            "SELECT l.local_connect_id, l.token_sha256, l.revision, l.stage, l.code, l.created_at, l.ends_at, \
             l.machine_id, l.machine_algorithm, l.machine_key, l.machine_label, l.connector_version, l.role, \
             l.pinned_account_id, l.account_id, l.user_id, l.account_session_id, l.device_algorithm, l.device_key, \
             l.device_label, l.device_mac, l.machine_mac, c.claim_id, c.redeem_sha256, \
             c.expires_at AS claim_expires_at, c.wrong_tries \
             FROM local_connects l JOIN claims c ON c.local_connect_id = l.local_connect_id WHERE ",
            $condition
        )
    };
}

const SELECT_BY_ID: &str = select_local_connects!("l.local_connect_id = $1");

const SELECT_BY_CLAIM: &str = select_local_connects!("c.claim_id = $1");

/// A pairing in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalConnect {
    /// Which.
    pub local_connect_id: LocalConnectId,
    /// Its claim.
    pub claim_id: ClaimId,
    /// SHA-256 of the connector's bearer token.
    pub token_sha256: [u8; 32],
    /// SHA-256 of the redeem key.
    pub redeem_sha256: [u8; 32],
    /// Grows with each change.
    pub revision: u64,
    /// Where it stands.
    pub lifecycle: Lifecycle,
    /// When the connector asked.
    pub created_at: UnixMillis,
    /// The machine that would be paired.
    pub machine_id: MachineId,
    /// Its key.
    pub machine_key: PublicKey,
    /// What the desk calls it.
    pub machine_label: String,
    /// What the connector says it is.
    pub connector_version: Option<String>,
    /// What the device would get.
    pub role: Role,
    /// The account that the machine is in already.
    pub pinned_account_id: Option<AccountId>,
    /// Who redeemed the claim.
    pub browser: Option<BrowserSide>,
    /// The machine's MAC, from the desk's yes on.
    pub machine_mac: Option<[u8; 32]>,
}

/// The browser that redeemed a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserSide {
    /// Its account, which gets the machine.
    pub account_id: AccountId,
    /// Its user.
    pub user_id: UserId,
    /// Its account session.
    pub account_session_id: AccountSessionId,
    /// The device's key.
    pub device_key: PublicKey,
    /// What the browser calls itself.
    pub device_label: String,
    /// The device's MAC, once finalized.
    pub device_mac: Option<[u8; 32]>,
}

impl Tx {
    /// Keeps a new pairing.
    ///
    /// # Errors
    /// [`StoreError::Full`] when too many are in progress on this server.
    pub async fn begin_local_connect(&mut self, new: &LocalConnect) -> Result<(), StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let row = query("SELECT COUNT(*) AS open FROM local_connects").fetch_one(self).await?;
        if Columns(&row).count("open")? >= LOCAL_CONNECTS_OPEN_MAX {
            return Err(StoreError::Full);
        }
        query(
            "INSERT INTO local_connects (local_connect_id, token_sha256, revision, stage, created_at, ends_at, \
             machine_id, machine_algorithm, machine_key, machine_label, connector_version, role, pinned_account_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(new.local_connect_id.as_bytes().as_slice())
        .bind(new.token_sha256.as_slice())
        .bind(integer(new.revision))
        .bind(new.lifecycle.stage.name())
        .bind(millis(new.created_at))
        .bind(millis(new.lifecycle.ends_at))
        .bind(new.machine_id.as_bytes().as_slice())
        .bind(new.machine_key.algorithm())
        .bind(new.machine_key.as_bytes())
        .bind(&new.machine_label)
        .bind(&new.connector_version)
        .bind(new.role.as_str())
        .bind(new.pinned_account_id.map(|id| id.as_bytes().to_vec()))
        .execute(self)
        .await?;
        query(
            "INSERT INTO claims (claim_id, local_connect_id, redeem_sha256, expires_at, wrong_tries) \
             VALUES ($1, $2, $3, $4, 0)",
        )
        .bind(new.claim_id.as_bytes().as_slice())
        .bind(new.local_connect_id.as_bytes().as_slice())
        .bind(new.redeem_sha256.as_slice())
        .bind(millis(new.lifecycle.claim_expires_at))
        .execute(self)
        .await?;
        Ok(())
    }

    /// A pairing by its id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn local_connect(&mut self, id: LocalConnectId) -> Result<LocalConnect, StoreError> {
        self.take_turn_of(Turn::LocalConnect(id)).await?;
        let row = query(SELECT_BY_ID).bind(id.as_bytes().as_slice()).fetch_one(self).await?;
        local_connect_of(&Columns(&row))
    }

    /// A pairing by its claim.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn local_connect_by_claim(&mut self, claim_id: ClaimId) -> Result<LocalConnect, StoreError> {
        self.take_turn_of(Turn::Claim(claim_id)).await?;
        let row = query(SELECT_BY_CLAIM).bind(claim_id.as_bytes().as_slice()).fetch_one(self).await?;
        local_connect_of(&Columns(&row))
    }

    /// Writes what changed, if nobody else did since it was read, and counts the revision up.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody did.
    pub async fn update_local_connect(&mut self, changed: &LocalConnect) -> Result<(), StoreError> {
        let browser = changed.browser.as_ref();
        let updated = query(
            "UPDATE local_connects SET revision = revision + 1, stage = $1, code = $2, ends_at = $3, account_id = $4, \
             user_id = $5, account_session_id = $6, device_algorithm = $7, device_key = $8, device_label = $9, \
             device_mac = $10, machine_mac = $11 WHERE local_connect_id = $12 AND revision = $13",
        )
        .bind(changed.lifecycle.stage.name())
        .bind(changed.lifecycle.stage.code().map(ErrorCode::name))
        .bind(millis(changed.lifecycle.ends_at))
        .bind(browser.map(|browser| browser.account_id.as_bytes().to_vec()))
        .bind(browser.map(|browser| browser.user_id.as_bytes().to_vec()))
        .bind(browser.map(|browser| browser.account_session_id.as_bytes().to_vec()))
        .bind(browser.map(|browser| browser.device_key.algorithm()))
        .bind(browser.map(|browser| browser.device_key.as_bytes().to_vec()))
        .bind(browser.map(|browser| browser.device_label.clone()))
        .bind(browser.and_then(|browser| browser.device_mac).map(|mac| mac.to_vec()))
        .bind(changed.machine_mac.map(|mac| mac.to_vec()))
        .bind(changed.local_connect_id.as_bytes().as_slice())
        .bind(integer(changed.revision))
        .execute(self)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        query("UPDATE claims SET wrong_tries = $1 WHERE claim_id = $2")
            .bind(i64::from(changed.lifecycle.wrong_tries))
            .bind(changed.claim_id.as_bytes().as_slice())
            .execute(self)
            .await?;
        Ok(())
    }

    /// Removes the pairings that ended before a time, with their claims.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn remove_local_connects_ended_before(&mut self, time: UnixMillis) -> Result<u64, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let removed = query("DELETE FROM local_connects WHERE ends_at < $1").bind(millis(time)).execute(self).await?;
        Ok(removed.rows_affected())
    }
}

fn local_connect_of(columns: &Columns<'_>) -> Result<LocalConnect, StoreError> {
    Ok(LocalConnect {
        local_connect_id: columns.id("local_connect_id")?,
        claim_id: columns.id("claim_id")?,
        token_sha256: columns.hash("token_sha256")?,
        redeem_sha256: columns.hash("redeem_sha256")?,
        revision: columns.number("revision")?,
        lifecycle: lifecycle_of(columns)?,
        created_at: columns.time("created_at")?,
        machine_id: columns.id("machine_id")?,
        machine_key: columns.key("machine_algorithm", "machine_key")?,
        machine_label: columns.text("machine_label")?,
        connector_version: columns.optional_text("connector_version")?,
        role: columns.named("role", |name| name.parse().ok())?,
        pinned_account_id: columns.optional_id("pinned_account_id")?,
        browser: browser_of(columns)?,
        machine_mac: columns.optional_hash("machine_mac")?,
    })
}

fn lifecycle_of(columns: &Columns<'_>) -> Result<Lifecycle, StoreError> {
    let code = columns.optional_named("code", ErrorCode::from_name)?;
    let wrong_tries = columns.number("wrong_tries")?;
    Ok(Lifecycle {
        stage: columns.named("stage", |name| Stage::from_name(name, code))?,
        claim_expires_at: columns.time("claim_expires_at")?,
        ends_at: columns.time("ends_at")?,
        wrong_tries: u32::try_from(wrong_tries).map_err(|_| StoreError::Malformed { column: "wrong_tries" })?,
    })
}

fn browser_of(columns: &Columns<'_>) -> Result<Option<BrowserSide>, StoreError> {
    let Some(account_id) = columns.optional_id("account_id")? else { return Ok(None) };
    Ok(Some(BrowserSide {
        account_id,
        user_id: columns.id("user_id")?,
        account_session_id: columns.id("account_session_id")?,
        device_key: columns.key("device_algorithm", "device_key")?,
        device_label: columns.text("device_label")?,
        device_mac: columns.optional_hash("device_mac")?,
    }))
}
