//! What a machine that leaves its account still has to tell it, kept until the server has heard it.
//!
//! The machine itself obeys nobody of the account from the moment that it forgets the devices. That the account stops
//! listing it, and that its sessions end, is the server's part: it is told by the key that is forgotten otherwise.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::MachineId;
use flydex_domain::limits::RELEASE_TIMEOUT;
use flydex_runtime::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::api::{Api, ApiError, MachineAuth, SecretText};
use crate::record::{self, PairedRecord};
use crate::regions::ServerOrigin;
use crate::state::{StateDir, StateError};

/// A farewell that the server has not heard, in the state folder.
pub const RELEASE_FILE: &str = "release.json";

/// What the server must be told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Farewell {
    origin: String,
    machine_id: MachineId,
    credential: SecretText,
    key: SecretText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trusted_pem: Option<String>,
}

/// Whether the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The machine is in no account of the server any more.
    Yes,
    /// It is told at the next start.
    Later,
}

/// Keeps what is needed to leave the account of a record, before the record and the key are forgotten.
///
/// # Errors
/// [`StateError`] when it cannot be kept.
pub fn prepare(state: &StateDir, record: &PairedRecord, key: &SigningKey) -> Result<(), StateError> {
    let Ok(pem) = key.to_pkcs8_pem(Default::default()) else { return Ok(()) };
    let farewell = Farewell {
        origin: record.origin.clone(),
        machine_id: record.machine_id,
        credential: record.credential.clone(),
        key: SecretText::new(pem.to_string()),
        trusted_pem: record.trusted_pem.clone(),
    };
    record::store(state, RELEASE_FILE, &farewell)
}

/// Tells the server what it has not heard, if there is anything. What cannot be used is no reason to stay.
///
/// # Errors
/// [`StateError`] when the file system refuses.
pub async fn tell(state: &StateDir, clock: &Clock) -> Result<Told, StateError> {
    let farewell = match record::load::<Farewell>(state, RELEASE_FILE, "not a farewell") {
        Ok(None) => return Ok(Told::Yes),
        Ok(Some(farewell)) => farewell,
        Err(error @ (StateError::Exposed { .. } | StateError::Io { .. })) => return Err(error),
        Err(_) => {
            state.remove(RELEASE_FILE)?;
            return Ok(Told::Yes);
        }
    };
    let heard = match farewell.tell(clock, RELEASE_TIMEOUT).await {
        Ok(()) => true,
        // It was heard before, or whoever removed the machine was first.
        Err(ApiError::Refused(code)) => is_final(code),
        Err(_) => false,
    };
    if !heard {
        return Ok(Told::Later);
    }
    state.remove(RELEASE_FILE)?;
    Ok(Told::Yes)
}

/// Whether the machine is in no account by this key, or never will be told.
fn is_final(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::MachineRevoked
            | ErrorCode::MachineKeyCloned
            | ErrorCode::CredentialInvalid
            | ErrorCode::NotFound
            | ErrorCode::NotPaired
            | ErrorCode::UntrustedAddress
    )
}

impl Farewell {
    async fn tell(&self, clock: &Clock, most: Duration) -> Result<(), ApiError> {
        let key = SigningKey::from_pkcs8_pem(self.key.expose()).map_err(|_| ApiError::Refused(ErrorCode::NotPaired))?;
        let origin: ServerOrigin = self.origin.parse().map_err(|_| ApiError::Refused(ErrorCode::UntrustedAddress))?;
        let api = Api::new(origin, self.trusted_pem.as_deref(), clock.clone())?;
        let machine = MachineAuth { machine_id: self.machine_id, key: &key, credential: self.credential.expose() };
        tokio::time::timeout(most, api.release(&machine)).await.unwrap_or(Err(ApiError::Malformed))
    }
}

#[cfg(test)]
mod tests;
