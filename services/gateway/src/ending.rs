//! Why a connection ends, and the one place where that is decided first.

use std::sync::{Arc, OnceLock};

use flydex_domain::error::{ErrorCode, Retry};
use flydex_domain::limits::{MOVING_RETRY_AFTER_MAX, MOVING_RETRY_AFTER_MIN, RETRY_AFTER};
use tokio_util::sync::CancellationToken;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer left; there is nobody to tell.
    Gone,
    /// The peer is told why.
    Refused(Refusal),
}

/// What a peer is told when it is refused or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    /// 0: no advice.
    pub(crate) retry_after_ms: u32,
    /// To a link that is superseded: the counter on record; else 0.
    pub(crate) link_counter: u64,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        let retry_after_ms = match code.retry() {
            Retry::Later => u32::try_from(RETRY_AFTER.as_millis()).unwrap_or(u32::MAX),
            Retry::Never | Retry::Refreshed => 0,
        };
        Self { code, retry_after_ms, link_counter: 0 }
    }
}

impl Refusal {
    /// The machine is moving; the advice is drawn anew for everyone, so that not all come back at once.
    pub(crate) fn moving() -> Self {
        let (min, max) = (MOVING_RETRY_AFTER_MIN.as_millis(), MOVING_RETRY_AFTER_MAX.as_millis());
        let retry_after_ms = u32::try_from(rand::random_range(min..=max)).unwrap_or(u32::MAX);
        Self { code: ErrorCode::Moving, retry_after_ms, link_counter: 0 }
    }
}

impl From<ErrorCode> for End {
    fn from(code: ErrorCode) -> Self {
        Self::Refused(code.into())
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl End {
    /// The code in metrics and logs; a peer that left has none.
    pub(crate) fn code(self) -> Option<ErrorCode> {
        match self {
            Self::Gone => None,
            Self::Refused(refusal) => Some(refusal.code),
        }
    }
}

/// The end of one connection, begun by whoever comes first. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    begun: CancellationToken,
    end: OnceLock<End>,
}

impl Ending {
    /// Begins the end, unless it has begun for another reason.
    pub(crate) fn begin(&self, end: impl Into<End>) {
        let _ = self.inner.end.set(end.into());
        self.inner.begun.cancel();
    }

    /// Waits until the end has begun.
    pub(crate) async fn begun(&self) -> End {
        self.inner.begun.cancelled().await;
        self.inner.end.get().copied().unwrap_or(End::Gone)
    }
}
