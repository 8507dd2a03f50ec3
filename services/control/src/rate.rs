//! Rates per address for what may be asked without an account, and for guessing; rates per account and
//! machine for what costs a signature or a durable write.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::limits::{
    ACCOUNT_EXPORT_RATE_PER_MINUTE, ACCOUNT_INTENT_RATE_PER_MINUTE, ACCOUNT_TICKET_RATE_PER_MINUTE,
    ATTEMPT_RATE_PER_MINUTE, CLAIM_RATE_PER_MINUTE, LOCAL_CONNECT_RATE_PER_MINUTE, MACHINE_RATE_PER_MINUTE,
    RATE_ACCOUNTS_MAX, RATE_ADDRESSES_MAX, RATE_CROWD_PLACES, RATE_MACHINES_MAX, RATE_SITE_FACTOR, RATE_SWEEP_INTERVAL,
    RECOVERY_RATE_PER_MINUTE, SIGN_IN_RATE_PER_MINUTE,
};
use flydex_runtime::clock::Clock;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{NotUntil, Quota, RateLimiter};

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
    /// What a machine signs: renewals and audit uploads, each a durable write.
    pub(crate) machines: Rate<MachineId>,
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
            machines: Rate::per_minute(MACHINE_RATE_PER_MINUTE, RATE_MACHINES_MAX, clock),
        }
    }
}

/// One rate, counted for each of a bounded number of callers.
///
/// A flood of callers takes nothing from others. A network that has many addresses has a rate of its own, so that it
/// cannot fill the table alone; once the table is full all the same, callers share one of many places in the crowd, and
/// are neither forgotten nor refused for being new.
pub(crate) struct Rate<Caller: Clone + Eq + Hash> {
    limiter: Limiter<Caller>,
    /// Of whole networks.
    wide: Limiter<Caller>,
    /// Of callers for whom there is no room, by chance of a key that nobody outside knows.
    crowd: Limiter<u64>,
    crowding: RandomState,
    clock: Source,
    callers_max: usize,
    swept_at: Mutex<Option<Instant>>,
}

type Limiter<Caller> = RateLimiter<Caller, HashMapStateStore<Caller>, Source, NoOpMiddleware<Instant>>;

/// A caller that may be one of many of the same hand.
pub(crate) trait Wider: Sized {
    /// The whole that it is part of, where that is in one hand.
    fn wider(&self) -> Option<Self>;
}

impl Wider for Address {
    fn wider(&self) -> Option<Self> {
        self.site()
    }
}

impl Wider for AccountId {
    fn wider(&self) -> Option<Self> {
        None
    }
}

impl Wider for MachineId {
    fn wider(&self) -> Option<Self> {
        None
    }
}

impl<Caller: Clone + Eq + Hash + Wider> Rate<Caller> {
    fn per_minute(requests: u32, callers_max: usize, clock: &Clock) -> Self {
        let clock = Source(clock.clone());
        Self {
            limiter: limiter(requests, &clock),
            wide: limiter(requests.saturating_mul(RATE_SITE_FACTOR), &clock),
            crowd: limiter(requests, &clock),
            crowding: RandomState::new(),
            clock,
            callers_max,
            swept_at: Mutex::default(),
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// `rate_limited` past the rate.
    pub(crate) fn check(&self, caller: Caller) -> Result<(), ApiError> {
        if let Some(wider) = caller.wider() {
            if self.has_room(&self.wide) {
                self.count(self.wide.check_key(&wider))?;
            } else {
                self.count(self.crowd.check_key(&self.place_in_crowd(&wider)))?;
            }
        }
        if self.has_room(&self.limiter) {
            self.count(self.limiter.check_key(&caller))
        } else {
            self.count(self.crowd.check_key(&self.place_in_crowd(&caller)))
        }
    }

    fn count(&self, counted: Result<(), NotUntil<Instant>>) -> Result<(), ApiError> {
        counted.map_err(|not_until| ApiError::later(ErrorCode::RateLimited, not_until.wait_time_from(self.clock.now())))
    }

    fn place_in_crowd(&self, caller: &Caller) -> u64 {
        self.crowding.hash_one(caller) % RATE_CROWD_PLACES
    }

    /// Whether a table has room. Those whose rate is whole again are forgotten, but not more than once in a while: that
    /// looks at all of them.
    fn has_room(&self, table: &Limiter<Caller>) -> bool {
        if table.len() < self.callers_max {
            return true;
        }
        let now = self.clock.now();
        let mut swept_at = self.swept_at.lock().unwrap_or_else(PoisonError::into_inner);
        if swept_at.is_none_or(|at| now.saturating_duration_since(at) >= RATE_SWEEP_INTERVAL) {
            *swept_at = Some(now);
            self.limiter.retain_recent();
            self.wide.retain_recent();
        }
        table.len() < self.callers_max
    }
}

fn limiter<Caller: Clone + Eq + Hash>(requests: u32, clock: &Source) -> Limiter<Caller> {
    let quota = Quota::per_minute(NonZeroU32::new(requests).unwrap_or(NonZeroU32::MIN));
    RateLimiter::new(quota, HashMapStateStore::default(), clock.clone())
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(site: u16, network: u16) -> Address {
        let address: IpAddr = format!("2001:db8:{site:x}:{network:x}::").parse().unwrap();
        Address(address)
    }

    #[test]
    fn a_site_with_many_networks_has_a_rate_of_its_own() {
        let rate = Rate::per_minute(5, 1_000, &Clock::manual(0));
        let passed = (0..1_000).filter(|network| rate.check(address(1, *network)).is_ok()).count();
        assert_eq!(passed, 5 * RATE_SITE_FACTOR as usize);
        assert!(rate.check(address(2, 0)).is_ok(), "another site is as it was");
    }

    #[test]
    fn a_flood_of_callers_refuses_no_newcomer_and_forgets_nobody_who_is_limited() {
        const CALLERS_MAX: usize = 64;
        let clock = Clock::manual(0);
        let rate = Rate::per_minute(5, CALLERS_MAX, &clock);
        let guesser = address(0xffff, 1);
        while rate.check(guesser).is_ok() {}
        for site in 0..1_000 {
            let _ = rate.check(address(site, 0));
        }
        assert!(rate.limiter.len() <= CALLERS_MAX && rate.wide.len() <= CALLERS_MAX);
        let newcomers = (0..100).filter(|network| rate.check(address(0xeeee, *network)).is_ok()).count();
        assert!(newcomers > 0, "a newcomer is let in");
        clock.advance(std::time::Duration::from_secs(61));
        assert!(rate.check(guesser).is_ok());
        assert!(rate.limiter.len() < CALLERS_MAX, "those whose rate is whole again are forgotten");
    }
}
