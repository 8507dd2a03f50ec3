use flydex_domain::id::{IdentityId, PasskeyId};
use flydex_domain::limits::{USER_IDENTITIES_MAX, USER_PASSKEYS_MAX};
use flydex_domain::sign_in::RecoveryCode;

use super::*;

fn passkey(number: u8) -> Passkey {
    Passkey {
        passkey_id: PasskeyId::from_uuid(Uuid::from_u128(u128::from(number))),
        credential_id: vec![number; 32],
        public_key: "{}".to_owned(),
        label: "key".to_owned(),
        created_at: UnixMillis(NOW.0 + u64::from(number)),
        used_at: None,
    }
}

fn identity(number: u8, subject: &str) -> Identity {
    Identity {
        identity_id: IdentityId::from_uuid(Uuid::from_u128(u128::from(number))),
        issuer: "https://issuer.example".to_owned(),
        subject: subject.to_owned(),
        created_at: NOW,
        used_at: None,
    }
}

#[tokio::test]
async fn passkeys_belong_to_one_user_and_are_bounded() {
    let base = Base::open().await;
    let scope = scope(&base.owner);
    let mut tx = base.sql.write().await.expect("a transaction");
    for number in 0..u8::try_from(USER_PASSKEYS_MAX).expect("few") {
        tx.add_passkey(scope, base.owner.user_id, &passkey(number)).await.expect("added");
    }
    let full = tx.add_passkey(scope, base.owner.user_id, &passkey(200)).await;
    assert!(matches!(full, Err(StoreError::Full)));
    assert_eq!(tx.passkey_by_credential(&[3; 32], base.owner.user_id).await.expect("found"), passkey(3));
    let foreign = tx.passkey_by_credential(&[3; 32], base.stranger.user_id).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)));
    let removed = tx.remove_passkey(super::scope(&base.stranger), base.stranger.user_id, found_id(3)).await;
    assert!(matches!(removed, Err(StoreError::NotFound)));
    tx.use_passkey(found_id(3), "{\"counter\":2}", NOW).await.expect("used");
    let used = &tx.passkeys(scope, base.owner.user_id).await.expect("passkeys")[3];
    assert_eq!((used.public_key.as_str(), used.used_at), ("{\"counter\":2}", Some(NOW)));
}

fn found_id(number: u8) -> PasskeyId {
    passkey(number).passkey_id
}

#[tokio::test]
async fn no_two_users_share_a_passkey_or_an_identity() {
    let base = Base::open().await;
    let mut tx = base.sql.write().await.expect("a transaction");
    tx.add_passkey(scope(&base.owner), base.owner.user_id, &passkey(1)).await.expect("added");
    tx.link_identity(scope(&base.owner), base.owner.user_id, &identity(1, "subject")).await.expect("linked");
    tx.commit().await.expect("committed");
    let mut tx = base.sql.write().await.expect("a transaction");
    let same = Passkey { passkey_id: found_id(2), ..passkey(1) };
    let taken = tx.add_passkey(scope(&base.stranger), base.stranger.user_id, &same).await;
    assert!(matches!(taken, Err(StoreError::Conflict)));
    drop(tx);
    let mut tx = base.sql.write().await.expect("a transaction");
    let taken = tx.link_identity(scope(&base.stranger), base.stranger.user_id, &identity(2, "subject")).await;
    assert!(matches!(taken, Err(StoreError::Conflict)));
}

#[tokio::test]
async fn an_identity_is_found_by_issuer_and_subject_together() {
    let base = Base::open().await;
    let mut tx = base.sql.write().await.expect("a transaction");
    for number in 0..u8::try_from(USER_IDENTITIES_MAX).expect("few") {
        let linked = identity(number, &format!("subject-{number}"));
        tx.link_identity(scope(&base.owner), base.owner.user_id, &linked).await.expect("linked");
    }
    let full = tx.link_identity(scope(&base.owner), base.owner.user_id, &identity(99, "more")).await;
    assert!(matches!(full, Err(StoreError::Full)));
    let issuer = "https://issuer.example";
    assert_eq!(tx.use_identity(issuer, "subject-1", NOW).await.expect("found"), base.owner);
    for (issuer, subject) in [("https://other.example", "subject-1"), (issuer, "Subject-1"), (issuer, "subject")] {
        assert!(matches!(tx.use_identity(issuer, subject, NOW).await, Err(StoreError::NotFound)));
    }
    let identity_id = identity(1, "").identity_id;
    let foreign = tx.unlink_identity(scope(&base.stranger), base.stranger.user_id, identity_id).await;
    assert!(matches!(foreign, Err(StoreError::NotFound)));
    tx.unlink_identity(scope(&base.owner), base.owner.user_id, identity_id).await.expect("unlinked");
    assert!(matches!(tx.use_identity(issuer, "subject-1", NOW).await, Err(StoreError::NotFound)));
}

#[tokio::test]
async fn a_recovery_code_is_taken_once_and_by_the_whole_of_it() {
    let base = Base::open().await;
    let code = RecoveryCode::new([7; 15]);
    let mut guess = [7; 15];
    guess[14] = 8;
    let mut tx = base.sql.write().await.expect("a transaction");
    tx.replace_recovery_codes(scope(&base.owner), base.owner.user_id, std::slice::from_ref(&code), NOW)
        .await
        .expect("kept");
    assert!(matches!(tx.take_recovery_code(&RecoveryCode::new(guess)).await, Err(StoreError::NotFound)));
    assert_eq!(tx.recovery_codes_left(scope(&base.owner), base.owner.user_id).await.expect("a count"), 1);
    assert_eq!(tx.take_recovery_code(&code).await.expect("taken"), base.owner);
    assert!(matches!(tx.take_recovery_code(&code).await, Err(StoreError::NotFound)));
}

#[tokio::test]
async fn an_attempt_is_taken_once_in_time_and_for_what_it_is() {
    let base = Base::open().await;
    let end = UnixMillis(NOW.0 + 1_000);
    let attempt = |state: &str| Attempt { account_session_id: None, state: state.to_owned() };
    let mut tx = base.sql.write().await.expect("a transaction");
    for token in [[1; 32], [2; 32]] {
        tx.begin_attempt(&token, AttemptKind::Assertion, &attempt("state"), NOW, end).await.expect("begun");
    }
    let other = tx.take_attempt(&[1; 32], AttemptKind::PasskeySignIn, NOW).await;
    assert!(matches!(other, Err(StoreError::NotFound)));
    assert_eq!(tx.take_attempt(&[1; 32], AttemptKind::Assertion, NOW).await.expect("taken").state, "state");
    assert!(matches!(tx.take_attempt(&[1; 32], AttemptKind::Assertion, NOW).await, Err(StoreError::NotFound)));
    assert!(matches!(tx.take_attempt(&[2; 32], AttemptKind::Assertion, end).await, Err(StoreError::NotFound)));
    assert_eq!(tx.remove_expired_attempts(end).await.expect("removed"), 1);
}
