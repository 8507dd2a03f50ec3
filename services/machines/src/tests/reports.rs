//! What control hears of the links of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flydex_domain::scope::Role;
use flydex_proto::v1;
use tokio::sync::mpsc;

use super::fixture::*;
use crate::report::{Take, run};

/// Reports that may wait for a test to look at them.
const REPORTS: usize = 64;

/// A control plane that tells what it was told.
struct Control {
    here: Arc<AtomicBool>,
    told: mpsc::Sender<v1::ReportLinksRequest>,
}

impl Take for Control {
    async fn take(&mut self, report: v1::ReportLinksRequest) -> bool {
        self.told.send(report).await.is_ok() && self.here.load(Ordering::Acquire)
    }
}

struct Told {
    here: Arc<AtomicBool>,
    reports: mpsc::Receiver<v1::ReportLinksRequest>,
}

impl Told {
    fn by(node: &Node) -> Self {
        let here = Arc::new(AtomicBool::new(true));
        let (told, reports) = mpsc::channel(REPORTS);
        tokio::spawn(run(Arc::clone(&node.handle.host), Control { here: Arc::clone(&here), told }));
        Self { here, reports }
    }

    async fn next(&mut self) -> v1::ReportLinksRequest {
        self.reports.recv().await.expect("a report")
    }
}

fn link(node: &Node, link_counter: u64) -> v1::LinkReport {
    v1::LinkReport {
        account_id: copy(account_id(ACCOUNT).as_bytes()),
        machine_id: copy(machine_id(MACHINE).as_bytes()),
        at_ms: node.now().0,
        link_counter,
    }
}

#[tokio::test]
async fn control_hears_of_what_was_linked_before_and_of_each_new_link() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Viewer).await;
    gateway.linked(&node, 1, 4, 1).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    let first = link(&node, 4);
    let mut told = Told::by(&node);
    let report = told.next().await;
    assert!(report.region == "home" && report.links == [first.clone()]);
    node.clock.advance(std::time::Duration::from_secs(5));
    gateway.linked(&node, 2, 5, 1).await;
    let report = told.next().await;
    assert!(report.links == [link(&node, 5)]);
    assert_ne!(report.links[0].at_ms, first.at_ms, "the time is that of the link");
}

#[tokio::test]
async fn while_control_is_away_machines_link_and_afterwards_it_hears_of_all_of_them() {
    let node = Node::start().await;
    let mut gateway = node.gateway().await;
    gateway.opened(&node, 1, 1, Role::Viewer).await;
    let mut told = Told::by(&node);
    told.here.store(false, Ordering::Release);
    gateway.linked(&node, 1, 1, 1).await;
    gateway.state(1, v1::MachineState::CodexReady).await;
    for _ in 0..2 {
        assert!(told.next().await.links == [link(&node, 1)], "it is told again until it listens");
    }
    told.here.store(true, Ordering::Release);
    while told.reports.try_recv().is_ok() {}
    assert!(told.next().await.links == [link(&node, 1)]);
    gateway.linked(&node, 2, 2, 1).await;
    loop {
        if told.next().await.links == [link(&node, 2)] {
            return;
        }
    }
}
