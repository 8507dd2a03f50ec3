//! The machine authenticator: a credential that control signed, and a fresh signature by the key it names.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use flydex_domain::encoding::{Label, Transcript, sha256};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::MachineId;
use flydex_domain::limits::{MACHINE_KEY_OVERLAP, MACHINE_REQUEST_SKEW_MAX};
use flydex_domain::scope::{AccountScope, Principal};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{MachineCredential, TokenVerifier};
use flydex_store::sql::{FormerKey, Machine, Tx};
use http::{HeaderMap, header};

use crate::error::ApiError;
use crate::extract::body;
use crate::service::{App, Control};
use crate::wire::decode;

const SCHEME: &str = "FlyDex-Machine ";
const TIMESTAMP: &str = "flydex-timestamp";
const SIGNATURE: &str = "flydex-signature";

/// A request that a machine signed. The credential may be past its end; [`Signed::machine`] decides.
pub(crate) struct Signed {
    pub(crate) credential: MachineCredential,
    pub(crate) body: Bytes,
}

/// Whether a credential that is past its end is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    /// No.
    Live,
    /// Yes, to renew it: a computer that slept for days is not paired again.
    Past,
}

/// Which of a machine's keys a request was signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The present one.
    Current,
    /// One that another followed on.
    Former(FormerKey),
}

impl FromRequest<App> for Signed {
    type Rejection = ApiError;

    async fn from_request(request: Request, control: &App) -> Result<Self, ApiError> {
        let headers = request.headers().clone();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let credential = credential(&headers, &control.tokens.ever)?;
        let timestamp = timestamp(&headers, control.now())?;
        let signature: [u8; 64] = text(&headers, SIGNATURE).and_then(decode).ok_or(ErrorCode::ProofInvalid)?;
        let body = body(request, control).await?;
        let transcript = Transcript::new(Label::MachineRequest)
            .text(method.as_str())
            .text(&path)
            .bytes(&sha256(&body))
            .integer(timestamp.0)
            .text(control.config.public_origin.as_str());
        credential.machine_key.0.verify(transcript, &signature).map_err(|_| ErrorCode::ProofInvalid)?;
        control.rates.machines.check(credential.machine_id)?;
        Ok(Self { credential, body })
    }
}

impl Signed {
    /// The account that every lookup is confined to.
    pub(crate) fn scope(&self) -> AccountScope {
        let MachineCredential { account_id, machine_id, .. } = self.credential;
        Principal::Machine { account_id, machine_id }.scope()
    }

    /// The machine, if the path names the one that signed and it is still in its account.
    pub(crate) async fn machine(
        &self,
        control: &Control,
        tx: &mut Tx,
        machine_id: MachineId,
        accept: Accept,
    ) -> Result<Machine, ApiError> {
        let (machine, shown) = self.known(tx, machine_id).await?;
        let now = control.now();
        let live = now < self.credential.expires_at;
        let overlaps = match shown {
            Shown::Current => true,
            // What was under way when the key changed is still the machine's.
            Shown::Former(FormerKey { retired_at, is_given_up }) => {
                accept == Accept::Live && !is_given_up && now.since(retired_at) < MACHINE_KEY_OVERLAP
            }
        };
        if overlaps && (live || accept == Accept::Past) {
            Ok(machine)
        } else {
            Err(ErrorCode::CredentialInvalid.into())
        }
    }

    /// The machine, if the path names the one that signed and it is still in its account, and which of its keys it was.
    pub(crate) async fn known(&self, tx: &mut Tx, machine_id: MachineId) -> Result<(Machine, Shown), ApiError> {
        if machine_id != self.credential.machine_id {
            return Err(ErrorCode::NotFound.into());
        }
        let machine = tx.machine(self.scope(), machine_id).await?;
        if machine.revoked {
            return Err(ErrorCode::MachineRevoked.into());
        }
        // What was issued before a quarantine ended never holds again; it is no new clone either.
        if self.credential.serial <= machine.quarantined_serial {
            return Err(ErrorCode::MachineKeyCloned.into());
        }
        let key = self.credential.machine_key.0;
        if machine.key == key {
            return Ok((machine, Shown::Current));
        }
        let former = tx.former_key(self.scope(), machine_id, &key).await?.ok_or(ErrorCode::CredentialInvalid)?;
        Ok((machine, Shown::Former(former)))
    }
}

/// Verifies a credential's signature, whatever its age.
pub(crate) fn verify_credential(verifier: &TokenVerifier, token: &str) -> Result<MachineCredential, ErrorCode> {
    // At the beginning of time nothing has expired.
    verifier.verify(token, UnixMillis(0)).map_err(|_| ErrorCode::CredentialInvalid)
}

/// Checks that a machine's timestamp is close to our own time.
pub(crate) fn check_timestamp(timestamp: UnixMillis, now: UnixMillis) -> Result<UnixMillis, ErrorCode> {
    let distance = now.since(timestamp).max(timestamp.since(now));
    if distance <= MACHINE_REQUEST_SKEW_MAX { Ok(timestamp) } else { Err(ErrorCode::ProofInvalid) }
}

fn credential(headers: &HeaderMap, verifier: &TokenVerifier) -> Result<MachineCredential, ErrorCode> {
    let value = text(headers, header::AUTHORIZATION.as_str()).ok_or(ErrorCode::Unauthenticated)?;
    let token = value.strip_prefix(SCHEME).ok_or(ErrorCode::Unauthenticated)?;
    verify_credential(verifier, token)
}

fn timestamp(headers: &HeaderMap, now: UnixMillis) -> Result<UnixMillis, ErrorCode> {
    let timestamp = text(headers, TIMESTAMP).and_then(|text| text.parse().ok()).ok_or(ErrorCode::ProofInvalid)?;
    check_timestamp(UnixMillis(timestamp), now)
}

fn text<'headers>(headers: &'headers HeaderMap, name: &str) -> Option<&'headers str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
