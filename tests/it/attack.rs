//! The attack suite on a cluster, in a bounded form: one region and one process of each role, and the attacks whose
//! frames pass between processes. `cargo xtask attack` runs them all, on more.

use std::sync::Arc;

use flydex_tests::attack::all;
use flydex_tests::attack::relay::Ground;
use flydex_tests::cluster::{Cluster, RegionSettings, Settings};

/// Those that a single process cannot answer for: what is checked at the gateway, at the owner and at the machine.
const BOUNDED: [&str; 3] = ["forged commands", "replayed frames", "stolen tickets"];

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_processes_stops_what_one_process_stops() -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    let regions = vec![RegionSettings { name: "one", gateways: 1, nodes: 1 }];
    let cluster = Cluster::start(Settings { regions, controls: 1, ..Settings::default() }).await?;
    let ground = Ground::Cluster(Arc::new(cluster));
    let mut done = Vec::new();
    for attack in all().into_iter().filter(|attack| BOUNDED.contains(&attack.name)) {
        let tried = attack.on(ground.clone()).await.map_err(|error| error.context(attack.name))?;
        assert!(tried > 0, "{}", attack.name);
        done.push(attack.name);
    }
    assert_eq!(done.len(), BOUNDED.len(), "{done:?}");
    Ok(())
}

#[test]
fn each_attack_has_a_name_of_its_own_and_says_what_it_tries_and_what_stops_it() {
    let attacks = all();
    for (number, attack) in attacks.iter().enumerate() {
        assert!(!attack.tries.is_empty() && !attack.stopped_by.is_empty(), "{}", attack.name);
        assert!(attacks[number + 1..].iter().all(|other| other.name != attack.name), "{}", attack.name);
    }
}
