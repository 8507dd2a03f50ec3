//! The life of a pairing in progress: what may follow what, until when, and what each step answers.
//!
//! `created` → redeemed → finalized → confirmed → `codex_ready`, or at any time before that `expired`,
//! `cancelled` or `failed`. The public status ([`LocalConnectStatus`]) joins the three middle stages. A claim is
//! redeemed once; five wrong tries end it. The caller gives the time, and compares secrets before it asks.

use crate::error::ErrorCode;
use crate::limits::{CLAIM_LIFETIME, CLAIM_WRONG_TRIES_MAX, LOCAL_CONNECT_LIFETIME};
use crate::status::LocalConnectStatus;
use crate::time::UnixMillis;

/// Where a pairing stands, in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The connector asked; nobody has redeemed the claim.
    Created,
    /// A browser redeemed the claim; its MAC is awaited.
    Redeemed,
    /// The device's MAC is there; the desk's yes is awaited.
    Finalized,
    /// The desk said yes and the machine's MAC is there; Codex is awaited.
    Confirmed,
    /// Done.
    CodexReady,
    /// Time ran out.
    Expired,
    /// The browser ended it, or the desk said no and the code is `pairing_refused`.
    Cancelled(Option<ErrorCode>),
    /// It failed.
    Failed(ErrorCode),
}

impl Stage {
    /// The name, as SQL carries it; the code of a final stage is kept beside it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Redeemed => "redeemed",
            Self::Finalized => "finalized",
            Self::Confirmed => "confirmed",
            Self::CodexReady => "codex_ready",
            Self::Expired => "expired",
            Self::Cancelled(_) => "cancelled",
            Self::Failed(_) => "failed",
        }
    }

    /// The stage with that name and code.
    #[must_use]
    pub fn from_name(name: &str, code: Option<ErrorCode>) -> Option<Self> {
        match (name, code) {
            ("created", None) => Some(Self::Created),
            ("redeemed", None) => Some(Self::Redeemed),
            ("finalized", None) => Some(Self::Finalized),
            ("confirmed", None) => Some(Self::Confirmed),
            ("codex_ready", None) => Some(Self::CodexReady),
            ("expired", None) => Some(Self::Expired),
            ("cancelled", code) => Some(Self::Cancelled(code)),
            ("failed", Some(code)) => Some(Self::Failed(code)),
            _ => None,
        }
    }

    /// Why it ended, where a code says so.
    #[must_use]
    pub const fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Cancelled(code) => code,
            Self::Failed(code) => Some(code),
            Self::Created | Self::Redeemed | Self::Finalized | Self::Confirmed | Self::CodexReady | Self::Expired => {
                None
            }
        }
    }

    /// The documented status.
    #[must_use]
    pub const fn status(self) -> LocalConnectStatus {
        match self {
            Self::Created => LocalConnectStatus::Created,
            Self::Redeemed | Self::Finalized | Self::Confirmed => LocalConnectStatus::AwaitingBrowserFinalize,
            Self::CodexReady => LocalConnectStatus::CodexReady,
            Self::Expired => LocalConnectStatus::Expired,
            Self::Cancelled(_) => LocalConnectStatus::Cancelled,
            Self::Failed(_) => LocalConnectStatus::Failed,
        }
    }
}

/// What is known of a pairing in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// Where it stands; [`Lifecycle::at`] applies the time.
    pub stage: Stage,
    /// When the claim, and so both MACs' terms, expires.
    pub claim_expires_at: UnixMillis,
    /// When the pairing ends unless it is done.
    pub ends_at: UnixMillis,
    /// Wrong tries at the claim so far.
    pub wrong_tries: u32,
}

/// A step that was taken: what follows, and whether anything changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The pairing now stands here.
    Changed(Lifecycle),
    /// The same step was taken before; its answer holds.
    Repeated,
}

/// A redeem that was refused, and what must be remembered of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedeemRefused {
    /// What the browser is told.
    pub code: ErrorCode,
    /// What to store: a wrong try counts, and the fifth ends the pairing.
    pub changed: Option<Lifecycle>,
}

/// How a redeem compares to what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedeemTry {
    /// Whether the redeem key's hash is the claim's.
    pub key_fits: bool,
    /// Whether the same account session redeemed it before for the same device key.
    pub same_browser: bool,
}

impl Lifecycle {
    /// A pairing that begins now.
    #[must_use]
    pub fn begin(now: UnixMillis) -> Self {
        let claim_expires_at = now.plus(CLAIM_LIFETIME);
        Self { stage: Stage::Created, claim_expires_at, ends_at: claim_expires_at, wrong_tries: 0 }
    }

    /// The pairing as it stands at a time.
    #[must_use]
    pub fn at(self, now: UnixMillis) -> Self {
        if self.stage.status().is_final() || now < self.ends_at { self } else { self.with_stage(Stage::Expired) }
    }

    /// A browser shows the redeem key.
    ///
    /// A wrong key is `claim_invalid` in every stage, as an unknown claim is, so that it tells nothing.
    ///
    /// # Errors
    /// `claim_invalid`, `claim_expired`, `claim_used` or `pairing_ended`.
    pub fn redeem(self, attempt: RedeemTry, now: UnixMillis) -> Result<Step, RedeemRefused> {
        let current = self.at(now);
        if !attempt.key_fits {
            return Err(current.wrong_try());
        }
        let refused = |code| Err(RedeemRefused { code, changed: None });
        match current.stage {
            Stage::Created => {
                Ok(Step::Changed(Self { stage: Stage::Redeemed, ends_at: now.plus(LOCAL_CONNECT_LIFETIME), ..current }))
            }
            Stage::Redeemed | Stage::Finalized | Stage::Confirmed if attempt.same_browser => Ok(Step::Repeated),
            Stage::Redeemed | Stage::Finalized | Stage::Confirmed | Stage::CodexReady => refused(ErrorCode::ClaimUsed),
            Stage::Expired => refused(ErrorCode::ClaimExpired),
            // Guessed away: the right key is told no more than a wrong one.
            Stage::Failed(ErrorCode::ClaimInvalid) => refused(ErrorCode::ClaimInvalid),
            Stage::Cancelled(_) | Stage::Failed(_) => refused(ErrorCode::PairingEnded),
        }
    }

    /// The browser gives the device's MAC.
    ///
    /// # Errors
    /// `claim_expired`, `pairing_ended`, or `conflict` out of order or with another MAC.
    pub fn finalize(self, same_mac: bool, now: UnixMillis) -> Result<Step, ErrorCode> {
        let current = self.at(now);
        match current.stage {
            Stage::Redeemed => Ok(Step::Changed(current.with_stage(Stage::Finalized))),
            Stage::Finalized | Stage::Confirmed | Stage::CodexReady if same_mac => Ok(Step::Repeated),
            Stage::Created | Stage::Finalized | Stage::Confirmed | Stage::CodexReady => Err(ErrorCode::Conflict),
            Stage::Expired | Stage::Cancelled(_) | Stage::Failed(_) => Err(current.ended()),
        }
    }

    /// The desk said yes and the connector gives the machine's MAC.
    ///
    /// # Errors
    /// `claim_expired`, `pairing_ended`, or `conflict` out of order or with another MAC.
    pub fn confirm(self, same_mac: bool, now: UnixMillis) -> Result<Step, ErrorCode> {
        let current = self.at(now);
        match current.stage {
            Stage::Finalized => Ok(Step::Changed(current.with_stage(Stage::Confirmed))),
            Stage::Confirmed | Stage::CodexReady if same_mac => Ok(Step::Repeated),
            Stage::Created | Stage::Redeemed | Stage::Confirmed | Stage::CodexReady => Err(ErrorCode::Conflict),
            Stage::Expired | Stage::Cancelled(_) | Stage::Failed(_) => Err(current.ended()),
        }
    }

    /// The connector reports that Codex answers.
    ///
    /// # Errors
    /// `claim_expired`, `pairing_ended`, or `conflict` before the desk's yes.
    pub fn codex_ready(self, now: UnixMillis) -> Result<Step, ErrorCode> {
        let current = self.at(now);
        match current.stage {
            Stage::Confirmed => Ok(Step::Changed(current.with_stage(Stage::CodexReady))),
            Stage::CodexReady => Ok(Step::Repeated),
            Stage::Created | Stage::Redeemed | Stage::Finalized => Err(ErrorCode::Conflict),
            Stage::Expired | Stage::Cancelled(_) | Stage::Failed(_) => Err(current.ended()),
        }
    }

    /// The browser or the desk ends it; `stage` is [`Stage::Cancelled`] or [`Stage::Failed`].
    ///
    /// # Errors
    /// `conflict` when it is done, or when the desk said yes and this is no failure; `pairing_ended` or
    /// `claim_expired` when it has ended otherwise.
    pub fn end(self, stage: Stage, now: UnixMillis) -> Result<Step, ErrorCode> {
        let current = self.at(now);
        match current.stage {
            same if same == stage => Ok(Step::Repeated),
            Stage::Created | Stage::Redeemed | Stage::Finalized => Ok(Step::Changed(current.with_stage(stage))),
            Stage::Confirmed if matches!(stage, Stage::Failed(_)) => Ok(Step::Changed(current.with_stage(stage))),
            Stage::Confirmed | Stage::CodexReady => Err(ErrorCode::Conflict),
            Stage::Expired | Stage::Cancelled(_) | Stage::Failed(_) => Err(current.ended()),
        }
    }

    const fn with_stage(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    fn wrong_try(self) -> RedeemRefused {
        let counts = matches!(self.stage, Stage::Created);
        let wrong_tries = self.wrong_tries + 1;
        let stage =
            if wrong_tries >= CLAIM_WRONG_TRIES_MAX { Stage::Failed(ErrorCode::ClaimInvalid) } else { self.stage };
        let changed = counts.then_some(Self { stage, wrong_tries, ..self });
        RedeemRefused { code: ErrorCode::ClaimInvalid, changed }
    }

    fn ended(self) -> ErrorCode {
        if self.stage == Stage::Expired { ErrorCode::ClaimExpired } else { ErrorCode::PairingEnded }
    }
}

#[cfg(test)]
mod tests;
