//! Why a link could not be opened.

use std::time::Duration;

use flydex_domain::error::ErrorCode;

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The address, the network or the transport's handshake.
    #[error("reach the relay")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address is plain and not on this machine.
    #[error("plain connections are made to this machine only")]
    Plain,
    /// It took too long.
    #[error("the relay did not answer in time")]
    Timeout,
    /// The relay said no.
    #[error("the relay refused the link: {code}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// When to come back.
        retry_after: Duration,
    },
    /// The desk wants links bound to their TLS connection, and this one cannot be.
    #[error("the link cannot be bound to its tls connection")]
    Unbound,
    /// The link ended before an owner attached.
    #[error("no owner attached")]
    Unowned,
    /// The link counter cannot be kept.
    #[error("keep the link counter")]
    Counter,
}

impl DialError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable(_) => ErrorCode::ServerUnreachable,
            Self::Plain => ErrorCode::UntrustedAddress,
            Self::Timeout => ErrorCode::DeadlineExceeded,
            Self::Refused { code, .. } => *code,
            Self::Unbound => ErrorCode::ChannelNotBound,
            Self::Unowned => ErrorCode::Moving,
            Self::Counter => ErrorCode::JournalUnavailable,
        }
    }

    /// Whether another region may do better; otherwise it would say the same.
    pub(super) fn blames_region(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Plain | Self::Timeout | Self::Unbound | Self::Unowned => true,
            Self::Refused { code, .. } => blames_region(*code),
            Self::Counter => false,
        }
    }

    /// When the relay wants to be asked again, at the earliest.
    pub(super) const fn retry_after(&self) -> Duration {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::Plain | Self::Timeout | Self::Unbound | Self::Unowned | Self::Counter => {
                Duration::ZERO
            }
        }
    }
}

/// Whether a link that ended with this code may fare better in another region.
pub(super) const fn blames_region(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ServerUnreachable
            | ErrorCode::DeadlineExceeded
            | ErrorCode::PeerTimeout
            | ErrorCode::GoingAway
            | ErrorCode::Moving
            | ErrorCode::Overloaded
            | ErrorCode::Internal
            | ErrorCode::StoreUnavailable
            | ErrorCode::ControlUnreachable
    )
}
