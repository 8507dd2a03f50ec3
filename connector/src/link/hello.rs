//! The hello of a link: who this machine is, proven over the gateway's nonce, its name and the channel.

use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::key::{PublicKey, sign};
use flydex_domain::limits::{PEER_SILENCE_MAX, PING_INTERVAL};
use flydex_domain::proof::{LinkProof, host_of};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::MachineCredential;
use flydex_proto::codec::{VERSION, VERSION_MIN};
use flydex_proto::v1;
use flydex_proto::v1::link_down::Kind as Down;
use flydex_proto::v1::link_up::Kind as Up;

use super::wire::{Incoming, Wire};
use super::{Config, DialError};
use crate::paired::RegionEndpoint;

/// How often each side gives a sign of life.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) ping_interval: Duration,
    pub(super) silence_max: Duration,
}

pub(super) async fn greet(
    config: &Config,
    endpoint: &RegionEndpoint,
    wire: &mut Wire,
    link_counter: u64,
) -> Result<Pace, DialError> {
    let (key, credential) = (config.paired.machine_key.borrow().clone(), config.paired.credential.borrow().clone());
    if !belong_together(config, &key, credential.expose()) {
        // The key has just changed, and its credential is about to.
        return Err(refused(ErrorCode::GoingAway));
    }
    let hello = v1::LinkHello {
        version: VERSION,
        version_min: VERSION_MIN,
        capabilities: vec![v1::Capability::BulkCredit.into()],
        credential: credential.expose().to_owned(),
        link_counter,
        boot_id: Bytes::copy_from_slice(config.boot_id.as_bytes()),
        connector_version: config.connector_version.clone(),
    };
    send(wire, Up::Hello(hello));
    let Down::Challenge(challenge) = receive(wire).await? else {
        return Err(refused(ErrorCode::UnexpectedFrame));
    };
    if !(VERSION_MIN..=VERSION).contains(&challenge.version) {
        return Err(refused(ErrorCode::UnsupportedVersion));
    }
    let nonce = <&[u8; 32]>::try_from(challenge.nonce.as_ref()).map_err(|_| refused(ErrorCode::BadRequest))?;
    let proof = LinkProof {
        nonce,
        host: &host_of(&endpoint.link_url),
        gateway_id: &challenge.gateway_id,
        boot_id: config.boot_id,
        link_counter,
        exporter: wire.exporter.as_ref(),
    };
    let signature = sign(&key, proof.transcript());
    let channel_bound = wire.exporter.is_some();
    send(wire, Up::Proof(v1::LinkProof { signature: Bytes::copy_from_slice(&signature), channel_bound }));
    let Down::Welcome(welcome) = receive(wire).await? else {
        return Err(refused(ErrorCode::UnexpectedFrame));
    };
    Ok(pace(&welcome))
}

/// Whether the credential names the key, as far as it can be read.
fn belong_together(config: &Config, key: &SigningKey, credential: &str) -> bool {
    // Whatever its age: at the beginning of time nothing has expired.
    let claims = config.paired.verifier.borrow().verify::<MachineCredential>(credential, UnixMillis(0));
    !claims.is_ok_and(|claims| claims.machine_key.0 != PublicKey::of(key))
}

/// What the gateway asks for, within what makes sense.
fn pace(welcome: &v1::LinkWelcome) -> Pace {
    let asked = |ms: u32, usual: Duration| if ms == 0 { usual } else { Duration::from_millis(ms.into()) };
    let ping_interval = asked(welcome.ping_interval_ms, PING_INTERVAL);
    let silence_max = asked(welcome.silence_max_ms, PEER_SILENCE_MAX);
    Pace {
        ping_interval: ping_interval.clamp(PING_INTERVAL / 4, PING_INTERVAL * 4),
        silence_max: silence_max.clamp(PEER_SILENCE_MAX / 4, PEER_SILENCE_MAX * 4),
    }
}

fn send(wire: &Wire, kind: Up) {
    // A gateway that takes nothing any more has said why, or is found to be gone: that is received next.
    let _ = wire.outbox.send(&v1::LinkUp { kind: Some(kind) });
}

async fn receive(wire: &mut Wire) -> Result<Down, DialError> {
    loop {
        match wire.incoming.recv().await {
            Some(Incoming::Alive) => {}
            Some(Incoming::Message(message)) => match message.kind {
                Some(Down::End(end)) => {
                    let code = ErrorCode::from_number(end.code).unwrap_or(ErrorCode::Internal);
                    let retry_after = Duration::from_millis(end.retry_after_ms.into());
                    return Err(DialError::Refused { code, retry_after });
                }
                Some(kind) => return Ok(kind),
                None => return Err(refused(ErrorCode::UnexpectedFrame)),
            },
            Some(Incoming::End(code)) => return Err(refused(code)),
            None => return Err(refused(ErrorCode::PeerTimeout)),
        }
    }
}

const fn refused(code: ErrorCode) -> DialError {
    DialError::Refused { code, retry_after: Duration::ZERO }
}
