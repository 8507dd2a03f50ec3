//! Columns to domain types. A value that does not fit is a damaged database, never a panic.

use super::StoreError;
use super::query::Row;
use flydex_domain::key::PublicKey;
use flydex_domain::time::UnixMillis;

/// Reads the columns of one row.
pub(super) struct Columns<'row>(pub(super) &'row Row);

impl Columns<'_> {
    /// An id or other value made from bytes.
    pub(super) fn id<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: for<'bytes> TryFrom<&'bytes [u8]>,
    {
        self.optional_id(column)?.ok_or(StoreError::Malformed { column })
    }

    /// An id that may be absent.
    pub(super) fn optional_id<T>(&self, column: &'static str) -> Result<Option<T>, StoreError>
    where
        T: for<'bytes> TryFrom<&'bytes [u8]>,
    {
        let bytes = self.0.bytes(column)?;
        bytes.map(|bytes| T::try_from(bytes).map_err(|_| StoreError::Malformed { column })).transpose()
    }

    /// A hash or MAC.
    pub(super) fn hash(&self, column: &'static str) -> Result<[u8; 32], StoreError> {
        self.optional_hash(column)?.ok_or(StoreError::Malformed { column })
    }

    /// A hash or MAC that may be absent.
    pub(super) fn optional_hash(&self, column: &'static str) -> Result<Option<[u8; 32]>, StoreError> {
        let bytes = self.0.bytes(column)?;
        bytes.map(|bytes| bytes.try_into().map_err(|_| StoreError::Malformed { column })).transpose()
    }

    /// How many rows there are.
    pub(super) fn count(&self, column: &'static str) -> Result<i64, StoreError> {
        self.0.integer(column)?.ok_or(StoreError::Malformed { column })
    }

    /// A number that is never negative.
    pub(super) fn number(&self, column: &'static str) -> Result<u64, StoreError> {
        u64::try_from(self.count(column)?).map_err(|_| StoreError::Malformed { column })
    }

    /// A time.
    pub(super) fn time(&self, column: &'static str) -> Result<UnixMillis, StoreError> {
        self.number(column).map(UnixMillis)
    }

    /// A time that may be absent.
    pub(super) fn optional_time(&self, column: &'static str) -> Result<Option<UnixMillis>, StoreError> {
        let number = self.0.integer(column)?;
        let time = |number| u64::try_from(number).map(UnixMillis).map_err(|_| StoreError::Malformed { column });
        number.map(time).transpose()
    }

    /// A text.
    pub(super) fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.optional_text(column)?.ok_or(StoreError::Malformed { column })
    }

    /// A text that may be absent.
    pub(super) fn optional_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        Ok(self.0.text(column)?.map(str::to_owned))
    }

    /// Bytes of any length.
    pub(super) fn bytes(&self, column: &'static str) -> Result<&[u8], StoreError> {
        self.0.bytes(column)?.ok_or(StoreError::Malformed { column })
    }

    /// A name from a closed list.
    pub(super) fn named<T>(&self, column: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
        self.optional_named(column, parse)?.ok_or(StoreError::Malformed { column })
    }

    /// A name from a closed list that may be absent.
    pub(super) fn optional_named<T>(
        &self,
        column: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let name = self.0.text(column)?;
        name.map(|name| parse(name).ok_or(StoreError::Malformed { column })).transpose()
    }

    /// A public key in its two columns.
    pub(super) fn key(&self, algorithm: &'static str, key: &'static str) -> Result<PublicKey, StoreError> {
        self.optional_key(algorithm, key)?.ok_or(StoreError::Malformed { column: key })
    }

    /// A public key that may be absent.
    pub(super) fn optional_key(
        &self,
        algorithm: &'static str,
        key: &'static str,
    ) -> Result<Option<PublicKey>, StoreError> {
        let name = self.0.text(algorithm)?;
        let bytes = self.0.bytes(key)?;
        match (name, bytes) {
            (None, None) => Ok(None),
            (Some(name), Some(bytes)) => {
                PublicKey::parse(name, bytes).map(Some).map_err(|_| StoreError::Malformed { column: key })
            }
            _ => Err(StoreError::Malformed { column: algorithm }),
        }
    }
}

/// A time as a column holds it.
pub(super) fn millis(time: UnixMillis) -> i64 {
    integer(time.0)
}

/// A number as a column holds it; the far end of time is the far end.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
