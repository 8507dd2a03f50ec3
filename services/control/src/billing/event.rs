//! What is read of an event: its id, its time, and of two kinds of object the names and states that matter.

use flydex_domain::billing::{Stamp, Subscription, SubscriptionState};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::AccountId;
use flydex_domain::limits::BILLING_NAME_BYTES_MAX;
use flydex_domain::time::UnixMillis;
use serde::Deserialize;
use serde_json::Value;

/// One event. Fields that are not named here are not read.
pub(super) struct Event {
    pub(super) id: String,
    pub(super) news: News,
}

/// What an event says.
pub(super) enum News {
    /// Nothing that matters here.
    Nothing,
    /// An account paid for the first time: the customer is theirs.
    Bound { customer_id: String, account_id: AccountId },
    /// The state of a customer's subscription.
    Subscription { customer_id: String, subscription: Subscription },
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    /// Seconds.
    created: u64,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Value,
}

#[derive(Deserialize)]
struct Checkout {
    customer: Option<String>,
    client_reference_id: Option<String>,
}

#[derive(Deserialize)]
struct SubscriptionObject {
    id: String,
    customer: String,
    status: String,
    items: Items,
}

#[derive(Deserialize)]
struct Items {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    price: Price,
}

#[derive(Deserialize)]
struct Price {
    id: String,
}

impl Event {
    /// Reads an event whose signature holds.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ErrorCode> {
        let envelope: Envelope = serde_json::from_slice(body).map_err(|_| ErrorCode::BadRequest)?;
        let id = named(envelope.id)?;
        let at = UnixMillis(envelope.created.saturating_mul(1000));
        let news = match envelope.kind.as_str() {
            "checkout.session.completed" => bound(envelope.data.object)?,
            "customer.subscription.created" => subscription(envelope.data.object, Stamp { at, order: 0 })?,
            "customer.subscription.updated" | "customer.subscription.paused" | "customer.subscription.resumed" => {
                subscription(envelope.data.object, Stamp { at, order: 1 })?
            }
            "customer.subscription.deleted" => subscription(envelope.data.object, Stamp { at, order: 2 })?,
            _ => News::Nothing,
        };
        Ok(Self { id, news })
    }
}

fn bound(object: Value) -> Result<News, ErrorCode> {
    let Checkout { customer, client_reference_id } = read(object)?;
    let (Some(customer), Some(reference)) = (customer, client_reference_id) else { return Ok(News::Nothing) };
    // Somebody else's checkout at the same provider.
    let Ok(account_id) = reference.parse() else { return Ok(News::Nothing) };
    Ok(News::Bound { customer_id: named(customer)?, account_id })
}

fn subscription(object: Value, stamp: Stamp) -> Result<News, ErrorCode> {
    let SubscriptionObject { id, customer, status, items } = read(object)?;
    let price = items.data.into_iter().next().ok_or(ErrorCode::BadRequest)?.price;
    let ended = stamp.order == 2;
    let state = if ended { SubscriptionState::Ended } else { SubscriptionState::of_provider(&status) };
    let subscription =
        Subscription { subscription_id: named(id)?, price_id: named(price.id)?, state, since: stamp.at, stamp };
    Ok(News::Subscription { customer_id: named(customer)?, subscription })
}

fn read<T: for<'object> Deserialize<'object>>(object: Value) -> Result<T, ErrorCode> {
    serde_json::from_value(object).map_err(|_| ErrorCode::BadRequest)
}

/// A name that the provider gave, within its bounds.
fn named(name: String) -> Result<String, ErrorCode> {
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    let fits = !name.is_empty() && name.len() <= BILLING_NAME_BYTES_MAX;
    if plain && fits { Ok(name) } else { Err(ErrorCode::BadRequest) }
}
