//! Values of the server itself that are made once: signing seeds and hash keys.

use sqlx::Row as _;

use super::{StoreError, Tx};

impl Tx {
    /// The 32 bytes kept under a name, which are `fresh` if there were none.
    ///
    /// # Errors
    /// When the database does not answer or the value is not 32 bytes.
    pub async fn setting_or(&mut self, name: &'static str, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
        sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(fresh.as_slice())
            .execute(self.connection())
            .await?;
        let row =
            sqlx::query("SELECT value FROM settings WHERE name = $1").bind(name).fetch_one(self.connection()).await?;
        let value: &[u8] = row.try_get("value")?;
        value.try_into().map_err(|_| StoreError::Malformed { column: "value" })
    }
}
