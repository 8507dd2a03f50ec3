//! Revocations that a gateway remembers, so that a token signed before one does not open a door after it.
//!
//! Tokens live a day at most, so an entry is forgotten after a day. A token that was signed after the revocation is
//! good: that is a device that was enrolled again, or a user who signed in again. Past the bound the oldest goes, and
//! from then on every token signed before it is refused: forgetting never lets anybody in.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{CREDENTIAL_LIFETIME, GRANT_LIFETIME, REVOCATIONS_KEPT_MAX, TOKEN_SKEW_MAX};
use flydex_domain::revocation::Revocation;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{Grant, MachineCredential};

/// The newest revocations.
pub(crate) struct Revoked {
    records: Mutex<Records>,
    max: usize,
}

#[derive(Default)]
struct Records {
    /// Oldest first.
    entries: VecDeque<(UnixMillis, Revocation)>,
    /// Tokens signed at this time or before are refused: a revocation of theirs may have been forgotten.
    floor: Option<UnixMillis>,
}

impl Default for Revoked {
    fn default() -> Self {
        Self::with_bound(REVOCATIONS_KEPT_MAX)
    }
}

impl Revoked {
    fn with_bound(max: usize) -> Self {
        Self { records: Mutex::default(), max }
    }

    /// Remembers a revocation that took hold `at` a time, however much later it is heard of.
    pub(crate) fn add(&self, revocation: &Revocation, at: UnixMillis, now: UnixMillis) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Records { entries, floor } = &mut *records;
        let outlived = |at: UnixMillis| now >= at.plus(GRANT_LIFETIME).plus(TOKEN_SKEW_MAX);
        while entries.front().is_some_and(|(at, _)| outlived(*at)) {
            entries.pop_front();
        }
        entries.push_back((at, revocation.clone()));
        while entries.len() > self.max
            && let Some((at, _)) = entries.pop_front()
        {
            *floor = (*floor).max(Some(at));
        }
    }

    /// Whether a grant still holds.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn check_grant(&self, grant: &Grant) -> Result<(), ErrorCode> {
        let issued_at = grant.expires_at.minus(GRANT_LIFETIME);
        let device_id = grant.device_key.0.device_id();
        self.check(issued_at, ErrorCode::GrantInvalid, |at, revocation| match revocation {
            Revocation::User { account_id, user_id } => {
                (grant.account_id == *account_id && grant.user_id == *user_id && issued_at <= at)
                    .then_some(ErrorCode::GrantInvalid)
            }
            Revocation::Grant { account_id, grant_id } => {
                (grant.account_id == *account_id && grant.grant_id == *grant_id).then_some(ErrorCode::GrantInvalid)
            }
            Revocation::Device { account_id, device_id: revoked, keeps } => {
                (grant.account_id == *account_id && device_id == *revoked && issued_at <= at)
                    .then_some(cut_code(*keeps))
            }
            Revocation::Machine { .. } | Revocation::Quarantine { .. } | Revocation::Superseded { .. } => None,
        })
    }

    /// Whether a machine credential still holds.
    ///
    /// # Errors
    /// [`ErrorCode::MachineRevoked`], [`ErrorCode::MachineKeyCloned`] or [`ErrorCode::CredentialInvalid`] when it does
    /// not.
    pub(crate) fn check_credential(&self, credential: &MachineCredential) -> Result<(), ErrorCode> {
        const { assert!(CREDENTIAL_LIFETIME.as_secs() <= GRANT_LIFETIME.as_secs(), "entries are kept long enough") };
        self.check(credential.issued_at, ErrorCode::CredentialInvalid, |at, revocation| match revocation {
            Revocation::Machine { account_id, machine_id } => (credential.account_id == *account_id
                && credential.machine_id == *machine_id
                && credential.issued_at <= at)
                .then_some(ErrorCode::MachineRevoked),
            Revocation::Quarantine { account_id, machine_id, serial } => (credential.account_id == *account_id
                && credential.machine_id == *machine_id
                && credential.serial <= *serial)
                .then_some(ErrorCode::MachineKeyCloned),
            Revocation::Superseded { account_id, machine_id, serial } => (credential.account_id == *account_id
                && credential.machine_id == *machine_id
                && credential.serial <= *serial)
                .then_some(ErrorCode::CredentialInvalid),
            Revocation::User { .. } | Revocation::Grant { .. } | Revocation::Device { .. } => None,
        })
    }

    fn check(
        &self,
        issued_at: UnixMillis,
        too_old: ErrorCode,
        refused: impl Fn(UnixMillis, &Revocation) -> Option<ErrorCode>,
    ) -> Result<(), ErrorCode> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = records.entries.iter().find_map(|(at, revocation)| refused(*at, revocation)) {
            return Err(code);
        }
        if records.floor.is_some_and(|floor| issued_at <= floor) { Err(too_old) } else { Ok(()) }
    }
}

/// What a device is told: one that keeps a role comes back with a grant that says so.
pub(crate) const fn cut_code(keeps: Option<Role>) -> ErrorCode {
    if keeps.is_some() { ErrorCode::GrantInvalid } else { ErrorCode::DeviceRevoked }
}

#[cfg(test)]
mod tests;
