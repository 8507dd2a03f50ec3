//! `flydex-server audit verify`: whether the audit is what was recorded, in a database or in an export of it, and
//! whether it still is what a signed head says that somebody has kept.

mod export;
mod head;

use std::path::Path;

use anyhow::{Context as _, ensure};
use flydex_domain::audit::ChainError;
use flydex_domain::id::AccountId;
use flydex_domain::limits::AUDIT_CHECK_REACH_TIMEOUT;
use flydex_domain::token::TokenVerifier;
use serde::{Deserialize, Serialize};

use self::head::Kept;
use crate::cli::VerifyFlags;
use crate::cluster::BadField;
use crate::migrate::DatabaseConfig;

/// Exit status when the audit was looked at and does not hold.
pub const EXIT_AUDIT_BROKEN: i32 = 3;

/// Of control's configuration, what this needs; the rest may be there.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct AuditConfig {
    /// The database.
    pub database: DatabaseConfig,
}

/// The audit was looked at and does not hold; what is wrong was said.
#[derive(Debug, thiserror::Error)]
#[error("the audit of {broken} of {accounts} accounts does not hold")]
pub struct Broken {
    broken: usize,
    accounts: usize,
}

/// Why an account's audit does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    /// The chain itself, or a kept head.
    #[error("{0}")]
    Chain(#[from] ChainError),
    /// An export holds something else.
    #[error("line {line} is none of this account's export, and audit record {number} belongs there")]
    Line { line: u64, number: u64 },
    /// An export is not whole.
    #[error("the export ends after audit record {found} without the signed head that it should end in")]
    NoHead { found: u64 },
    /// Somebody else signed the head in the export.
    #[error("the signed head after audit record {found} does not verify under the keys")]
    ForgedHead { found: u64 },
}

impl Problem {
    /// The first record that does not fit.
    const fn number(self) -> u64 {
        match self {
            Self::Chain(error) => error.number(),
            Self::Line { number, .. } => number,
            Self::NoHead { found } | Self::ForgedHead { found } => found + 1,
        }
    }
}

/// What was found of each account; an export may not even say whose it is.
type Verdicts = Vec<(Option<AccountId>, Result<u64, Problem>)>;

/// Checks, and says what was found.
///
/// # Errors
/// [`Broken`] when it does not hold; [`BadField`] for a configuration that cannot be used; else it could not be looked at.
pub async fn verify(config: AuditConfig, flags: &VerifyFlags, say: impl Fn(&str)) -> anyhow::Result<()> {
    let keys = if flags.keys.is_empty() { None } else { Some(head::read_keys(&flags.keys)?) };
    let kept = flags.head.as_deref().map(|file| Kept::read(file, keys.as_ref())).transpose()?;
    if let Some(kept) = &kept {
        say(&kept.to_string());
    }
    let verdicts = match &flags.export {
        Some(file) => of_export(file, kept.as_ref(), keys.as_ref(), &say)?,
        None => of_database(&config.database, kept.as_ref()).await?,
    };
    report(&verdicts, say)
}

fn of_export(
    file: &Path,
    kept: Option<&Kept>,
    keys: Option<&TokenVerifier>,
    say: impl Fn(&str),
) -> anyhow::Result<Verdicts> {
    let open = std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
    if keys.is_none() {
        say("the signature of the export's own head is not checked: give --keys");
    }
    let verdict = export::verify(std::io::BufReader::new(open), kept, keys);
    Ok(vec![verdict.with_context(|| format!("read {}", file.display()))?])
}

async fn of_database(database: &DatabaseConfig, kept: Option<&Kept>) -> anyhow::Result<Verdicts> {
    if database.is_empty() {
        let named =
            "name one with --sqlite, with --config, or by FLYDEX__DATABASE__URL_FILE; or an export with --export";
        return Err(BadField::new("database", named).into());
    }
    let sql = tokio::time::timeout(AUDIT_CHECK_REACH_TIMEOUT, database.look()).await;
    let sql = sql.context("reach the database: it does not answer")??;
    let mut view = sql.read().await.context("read the database")?;
    let found = view.verify_every_audit(kept.map(|kept| (kept.account_id(), kept.head()))).await;
    let found = found.context("read the audit")?;
    drop(view);
    sql.close().await;
    Ok(found.into_iter().map(|(account_id, verdict)| (Some(account_id), verdict.map_err(Problem::from))).collect())
}

fn report(verdicts: &Verdicts, say: impl Fn(&str)) -> anyhow::Result<()> {
    let (mut records, mut broken) = (0, 0);
    for (account_id, verdict) in verdicts {
        match verdict {
            Ok(number) => records += number,
            Err(problem) => {
                broken += 1;
                let account = account_id.map_or_else(|| "unknown".to_owned(), |account_id| account_id.to_string());
                let number = problem.number();
                say(&format!("account {account}: {problem}; the first record that does not fit is {number}"));
            }
        }
    }
    let accounts = verdicts.len();
    ensure!(broken == 0, Broken { broken, accounts });
    say(&format!("the audit holds: {records} records of {accounts} accounts"));
    Ok(())
}

#[cfg(test)]
mod tests;
