//! A passkey in memory, with the browser that shows it: what a machine pins, and what a person says to one command.

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use flydex_agent_proto::v1 as agent;
use flydex_domain::command::command_transcript;
use flydex_domain::encoding::sha256;
use flydex_proto::v1;

use crate::account::encode;

/// A person was there.
pub const PRESENT: u8 = 0x01;
/// And proved to be the right one.
pub const VERIFIED: u8 = PRESENT | 0x04;

/// A passkey.
#[derive(Clone, Debug)]
pub struct Passkey {
    credential_id: [u8; 16],
    key: SigningKey,
}

impl Passkey {
    /// One with a fresh key.
    #[must_use]
    pub fn new() -> Self {
        Self { credential_id: rand::random(), key: SigningKey::from_bytes(&rand::random()) }
    }

    /// Another key that goes by the same id.
    #[must_use]
    pub fn forged(&self) -> Self {
        Self { credential_id: self.credential_id, ..Self::new() }
    }

    /// What a machine is asked to pin.
    #[must_use]
    pub fn pin(&self) -> agent::PinPasskey {
        agent::PinPasskey {
            credential_id: Bytes::copy_from_slice(&self.credential_id),
            algorithm: agent::PasskeyAlgorithm::Ed25519.into(),
            key: Bytes::copy_from_slice(self.key.verifying_key().as_bytes()),
        }
    }

    /// Its word on a command, on a page of `origin`, with those flags of its person.
    #[must_use]
    pub fn assertion(&self, command: &v1::Command, origin: &str, flags: u8) -> v1::PasskeyAssertion {
        let challenge = encode(&command_transcript(&command.header).sha256());
        let client_data = format!(r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"{origin}"}}"#);
        let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let authenticator_data = [&sha256(host.as_bytes())[..], &[flags, 0, 0, 0, 0]].concat();
        let signed = [&authenticator_data[..], &sha256(client_data.as_bytes())].concat();
        v1::PasskeyAssertion {
            credential_id: Bytes::copy_from_slice(&self.credential_id),
            signature: Bytes::copy_from_slice(&self.key.sign(&signed).to_bytes()),
            authenticator_data: authenticator_data.into(),
            client_data_json: client_data.into(),
        }
    }
}

impl Default for Passkey {
    fn default() -> Self {
        Self::new()
    }
}
