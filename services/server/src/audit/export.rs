//! An export, line by line, in bounded memory.

use std::io::{self, BufRead, Read as _};

use flydex_domain::audit::check::ChainCheck;
use flydex_domain::audit::export::Line;
use flydex_domain::audit::head::SignedHead;
use flydex_domain::audit::{AuditRecord, ChainError};
use flydex_domain::id::AccountId;
use flydex_domain::limits::AUDIT_LINE_BYTES_MAX;
use flydex_domain::token::TokenVerifier;

use super::Problem;
use super::head::Kept;

/// Whose export it is, and whether it is whole and holds.
pub(super) fn verify(
    mut export: impl BufRead,
    kept: Option<&Kept>,
    keys: Option<&TokenVerifier>,
) -> io::Result<(Option<AccountId>, Result<u64, Problem>)> {
    let mut reading = Reading { kept, keys, check: None, lines: 0, is_ended: false };
    let mut line = Vec::new();
    while read_line(&mut export, &mut line)? {
        if let Err(problem) = reading.take(&line) {
            return Ok((reading.account_id()?, Err(problem)));
        }
    }
    Ok((reading.account_id()?, reading.end()))
}

struct Reading<'a> {
    kept: Option<&'a Kept>,
    keys: Option<&'a TokenVerifier>,
    /// Begun with the account that the first line names.
    check: Option<(AccountId, ChainCheck)>,
    lines: u64,
    is_ended: bool,
}

impl Reading<'_> {
    fn take(&mut self, line: &[u8]) -> Result<(), Problem> {
        self.lines += 1;
        let misplaced = Problem::Line { line: self.lines, number: self.number() + 1 };
        match Line::read(line).map_err(|_| misplaced)? {
            _ if self.is_ended => Err(misplaced),
            Line::Record(account_id, record) => self.record(account_id, &record, misplaced),
            Line::Head(head) => self.head(&head, misplaced),
        }
    }

    fn record(&mut self, account_id: AccountId, record: &AuditRecord, misplaced: Problem) -> Result<(), Problem> {
        let (of, check) = self.begun(account_id);
        if *of != account_id {
            return Err(misplaced);
        }
        Ok(check.take(record)?)
    }

    /// The head that ends the export: of this account, of its last record, and signed.
    fn head(&mut self, head: &SignedHead, misplaced: Problem) -> Result<(), Problem> {
        let found = self.number();
        let claims = match self.keys {
            Some(keys) => head.verify(keys).map_err(|_| Problem::ForgedHead { found })?,
            None => head.unverified().map_err(|_| misplaced)?,
        };
        self.is_ended = true;
        let (of, check) = self.begun(claims.account_id);
        if *of != claims.account_id || check.at() != claims.head() {
            return Err(ChainError::HeadMismatch { found }.into());
        }
        Ok(())
    }

    fn end(self) -> Result<u64, Problem> {
        let found = self.number();
        let Some((_, check)) = self.check.filter(|_| self.is_ended) else { return Err(Problem::NoHead { found }) };
        Ok(check.end()?.number)
    }

    fn begun(&mut self, account_id: AccountId) -> &mut (AccountId, ChainCheck) {
        let kept = self.kept.filter(|kept| kept.account_id() == account_id).map(Kept::head);
        self.check.get_or_insert_with(|| (account_id, ChainCheck::new(account_id, kept)))
    }

    fn number(&self) -> u64 {
        self.check.as_ref().map_or(0, |(_, check)| check.at().number)
    }

    /// The account of the export, which must be that of the kept head.
    fn account_id(&self) -> io::Result<Option<AccountId>> {
        let found = self.check.as_ref().map(|(account_id, _)| *account_id);
        match (found, self.kept.map(Kept::account_id)) {
            (Some(found), Some(kept)) if found != kept => Err(io::Error::other("the kept head is of another account")),
            (found, kept) => Ok(found.or(kept)),
        }
    }
}

/// The next line without its end; one that is too long is cut, and then it is none of an export.
fn read_line(export: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = export.take(AUDIT_LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(read > 0)
}
