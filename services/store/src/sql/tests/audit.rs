//! What somebody with the database in hand does to the audit, and that it is found.

use super::*;

/// The account that is tampered with: the owner's, whose ids are the lowest.
macro_rules! of_the_owner {
    ($statement:literal) => {
        concat!($statement, " account_id = (SELECT account_id FROM users ORDER BY user_id LIMIT 1)")
    };
}

/// Ends the owner's chain at record 2 as if nothing had come after.
const CUT: [&str; 2] = [
    of_the_owner!("DELETE FROM audit WHERE number > 2 AND"),
    of_the_owner!(
        "UPDATE accounts SET audit_number = 2, audit_hash = \
         (SELECT hash FROM audit WHERE audit.account_id = accounts.account_id AND number = 2) WHERE"
    ),
];

impl Base {
    async fn head(&self) -> ChainHead {
        let mut tx = self.sql.read().await.expect("a view");
        tx.audit_head(scope(&self.owner)).await.expect("a head")
    }

    /// The verdict on the owner's account with a head that the owner has kept.
    async fn verify_with(&self, kept: ChainHead) -> Result<u64, ChainError> {
        let mut tx = self.sql.read().await.expect("a view");
        let verdicts = tx.verify_every_audit(Some((self.owner.account_id, kept))).await.expect("the database answers");
        let (account_id, verdict) = verdicts.iter().find(|(id, _)| *id == self.owner.account_id).expect("a verdict");
        assert_eq!(*account_id, self.owner.account_id);
        assert!(verdicts.iter().all(|(id, verdict)| id == account_id || verdict.is_ok()));
        *verdict
    }
}

#[tokio::test]
async fn an_inserted_record_is_found_in_the_middle_and_at_the_end() {
    let base = Base::with_records(5).await;
    base.tamper(&[of_the_owner!(
        "INSERT INTO audit (account_id, number, audit_id, kind, at, deferred, previous_hash, hash) \
         SELECT account_id, 6, substr(hash, 1, 16), kind, at, deferred, hash, previous_hash \
         FROM audit WHERE number = 5 AND"
    )])
    .await;
    assert_eq!(base.verify().await, Err(ChainError::Altered { number: 6 }));
    base.drop_the_guard().await;
    base.tamper(&[
        of_the_owner!("UPDATE audit SET number = number + 100 WHERE number >= 3 AND"),
        of_the_owner!("UPDATE audit SET number = number - 99 WHERE number > 100 AND"),
        of_the_owner!("UPDATE audit SET number = 3 WHERE number = 7 AND"),
    ])
    .await;
    assert_eq!(base.verify().await, Err(ChainError::Altered { number: 3 }));
}

#[tokio::test]
async fn a_chain_that_was_cut_with_its_head_is_found_by_a_head_that_was_kept() {
    let base = Base::with_records(5).await;
    let kept = base.head().await;
    assert_eq!(base.verify_with(kept).await, Ok(5));
    base.tamper(&CUT).await;
    assert_eq!(base.verify().await, Ok(2), "nothing in the database shows it");
    assert_eq!(base.verify_with(kept).await, Err(ChainError::CutShort { found: 2, kept: 5 }));
}

#[tokio::test]
async fn a_chain_that_was_rewritten_with_new_hashes_is_found_by_a_head_that_was_kept() {
    let base = Base::with_records(5).await;
    let kept = base.head().await;
    base.tamper(&CUT).await;
    let mut tx = base.sql.write().await.expect("a transaction");
    for number in 13..=16 {
        tx.append_audit(scope(&base.owner), &entry(number)).await.expect("appended");
    }
    tx.commit().await.expect("committed");
    assert_eq!(base.verify().await, Ok(6), "nothing in the database shows it");
    assert_eq!(base.verify_with(kept).await, Err(ChainError::Rewritten { number: 5 }));
}

#[tokio::test]
async fn an_account_of_which_only_a_kept_head_is_left_is_found() {
    let base = Base::with_records(5).await;
    let kept = base.head().await;
    base.tamper(&[of_the_owner!("DELETE FROM accounts WHERE")]).await;
    assert_eq!(base.verify_with(kept).await, Err(ChainError::CutShort { found: 0, kept: 5 }));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_named_and_the_other_accounts_are_checked() {
    let base = Base::with_records(5).await;
    base.drop_the_guard().await;
    base.tamper(&[of_the_owner!("UPDATE audit SET kind = 'unheard_of' WHERE number = 4 AND")]).await;
    assert_eq!(base.verify().await, Err(ChainError::Unreadable { number: 4 }));
}

#[tokio::test]
async fn a_search_finds_what_fits_page_by_page_and_nothing_of_another_account() {
    let base = Base::open().await;
    let machine_id = MachineId::from_uuid(Uuid::from_u128(7));
    let mut tx = base.sql.write().await.expect("a transaction");
    for number in 1..=20_u128 {
        let is_third = number % 3 == 0;
        let entry = AuditEntry {
            kind: if is_third { AuditKind::MachineRenamed } else { AuditKind::SignedIn },
            at: UnixMillis(NOW.0 + u64::try_from(number).expect("few")),
            machine_id: is_third.then_some(machine_id),
            user_id: (number > 10).then_some(base.owner.user_id),
            device_id: (number == 12).then(|| DeviceId::from_bytes([1; 32])),
            ..entry(number)
        };
        tx.append_audit(scope(&base.owner), &entry).await.expect("appended");
        tx.append_audit(scope(&base.stranger), &entry).await.expect("appended");
    }
    let all = AuditSearch::default();
    let cases = [
        (all, (1..=20).rev().collect::<Vec<u64>>()),
        (AuditSearch { kind: Some(AuditKind::MachineRenamed), ..all }, vec![18, 15, 12, 9, 6, 3]),
        (AuditSearch { kind: Some(AuditKind::MachineRevoked), ..all }, vec![]),
        (AuditSearch { machine_id: Some(machine_id), user_id: Some(base.owner.user_id), ..all }, vec![18, 15, 12]),
        (AuditSearch { device_id: Some(DeviceId::from_bytes([1; 32])), ..all }, vec![12]),
        (AuditSearch { since: Some(UnixMillis(NOW.0 + 4)), until: Some(UnixMillis(NOW.0 + 7)), ..all }, vec![6, 5, 4]),
    ];
    for (search, expected) in cases {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = tx.search_audit(scope(&base.owner), &search, before, 4).await.expect("a page");
            assert!(page.records.len() <= 4);
            found.extend(page.records.iter().map(|record| record.number));
            before = page.next_before;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{search:?}");
    }
    assert!(tx.search_audit(scope(&base.owner), &all, Some(0), 4).await.expect("a page").records.is_empty());
}

#[tokio::test]
async fn looking_at_a_file_makes_none_and_changes_none() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("flydex.sqlite");
    assert!(Sql::look_at_sqlite(&path).await.is_err());
    assert!(!path.exists());
    drop(std::fs::File::create(&path).expect("a file"));
    let behind = Sql::look_at_sqlite(&path).await.err();
    assert!(matches!(behind, Some(StoreError::Schema(SchemaError::Behind { found: 0, .. }))), "{behind:?}");
    let sql = Sql::open_sqlite(&path).await.expect("the database opens");
    let looked = Sql::look_at_sqlite(&path).await.expect("beside the one who writes");
    assert!(looked.try_tamper("DELETE FROM audit").await.is_err());
    drop(sql);
}
