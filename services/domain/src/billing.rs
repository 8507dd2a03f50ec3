//! What an account may add: plans, entitlements, and what a subscription's state means for them.
//!
//! **Nothing is ever taken away for want of payment.** Over its limits an account keeps every machine and member, reads
//! and works on; only adding is refused, with a code that names the limit. A payment that is late changes nothing for
//! [`BILLING_GRACE`]; then nothing can be added until it is made. A subscription that ended leaves what is free. A
//! server without billing has no limits.

use std::collections::BTreeMap;

use crate::error::ErrorCode;
use crate::limits::BILLING_GRACE;
use crate::time::UnixMillis;

/// How much of each an account may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entitlements {
    /// Paired computers.
    pub machines: u64,
    /// Members and open invitations.
    pub seats: u64,
}

/// What is sold under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name, for people.
    pub name: String,
    /// What it allows.
    pub entitlements: Entitlements,
}

/// Everything that the operator sells, and what is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// Without a subscription.
    pub free: Plan,
    /// By the provider's name of the price.
    pub by_price: BTreeMap<String, Plan>,
}

/// The state of a subscription, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubscriptionState {
    /// Paid, or on trial.
    Live,
    /// A payment is late.
    PastDue,
    /// Over, or never begun.
    Ended,
}

impl SubscriptionState {
    /// The name as it is stored.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::PastDue => "past_due",
            Self::Ended => "ended",
        }
    }

    /// The state of that stored name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Live, Self::PastDue, Self::Ended].into_iter().find(|state| state.name() == name)
    }

    /// What the provider's word for a subscription means; one that is not known pays for nothing.
    #[must_use]
    pub fn of_provider(status: &str) -> Self {
        match status {
            "active" | "trialing" => Self::Live,
            "past_due" | "unpaid" => Self::PastDue,
            _ => Self::Ended,
        }
    }
}

/// How new the provider's word is: its time, and what orders words of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// When the provider said it.
    pub at: UnixMillis,
    /// The end of a subscription is later than a change of it, and that later than its beginning.
    pub order: u64,
}

/// A subscription as the provider last told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The provider's name of it.
    pub subscription_id: String,
    /// The provider's name of what was bought.
    pub price_id: String,
    /// Its state.
    pub state: SubscriptionState,
    /// Since when.
    pub since: UnixMillis,
    /// How new this is.
    pub stamp: Stamp,
}

impl Subscription {
    /// What is known after another word of the provider, in whatever order words arrive. None: it changes nothing.
    #[must_use]
    pub fn after(known: Option<&Self>, told: Self) -> Option<Self> {
        let Some(known) = known else { return Some(told) };
        if known.subscription_id != told.subscription_id {
            // A second subscription takes the place of the first when it is alive and newer, or the first is over.
            let alive = told.state != SubscriptionState::Ended;
            let takes_over = alive && (known.state == SubscriptionState::Ended || told.stamp > known.stamp);
            return takes_over.then_some(told);
        }
        if told.stamp < known.stamp {
            return None;
        }
        let since = if told.state == known.state { known.since } else { told.since };
        Some(Self { since, ..told })
    }
}

/// What can be added to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A computer.
    Machine,
    /// A member or an invitation.
    Seat,
}

/// How an account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The plan's name.
    pub plan: String,
    /// What it allows.
    pub entitlements: Entitlements,
    /// When a payment is late: until when that changes nothing.
    pub grace_until: Option<UnixMillis>,
    /// Whether nothing can be added, whatever is free: the grace is over.
    pub frozen: bool,
}

/// Why something cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which limit.
    pub code: ErrorCode,
    /// How many the plan allows.
    pub limit: u64,
}

impl Catalogue {
    /// How an account with that subscription stands.
    #[must_use]
    pub fn standing(&self, subscription: Option<&Subscription>, now: UnixMillis) -> Standing {
        // A price that is not on the list any more is not known to be worth anything.
        let bought =
            subscription.and_then(|subscription| Some((subscription, self.by_price.get(&subscription.price_id)?)));
        let (plan, grace_until) = match bought {
            None => (&self.free, None),
            Some((subscription, plan)) => match subscription.state {
                SubscriptionState::Live => (plan, None),
                SubscriptionState::PastDue => (plan, Some(subscription.since.plus(BILLING_GRACE))),
                SubscriptionState::Ended => (&self.free, None),
            },
        };
        let frozen = grace_until.is_some_and(|until| until <= now);
        Standing { plan: plan.name.clone(), entitlements: plan.entitlements, grace_until, frozen }
    }
}

impl Standing {
    /// Whether one more of a resource may be added to those in use.
    ///
    /// # Errors
    /// The limit that stands against it.
    pub fn may_add(&self, resource: Resource, used: u64) -> Result<(), Refusal> {
        let (limit, code) = match resource {
            Resource::Machine => (self.entitlements.machines, ErrorCode::MachineLimit),
            Resource::Seat => (self.entitlements.seats, ErrorCode::SeatLimit),
        };
        if self.frozen {
            return Err(Refusal { code: ErrorCode::PaymentDue, limit });
        }
        if used >= limit { Err(Refusal { code, limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
