use std::time::Duration;

use flydex_domain::limits::LEASE_RENEW_INTERVAL;
use flydex_domain::placement::Health;

use super::*;
use crate::tests::directory::Switched;
use crate::tests::host::{life, record};
use crate::tests::world::soon;

async fn with_nodes(tags: &[u8]) -> (Arc<Switched>, Members) {
    let directory = Arc::new(Switched::default());
    for tag in tags {
        directory.renew(record(*tag), 1).await.unwrap();
    }
    (directory.clone(), Members::new(directory))
}

fn tags(members: &Members) -> Vec<u8> {
    members.list().iter().map(|member| member.record.incarnation.as_bytes()[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn the_last_view_holds_while_the_directory_is_away() {
    let (directory, members) = with_nodes(&[1]).await;
    assert!(members.list().is_empty());
    members.refresh().await;
    assert_eq!(tags(&members), [1]);
    directory.leave(life(1)).await.unwrap();
    directory.set_away(true);
    for _ in 0..100 {
        tokio::time::advance(LEASE_RENEW_INTERVAL).await;
        members.refresh().await;
    }
    assert_eq!(tags(&members), [1]);
    assert_eq!(members.list()[0].health(), Health::Alive);
    directory.set_away(false);
    members.refresh().await;
    assert!(members.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_has_forgotten_is_not_believed_before_nodes_had_time_to_come_back() {
    let (directory, members) = with_nodes(&[1, 2]).await;
    members.refresh().await;
    directory.leave(life(1)).await.unwrap();
    directory.leave(life(2)).await.unwrap();
    members.refresh().await;
    assert_eq!(tags(&members), [1, 2]);
    tokio::time::advance(LEASE_RENEW_INTERVAL).await;
    directory.renew(record(2), 2).await.unwrap();
    members.refresh().await;
    assert_eq!(tags(&members), [1, 2]);
    assert_eq!(members.list()[0].silent_for, LEASE_RENEW_INTERVAL);
    tokio::time::advance(LEASE_SUSPECT_AFTER - LEASE_RENEW_INTERVAL).await;
    members.refresh().await;
    assert_eq!(tags(&members), [2], "silence has become news");
}

#[tokio::test(start_paused = true)]
async fn many_who_find_the_view_stale_ask_once() {
    let (directory, members) = with_nodes(&[]).await;
    let now = Instant::now();
    futures_util::future::join_all((0..100).map(|_| members.refresh_since(now))).await;
    assert_eq!(directory.members_asked(), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    members.refresh_since(now).await;
    assert_eq!(directory.members_asked(), 1);
    members.refresh_since(Instant::now()).await;
    assert_eq!(directory.members_asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_found_counts_while_the_directory_is_away_and_a_moment_longer() {
    let (directory, members) = with_nodes(&[1]).await;
    let found = |tag: u8| (format!("https://node-{tag}"), record(tag));
    members.set_found(Found::from([found(3)]));
    assert!(members.list().is_empty(), "the directory was not asked yet");
    directory.set_away(true);
    members.refresh().await;
    soon(members.away()).await;
    members.set_found(Found::from([found(2), found(3)]));
    assert_eq!(tags(&members), [2, 3]);
    members.set_found(Found::from([found(1), found(2)]));
    assert_eq!(tags(&members), [1, 2]);
    directory.set_away(false);
    members.refresh().await;
    assert_eq!(tags(&members), [1, 2], "its nodes may not have spoken yet");
    members.set_found(Found::from([found(3)]));
    tokio::time::advance(LEASE_SUSPECT_AFTER).await;
    members.refresh().await;
    assert_eq!(tags(&members), [1], "its word holds");
}
