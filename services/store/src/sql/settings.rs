//! Values of the server itself that are made once: signing seeds and hash keys.

use super::query::query;
use super::row::Columns;
use super::{StoreError, Tx};

impl Tx {
    /// The 32 bytes kept under a name, which are `fresh` if there were none.
    ///
    /// # Errors
    /// When the database does not answer or the value is not 32 bytes.
    pub async fn setting_or(&mut self, name: &'static str, fresh: [u8; 32]) -> Result<[u8; 32], StoreError> {
        query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(fresh.as_slice())
            .execute(self)
            .await?;
        let row = query("SELECT value FROM settings WHERE name = $1").bind(name).fetch_one(self).await?;
        Columns(&row).hash("value")
    }
}
