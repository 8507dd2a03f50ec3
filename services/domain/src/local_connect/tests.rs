use proptest::prelude::*;

use super::*;

const RIGHT: RedeemTry = RedeemTry { key_fits: true, same_browser: false };
const AGAIN: RedeemTry = RedeemTry { key_fits: true, same_browser: true };
const WRONG: RedeemTry = RedeemTry { key_fits: false, same_browser: false };

fn changed(step: Result<Step, impl std::fmt::Debug>) -> Lifecycle {
    match step.expect("the step is allowed here") {
        Step::Changed(lifecycle) => lifecycle,
        Step::Repeated => panic!("the step changes something here"),
    }
}

fn refused(step: Result<Step, RedeemRefused>) -> ErrorCode {
    step.expect_err("the redeem is refused here").code
}

#[test]
fn a_pairing_goes_from_claim_to_codex_ready() {
    let now = UnixMillis(1_000);
    let redeemed = changed(Lifecycle::begin(now).redeem(RIGHT, now));
    assert_eq!(redeemed.stage.status(), LocalConnectStatus::AwaitingBrowserFinalize);
    let finalized = changed(redeemed.finalize(false, now));
    let confirmed = changed(finalized.confirm(false, now));
    let ready = changed(confirmed.codex_ready(now));
    assert_eq!(ready.stage.status(), LocalConnectStatus::CodexReady);
    assert_eq!(ready.at(now.plus(LOCAL_CONNECT_LIFETIME * 9)).stage, Stage::CodexReady);
}

#[test]
fn a_claim_is_redeemed_once_and_only_the_same_browser_may_ask_again() {
    let now = UnixMillis(1_000);
    let redeemed = changed(Lifecycle::begin(now).redeem(RIGHT, now));
    assert_eq!(refused(redeemed.redeem(RIGHT, now)), ErrorCode::ClaimUsed);
    assert_eq!(redeemed.redeem(AGAIN, now), Ok(Step::Repeated));
}

#[test]
fn the_claim_expires_at_its_end_and_the_desk_has_its_own_time() {
    let now = UnixMillis(1_000);
    let created = Lifecycle::begin(now);
    let end = now.plus(CLAIM_LIFETIME);
    assert_eq!(created.at(UnixMillis(end.0 - 1)).stage, Stage::Created);
    assert_eq!(created.at(end).stage, Stage::Expired);
    assert_eq!(refused(created.redeem(RIGHT, end)), ErrorCode::ClaimExpired);
    assert_eq!(refused(created.redeem(WRONG, end)), ErrorCode::ClaimInvalid);
    let redeemed = changed(created.redeem(RIGHT, UnixMillis(end.0 - 1)));
    assert_eq!(redeemed.at(end.plus(CLAIM_LIFETIME)).stage, Stage::Redeemed);
    assert_eq!(redeemed.finalize(false, end.plus(LOCAL_CONNECT_LIFETIME)), Err(ErrorCode::ClaimExpired));
}

#[test]
fn five_wrong_tries_end_a_claim_for_the_right_key_too() {
    let now = UnixMillis(1_000);
    let mut lifecycle = Lifecycle::begin(now);
    for _ in 0..CLAIM_WRONG_TRIES_MAX {
        assert_eq!(lifecycle.stage, Stage::Created);
        let refusal = lifecycle.redeem(WRONG, now).expect_err("a wrong key is refused");
        assert_eq!(refusal.code, ErrorCode::ClaimInvalid);
        lifecycle = refusal.changed.expect("a wrong try counts");
    }
    assert_eq!(lifecycle.stage.status(), LocalConnectStatus::Failed);
    assert_eq!(refused(lifecycle.redeem(RIGHT, now)), ErrorCode::ClaimInvalid);
}

#[test]
fn a_wrong_try_after_the_redeem_ends_nothing() {
    let now = UnixMillis(1_000);
    let redeemed = changed(Lifecycle::begin(now).redeem(RIGHT, now));
    assert_eq!(redeemed.redeem(WRONG, now).expect_err("a wrong key is refused").changed, None);
}

#[test]
fn the_desk_may_refuse_until_it_has_said_yes() {
    let now = UnixMillis(1_000);
    let no = Stage::Cancelled(Some(ErrorCode::PairingRefused));
    let finalized = changed(changed(Lifecycle::begin(now).redeem(RIGHT, now)).finalize(false, now));
    let ended = changed(finalized.end(no, now));
    assert_eq!(ended.end(no, now), Ok(Step::Repeated));
    assert_eq!(ended.confirm(false, now), Err(ErrorCode::PairingEnded));
    let confirmed = changed(finalized.confirm(false, now));
    assert_eq!(confirmed.end(no, now), Err(ErrorCode::Conflict));
    let failed = Stage::Failed(ErrorCode::CodexNotFound);
    assert_eq!(changed(confirmed.end(failed, now)).stage, failed);
}

#[test]
fn stages_survive_their_names() {
    let stages = [
        Stage::Created,
        Stage::Redeemed,
        Stage::Finalized,
        Stage::Confirmed,
        Stage::CodexReady,
        Stage::Expired,
        Stage::Cancelled(None),
        Stage::Cancelled(Some(ErrorCode::PairingRefused)),
        Stage::Failed(ErrorCode::CodexNotFound),
    ];
    for stage in stages {
        assert_eq!(Stage::from_name(stage.name(), stage.code()), Some(stage));
    }
    assert_eq!(Stage::from_name("failed", None), None);
    assert_eq!(Stage::from_name("unheard_of", None), None);
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Redeem(RedeemTry),
    Finalize(bool),
    Confirm(bool),
    Ready,
    End(Stage),
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (any::<bool>(), any::<bool>())
            .prop_map(|(key_fits, same_browser)| Act::Redeem(RedeemTry { key_fits, same_browser })),
        any::<bool>().prop_map(Act::Finalize),
        any::<bool>().prop_map(Act::Confirm),
        Just(Act::Ready),
        Just(Act::End(Stage::Cancelled(None))),
        Just(Act::End(Stage::Failed(ErrorCode::CodexNotFound))),
        (0_u64..400_000).prop_map(Act::Wait),
    ];
    proptest::collection::vec(act, 1..40)
}

fn take(lifecycle: Lifecycle, act: Act, now: UnixMillis) -> Option<Lifecycle> {
    let step = match act {
        Act::Redeem(attempt) => match lifecycle.redeem(attempt, now) {
            Ok(step) => Ok(step),
            Err(refusal) => return refusal.changed,
        },
        Act::Finalize(same_mac) => lifecycle.finalize(same_mac, now),
        Act::Confirm(same_mac) => lifecycle.confirm(same_mac, now),
        Act::Ready => lifecycle.codex_ready(now),
        Act::End(stage) => lifecycle.end(stage, now),
        Act::Wait(_) => return None,
    };
    match step {
        Ok(Step::Changed(lifecycle)) => Some(lifecycle),
        Ok(Step::Repeated) | Err(_) => None,
    }
}

fn rank(stage: Stage) -> u8 {
    match stage {
        Stage::Created => 0,
        Stage::Redeemed => 1,
        Stage::Finalized => 2,
        Stage::Confirmed => 3,
        Stage::CodexReady | Stage::Expired | Stage::Cancelled(_) | Stage::Failed(_) => 4,
    }
}

proptest! {
    #[test]
    fn no_sequence_goes_back_leaves_an_end_or_redeems_twice(acts in acts()) {
        let mut now = UnixMillis(1_000);
        let mut lifecycle = Lifecycle::begin(now);
        let mut redeemed = 0;
        let mut seen = vec![lifecycle.stage];
        for act in acts {
            if let Act::Wait(millis) = act {
                now = UnixMillis(now.0 + millis);
            }
            let before = lifecycle.at(now);
            let Some(after) = take(lifecycle, act, now) else { continue };
            prop_assert!(!before.stage.status().is_final(), "an end is the end");
            prop_assert!(rank(after.stage) >= rank(before.stage), "stages go forward");
            prop_assert!(after.claim_expires_at == before.claim_expires_at, "the terms do not move");
            prop_assert!(after.wrong_tries <= CLAIM_WRONG_TRIES_MAX);
            redeemed += u32::from(after.stage == Stage::Redeemed);
            seen.push(after.stage);
            lifecycle = after;
        }
        prop_assert!(redeemed <= 1);
        if seen.contains(&Stage::CodexReady) {
            for needed in [Stage::Redeemed, Stage::Finalized, Stage::Confirmed] {
                prop_assert!(seen.contains(&needed));
            }
        }
    }
}
