//! What pairing gave, and what the desk allows: the values that the core, the links and the desk share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use flydex_domain::device::{DeviceList, Holder};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, BootId, DeviceId, MachineId};
use flydex_domain::key::PublicKey;
use flydex_domain::revocation::DeviceCut;
use flydex_domain::scope::Role;
use flydex_domain::token::TokenVerifier;
use tokio::sync::{oneshot, watch};

use crate::api::SecretText;

/// The machine list file in the state folder.
pub const DEVICES_FILE: &str = "devices.json";
/// The highest epoch and the link counter, in the state folder.
pub const FENCE_FILE: &str = "fence.json";
/// The command journal, in the state folder.
pub const JOURNAL_FILE: &str = "journal";
/// Audit records that control has not acknowledged yet, in the state folder.
pub const SPOOL_FILE: &str = "audit-spool";

/// A machine that is paired: who it is, and what it trusts.
///
/// The watches carry what is renewed while the connector runs.
#[derive(Clone)]
pub struct PairedState {
    /// The relay's web origin, as it was dialled at pairing: `https://host[:port]`.
    pub origin: String,
    /// The account that is pinned.
    pub account_id: AccountId,
    /// The account's name, for people.
    pub account_name: String,
    /// This machine.
    pub machine_id: MachineId,
    /// This machine's name, for people.
    pub machine_label: String,
    /// The machine key; the credential beside it may be a moment older.
    pub machine_key: watch::Receiver<Arc<SigningKey>>,
    /// The newest machine credential.
    pub credential: watch::Receiver<SecretText>,
    /// Control's public keys.
    pub verifier: watch::Receiver<Arc<TokenVerifier>>,
    /// Where links are opened, best first.
    pub regions: watch::Receiver<Vec<RegionEndpoint>>,
    /// What the desk allows.
    pub policy: watch::Receiver<DeskPolicy>,
}

impl fmt::Debug for PairedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairedState")
            .field("account_id", &self.account_id)
            .field("machine_id", &self.machine_id)
            .finish_non_exhaustive()
    }
}

/// One region's entrance for links, from `GET /api/regions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionEndpoint {
    /// The region's name.
    pub region: String,
    /// `wss://host[:port]/v1/link`, or `ws://` on the machine itself.
    pub link_url: String,
    /// The same entrance over QUIC, where there is one.
    pub quic: Option<QuicEndpoint>,
    /// A self-made certificate to trust besides the system's, in PEM.
    pub certificate_pem: Option<String>,
}

/// Where a region takes QUIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicEndpoint {
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
}

/// In which region the machine is, for the desk and for those who keep the list of regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionReport {
    /// The region of the link, or the one in which it is being opened.
    pub link: Option<MeasuredRegion>,
    /// The region to turn to when that one is lost.
    pub second: Option<MeasuredRegion>,
    /// The only region that the account allows.
    pub pin: Option<String>,
    /// No region that may be used can be reached: a newer list may help.
    pub stuck: bool,
}

/// A region and how far away it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredRegion {
    /// Its name.
    pub region: String,
    /// One round trip of a handshake; absent until it was measured.
    pub handshake: Option<Duration>,
}

/// What the person at the desk allows. A change takes effect at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeskPolicy {
    /// Remote control is paused: reads work, nothing acts.
    pub paused: bool,
    /// "Accept for this session" may be answered remotely.
    pub session_acceptance: bool,
    /// An accept without control's audit receipt is refused rather than recorded here first.
    pub strict_audit: bool,
    /// Only the desk enrols devices: an endorsement is refused.
    pub enrol_at_desk_only: bool,
    /// No key that a browser holds is obeyed, shown anything, or enrolled.
    pub refuse_browser_keys: bool,
    /// An accept of high risk carries the assertion of a passkey that this machine pinned.
    pub passkey_for_high_risk: bool,
    /// A link whose proof does not cover its TLS connection is refused.
    pub require_channel_binding: bool,
    /// Where threads may be started: path and label.
    pub directories: Vec<(String, String)>,
}

type Fill = dyn Fn(&mut [u8]) + Send + Sync;

/// Fills a buffer with random bytes; a test gives its own.
#[derive(Clone)]
pub struct Entropy(Arc<Fill>);

impl Entropy {
    /// The operating system's randomness.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|bytes| rand::fill(bytes)))
    }

    /// Whatever `fill` writes.
    #[must_use]
    pub fn from_fn(fill: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    /// Random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.0)(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

/// What the desk asks of the running core.
#[derive(Debug)]
pub enum DeskRequest {
    /// Put a device on the machine's list, after the person at the desk said yes.
    Enrol {
        /// What holds its key.
        holder: Holder,
        /// The device's key.
        key: PublicKey,
        /// What it may do.
        role: Role,
        /// Its name, for people.
        label: String,
        /// Answered once it is durable.
        reply: oneshot::Sender<Result<DeviceId, ErrorCode>>,
    },
    /// Take a device off the list and end its sessions.
    Remove {
        /// Which.
        device_id: DeviceId,
        /// Answered once it is durable; `not_found` when it is not listed.
        reply: oneshot::Sender<Result<(), ErrorCode>>,
    },
    /// Take from devices what the account took from them. Those that are not listed are passed over.
    Cut {
        /// Which, and what they keep.
        cuts: Vec<DeviceCut>,
        /// Answered once it is durable.
        reply: oneshot::Sender<Result<(), ErrorCode>>,
    },
    /// The device list.
    Devices {
        /// The answer.
        reply: oneshot::Sender<DeviceList>,
    },
}

/// A desk whose machine lists no device.
#[cfg(test)]
pub(crate) fn empty_desk() -> tokio::sync::mpsc::Sender<DeskRequest> {
    let (requests, mut asked) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            match request {
                DeskRequest::Devices { reply } => {
                    let _ = reply.send(DeviceList::default());
                }
                DeskRequest::Cut { cuts, reply } => {
                    let _ = reply.send(if cuts.is_empty() { Ok(()) } else { Err(ErrorCode::Internal) });
                }
                DeskRequest::Enrol { .. } | DeskRequest::Remove { .. } => {}
            }
        }
    });
    requests
}

/// How the connector stands, for the desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreStatus {
    /// This life of the connector.
    pub boot_id: BootId,
    /// The link.
    pub link: LinkStatus,
    /// Codex answers; otherwise why not, `None` while it starts.
    pub codex: Result<(), Option<ErrorCode>>,
    /// Sessions that are admitted.
    pub sessions: usize,
    /// The journal can be written.
    pub journal_writable: bool,
}

/// How the link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkStatus {
    /// No link; why the last one ended or could not be opened.
    Down(Option<ErrorCode>),
    /// A link is up, and no owner has attached yet.
    Linked(Channel),
    /// The machine's owner has attached: sessions can reach this machine.
    Attached(Channel),
}

/// What a link runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What carries it.
    pub transport: Transport,
    /// The link's proof covered the TLS connection, so that nothing on the way can sit between the ends.
    pub bound: bool,
}

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket over TCP.
    WebSocket,
    /// QUIC.
    Quic,
}
