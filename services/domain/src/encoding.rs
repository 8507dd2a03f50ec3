//! The injective encoding that every signature, MAC and digest covers.
//!
//! A transcript is a label and a list of fields. Each field is its length as a big-endian `u32` followed by
//! its bytes, so no two different lists have the same bytes. Integers are 8 big-endian bytes; an absent field
//! is the count 0, a present one the count 1 and the field; a list is its count and its fields. The web app
//! writes the same bytes (`services/web/src/protocol/encoding.ts`), held equal by shared test vectors.

use sha2::{Digest as _, Sha256};

pub mod base64url;

/// What a signature, MAC or digest is for. A value made for one purpose never verifies for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// Fingerprint of a public key.
    KeyFingerprint,
    /// A device's command.
    Command,
    /// A machine's receipt.
    Receipt,
    /// The digest of what an approval is about.
    ApprovalDigest,
    /// A machine's signature over an approval that it shows.
    Approval,
    /// The derivation of an approval id.
    ApprovalId,
    /// The derivation of an app-server generation.
    Generation,
    /// A device's proof when it opens a session.
    SessionProof,
    /// A machine's proof when it opens a link.
    LinkProof,
    /// A machine's proof when it calls the control plane.
    MachineRequest,
    /// What both pairing MACs cover.
    Pairing,
    /// The six digits that both screens show.
    PairingCode,
    /// The three keys that a claim secret gives.
    ClaimKeys,
    /// What the MAC of an endorsement covers, by which a new device knows the machine.
    Introduction,
    /// The hash that chains an audit record to the one before it.
    AuditRecord,
    /// What is stored in the place of a recovery code.
    RecoveryCode,
    /// A machine's statement that another key follows on its own.
    KeyRotation,
}

impl Label {
    /// The bytes that open the transcript.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyFingerprint => "flydex/v1/key-fingerprint",
            Self::Command => "flydex/v1/command",
            Self::Receipt => "flydex/v1/receipt",
            Self::ApprovalDigest => "flydex/v1/approval-digest",
            Self::Approval => "flydex/v1/approval",
            Self::ApprovalId => "flydex/v1/approval-id",
            Self::Generation => "flydex/v1/generation",
            Self::SessionProof => "flydex/v1/session-proof",
            Self::LinkProof => "flydex/v1/link-proof",
            Self::MachineRequest => "flydex/v1/machine-request",
            Self::Pairing => "flydex/v1/pairing",
            Self::PairingCode => "flydex/v1/pairing-code",
            Self::ClaimKeys => "flydex/v1/claim-keys",
            Self::Introduction => "flydex/v1/introduction",
            Self::AuditRecord => "flydex/v1/audit-record",
            Self::RecoveryCode => "flydex/v1/recovery-code",
            Self::KeyRotation => "flydex/v1/key-rotation",
        }
    }
}

/// Builds the bytes of one transcript.
#[derive(Clone, Debug)]
pub struct Transcript {
    bytes: Vec<u8>,
}

impl Transcript {
    /// Opens a transcript with its label as the first field.
    #[must_use]
    pub fn new(label: Label) -> Self {
        Self { bytes: Vec::with_capacity(256) }.bytes(label.as_str().as_bytes())
    }

    /// Appends a byte field.
    ///
    /// # Panics
    /// When the field is 4 GiB or longer, which the frame limits exclude.
    #[must_use]
    pub fn bytes(mut self, field: &[u8]) -> Self {
        let length = u32::try_from(field.len()).expect("frames are far below 4 GiB");
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(field);
        self
    }

    /// Appends a UTF-8 field.
    #[must_use]
    pub fn text(self, field: &str) -> Self {
        self.bytes(field.as_bytes())
    }

    /// Appends an integer field.
    #[must_use]
    pub fn integer(self, field: u64) -> Self {
        self.bytes(&field.to_be_bytes())
    }

    /// Appends a field that may be absent.
    #[must_use]
    pub fn optional(self, field: Option<&[u8]>) -> Self {
        match field {
            None => self.integer(0),
            Some(field) => self.integer(1).bytes(field),
        }
    }

    /// Appends the count of a list; its fields follow.
    #[must_use]
    pub fn count(self, count: usize) -> Self {
        self.integer(count as u64)
    }

    /// The bytes to sign or to MAC.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// The SHA-256 of the bytes.
    #[must_use]
    pub fn sha256(self) -> [u8; 32] {
        sha256(&self.bytes)
    }
}

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_fields_changes_the_transcript() {
        let left = Transcript::new(Label::Pairing).text("ab").text("c").finish();
        let right = Transcript::new(Label::Pairing).text("a").text("bc").finish();
        assert_ne!(left, right);
    }

    #[test]
    fn an_absent_field_differs_from_an_empty_one() {
        let absent = Transcript::new(Label::Pairing).optional(None).finish();
        let empty = Transcript::new(Label::Pairing).optional(Some(b"")).finish();
        assert_ne!(absent, empty);
    }
}
