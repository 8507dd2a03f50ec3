//! The first words of a session: who is there, by ticket and grant, and the proof of its key.

use anyhow::Context as _;
use bytes::Bytes;
use flydex_domain::proof;
use flydex_proto::codec::{VERSION, VERSION_MIN};
use flydex_proto::v1::{self, session_up};

use crate::device::Device;

/// What a device says first.
#[must_use]
pub fn hello(ticket: &str, grant: &str, device: &Device) -> v1::SessionHello {
    v1::SessionHello {
        version: VERSION,
        version_min: VERSION_MIN,
        capabilities: Vec::new(),
        ticket: ticket.to_owned(),
        grant: grant.to_owned(),
        device_key: Some(device.public_key().into()),
        client: "loadtest".to_owned(),
    }
}

/// What it says to the gateway's challenge.
///
/// # Errors
/// When the challenge is not of its shape.
pub fn proof(
    challenge: &v1::SessionChallenge,
    ticket: &str,
    origin: &str,
    device: &Device,
) -> anyhow::Result<session_up::Kind> {
    let nonce = challenge.nonce.as_ref().try_into().context("the nonce is not 32 bytes")?;
    let transcript = proof::session(nonce, ticket, &challenge.gateway_id, origin);
    let signature = Bytes::copy_from_slice(&device.sign_transcript(transcript));
    Ok(session_up::Kind::Proof(v1::SessionProof { signature }))
}
