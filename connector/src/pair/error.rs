//! Why a pairing did not come about, and what the person at the desk can do about it.

use flydex_domain::error::ErrorCode;

use super::printable;
use crate::api::ApiError;

/// Why a pairing did not come about.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The control plane could not be asked, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server goes by another name than the one that was dialled, so no browser could prove the same terms.
    #[error("this server calls itself {}", printable(own))]
    OtherOrigin {
        /// What it calls itself.
        own: String,
    },
    /// Nobody scanned the code in time, or the desk did not answer in time.
    #[error("nobody finished the pairing in time")]
    Expired,
    /// The browser cancelled, or the pairing failed at the server.
    #[error("the pairing was ended: {}", .0.message())]
    Ended(ErrorCode),
    /// The device's proof does not hold: the relay or the code was tampered with.
    #[error("the device's proof does not hold: someone between this computer and the device changed something")]
    Tampered,
    /// What the server gave after the yes does not belong to what was agreed.
    #[error("the server's answer is not for what was agreed")]
    AnswerForged,
    /// The person at the desk said no.
    #[error("refused at the desk; nothing was paired")]
    Refused,
    /// There is nobody to ask: no terminal, and no page.
    #[error("nobody can answer: standard input is closed and the pairing page is not served")]
    NobodyToAsk,
}

impl PairError {
    /// What a peer or a script is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Api(error) => error.code(),
            Self::OtherOrigin { .. } => ErrorCode::UntrustedAddress,
            Self::Expired => ErrorCode::ClaimExpired,
            Self::Ended(code) => *code,
            Self::Tampered | Self::AnswerForged => ErrorCode::PairingTampered,
            Self::Refused | Self::NobodyToAsk => ErrorCode::PairingRefused,
        }
    }

    /// What the person at the desk can do about it.
    #[must_use]
    pub fn next_step(&self) -> String {
        match self {
            Self::Api(error) => error.next_step(),
            Self::OtherOrigin { own } => {
                format!("if that is the server you mean: flydex connect --server {}", printable(own))
            }
            Self::NobodyToAsk => "run flydex connect in a terminal".to_owned(),
            Self::Expired | Self::Ended(_) | Self::Tampered | Self::AnswerForged | Self::Refused => {
                crate::api::next_step(self.code()).to_owned()
            }
        }
    }
}
