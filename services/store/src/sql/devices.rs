//! Devices of the account: those that were paired with a machine, and those that opened a session, since another device
//! may have endorsed them at a machine. The machines' own lists are what counts.

use flydex_domain::id::{DeviceId, UserId};
use flydex_domain::key::PublicKey;
use flydex_domain::limits::ACCOUNT_DEVICES_MAX;
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::time::UnixMillis;

use super::query::query;
use super::row::{Columns, millis};
use super::{StoreError, Tx};

/// A browser profile or phone, by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The key's fingerprint.
    pub device_id: DeviceId,
    /// The key.
    pub key: PublicKey,
    /// Whose.
    pub user_id: UserId,
    /// What its owner calls it.
    pub label: String,
    /// When it was first paired, or first asked for a session.
    pub created_at: UnixMillis,
}

/// What an account knows of a device's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceStanding {
    /// Nothing.
    Unknown,
    /// It is one of its devices.
    Known,
    /// It was, and is refused for good.
    Revoked,
}

impl Tx {
    /// Records a device; known already, it gets its new label and owner.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it was revoked, [`StoreError::Full`] when the account has too many.
    pub async fn enrol_device(&mut self, scope: AccountScope, device: &Device) -> Result<(), StoreError> {
        let insert = "INSERT INTO devices (account_id, device_id, user_id, algorithm, public_key, label, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account_id, device_id) \
             DO UPDATE SET label = excluded.label, user_id = excluded.user_id WHERE devices.revoked_at IS NULL";
        if self.insert_device(scope, device, insert).await? { Ok(()) } else { Err(StoreError::Conflict) }
    }

    /// Records a device that opens a session, unless it is known: what was recorded of it stays.
    ///
    /// # Errors
    /// [`StoreError::Full`] when the account has too many.
    pub async fn meet_device(&mut self, scope: AccountScope, device: &Device) -> Result<(), StoreError> {
        let insert = "INSERT INTO devices (account_id, device_id, user_id, algorithm, public_key, label, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account_id, device_id) DO NOTHING";
        self.insert_device(scope, device, insert).await.map(drop)
    }

    /// Whether anything was written.
    async fn insert_device(
        &mut self,
        scope: AccountScope,
        device: &Device,
        insert: &'static str,
    ) -> Result<bool, StoreError> {
        self.take_turn(scope).await?;
        let row = query("SELECT COUNT(*) AS known FROM devices WHERE account_id = $1 AND device_id <> $2")
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(device.device_id.as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        if Columns(&row).count("known")? >= ACCOUNT_DEVICES_MAX {
            return Err(StoreError::Full);
        }
        let changed = query(insert)
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(device.device_id.as_bytes().as_slice())
            .bind(device.user_id.as_bytes().as_slice())
            .bind(device.key.algorithm())
            .bind(device.key.as_bytes())
            .bind(&device.label)
            .bind(millis(device.created_at))
            .execute(self)
            .await?;
        Ok(changed.rows_affected() > 0)
    }

    /// What the account knows of that key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn device_standing(
        &mut self,
        scope: AccountScope,
        device_id: DeviceId,
    ) -> Result<DeviceStanding, StoreError> {
        self.take_turn(scope).await?;
        let found = query("SELECT revoked_at FROM devices WHERE account_id = $1 AND device_id = $2")
            .bind(scope.account_id().as_bytes().as_slice())
            .bind(device_id.as_bytes().as_slice())
            .fetch_optional(self)
            .await?;
        let Some(row) = found else { return Ok(DeviceStanding::Unknown) };
        Ok(match Columns(&row).optional_time("revoked_at")? {
            Some(_) => DeviceStanding::Revoked,
            None => DeviceStanding::Known,
        })
    }

    /// What a device may do in the account at most, if the account knows it; none: it was removed, or its user was.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn device_right(
        &mut self,
        scope: AccountScope,
        device_id: DeviceId,
    ) -> Result<Option<Option<Role>>, StoreError> {
        self.take_turn(scope).await?;
        let found = query(
            "SELECT d.revoked_at, u.role, u.removed_at FROM devices d \
             JOIN users u ON u.account_id = d.account_id AND u.user_id = d.user_id \
             WHERE d.account_id = $1 AND d.device_id = $2",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(device_id.as_bytes().as_slice())
        .fetch_optional(self)
        .await?;
        let Some(row) = found else { return Ok(None) };
        let columns = Columns(&row);
        let is_gone = columns.optional_time("revoked_at")?.is_some() || columns.optional_time("removed_at")?.is_some();
        let role = columns.named("role", |name| name.parse().ok())?;
        Ok(Some((!is_gone).then_some(role)))
    }

    /// A device that is not revoked.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn device(&mut self, scope: AccountScope, device_id: DeviceId) -> Result<Device, StoreError> {
        self.take_turn(scope).await?;
        let row = query(
            "SELECT device_id, user_id, algorithm, public_key, label, created_at FROM devices \
             WHERE account_id = $1 AND device_id = $2 AND revoked_at IS NULL",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(device_id.as_bytes().as_slice())
        .fetch_one(self)
        .await?;
        device_of(&Columns(&row))
    }

    /// The devices that are not revoked, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn devices(&mut self, scope: AccountScope) -> Result<Vec<Device>, StoreError> {
        let rows = query(
            "SELECT device_id, user_id, algorithm, public_key, label, created_at FROM devices \
             WHERE account_id = $1 AND revoked_at IS NULL ORDER BY created_at DESC, device_id",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| device_of(&Columns(row))).collect()
    }

    /// The devices of a user that are not revoked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn devices_of(&mut self, scope: AccountScope, user_id: UserId) -> Result<Vec<DeviceId>, StoreError> {
        self.take_turn(scope).await?;
        let rows = query(
            "SELECT device_id FROM devices WHERE account_id = $1 AND user_id = $2 AND revoked_at IS NULL \
             ORDER BY device_id",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .bind(user_id.as_bytes().as_slice())
        .fetch_all(self)
        .await?;
        rows.iter().map(|row| Columns(row).id("device_id")).collect()
    }

    /// Revokes a device for good: its key is refused from now on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the account has no such device.
    pub async fn revoke_device(
        &mut self,
        scope: AccountScope,
        device_id: DeviceId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.take_turn(scope).await?;
        let changed =
            query("UPDATE devices SET revoked_at = $1 WHERE account_id = $2 AND device_id = $3 AND revoked_at IS NULL")
                .bind(millis(now))
                .bind(scope.account_id().as_bytes().as_slice())
                .bind(device_id.as_bytes().as_slice())
                .execute(self)
                .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }
}

fn device_of(columns: &Columns<'_>) -> Result<Device, StoreError> {
    Ok(Device {
        device_id: columns.id("device_id")?,
        key: columns.key("algorithm", "public_key")?,
        user_id: columns.id("user_id")?,
        label: columns.text("label")?,
        created_at: columns.time("created_at")?,
    })
}
