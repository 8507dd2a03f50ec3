//! What is recorded, on a Redis that works.

use flydex_domain::epoch::Epoch;
use flydex_domain::id::NodeId;
use flydex_domain::placement::LinkRecord;
use flydex_store::directory::redis::Endpoint;
use flydex_store::directory::{Acquire, Cause, Directory, DirectoryError, Holding, InProcessDirectory, conformance};
use flydex_tests::redis::Redis;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::connect;

#[tokio::test]
async fn a_directory_in_redis_conforms() -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    conformance::check(&connected.directory).await;
    Ok(())
}

/// One request, by small numbers that stand for nodes and machines.
#[derive(Clone, Copy, Debug)]
enum Request {
    Acquire { machine: usize, asker: usize, floor: (u64, usize), replacing: Option<usize> },
    Reassert { machine: usize, epoch: (u64, usize), link: Option<u64> },
    Release { machine: usize, holder: usize },
    SetLink { machine: usize, holder: usize, counter: u64 },
    Leave { node: usize },
    Find { machine: usize },
}

#[tokio::test]
async fn redis_and_memory_answer_every_history_alike() -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    // One seed, so that a failure is the same on every machine.
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    for _ in 0..40 {
        let history = prop::collection::vec(request(), 1..60).new_tree(&mut runner).map_err(anyhow::Error::msg)?;
        answers_alike(&connected.directory, &history.current()).await?;
    }
    Ok(())
}

async fn answers_alike(in_redis: &dyn Directory, history: &[Request]) -> anyhow::Result<()> {
    let in_memory = InProcessDirectory::new();
    let nodes: Vec<_> = (0..3).map(|_| conformance::node()).collect();
    let machines: Vec<_> = (0..2).map(|_| conformance::machine()).collect();
    let epoch = |(counter, node): (u64, usize)| Epoch { counter, incarnation: nodes[node] };
    let link = |counter| LinkRecord { counter, gateway_id: gateway() };
    for (index, request) in history.iter().enumerate() {
        // Leases are renewed all along: whether one lapsed in between is not what is compared here.
        let left = history[..index].iter().filter_map(|request| match request {
            Request::Leave { node } => Some(*node),
            Request::Acquire { .. }
            | Request::Reassert { .. }
            | Request::Release { .. }
            | Request::SetLink { .. }
            | Request::Find { .. } => None,
        });
        let left: Vec<usize> = left.collect();
        for node in (0..nodes.len()).filter(|node| !left.contains(node)) {
            in_redis.renew(conformance::record(nodes[node]), 1).await?;
            in_memory.renew(conformance::record(nodes[node]), 1).await?;
        }
        let ask = async |directory: &dyn Directory| match *request {
            Request::Acquire { machine, asker, floor, replacing } => {
                let replacing = replacing.map(|node| nodes[node]);
                let asked = Acquire {
                    machine: machines[machine],
                    asker: nodes[asker],
                    floor: epoch(floor),
                    replacing,
                    cause: Cause::Link,
                };
                format!("{:?}", directory.acquire(asked).await)
            }
            Request::Reassert { machine, epoch: asserted, link: counter } => {
                let holding = Holding { machine: machines[machine], epoch: epoch(asserted), link: counter.map(link) };
                format!("{:?}", directory.reassert(vec![holding]).await)
            }
            Request::Release { machine, holder } => {
                format!("{:?}", directory.release(machines[machine], nodes[holder]).await)
            }
            Request::SetLink { machine, holder, counter } => {
                format!("{:?}", directory.set_link(machines[machine], nodes[holder], link(counter)).await)
            }
            Request::Leave { node } => format!("{:?}", directory.leave(nodes[node]).await),
            Request::Find { machine } => format!("{:?}", directory.find(machines[machine]).await),
        };
        let (redis, memory) = (ask(in_redis).await, ask(&in_memory).await);
        assert_eq!(redis, memory, "request {index} of {history:#?}");
    }
    Ok(())
}

fn gateway() -> NodeId {
    NodeId::try_from("gateway".to_owned()).expect("the name is lower case")
}

fn request() -> impl Strategy<Value = Request> {
    let (machine, node, counter) = (0..2_usize, 0..3_usize, 0..30_u64);
    prop_oneof![
        4 => (machine.clone(), node.clone(), (counter.clone(), node.clone()), prop::option::of(node.clone()))
            .prop_map(|(machine, asker, floor, replacing)| Request::Acquire { machine, asker, floor, replacing }),
        2 => (machine.clone(), (counter.clone(), node.clone()), prop::option::of(counter.clone()))
            .prop_map(|(machine, epoch, link)| Request::Reassert { machine, epoch, link }),
        1 => (machine.clone(), node.clone()).prop_map(|(machine, holder)| Request::Release { machine, holder }),
        2 => (machine.clone(), node.clone(), counter)
            .prop_map(|(machine, holder, counter)| Request::SetLink { machine, holder, counter }),
        1 => node.prop_map(|node| Request::Leave { node }),
        1 => machine.prop_map(|machine| Request::Find { machine }),
    ]
}

#[tokio::test]
async fn a_record_of_another_format_is_left_alone_and_said() -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    let directory = &connected.directory;
    let (machine, node) = (conformance::machine(), conformance::node());
    conformance::own(directory, machine, node).await;
    let key = format!("fd:machine:{}/{}", machine.account_id(), machine.machine_id());
    redis.ask(&["HSET", &key, "v", "2"]).await?;
    let before = redis.ask(&["HGETALL", &key]).await?;
    let link = LinkRecord { counter: 1, gateway_id: gateway() };
    let holding = Holding { machine, epoch: Epoch { counter: 9, incarnation: node }, link: None };
    let format = DirectoryError::Format;
    assert_eq!(directory.find(machine).await, Err(format));
    assert_eq!(directory.acquire(conformance::acquire(machine, node)).await, Err(format));
    assert_eq!(directory.release(machine, node).await, Err(format));
    assert_eq!(directory.set_link(machine, node, link).await, Err(format));
    assert_eq!(directory.reassert(vec![holding]).await, Err(format));
    assert_eq!(redis.ask(&["HGETALL", &key]).await?, before);
    // The connection is sound, and other machines are served.
    conformance::own(directory, conformance::machine(), node).await;
    Ok(())
}

#[tokio::test]
async fn nothing_is_kept_for_ever() -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let connected = connect(Endpoint::alone(&redis.url())?).await?;
    conformance::check(&connected.directory).await;
    let keys = redis.ask(&["KEYS", "fd:*"]).await?;
    let kept_on_purpose = ["fd:life", "fd:nodes"];
    let keys: Vec<&str> = keys.lines().filter(|line| line.starts_with("fd:")).collect();
    assert!(keys.len() > 10, "{keys:?}");
    for key in keys.into_iter().filter(|key| !kept_on_purpose.contains(key)) {
        let life = redis.ask(&["PTTL", key]).await?;
        assert!(!life.starts_with(":-1"), "{key} never expires");
    }
    Ok(())
}
