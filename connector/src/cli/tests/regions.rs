//! When the connector asks for the list of regions, and for a credential that names another pin.

use std::sync::Arc;
use std::time::Duration;

use flydex_domain::limits::{LINK_SERVED_AFTER, REGIONS_REFRESH_INTERVAL};
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::watch;

use super::Machine;
use crate::api::SecretText;
use crate::credential::Keyring;
use crate::pair::tests::relay::{Relay, Script};
use crate::paired::{RegionEndpoint, RegionReport, empty_desk};
use crate::record::PairedRecord;

/// Time for a request that is under way.
const PATIENCE: Duration = Duration::from_secs(10);
/// Less than what is left of the least pause between two requests when a link has served.
const SOON: Duration = Duration::from_secs(3);

/// A paired machine that was told of no region yet, and what it reports of its links.
struct Asking {
    machine: Machine,
    regions: watch::Receiver<Vec<RegionEndpoint>>,
    credential: watch::Receiver<SecretText>,
    report: watch::Sender<RegionReport>,
    shutdown: Shutdown,
    _relay: Relay,
}

impl Asking {
    async fn start() -> Self {
        let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
        machine.stop(machine.connect(&relay).await.0).await;
        let state = &machine.context.state;
        let record = PairedRecord { regions: Default::default(), ..PairedRecord::load(state).unwrap().unwrap() };
        let key = Arc::new(state.existing_machine_key().unwrap().unwrap());
        let origin = relay.origin().parse().unwrap();
        let keyring = Arc::new(Keyring::new(state.clone(), record, key, origin, machine.context.clock.clone()));
        let (regions, credential) = (keyring.regions(), keyring.credential());
        let (report, report_rx) = watch::channel(RegionReport::default());
        let (shutdown, entropy) = (Shutdown::new(), machine.context.entropy.clone());
        shutdown.spawn(keyring.keep_regions(relay.api(), empty_desk(), report_rx, entropy, shutdown.soft()));
        Self { machine, regions, credential, report, shutdown, _relay: relay }
    }

    fn says(&self, stuck: bool) {
        self.report.send_replace(RegionReport { stuck, ..RegionReport::default() });
    }

    async fn is_told_the_regions(&mut self) {
        let listed = tokio::time::timeout(PATIENCE, self.regions.wait_for(|regions| !regions.is_empty()));
        assert_eq!(listed.await.expect("a list").unwrap()[0].region, "local");
    }

    /// Whether another credential comes soon.
    async fn gets_a_credential(&mut self) -> bool {
        tokio::time::timeout(SOON, self.credential.changed()).await.is_ok()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

async fn pass(time: Duration) {
    tokio::task::yield_now().await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    tokio::task::yield_now().await;
}

#[tokio::test]
async fn regions_are_asked_for_now_and_then_and_with_a_new_credential_when_none_can_be_reached() {
    for stuck in [true, false] {
        let mut asking = Asking::start().await;
        let before = asking.credential.borrow().clone();
        if stuck {
            asking.says(true);
        } else {
            pass(REGIONS_REFRESH_INTERVAL * 3 / 2).await;
        }
        asking.is_told_the_regions().await;
        let kept = PairedRecord::load(&asking.machine.context.state).unwrap().unwrap();
        assert_eq!(kept.regions.regions.len(), 1);
        assert_eq!(*asking.credential.borrow() != before, stuck, "a pin that moved is in the next credential");
    }
}

#[tokio::test]
async fn a_pin_that_moves_again_is_asked_for_at_once_when_the_first_move_has_served() {
    let mut asking = Asking::start().await;
    asking.says(true);
    asking.is_told_the_regions().await;
    asking.credential.mark_unchanged();
    asking.says(false);
    pass(LINK_SERVED_AFTER + Duration::from_secs(1)).await;
    asking.says(true);
    assert!(asking.gets_a_credential().await, "it waits although its last request helped");
}
