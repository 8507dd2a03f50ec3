use std::sync::Arc;
use std::time::Duration;

use flydex_domain::id::Incarnation;
use flydex_domain::token::TokenVerifier;
use flydex_runtime::clock::Clock;
use flydex_store::directory::{Directory, InProcessDirectory};
use tokio::time::Instant;

use super::*;
use crate::all::tests::{gateway, node_id};

#[tokio::test(start_paused = true)]
async fn a_drain_with_nothing_open_does_not_wait_for_the_joint_between_the_roles() {
    let shutdown = Shutdown::new();
    let directory: Arc<dyn Directory> = Arc::new(InProcessDirectory::default());
    let machines = flydex_machines::Service::new(
        flydex_machines::Config {
            node_id: node_id(),
            incarnation: Incarnation::from_bytes([1; 16]),
            address: "memory://all".to_owned(),
            region: "local".to_owned(),
        },
        Arc::clone(&directory),
        Arc::new(TokenVerifier::new([])),
        Clock::system(),
        shutdown.clone(),
    );
    let gateway = gateway(in_memory(machines.into_grpc(), &shutdown), directory, &shutdown);
    gateway.handle().ready().await;
    let began = Instant::now();
    assert!(shutdown.drain(Duration::from_secs(3600)).await);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
