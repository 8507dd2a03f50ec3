//! Endorsement: an enrolled owner device vouches for a further device's key (INV-KEY).
//!
//! The new device shows its key, the role that it wants and a secret on its screen. The owner device reads them off
//! that screen and sends a command: its signature covers account, machine and body, so it *is* the endorsement.
//! The connector alone decides ([`admit`]). In the body goes a MAC under the secret of the screen, which the relay
//! never sees: it tells the new device which machine key the endorser knows, so that no relay puts a machine of its
//! own in between.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::device::{DeviceList, Introducer};
use crate::encoding::{Label, Transcript};
use crate::error::ErrorCode;
use crate::id::{AccountId, DeviceId, MachineId};
use crate::key::PublicKey;
use crate::limits::{ENDORSEMENT_LIFETIME_MAX, LABEL_CHARS_MAX};
use crate::scope::Role;
use crate::secret::SecretKey;
use crate::time::UnixMillis;

/// What an owner device says of a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// The new device's key, as its screen showed it.
    pub key: PublicKey,
    /// What it may do; at most what the endorser may.
    pub role: Role,
    /// Its name, for people.
    pub label: String,
    /// Until when the machine may take it, by the machine's clock.
    pub expires_at: UnixMillis,
    /// The version of the device list that the endorser saw.
    pub list_version: u64,
    /// What the new device checks the machine by; the machine only carries it.
    pub introduction_mac: [u8; 32],
}

/// Who endorses, after [`crate::gate::rule`] let the command pass.
#[derive(Clone, Copy, Debug)]
pub struct Endorser {
    /// The device that signed.
    pub device_id: DeviceId,
    /// What it may do: the lesser of the list's word and the account's.
    pub role: Role,
}

/// Whether the machine takes an endorsement now.
///
/// # Errors
/// `enrolment_at_desk_only`, `role_insufficient`, `bad_request`, `endorsement_expired`, `device_list_stale`,
/// `device_revoked` or `device_list_full`.
pub fn admit(
    list: &DeviceList,
    desk_allows: bool,
    endorser: Endorser,
    endorsement: &Endorsement,
    now: UnixMillis,
) -> Result<(), ErrorCode> {
    if !desk_allows {
        return Err(ErrorCode::EnrolmentAtDeskOnly);
    }
    let listed = list.get(&endorser.device_id).map(|device| device.role);
    // The gate said so before; the list may have changed since.
    if endorser.role < Role::Owner || listed != Some(Role::Owner) {
        return Err(ErrorCode::RoleInsufficient);
    }
    if endorsement.role > endorser.role {
        return Err(ErrorCode::RoleInsufficient);
    }
    let new = endorsement.key.device_id();
    if new == endorser.device_id || !is_label(&endorsement.label) {
        return Err(ErrorCode::BadRequest);
    }
    if now >= endorsement.expires_at {
        return Err(ErrorCode::EndorsementExpired);
    }
    if endorsement.expires_at > now.plus(ENDORSEMENT_LIFETIME_MAX) {
        return Err(ErrorCode::LifetimeTooLong);
    }
    if endorsement.list_version != list.version() {
        return Err(ErrorCode::DeviceListStale);
    }
    if list.is_removed(&new) {
        return Err(ErrorCode::DeviceRevoked);
    }
    if list.get(&new).is_none() && list.is_full() {
        return Err(ErrorCode::DeviceListFull);
    }
    Ok(())
}

/// Puts an endorsed device on the list, after [`admit`].
///
/// # Errors
/// `device_list_full`.
pub fn enrol(
    list: &mut DeviceList,
    endorser: Endorser,
    endorsement: &Endorsement,
    now: UnixMillis,
) -> Result<DeviceId, ErrorCode> {
    let introducer = Introducer { device_id: endorser.device_id, mac: endorsement.introduction_mac };
    list.enrol_endorsed(endorsement.key, endorsement.role, &endorsement.label, introducer, now)
}

fn is_label(label: &str) -> bool {
    !label.trim().is_empty() && label.chars().count() <= LABEL_CHARS_MAX && !label.chars().any(char::is_control)
}

/// What the new device must find the same on the machine's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntroductionTerms {
    /// The origin of the relay, as in the address bar.
    pub origin: String,
    /// The account.
    pub account_id: AccountId,
    /// The machine.
    pub machine_id: MachineId,
    /// The machine's key, as the endorser knows it.
    pub machine_key: PublicKey,
    /// The new device's key.
    pub device_key: PublicKey,
    /// What the new device may do.
    pub role: Role,
}

impl IntroductionTerms {
    /// The MAC under the secret of the new device's screen.
    #[must_use]
    pub fn mac(&self, secret: &SecretKey) -> [u8; 32] {
        self.keyed(secret).finalize().into_bytes().into()
    }

    /// Whether `mac` is the terms' MAC, in constant time.
    #[must_use]
    pub fn verify_mac(&self, secret: &SecretKey, mac: &[u8]) -> bool {
        self.keyed(secret).verify_slice(mac).is_ok()
    }

    fn keyed(&self, secret: &SecretKey) -> Hmac<Sha256> {
        let transcript = Transcript::new(Label::Introduction)
            .text(&self.origin)
            .bytes(self.account_id.as_bytes())
            .bytes(self.machine_id.as_bytes())
            .text(self.machine_key.algorithm())
            .bytes(self.machine_key.as_bytes())
            .text(self.device_key.algorithm())
            .bytes(self.device_key.as_bytes())
            .text(self.role.as_str());
        let mut hmac = Hmac::<Sha256>::new_from_slice(secret.expose()).expect("HMAC takes keys of any length");
        hmac.update(&transcript.finish());
        hmac
    }
}

#[cfg(test)]
mod tests;
