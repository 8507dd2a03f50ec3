use std::time::Duration;

use flydex_domain::limits::TOKEN_KEYS_MAX;
use flydex_domain::secret::SecretKey;
use flydex_domain::token::schedule::{Change, ScheduledKey};

use super::*;
use crate::sql::KeptTokenKey;

const CHANGE: Change = Change { lead: Duration::from_secs(10), compromised: false };
const COMPROMISED: Change = Change { lead: Duration::ZERO, compromised: true };

fn key(number: usize, made_at: UnixMillis) -> KeptTokenKey {
    let key = ScheduledKey {
        key_id: format!("key {number}"),
        public: [7; 32],
        made_at,
        signs_from: made_at,
        verifies_until: None,
    };
    KeptTokenKey { key, seed: Some(SecretKey::new([9; 32])) }
}

#[tokio::test]
async fn a_key_ends_the_ones_before_it_and_never_prolongs_them() {
    let base = Base::open().await;
    let mut tx = base.sql.write().await.expect("a transaction");
    tx.keep_first_token_key(&key(1, NOW)).await.expect("kept");
    tx.keep_first_token_key(&key(9, NOW)).await.expect("one is there");
    tx.add_token_key(&key(2, LATER), COMPROMISED, LATER).await.expect("kept");
    tx.add_token_key(&key(3, LATER), CHANGE, LATER).await.expect("kept");
    let ends: Vec<_> = tx
        .token_keys()
        .await
        .expect("keys")
        .into_iter()
        .map(|kept| (kept.key.key_id, kept.key.verifies_until))
        .collect();
    let of = |number: usize, until| (format!("key {number}"), until);
    assert_eq!(ends, [of(1, Some(LATER)), of(2, Some(CHANGE.older_until(LATER))), of(3, None)]);
    assert_eq!(tx.forget_token_seeds(LATER).await.expect("forgotten"), 1);
    assert!(tx.token_keys().await.expect("keys")[0].seed.is_none());
}

#[tokio::test]
async fn the_oldest_key_makes_room_once_it_is_over_and_not_before() {
    let base = Base::open().await;
    let mut tx = base.sql.write().await.expect("a transaction");
    tx.keep_first_token_key(&key(0, NOW)).await.expect("kept");
    for number in 1..TOKEN_KEYS_MAX {
        tx.add_token_key(&key(number, NOW), CHANGE, NOW).await.expect("kept");
    }
    assert!(matches!(tx.add_token_key(&key(99, NOW), CHANGE, NOW).await, Err(StoreError::Full)));
    let over = CHANGE.older_until(NOW);
    tx.add_token_key(&key(99, over), CHANGE, over).await.expect("the oldest goes");
    assert_eq!(tx.token_keys().await.expect("keys").len(), TOKEN_KEYS_MAX);
}
