//! Scripts' answers as domain values. An answer of another shape is one of another format.

use std::time::Duration;

use flydex_domain::epoch::Epoch;
use flydex_domain::id::{Incarnation, NodeId};
use flydex_domain::placement::{Acquisition, LinkPlacement, LinkRecord, Member, NodeRecord, OwnerRecord, Reassertion};
use redis::{FromRedisValue, Value, from_redis_value};
use uuid::Uuid;

use super::super::{Acquired, DirectoryError, Life, Members, Renewal};

type Reply<T> = Result<T, DirectoryError>;

pub(super) fn hex(incarnation: Incarnation) -> String {
    Uuid::from_bytes(*incarnation.as_bytes()).simple().to_string()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn record_text(record: &NodeRecord) -> Reply<String> {
    serde_json::to_string(record).map_err(|_| DirectoryError::Format)
}

pub(super) fn renewal(value: Value) -> Reply<Renewal> {
    let (life, continuous): (String, bool) = read(value)?;
    Ok(Renewal { life: life_of(&life)?, continuous })
}

pub(super) fn members(value: Value) -> Reply<Members> {
    let (life, flat): (Option<String>, Vec<Value>) = read(value)?;
    // Before the first node has come there is no life, and nobody.
    let life = life.map_or(Ok(Life([0; 16])), |life| life_of(&life))?;
    let mut members = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(record), Some(silent_ms)) = (flat.next(), flat.next()) {
        let record: String = read(record)?;
        let record: NodeRecord = serde_json::from_str(&record).map_err(|_| DirectoryError::Format)?;
        // A clock that goes back makes a lease look younger than it is, for once.
        let silent_ms: i64 = read(silent_ms)?;
        members.push(Member { record, silent_for: Duration::from_millis(u64::try_from(silent_ms).unwrap_or(0)) });
    }
    members.sort_by_key(|member| member.record.incarnation);
    Ok(Members { life, members })
}

pub(super) fn found(fields: &[Option<String>], format: &str) -> Reply<Option<OwnerRecord>> {
    let [v, holder, counter, incarnation, link_counter, link_gateway] = fields else {
        return Err(DirectoryError::Format);
    };
    let Some(v) = v else { return Ok(None) };
    if v != format {
        return Err(DirectoryError::Format);
    }
    owner(holder, counter, incarnation, link_counter.as_ref(), link_gateway.as_ref()).map(Some)
}

pub(super) fn acquired(value: Value) -> Reply<Acquired> {
    let answer = words(value)?;
    match answer.iter().map(|word| word.as_deref().unwrap_or_default()).collect::<Vec<_>>().as_slice() {
        ["owned", counter, incarnation] => Ok(Acquired::Decided(Acquisition::Owned(epoch(counter, incarnation)?))),
        ["held", ..] => Ok(Acquired::Decided(Acquisition::Held(owner_of(&answer[1..])?))),
        ["settling", ms] => Ok(Acquired::Settling(Duration::from_millis(number(ms)?))),
        _ => Err(DirectoryError::Format),
    }
}

pub(super) fn reassertion(value: Value) -> Reply<Reassertion> {
    let answer = words(value)?;
    match answer.first().and_then(Option::as_deref) {
        Some("kept") => Ok(Reassertion::Kept),
        Some("lost") => Ok(Reassertion::Lost(owner_of(&answer[1..])?)),
        Some(_) | None => Err(DirectoryError::Format),
    }
}

pub(super) fn link_placement(value: Value) -> Reply<LinkPlacement> {
    let answer = words(value)?;
    match answer.iter().map(|word| word.as_deref().unwrap_or_default()).collect::<Vec<_>>().as_slice() {
        ["newest"] => Ok(LinkPlacement::Newest),
        ["superseded", counter] => Ok(LinkPlacement::Superseded { counter: number(counter)? }),
        ["absurd"] => Ok(LinkPlacement::Absurd),
        ["not_held"] => Ok(LinkPlacement::NotHeld),
        _ => Err(DirectoryError::Format),
    }
}

/// A script's array ends at its first nil, so absent link fields may be cut off.
fn owner_of(fields: &[Option<String>]) -> Reply<OwnerRecord> {
    let [holder, counter, incarnation, link @ ..] = fields else { return Err(DirectoryError::Format) };
    owner(holder, counter, incarnation, link.first().and_then(Option::as_ref), link.get(1).and_then(Option::as_ref))
}

fn owner(
    holder: &Option<String>,
    counter: &Option<String>,
    incarnation: &Option<String>,
    link_counter: Option<&String>,
    link_gateway: Option<&String>,
) -> Reply<OwnerRecord> {
    let (Some(holder), Some(counter), Some(incarnation)) = (holder, counter, incarnation) else {
        return Err(DirectoryError::Format);
    };
    let holder = if holder.is_empty() { None } else { Some(incarnation_of(holder)?) };
    let link = match (link_counter, link_gateway) {
        (Some(counter), Some(gateway)) => {
            let gateway_id = NodeId::try_from(gateway.clone()).map_err(|_| DirectoryError::Format)?;
            Some(LinkRecord { counter: number(counter)?, gateway_id })
        }
        _ => None,
    };
    Ok(OwnerRecord { holder, epoch: epoch(counter, incarnation)?, link })
}

fn epoch(counter: &str, incarnation: &str) -> Reply<Epoch> {
    Ok(Epoch { counter: number(counter)?, incarnation: incarnation_of(incarnation)? })
}

fn incarnation_of(text: &str) -> Reply<Incarnation> {
    Uuid::try_parse(text).map(|uuid| Incarnation::from_bytes(*uuid.as_bytes())).map_err(|_| DirectoryError::Format)
}

fn life_of(text: &str) -> Reply<Life> {
    Uuid::try_parse(text).map(|uuid| Life(*uuid.as_bytes())).map_err(|_| DirectoryError::Format)
}

fn number(text: &str) -> Reply<u64> {
    text.parse().map_err(|_| DirectoryError::Format)
}

fn words(value: Value) -> Reply<Vec<Option<String>>> {
    read(value)
}

fn read<T: FromRedisValue>(value: Value) -> Reply<T> {
    from_redis_value(value).map_err(|_| DirectoryError::Format)
}
