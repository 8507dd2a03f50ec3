use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// The regions with these handshakes in milliseconds, measured once.
fn measured(handshakes: &[(&str, u64)], now: Instant) -> Regions {
    let mut regions = Regions::default();
    regions.list(handshakes.iter().map(|(name, _)| *name), now);
    for (name, ms) in handshakes {
        regions.measured(name, Duration::from_millis(*ms), now);
    }
    regions
}

/// Measures a region so often that only this counts.
fn measure_anew(regions: &mut Regions, name: &str, ms: u64, now: Instant) {
    for _ in 0..REGION_SAMPLES_MAX {
        regions.measured(name, Duration::from_millis(ms), now);
    }
}

#[expect(clippy::disallowed_methods, reason = "a monotonic instant cannot be made from nothing")]
fn start() -> Instant {
    Instant::now()
}

fn choice<'a>(link: &'a str, second: &'a str) -> Choice<'a> {
    Choice { link: Some(link), second: Some(second) }
}

#[test]
fn the_nearest_is_linked_and_the_next_one_kept_warm() {
    let now = start();
    assert_eq!(measured(&[("us", 84), ("ap", 200), ("eu", 12)], now).choose(now), choice("eu", "us"));
    let mut regions = Regions::default();
    regions.list(["us", "eu"], now);
    assert_eq!(regions.choose(now), choice("us", "eu"), "what is not measured is taken as listed");
    regions.measured("eu", Duration::from_secs(1), now);
    assert_eq!(regions.choose(now), choice("eu", "us"), "what answers goes before what did not yet");
    regions.list([], now);
    assert_eq!(regions.choose(now), Choice { link: None, second: None });
}

#[test]
fn a_machine_moves_for_a_gain_of_ten_milliseconds_and_a_third() {
    for (here, there, moves) in [
        (30, 20, true),
        (30, 21, false),
        (29, 19, true),
        (12, 2, true),
        (12, 3, false),
        (200, 134, false),
        (200, 133, true),
    ] {
        let mut now = start();
        let mut regions = measured(&[("here", 5), ("there", 500)], now);
        regions.linked("here", now);
        measure_anew(&mut regions, "here", here, now);
        measure_anew(&mut regions, "there", there, now);
        assert_eq!(regions.choose(now).link, Some("here"), "not so soon after the last move");
        now += REGION_STAY_MIN;
        assert_eq!(regions.choose(now).link == Some("there"), moves, "{here} ms here, {there} ms there");
    }
}

#[test]
fn a_region_that_drains_is_left_at_once() {
    let now = start();
    let mut regions = measured(&[("eu", 12), ("us", 84)], now);
    regions.linked("eu", now);
    regions.told_to_go("eu", "", now);
    assert_eq!(regions.choose(now), choice("eu", "us"), "one gateway goes, the region stays");
    regions.told_to_go("eu", DRAIN_HINT, now);
    assert_eq!(regions.choose(now), Choice { link: Some("us"), second: None });
    regions.linked("us", now);
    let later = now + REGION_DRAIN_HOLD;
    assert_eq!(regions.choose(later).link, Some("eu"), "it is the nearest again");
}

#[test]
fn gateways_that_go_one_after_the_other_are_a_region_that_drains() {
    let mut now = start();
    let mut regions = measured(&[("eu", 12), ("us", 84)], now);
    regions.linked("eu", now);
    for _ in 0..REGION_GO_AWAYS_MAX {
        regions.told_to_go("eu", "", now);
        assert_eq!(regions.choose(now).link, Some("eu"));
    }
    now += REGION_GO_AWAY_WINDOW;
    for _ in 0..REGION_GO_AWAYS_MAX {
        regions.told_to_go("eu", "", now);
        assert_eq!(regions.choose(now).link, Some("eu"), "those of before count no more");
    }
    regions.told_to_go("eu", "", now);
    assert_eq!(regions.choose(now).link, Some("us"));
}

#[test]
fn a_region_that_fails_is_held_off_longer_each_time() {
    let mut now = start();
    let mut regions = measured(&[("eu", 12), ("us", 84)], now);
    let mut hold = REGION_HOLD_MIN;
    for _ in 0..10 {
        regions.failed("eu", 0, now);
        regions.linked("us", now);
        assert_eq!(regions.choose(now + hold - Duration::from_millis(1)).second, None, "{hold:?}");
        now += hold;
        assert_eq!(regions.choose(now), choice("us", "eu"), "nobody returns to what is not measured");
        regions.measured("eu", Duration::from_millis(12), now);
        regions.measured("us", Duration::from_millis(84), now);
        assert_eq!(regions.choose(now + REGION_STAY_MIN).link, Some("eu"));
        hold = (hold * 2).min(REGION_HOLD_MAX);
    }
    regions.linked("eu", now);
    regions.lost("eu", Lost::Served, 0, now);
    regions.failed("eu", 0, now);
    regions.linked("us", now);
    assert_eq!(regions.choose(now + REGION_HOLD_MIN).second, Some("eu"), "one that has served begins anew");
}

#[test]
fn a_region_whose_links_no_owner_takes_is_left_and_one_that_loses_a_link_is_not() {
    let now = start();
    let mut regions = measured(&[("eu", 12), ("us", 84)], now);
    for lost in [Lost::Served, Lost::Young] {
        regions.linked("eu", now);
        regions.lost("eu", lost, 0, now);
        assert_eq!(regions.choose(now), choice("eu", "us"), "{lost:?}");
    }
    regions.linked("eu", now);
    regions.lost("eu", Lost::NeverOwned, 0, now);
    assert_eq!(regions.choose(now), Choice { link: Some("us"), second: None });
}

#[test]
fn where_all_are_in_trouble_the_trouble_is_on_this_side() {
    let now = start();
    let mut regions = measured(&[("us", 84), ("eu", 12)], now);
    regions.linked("eu", now);
    regions.lost("eu", Lost::Served, 0, now);
    regions.failed("eu", 0, now);
    regions.failed("us", 0, now);
    assert_eq!(regions.choose(now), choice("eu", "us"), "where the machine was, and both are tried");
    regions.told_to_go("eu", DRAIN_HINT, now);
    assert_eq!(regions.choose(now), choice("us", "eu"));
    regions.linked("eu", now);
    assert_eq!(regions.choose(now).link, Some("eu"), "a link that serves is not left for one that fails");
}

#[test]
fn a_pinned_machine_knows_its_region_only() {
    let now = start();
    let mut regions = measured(&[("us", 84), ("eu", 12)], now);
    regions.linked("eu", now);
    regions.pin(Some("us".to_owned()));
    assert_eq!(regions.choose(now), Choice { link: Some("us"), second: None });
    assert_eq!(regions.next_probe(), None);
    regions.pin(Some("ap".to_owned()));
    assert_eq!(regions.choose(now), Choice { link: None, second: None });
}

#[test]
fn one_region_is_never_probed_and_several_now_and_then() {
    let now = start();
    let mut regions = Regions::default();
    regions.list(["eu"], now);
    assert_eq!(regions.next_probe(), None);
    regions.list(["eu", "us", "ap"], now);
    assert_eq!(regions.probes_due(now).count(), 3);
    for (name, ms) in [("eu", 12), ("us", 84), ("ap", 200)] {
        regions.probed(name, Some(Duration::from_millis(ms)), 128, now);
    }
    assert_eq!(regions.next_probe(), Some(("eu", now + REGION_PROBE_INTERVAL)));
    let due = |regions: &Regions, at| regions.probes_due(at).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(due(&regions, now + REGION_PROBE_INTERVAL), ["eu", "us"]);
    assert_eq!(due(&regions, now + REGION_SURVEY_INTERVAL), ["eu", "us", "ap"]);
    regions.linked("eu", now);
    regions.lost("eu", Lost::Served, 255, now);
    assert_eq!(due(&regions, now + REGION_RESURVEY_WITHIN), ["eu", "us", "ap"], "the computer may have travelled");
}

#[test]
fn a_probe_that_fails_says_nothing_against_the_link_that_serves() {
    let now = start();
    let mut regions = measured(&[("eu", 12), ("us", 84)], now);
    regions.linked("eu", now);
    regions.probed("eu", None, 0, now);
    regions.probed("us", None, 0, now);
    assert_eq!(regions.choose(now), Choice { link: Some("eu"), second: None });
    assert_eq!(regions.handshake("us", now), None);
}

#[test]
fn what_was_outrun_is_measured_before_anybody_returns() {
    let now = start();
    let mut regions = measured(&[("eu", 12), ("us", 84)], now);
    regions.outrun("eu", now);
    regions.linked("us", now);
    let later = now + REGION_STAY_MIN;
    assert_eq!(regions.choose(later), choice("us", "eu"));
    regions.probed("eu", Some(Duration::from_millis(12)), 0, later);
    assert_eq!(regions.choose(later), choice("eu", "us"));
}

#[test]
fn a_handshake_of_long_ago_says_nothing() {
    let now = start();
    let mut regions = measured(&[("us", 84), ("eu", 12)], now);
    regions.linked("us", now);
    assert_eq!(regions.choose(now + REGION_STAY_MIN).link, Some("eu"));
    assert_eq!(regions.choose(now + REGION_SAMPLE_KEPT).link, Some("us"));
}

#[test]
fn a_list_that_is_too_long_or_names_one_twice_is_cut() {
    let now = start();
    let mut regions = Regions::default();
    regions.list(["eu", "eu"], now);
    assert_eq!(regions.choices(), 1);
    let many: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    regions.list(many.iter().map(String::as_str), now);
    assert_eq!(regions.choices(), REGIONS_MAX);
}

#[test]
fn the_waits_after_a_loss_leave_time_within_fifteen_seconds() {
    use crate::limits::{
        PEER_SILENCE_MAX, QUIC_FALLBACK_AFTER, RECONNECT_WAIT_MIN, REGION_HEAD_START, REGION_WELCOME_WAIT,
    };
    let bound = Duration::from_secs(15);
    let noticed = PEER_SILENCE_MAX + RECONNECT_WAIT_MIN;
    let for_dial_and_attach = Duration::from_secs(1);
    let silent = noticed + REGION_HEAD_START + QUIC_FALLBACK_AFTER + for_dial_and_attach;
    let mute = noticed + REGION_WELCOME_WAIT + for_dial_and_attach;
    assert!(silent <= bound, "nothing answers, and the second region has UDP blocked: {silent:?}");
    assert!(mute <= bound, "the lost region takes a link and never welcomes it: {mute:?}");
}

/// Something that happens to a connector, to the region of that number.
#[derive(Clone, Debug)]
enum Happening {
    List(Vec<u8>),
    Pin(Option<u8>),
    Probed(u8, Option<u64>),
    Failed(u8),
    Outrun(u8),
    Linked,
    Lost(Lost),
    ToldToGo(bool),
    Passes(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let lost = prop_oneof![Just(Lost::Served), Just(Lost::Young), Just(Lost::NeverOwned)];
    prop_oneof![
        proptest::collection::vec(0_u8..5, 0..5).prop_map(Happening::List),
        proptest::option::weighted(0.3, 0_u8..5).prop_map(Happening::Pin),
        (0_u8..5, proptest::option::weighted(0.8, 1_u64..400)).prop_map(|(name, ms)| Happening::Probed(name, ms)),
        (0_u8..5).prop_map(Happening::Failed),
        (0_u8..5).prop_map(Happening::Outrun),
        Just(Happening::Linked),
        lost.prop_map(Happening::Lost),
        any::<bool>().prop_map(Happening::ToldToGo),
        (0_u64..4_000).prop_map(Happening::Passes),
    ]
}

/// Lets it happen as the connector would: links are opened only where the rule says.
fn happen(regions: &mut Regions, happening: &Happening, now: &mut Instant) {
    let name = |number: &u8| format!("r{number}");
    match happening {
        Happening::List(numbers) => {
            let names: Vec<_> = numbers.iter().map(name).collect();
            regions.list(names.iter().map(String::as_str), *now);
        }
        Happening::Pin(pin) => regions.pin(pin.as_ref().map(name)),
        Happening::Probed(number, ms) => {
            regions.probed(&name(number), ms.map(Duration::from_millis), number.wrapping_mul(50), *now);
        }
        Happening::Failed(number) => regions.failed(&name(number), 0, *now),
        Happening::Outrun(number) => regions.outrun(&name(number), *now),
        Happening::Linked => {
            if let Some(link) = regions.choose(*now).link.map(str::to_owned) {
                regions.linked(&link, *now);
            }
        }
        Happening::Lost(lost) => {
            if let Some(present) = regions.present().map(str::to_owned) {
                regions.lost(&present, *lost, 0, *now);
            }
        }
        Happening::ToldToGo(region) => {
            if let Some(present) = regions.present().map(str::to_owned) {
                regions.told_to_go(&present, if *region { DRAIN_HINT } else { "" }, *now);
            }
        }
        Happening::Passes(seconds) => *now += Duration::from_secs(*seconds),
    }
}

proptest! {
    #[test]
    fn there_is_always_a_region_that_may_be_used_and_never_another(
        happenings in proptest::collection::vec(happening(), 1..60),
    ) {
        let (mut regions, mut now) = (Regions::default(), start());
        for happening in &happenings {
            happen(&mut regions, happening, &mut now);
            let Choice { link, second } = regions.choose(now);
            prop_assert_eq!(link.is_some(), regions.choices() > 0);
            prop_assert!(link.is_none() || link != second);
            let in_trouble = |name: &str| regions.region(name).unwrap().in_trouble(now);
            for name in link.iter().chain(&second) {
                prop_assert!(regions.permits(name), "the pin holds");
                prop_assert!(regions.listed.iter().any(|region| region.name == *name));
                prop_assert!(!in_trouble(name) || regions.permitted().all(|region| region.in_trouble(now)));
            }
            if regions.pinned().is_some() {
                prop_assert_eq!(second, None);
                prop_assert_eq!(regions.next_probe(), None);
            }
        }
    }

    #[test]
    fn no_jitter_makes_a_machine_swing(
        bases in proptest::collection::vec(1_u64..400, 2..6),
        jitters in proptest::collection::vec(100_u64..122, 6..300),
    ) {
        let names: Vec<_> = (0..bases.len()).map(|number| format!("r{number}")).collect();
        let (mut regions, mut now) = (Regions::default(), start());
        regions.list(names.iter().map(String::as_str), now);
        let mut moves = 0;
        for jitters in jitters.chunks(bases.len()) {
            for ((name, base), jitter) in names.iter().zip(&bases).zip(jitters) {
                regions.measured(name, Duration::from_micros(base * jitter * 10), now);
            }
            let link = regions.choose(now).link.unwrap().to_owned();
            moves += usize::from(regions.present().is_some_and(|present| present != link));
            regions.linked(&link, now);
            now += 5 * MINUTE;
        }
        prop_assert!(moves < bases.len(), "{moves} moves among {} regions", bases.len());
    }
}
