use std::time::Duration;

use flydex_domain::limits::LINK_COUNTER_LOST_AFTER;

use super::*;

/// A machine, and what is reported of it.
struct Reported {
    base: Base,
    machine_id: MachineId,
}

impl Reported {
    async fn new() -> Self {
        let base = Base::open().await;
        let machine = new_machine();
        let mut tx = base.sql.write().await.expect("a transaction");
        tx.pair_machine(scope(&base.owner), &machine, NOW).await.expect("paired");
        tx.commit().await.expect("committed");
        Self { base, machine_id: machine.machine_id }
    }

    /// Reports one link and says whether it moved the machine.
    async fn report(&self, region: &str, link_counter: u64, linked_at: UnixMillis) -> bool {
        let account_id = self.base.owner.account_id;
        self.report_as(account_id, region, link_counter, linked_at).await
    }

    async fn report_as(&self, account_id: AccountId, region: &str, link_counter: u64, linked_at: UnixMillis) -> bool {
        let report = LinkReport { account_id, machine_id: self.machine_id, link_counter, linked_at };
        let now = NOW.plus(Duration::from_secs(3_600));
        let mut tx = self.base.sql.write().await.expect("a transaction");
        let moved = tx.report_links(region, vec![report], now).await.expect("reported");
        tx.commit().await.expect("committed");
        moved == 1
    }

    async fn machine(&self) -> Machine {
        let mut tx = self.base.sql.read().await.expect("a transaction");
        tx.machine(scope(&self.base.owner), self.machine_id).await.expect("the machine")
    }

    async fn is_in(&self, region: &str) -> bool {
        self.machine().await.link_region.as_deref() == Some(region)
    }
}

#[tokio::test]
async fn a_machine_is_where_its_newest_link_is_whatever_order_the_reports_come_in() {
    let reported = Reported::new().await;
    assert_eq!(reported.machine().await.link_region, None);
    assert!(reported.report("eu", 5, NOW).await);
    assert!(!reported.report("eu", 6, LATER).await, "the region did not change, so nothing is written");
    assert!(reported.report("us", 7, LATER).await);
    assert!(!reported.report("eu", 6, LATER).await, "an old region's late word");
    assert!(reported.is_in("us").await);
    assert!(!reported.report("us", 9, LATER).await);
    assert!(!reported.report("eu", 7, LATER).await, "of two with one counter the first stands");
    assert!(reported.report("eu", 10, NOW).await, "the counter counts, not a node's clock");
    assert!(reported.is_in("eu").await);
}

#[tokio::test]
async fn a_connector_that_lost_its_counter_is_found_again() {
    let reported = Reported::new().await;
    assert!(reported.report("eu", 500, NOW).await);
    let soon = NOW.plus(LINK_COUNTER_LOST_AFTER);
    assert!(!reported.report("us", 1, soon).await);
    assert!(reported.report("us", 1, soon.plus(Duration::from_millis(1))).await);
    assert!(reported.is_in("us").await);
}

#[tokio::test]
async fn a_counter_or_a_clock_from_the_future_does_not_hold_a_machine_for_ever() {
    let reported = Reported::new().await;
    assert!(reported.report("eu", u64::MAX, UnixMillis(u64::MAX)).await);
    let mut tx = reported.base.sql.write().await.expect("a transaction");
    let now = NOW.plus(Duration::from_secs(2 * 3_600));
    let account_id = reported.base.owner.account_id;
    let report = LinkReport { account_id, machine_id: reported.machine_id, link_counter: 1, linked_at: now };
    assert_eq!(tx.report_links("us", vec![report], now).await.expect("reported"), 1);
}

#[tokio::test]
async fn a_report_moves_no_machine_of_another_account_and_none_that_was_revoked() {
    let reported = Reported::new().await;
    assert!(!reported.report_as(reported.base.stranger.account_id, "eu", 1, NOW).await);
    let mut tx = reported.base.sql.write().await.expect("a transaction");
    tx.revoke_machine(scope(&reported.base.owner), reported.machine_id, NOW).await.expect("revoked");
    tx.commit().await.expect("committed");
    assert!(!reported.report("eu", 1, NOW).await);
}

#[tokio::test]
async fn reports_of_two_regions_on_the_same_machines_do_not_wait_for_each_other() {
    let base = Base::open().await;
    let mut tx = base.sql.write().await.expect("a transaction");
    let mut reports = Vec::new();
    for number in 1..=40 {
        let machine = NewMachine {
            machine_id: MachineId::from_uuid(Uuid::from_u128(number)),
            key: key(u8::try_from(number).expect("a small number")),
            ..new_machine()
        };
        tx.pair_machine(scope(&base.owner), &machine, NOW).await.expect("paired");
        let (account_id, machine_id) = (base.owner.account_id, machine.machine_id);
        reports.push(LinkReport { account_id, machine_id, link_counter: 1, linked_at: NOW });
    }
    tx.commit().await.expect("committed");
    let report = async |region: &str, link_counter: u64, reports: Vec<LinkReport>| {
        let mut tx = base.sql.write().await.expect("a transaction");
        let newer = reports.into_iter().map(|report| LinkReport { link_counter, ..report }).collect();
        tx.report_links(region, newer, NOW).await.expect("reported");
        tx.commit().await.expect("committed");
    };
    let backwards = reports.iter().rev().copied().collect();
    tokio::join!(report("eu", 1, reports), report("us", 2, backwards));
    let machines = base.sql.read().await.expect("a transaction").machines(scope(&base.owner)).await.expect("a list");
    assert_eq!(machines.len(), 40);
    assert!(machines.iter().all(|machine| machine.link_region.as_deref() == Some("us")), "{machines:?}");
}

#[tokio::test]
async fn a_pin_is_set_and_cleared_in_its_account_only() {
    let reported = Reported::new().await;
    let (own, foreign) = (scope(&reported.base.owner), scope(&reported.base.stranger));
    let id = reported.machine_id;
    let mut tx = reported.base.sql.write().await.expect("a transaction");
    missing(tx.pin_machine(foreign, id, Some("eu")).await);
    tx.pin_machine(own, id, Some("eu")).await.expect("pinned");
    assert_eq!(tx.machine(own, id).await.expect("the machine").region_pin.as_deref(), Some("eu"));
    tx.pin_machine(own, id, None).await.expect("cleared");
    assert_eq!(tx.machine(own, id).await.expect("the machine").region_pin, None);
    tx.revoke_machine(own, id, NOW).await.expect("revoked");
    missing(tx.pin_machine(own, id, Some("eu")).await);
}
