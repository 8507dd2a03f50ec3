use super::*;
use crate::limits::{
    CREDENTIAL_LIFETIME, GRANT_LIFETIME, REVOCATION_STALENESS_MAX, TOKEN_KEY_TOLD_BEFORE, TOKEN_SKEW_MAX,
};

const NOW: UnixMillis = UnixMillis(1_000_000_000_000);

fn key(name: &str, made_at: UnixMillis, signs_from: UnixMillis, verifies_until: Option<UnixMillis>) -> ScheduledKey {
    ScheduledKey { key_id: name.to_owned(), public: [1; 32], made_at, signs_from, verifies_until }
}

/// The first key, and one that follows it by the change.
fn changed(change: Change) -> [ScheduledKey; 2] {
    let first = key("first", UnixMillis(0), UnixMillis(0), Some(change.older_until(NOW)));
    [first, key("second", NOW, change.signs_from(NOW), None)]
}

#[test]
fn a_key_is_told_before_it_signs_and_taken_after_it_did() {
    let keys = changed(Change { lead: TOKEN_KEY_TOLD_BEFORE, compromised: false });
    let turn = NOW.plus(TOKEN_KEY_TOLD_BEFORE);
    let signs = |at| signing(&keys, at).map(|key| key.key_id.as_str());
    assert_eq!(signs(UnixMillis(turn.0 - 1)), Some("first"));
    assert_eq!(signs(turn), Some("second"));
    assert!(keys.iter().all(|key| key.verifies(NOW)), "both are told at once");
    let last_token_ends = turn.plus(GRANT_LIFETIME.max(CREDENTIAL_LIFETIME)).plus(TOKEN_SKEW_MAX);
    assert!(keys[0].verifies(UnixMillis(last_token_ends.0 - 1)));
    assert!(!keys[0].verifies(last_token_ends));
}

#[test]
fn who_may_still_let_somebody_in_knows_the_key_before_it_signs() {
    assert!(TOKEN_KEY_TOLD_BEFORE > CREDENTIAL_LIFETIME + TOKEN_SKEW_MAX, "connectors");
    assert!(TOKEN_KEY_TOLD_BEFORE > REVOCATION_STALENESS_MAX, "gateways and nodes");
}

#[test]
fn what_a_known_key_signed_is_not_taken_from_the_change_on() {
    let lead = Duration::from_secs(10);
    let keys = changed(Change { lead, compromised: true });
    assert!(keys[0].verifies(NOW) && !keys[0].verifies(NOW.plus(lead)));
    assert_eq!(signing(&keys, NOW).unwrap().key_id, "first");
    assert_eq!(signing(&keys, NOW.plus(lead)).unwrap().key_id, "second");
}

#[test]
fn another_key_is_due_when_the_newest_is_old_and_none_is_on_its_way() {
    assert!(is_due(&[], NOW));
    let made_at = NOW.minus(TOKEN_KEY_ROTATED_AFTER);
    let old = key("old", made_at, made_at, None);
    assert!(is_due(std::slice::from_ref(&old), NOW));
    assert!(!is_due(std::slice::from_ref(&old), UnixMillis(NOW.0 - 1)));
    let next = key("next", NOW, NOW.plus(TOKEN_KEY_TOLD_BEFORE), None);
    assert!(!is_due(&[ScheduledKey { verifies_until: Some(NOW.plus(TOKEN_KEY_OVERLAP)), ..old }, next], NOW));
}
