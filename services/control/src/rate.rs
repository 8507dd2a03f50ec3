//! Rates per address for what may be asked without an account, and for guessing.

use std::num::NonZeroU32;
use std::time::Instant;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    CLAIM_RATE_PER_MINUTE, LOCAL_CONNECT_RATE_PER_MINUTE, RATE_ADDRESSES_MAX, SIGN_IN_RATE_PER_MINUTE,
};
use flydex_runtime::clock::Clock;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::error::ApiError;
use crate::extract::Address;

/// The rates of the API.
pub(crate) struct Rates {
    pub(crate) sign_in: Rate,
    pub(crate) claims: Rate,
    pub(crate) local_connect: Rate,
}

impl Rates {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            sign_in: Rate::per_minute(SIGN_IN_RATE_PER_MINUTE, clock),
            claims: Rate::per_minute(CLAIM_RATE_PER_MINUTE, clock),
            local_connect: Rate::per_minute(LOCAL_CONNECT_RATE_PER_MINUTE, clock),
        }
    }
}

/// One rate, counted per address.
pub(crate) struct Rate {
    limiter: RateLimiter<Address, HashMapStateStore<Address>, Source, NoOpMiddleware<Instant>>,
    clock: Source,
}

impl Rate {
    fn per_minute(requests: u32, clock: &Clock) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(requests).unwrap_or(NonZeroU32::MIN));
        let clock = Source(clock.clone());
        Self { limiter: RateLimiter::new(quota, HashMapStateStore::default(), clock.clone()), clock }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// `rate_limited` past the rate; `overloaded` when too many addresses ask.
    pub(crate) fn check(&self, address: Address) -> Result<(), ApiError> {
        if self.limiter.len() >= RATE_ADDRESSES_MAX {
            self.limiter.retain_recent();
            if self.limiter.len() >= RATE_ADDRESSES_MAX {
                return Err(ErrorCode::Overloaded.into());
            }
        }
        self.limiter
            .check_key(&address)
            .map_err(|not_until| ApiError::rate_limited(not_until.wait_time_from(self.clock.now())))
    }
}

/// The process's clock, as the limiter reads it.
#[derive(Clone)]
struct Source(Clock);

impl GovernorClock for Source {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.instant()
    }
}
