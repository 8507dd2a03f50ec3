//! Rates per address for what may be asked without an account, and for guessing; rates per account for what costs
//! a signature or a durable write.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Instant;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::AccountId;
use flydex_domain::limits::{
    ACCOUNT_EXPORT_RATE_PER_MINUTE, ACCOUNT_INTENT_RATE_PER_MINUTE, ACCOUNT_TICKET_RATE_PER_MINUTE,
    ATTEMPT_RATE_PER_MINUTE, CLAIM_RATE_PER_MINUTE, LOCAL_CONNECT_RATE_PER_MINUTE, RATE_ACCOUNTS_MAX,
    RATE_ADDRESSES_MAX, RECOVERY_RATE_PER_MINUTE, RETRY_AFTER, SIGN_IN_RATE_PER_MINUTE,
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
    pub(crate) sign_in: Rate<Address>,
    pub(crate) attempts: Rate<Address>,
    pub(crate) recovery: Rate<Address>,
    pub(crate) claims: Rate<Address>,
    pub(crate) local_connect: Rate<Address>,
    pub(crate) tickets: Rate<AccountId>,
    pub(crate) intents: Rate<AccountId>,
    pub(crate) exports: Rate<AccountId>,
}

impl Rates {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            sign_in: Rate::per_minute(SIGN_IN_RATE_PER_MINUTE, RATE_ADDRESSES_MAX, clock),
            attempts: Rate::per_minute(ATTEMPT_RATE_PER_MINUTE, RATE_ADDRESSES_MAX, clock),
            recovery: Rate::per_minute(RECOVERY_RATE_PER_MINUTE, RATE_ADDRESSES_MAX, clock),
            claims: Rate::per_minute(CLAIM_RATE_PER_MINUTE, RATE_ADDRESSES_MAX, clock),
            local_connect: Rate::per_minute(LOCAL_CONNECT_RATE_PER_MINUTE, RATE_ADDRESSES_MAX, clock),
            tickets: Rate::per_minute(ACCOUNT_TICKET_RATE_PER_MINUTE, RATE_ACCOUNTS_MAX, clock),
            intents: Rate::per_minute(ACCOUNT_INTENT_RATE_PER_MINUTE, RATE_ACCOUNTS_MAX, clock),
            exports: Rate::per_minute(ACCOUNT_EXPORT_RATE_PER_MINUTE, RATE_ACCOUNTS_MAX, clock),
        }
    }
}

/// One rate, counted for each of a bounded number of callers.
pub(crate) struct Rate<Caller: Clone + Eq + Hash> {
    limiter: RateLimiter<Caller, HashMapStateStore<Caller>, Source, NoOpMiddleware<Instant>>,
    clock: Source,
    callers_max: usize,
}

impl<Caller: Clone + Eq + Hash> Rate<Caller> {
    fn per_minute(requests: u32, callers_max: usize, clock: &Clock) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(requests).unwrap_or(NonZeroU32::MIN));
        let clock = Source(clock.clone());
        let limiter = RateLimiter::new(quota, HashMapStateStore::default(), clock.clone());
        Self { limiter, clock, callers_max }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// `rate_limited` past the rate; `overloaded` when too many callers ask.
    pub(crate) fn check(&self, caller: Caller) -> Result<(), ApiError> {
        if self.limiter.len() >= self.callers_max {
            self.limiter.retain_recent();
            if self.limiter.len() >= self.callers_max {
                return Err(ApiError::later(ErrorCode::Overloaded, RETRY_AFTER));
            }
        }
        self.limiter
            .check_key(&caller)
            .map_err(|not_until| ApiError::later(ErrorCode::RateLimited, not_until.wait_time_from(self.clock.now())))
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
