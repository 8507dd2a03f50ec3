//! Checks a chain record by record, in bounded memory, also against a head that somebody has kept.
//!
//! Whoever holds the database can rewrite a chain from any record on with new hashes, or cut it and its head: the chain
//! itself then holds. A head that was taken before, and kept elsewhere, does not fit it any more.

use super::{AuditRecord, ChainError, ChainHead, verify_next};
use crate::id::AccountId;

/// A check that is under way.
#[derive(Clone, Debug)]
pub struct ChainCheck {
    account_id: AccountId,
    at: ChainHead,
    kept: Option<ChainHead>,
}

impl ChainCheck {
    /// Begins before the first record.
    #[must_use]
    pub fn new(account_id: AccountId, kept: Option<ChainHead>) -> Self {
        Self { account_id, at: ChainHead::start(account_id), kept }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// When it does not belong there, or is not what the kept head says.
    pub fn take(&mut self, record: &AuditRecord) -> Result<(), ChainError> {
        self.at = verify_next(self.account_id, &self.at, record)?;
        match self.kept {
            Some(kept) if kept.number == self.at.number && kept.hash != self.at.hash => {
                Err(ChainError::Rewritten { number: kept.number })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How far the chain was checked.
    #[must_use]
    pub const fn at(&self) -> ChainHead {
        self.at
    }

    /// Ends after the last record; the head of what there is.
    ///
    /// # Errors
    /// When the kept head is of a longer chain.
    pub fn end(self) -> Result<ChainHead, ChainError> {
        match self.kept {
            Some(kept) if kept.number > self.at.number => {
                Err(ChainError::CutShort { found: self.at.number, kept: kept.number })
            }
            Some(_) | None => Ok(self.at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, chain};
    use super::*;

    fn check(records: &[AuditRecord], kept: ChainHead) -> Result<ChainHead, ChainError> {
        let mut check = ChainCheck::new(account(1), Some(kept));
        records.iter().try_for_each(|record| check.take(record))?;
        check.end()
    }

    #[test]
    fn a_chain_that_only_grew_fits_every_head_that_was_kept_of_it() {
        let (records, head) = chain(account(1), 5);
        for length in 0..=5 {
            let (_, kept) = chain(account(1), length);
            assert_eq!(check(&records, kept), Ok(head));
        }
    }

    #[test]
    fn a_chain_that_holds_but_was_cut_or_rewritten_is_found_by_the_head() {
        let (records, kept) = chain(account(1), 5);
        assert_eq!(check(&records[..3], kept), Err(ChainError::CutShort { found: 3, kept: 5 }));
        let mut head = ChainHead::start(account(1));
        let rewritten: Vec<_> = records
            .iter()
            .map(|record| {
                let mut entry = record.entry.clone();
                entry.at.0 += u64::from(record.number == 2);
                let previous_hash = head.hash;
                head = head.append(account(1), &entry);
                AuditRecord { number: record.number, entry, previous_hash, hash: head.hash }
            })
            .collect();
        assert_eq!(check(&rewritten, head), Ok(head), "the chain itself holds");
        assert_eq!(check(&rewritten, kept), Err(ChainError::Rewritten { number: 5 }));
    }
}
