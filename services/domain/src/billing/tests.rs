use std::time::Duration;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn catalogue() -> Catalogue {
    let plan =
        |name: &str, machines, seats| Plan { name: name.to_owned(), entitlements: Entitlements { machines, seats } };
    let by_price = [("price_team".to_owned(), plan("team", 10, 5))].into();
    Catalogue { free: plan("free", 1, 1), by_price }
}

fn told(state: SubscriptionState, seconds: u64, order: u64) -> Subscription {
    let at = NOW.plus(Duration::from_secs(seconds));
    Subscription {
        subscription_id: "sub_1".to_owned(),
        price_id: "price_team".to_owned(),
        state,
        since: at,
        stamp: Stamp { at, order },
    }
}

#[test]
fn a_live_subscription_gives_its_plan_and_an_ended_one_what_is_free() {
    let standing = |state| catalogue().standing(Some(&told(state, 0, 0)), NOW).plan;
    assert_eq!(standing(SubscriptionState::Live), "team");
    assert_eq!(standing(SubscriptionState::Ended), "free");
    assert_eq!(catalogue().standing(None, NOW).plan, "free");
    let unlisted = Subscription { price_id: "price_gone".to_owned(), ..told(SubscriptionState::Live, 0, 0) };
    assert_eq!(catalogue().standing(Some(&unlisted), NOW).plan, "free");
}

#[test]
fn a_late_payment_changes_nothing_for_a_while_and_then_only_adding() {
    let late = told(SubscriptionState::PastDue, 0, 0);
    let until = NOW.plus(BILLING_GRACE);
    let within = catalogue().standing(Some(&late), UnixMillis(until.0 - 1));
    assert_eq!((within.plan.as_str(), within.grace_until, within.frozen), ("team", Some(until), false));
    assert_eq!(within.may_add(Resource::Machine, 9), Ok(()));
    let over = catalogue().standing(Some(&late), until);
    assert_eq!((over.plan.as_str(), over.frozen), ("team", true));
    for resource in [Resource::Machine, Resource::Seat] {
        assert_eq!(over.may_add(resource, 0).map_err(|refusal| refusal.code), Err(ErrorCode::PaymentDue));
    }
}

#[test]
fn over_the_limit_only_adding_is_refused_and_the_limit_is_named() {
    let free = catalogue().standing(None, NOW);
    assert_eq!(free.may_add(Resource::Machine, 0), Ok(()));
    for used in [1, 2, 10] {
        let refused = Refusal { code: ErrorCode::MachineLimit, limit: 1 };
        assert_eq!(free.may_add(Resource::Machine, used), Err(refused));
    }
    assert_eq!(free.may_add(Resource::Seat, 1), Err(Refusal { code: ErrorCode::SeatLimit, limit: 1 }));
}

/// The last state, whichever way the words came.
fn after_all(words: &[Subscription]) -> Option<Subscription> {
    words.iter().fold(None, |known, word| Subscription::after(known.as_ref(), word.clone()).or(known))
}

#[test]
fn words_of_the_provider_count_by_their_own_time_in_whatever_order_they_arrive() {
    let words = [
        told(SubscriptionState::Ended, 0, 0),
        told(SubscriptionState::Live, 1, 1),
        told(SubscriptionState::PastDue, 2, 1),
        told(SubscriptionState::Ended, 2, 2),
    ];
    let last = words[3].clone();
    for rotated in 0..words.len() {
        let mut shuffled = words.to_vec();
        shuffled.rotate_left(rotated);
        assert_eq!(after_all(&shuffled).map(|known| known.state), Some(last.state));
        shuffled.reverse();
        assert_eq!(after_all(&shuffled).map(|known| known.stamp), Some(last.stamp));
    }
}

#[test]
fn a_payment_that_stays_late_is_late_since_the_first_word_of_it() {
    let first = told(SubscriptionState::PastDue, 0, 1);
    let again = Subscription::after(Some(&first), told(SubscriptionState::PastDue, 1_000, 1)).expect("newer");
    assert_eq!(again.since, first.since);
}

#[test]
fn an_older_subscription_that_ends_does_not_end_the_one_that_took_its_place() {
    let second = |state, seconds| Subscription { subscription_id: "sub_2".to_owned(), ..told(state, seconds, 1) };
    let first = told(SubscriptionState::Live, 0, 0);
    let newer = Subscription::after(Some(&first), second(SubscriptionState::Live, 5)).expect("it takes over");
    assert_eq!(newer.subscription_id, "sub_2");
    assert_eq!(Subscription::after(Some(&newer), told(SubscriptionState::Ended, 9, 2)), None);
    assert_eq!(Subscription::after(Some(&first), second(SubscriptionState::Ended, 5)), None);
}

#[test]
fn the_providers_words_are_read_and_an_unknown_one_pays_for_nothing() {
    for (status, state) in [
        ("active", SubscriptionState::Live),
        ("trialing", SubscriptionState::Live),
        ("past_due", SubscriptionState::PastDue),
        ("unpaid", SubscriptionState::PastDue),
        ("canceled", SubscriptionState::Ended),
        ("incomplete", SubscriptionState::Ended),
        ("paused", SubscriptionState::Ended),
        ("whatever comes", SubscriptionState::Ended),
    ] {
        assert_eq!(SubscriptionState::of_provider(status), state);
        assert_eq!(SubscriptionState::from_name(state.name()), Some(state));
    }
}
