//! Why a request had no good answer, and what the person at the desk can do about it.

use std::error::Error as StdError;

use flydex_domain::error::ErrorCode;

/// Why a request had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server refused, and said why.
    #[error("the server answered: {}", .0.message())]
    Refused(ErrorCode),
    /// No connection, or it broke.
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The server's certificate is not one that this machine trusts.
    #[error("the server's certificate is not trusted")]
    Untrusted(#[source] reqwest::Error),
    /// No answer in time.
    #[error("the server did not answer in time")]
    Timeout(#[source] reqwest::Error),
    /// Something answered, and it is no FlyDex server of a known version.
    #[error("the answer is not one of a FlyDex server")]
    Malformed,
    /// The client could not be built.
    #[error("prepare the connection")]
    Client(#[source] Box<dyn StdError + Send + Sync>),
}

impl ApiError {
    /// What a peer or a script is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(code) => *code,
            Self::Unreachable(_) => ErrorCode::ServerUnreachable,
            Self::Untrusted(_) => ErrorCode::UntrustedAddress,
            Self::Timeout(_) => ErrorCode::DeadlineExceeded,
            Self::Malformed => ErrorCode::UnsupportedVersion,
            Self::Client(_) => ErrorCode::Internal,
        }
    }

    /// Whether the same request may succeed after a wait.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Refused(code) => code.retry() == flydex_domain::error::Retry::Later,
            Self::Unreachable(_) | Self::Timeout(_) => true,
            Self::Untrusted(_) | Self::Malformed | Self::Client(_) => false,
        }
    }

    /// What the person at the desk can do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::Refused(code) => next_step(*code).to_owned(),
            Self::Unreachable(_) | Self::Timeout(_) => {
                "check the address, that the server runs, and the network; flydex doctor looks at each".to_owned()
            }
            Self::Untrusted(_) => {
                "if you know the certificate, give it with --ca FILE; otherwise do not go on".to_owned()
            }
            Self::Malformed => "check the address; if it is right, update FlyDex on both sides".to_owned(),
            Self::Client(_) => "run flydex doctor".to_owned(),
        }
    }
}

/// What the person at the desk can do about a code of the server.
#[must_use]
pub fn next_step(code: ErrorCode) -> &'static str {
    const STEPS: &[(ErrorCode, &str)] = &[
        (ErrorCode::RateLimited, "wait a minute, then try again"),
        (ErrorCode::Overloaded, "wait a little, then try again"),
        (ErrorCode::ClaimExpired, "run flydex connect again for a new code, and scan it within two minutes"),
        (ErrorCode::ClaimUsed, "run flydex connect again for a new code"),
        (ErrorCode::ClaimInvalid, "run flydex connect again for a new code"),
        (ErrorCode::PairingEnded, "run flydex connect again"),
        (ErrorCode::PairingRefused, "run flydex connect again when you expect the request"),
        (ErrorCode::PairingTampered, "do not go on; check that the server's address is the one you mean"),
        (ErrorCode::Unauthenticated, "check this computer's clock, then try again"),
        (ErrorCode::MachineRevoked, "run flydex unpair, then flydex connect"),
        (
            ErrorCode::ChannelNotBound,
            "let the proxy on the way pass TLS through (layer 4), or flydex settings set require_channel_binding off",
        ),
        (ErrorCode::LinkSuperseded, "see that flydex runs once for this machine; flydex status names the process"),
        (ErrorCode::MachineKeyCloned, "run flydex unpair on one of the two computers, then flydex connect"),
        (ErrorCode::CredentialInvalid, "check this computer's clock; if it is right, run flydex connect"),
        (ErrorCode::UnsupportedVersion, "update FlyDex"),
        (ErrorCode::NotPaired, "run flydex connect"),
        (ErrorCode::DeviceListFull, "flydex devices list, then flydex devices remove <device>"),
        (ErrorCode::CodexNotFound, "install Codex, or name it with FLYDEX_CODEX"),
        (ErrorCode::JournalUnavailable, "free some disk space"),
        (ErrorCode::NotFound, "look with flydex devices list or flydex status"),
    ];
    let listed = STEPS.iter().find(|(listed, _)| *listed == code);
    listed.map_or("try again; flydex doctor looks for the cause", |(_, step)| step)
}
