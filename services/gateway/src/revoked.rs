//! Revocations that a gateway remembers, so that a token signed before one does not open a door after it.
//!
//! Tokens live a day at most, so an entry is forgotten after a day. A token that was signed after the revocation is
//! good: that is a device that was enrolled again, or a user who signed in again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{CREDENTIAL_LIFETIME, GRANT_LIFETIME, REVOCATIONS_KEPT_MAX, TOKEN_SKEW_MAX};
use flydex_domain::revocation::Revocation;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{Grant, MachineCredential};

/// The newest revocations, oldest first.
#[derive(Default)]
pub(crate) struct Revoked {
    entries: Mutex<VecDeque<(UnixMillis, Revocation)>>,
}

impl Revoked {
    /// Remembers a revocation that took hold at `now`.
    pub(crate) fn add(&self, revocation: &Revocation, now: UnixMillis) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let expired = |at: UnixMillis| now >= at.plus(GRANT_LIFETIME).plus(TOKEN_SKEW_MAX);
        while entries.len() >= REVOCATIONS_KEPT_MAX || entries.front().is_some_and(|(at, _)| expired(*at)) {
            entries.pop_front();
        }
        entries.push_back((now, revocation.clone()));
    }

    /// Whether a grant still holds.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn check_grant(&self, grant: &Grant) -> Result<(), ErrorCode> {
        let issued_at = grant.expires_at.minus(GRANT_LIFETIME);
        let device_id = grant.device_key.0.device_id();
        self.check(|at, revocation| match revocation {
            Revocation::User { account_id, user_id } => {
                (grant.account_id == *account_id && grant.user_id == *user_id && issued_at <= at)
                    .then_some(ErrorCode::GrantInvalid)
            }
            Revocation::Grant { account_id, grant_id } => {
                (grant.account_id == *account_id && grant.grant_id == *grant_id).then_some(ErrorCode::GrantInvalid)
            }
            Revocation::Device { account_id, device_id: revoked } => {
                (grant.account_id == *account_id && device_id == *revoked && issued_at <= at)
                    .then_some(ErrorCode::DeviceRevoked)
            }
            Revocation::Machine { .. } | Revocation::Quarantine { .. } => None,
        })
    }

    /// Whether a machine credential still holds.
    ///
    /// # Errors
    /// [`ErrorCode::MachineRevoked`] or [`ErrorCode::MachineKeyCloned`] when it does not.
    pub(crate) fn check_credential(&self, credential: &MachineCredential) -> Result<(), ErrorCode> {
        const { assert!(CREDENTIAL_LIFETIME.as_secs() <= GRANT_LIFETIME.as_secs(), "entries are kept long enough") };
        self.check(|at, revocation| match revocation {
            Revocation::Machine { account_id, machine_id } => (credential.account_id == *account_id
                && credential.machine_id == *machine_id
                && credential.issued_at <= at)
                .then_some(ErrorCode::MachineRevoked),
            Revocation::Quarantine { account_id, machine_id, serial } => (credential.account_id == *account_id
                && credential.machine_id == *machine_id
                && credential.serial <= *serial)
                .then_some(ErrorCode::MachineKeyCloned),
            Revocation::User { .. } | Revocation::Grant { .. } | Revocation::Device { .. } => None,
        })
    }

    fn check(&self, refused: impl Fn(UnixMillis, &Revocation) -> Option<ErrorCode>) -> Result<(), ErrorCode> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find_map(|(at, revocation)| refused(*at, revocation)).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
