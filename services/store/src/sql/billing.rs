//! What the payment provider told: whose customer is which account, and the state of their subscription.
//!
//! Events change it, one at a time over the whole server; an account sees its own alone.

use flydex_domain::billing::{Stamp, Subscription, SubscriptionState};
use flydex_domain::id::AccountId;
use flydex_domain::scope::AccountScope;
use flydex_domain::time::UnixMillis;

use super::query::{Row, query};
use super::row::{Columns, integer, millis};
use super::turn::Turn;
use super::{StoreError, Tx};

impl Tx {
    /// Notes an event of the provider; false when it was taken before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_billing_event(&mut self, event_id: &str, now: UnixMillis) -> Result<bool, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let kept = query("INSERT INTO billing_events (event_id, at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(event_id)
            .bind(millis(now))
            .execute(self)
            .await?;
        Ok(kept.rows_affected() > 0)
    }

    /// Notes that a customer is an account's. The first word on either holds: no customer is ever moved to another
    /// account, and no account to another customer. False when that stands against it, or there is no such account.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn bind_customer(&mut self, customer_id: &str, account_id: AccountId) -> Result<bool, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let taken = query(
            "SELECT 1 FROM billing_customers WHERE (account_id = $1 AND customer_id <> $2) \
             OR (customer_id = $2 AND account_id IS NOT NULL AND account_id <> $1) \
             UNION SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE account_id = $1)",
        )
        .bind(account_id.as_bytes().as_slice())
        .bind(customer_id)
        .fetch_optional(self)
        .await?;
        if taken.is_some() {
            return Ok(false);
        }
        query(
            "INSERT INTO billing_customers (customer_id, account_id, since, stamp_at, stamp_order) \
             VALUES ($1, $2, 0, 0, 0) ON CONFLICT (customer_id) DO UPDATE SET account_id = excluded.account_id",
        )
        .bind(customer_id)
        .bind(account_id.as_bytes().as_slice())
        .execute(self)
        .await?;
        Ok(true)
    }

    /// Takes the provider's word on a customer's subscription, if it is news. For the provider's events only.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn told_of_subscription(&mut self, customer_id: &str, told: Subscription) -> Result<bool, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let row = query(
            "SELECT subscription_id, price_id, state, since, stamp_at, stamp_order FROM billing_customers \
             WHERE customer_id = $1",
        )
        .bind(customer_id)
        .fetch_optional(self)
        .await?;
        let known = row.as_ref().map(subscription_of).transpose()?.flatten();
        let Some(news) = Subscription::after(known.as_ref(), told) else { return Ok(false) };
        query(
            "INSERT INTO billing_customers (customer_id, subscription_id, price_id, state, since, stamp_at, \
             stamp_order) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (customer_id) DO UPDATE SET \
             subscription_id = excluded.subscription_id, price_id = excluded.price_id, state = excluded.state, \
             since = excluded.since, stamp_at = excluded.stamp_at, stamp_order = excluded.stamp_order",
        )
        .bind(customer_id)
        .bind(&news.subscription_id)
        .bind(&news.price_id)
        .bind(news.state.name())
        .bind(millis(news.since))
        .bind(millis(news.stamp.at))
        .bind(integer(news.stamp.order))
        .execute(self)
        .await?;
        Ok(true)
    }

    /// The account's subscription, if it ever had one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn subscription(&mut self, scope: AccountScope) -> Result<Option<Subscription>, StoreError> {
        self.take_turn(scope).await?;
        let row = query(
            "SELECT subscription_id, price_id, state, since, stamp_at, stamp_order FROM billing_customers \
             WHERE account_id = $1",
        )
        .bind(scope.account_id().as_bytes().as_slice())
        .fetch_optional(self)
        .await?;
        Ok(row.as_ref().map(subscription_of).transpose()?.flatten())
    }

    /// How many computers the account has.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn machine_count(&mut self, scope: AccountScope) -> Result<u64, StoreError> {
        self.take_turn(scope).await?;
        let row = query("SELECT COUNT(*) AS machines FROM machines WHERE account_id = $1 AND revoked_at IS NULL")
            .bind(scope.account_id().as_bytes().as_slice())
            .fetch_one(self)
            .await?;
        Columns(&row).number("machines")
    }

    /// Forgets the events that were taken before a time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_billing_events(&mut self, before: UnixMillis) -> Result<u64, StoreError> {
        self.take_turn_of(Turn::Server).await?;
        let removed = query("DELETE FROM billing_events WHERE at < $1").bind(millis(before)).execute(self).await?;
        Ok(removed.rows_affected())
    }
}

/// None: there is a customer, and the provider has told of no subscription yet.
fn subscription_of(row: &Row) -> Result<Option<Subscription>, StoreError> {
    let columns = Columns(row);
    let Some(subscription_id) = columns.optional_text("subscription_id")? else { return Ok(None) };
    Ok(Some(Subscription {
        subscription_id,
        price_id: columns.text("price_id")?,
        state: columns.named("state", SubscriptionState::from_name)?,
        since: columns.time("since")?,
        stamp: Stamp { at: columns.time("stamp_at")?, order: columns.number("stamp_order")? },
    }))
}
