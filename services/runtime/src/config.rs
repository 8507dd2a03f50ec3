//! Layers of configuration: defaults, then a TOML file, then `FLYDEX__SECTION__KEY`, then flags.
//!
//! The layers are merged as TOML and read once into an immutable structure, whose own `deny_unknown_fields`
//! turns a misspelt key into an error that names it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Prefix of environment variables; `__` separates sections.
pub const ENV_PREFIX: &str = "FLYDEX__";
/// Exit status for a configuration that cannot be used (`EX_USAGE` of sysexits).
pub const EXIT_BAD_CONFIG: i32 = 64;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("parse {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// A key is unknown, or a value has the wrong type or unit.
    #[error("use the merged configuration")]
    Merged(#[source] toml::de::Error),
    /// A variable does not name a key inside a section.
    #[error("environment variable {0} names no key")]
    Variable(String),
}

/// Merges the layers and reads them into `T`.
///
/// `environment` is the process environment or a test's; variables without [`ENV_PREFIX`] are ignored. `flags`
/// is the layer of the command line, already in the shape of the file.
///
/// # Errors
/// Each [`ConfigError`].
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: Table,
) -> Result<T, ConfigError> {
    let mut merged = file.map(read).transpose()?.unwrap_or_default();
    for (name, value) in environment {
        if let Some(path) = name.strip_prefix(ENV_PREFIX) {
            insert(&mut merged, &name, path, &value)?;
        }
    }
    merge(&mut merged, flags);
    T::deserialize(Value::Table(merged)).map_err(ConfigError::Merged)
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
}

fn insert(table: &mut Table, name: &str, path: &str, text: &str) -> Result<(), ConfigError> {
    let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    let Some((last, sections)) = keys.split_last().filter(|_| keys.iter().all(|key| !key.is_empty())) else {
        return Err(ConfigError::Variable(name.to_owned()));
    };
    let mut table = table;
    for section in sections {
        let slot = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = slot else {
            return Err(ConfigError::Variable(name.to_owned()));
        };
        table = inner;
    }
    table.insert(last.clone(), scalar(text));
    Ok(())
}

fn scalar(text: &str) -> Value {
    if let Ok(boolean) = text.parse() {
        return Value::Boolean(boolean);
    }
    if let Ok(integer) = text.parse() {
        return Value::Integer(integer);
    }
    Value::String(text.to_owned())
}

fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => merge(inner, value),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
