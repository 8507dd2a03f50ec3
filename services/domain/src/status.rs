//! The public life cycles: of a machine as users see it, and of a pairing in progress. Both are version 1.

use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;

/// Whether a machine can be used, from measured facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineStatus {
    /// No link.
    Offline,
    /// A link is being opened.
    Connecting,
    /// The link is up and the connector has not yet reported on Codex.
    LinkUp,
    /// The connector is starting or attaching to Codex.
    CodexStarting,
    /// Codex answers.
    CodexReady,
    /// Codex cannot be used, and why.
    CodexUnavailable(ErrorCode),
    /// The connector is going away on purpose.
    Draining,
}

impl MachineStatus {
    /// The documented name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Connecting => "connecting",
            Self::LinkUp => "link_up",
            Self::CodexStarting => "codex_starting",
            Self::CodexReady => "codex_ready",
            Self::CodexUnavailable(_) => "codex_unavailable",
            Self::Draining => "draining",
        }
    }
}

/// Where a pairing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalConnectStatus {
    /// The connector asked; nobody has scanned the code yet.
    Created,
    /// A signed-in browser redeemed the claim; its proof and the desk's yes are awaited.
    AwaitingBrowserFinalize,
    /// Paired, linked, and Codex answers.
    CodexReady,
    /// The claim or the wait for the desk ran out.
    Expired,
    /// The desk or the browser ended it.
    Cancelled,
    /// It failed; the code says why.
    Failed,
}

impl LocalConnectStatus {
    /// The documented name, as JSON and SQL carry it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::AwaitingBrowserFinalize => "awaiting_browser_finalize",
            Self::CodexReady => "codex_ready",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Created | Self::AwaitingBrowserFinalize => false,
            Self::CodexReady | Self::Expired | Self::Cancelled | Self::Failed => true,
        }
    }
}
