//! Storage: the directory of owners, and SQL.

pub mod directory;
pub mod sql;

pub use self::sql::{Sql, StoreError};
