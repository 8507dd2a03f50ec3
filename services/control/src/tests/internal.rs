//! What gateways and nodes hear of control.

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, UserId};
use flydex_domain::limits::{LINK_REPORT_BYTES_MAX, LINK_REPORTS_MAX, TOKEN_KEY_TOLD_BEFORE};
use flydex_domain::revocation::{Revocation, RevocationEntry};
use flydex_domain::time::UnixMillis;
use flydex_domain::token::schedule::Change;
use flydex_proto::v1;
use flydex_proto::v1::followed::Kind;
use flydex_proto::v1::internal_client::InternalClient;
use flydex_proto::v1::internal_server::Internal as _;
use flydex_runtime::mutual::{PeerIdentity, Role};
use http::Method;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::harness::{Desk, Phone, World, scope_of};
use crate::internal::InternalApi;
use crate::rotate_token_key;

type Stream = ReceiverStream<Result<v1::Followed, Status>>;

fn of<T>(role: Role, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let identity = PeerIdentity { region: "eu".to_owned(), role, node_id: "n1".to_owned() };
    request.extensions_mut().insert(identity);
    request
}

async fn follow(api: &InternalApi, after_number: u64) -> Stream {
    api.follow(of(Role::Gateway, v1::FollowRequest { after_number })).await.expect("a stream").into_inner()
}

async fn next(stream: &mut Stream) -> Kind {
    stream.next().await.expect("the stream lives").expect("it goes on").kind.expect("a message")
}

/// The numbers of the log up to the first heartbeat, and its own.
async fn numbers(stream: &mut Stream) -> (Vec<u64>, u64) {
    let mut numbers = Vec::new();
    loop {
        match next(stream).await {
            Kind::Keys(_) | Kind::RegionDrain(_) => {}
            Kind::Revocation(record) => numbers.push(RevocationEntry::try_from(record).expect("a record").number),
            Kind::Heartbeat(heartbeat) => return (numbers, heartbeat.head_number),
        }
    }
}

/// Waits for a heartbeat of at least a number, and returns the entries before it.
async fn numbers_to(stream: &mut Stream, head: u64) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let (numbers, seen) = numbers(stream).await;
        all.extend(numbers);
        if seen >= head {
            return all;
        }
    }
}

async fn revoke(world: &World, count: u64) {
    let account_id = AccountId::from_uuid(Uuid::from_u128(1));
    let revocation = Revocation::User { account_id, user_id: UserId::from_uuid(Uuid::from_u128(2)) };
    let mut tx = world.store.write().await.expect("a transaction");
    for _ in 0..count {
        let now = UnixMillis(world.now());
        tx.append_revocation(scope_of(account_id), revocation.clone(), now).await.expect("an entry");
    }
    tx.commit().await.expect("committed");
    world.service.control().revocations_committed();
}

#[tokio::test]
async fn a_follower_hears_the_keys_then_the_log_then_what_is_new() {
    let world = World::start().await;
    world.owner().await;
    revoke(&world, 3).await;
    let api = world.service.internal_api();
    let mut stream = follow(&api, 0).await;
    let Kind::Keys(keys) = next(&mut stream).await else { panic!("the keys come first") };
    assert_eq!(keys.keys.len(), 1);
    assert_eq!(numbers_to(&mut stream, 3).await, [1, 2, 3]);
    revoke(&world, 2).await;
    assert_eq!(numbers_to(&mut stream, 5).await, [4, 5]);
}

#[tokio::test]
async fn a_follower_that_comes_again_hears_only_what_it_missed_over_many_pages() {
    let world = World::start().await;
    world.owner().await;
    revoke(&world, 1_203).await;
    let api = world.service.internal_api();
    let mut stream = follow(&api, 7).await;
    assert!(numbers_to(&mut stream, 1_203).await.into_iter().eq(8..=1_203));
}

#[tokio::test]
async fn a_follower_that_knows_more_than_there_is_hears_the_lower_number() {
    let world = World::start().await;
    world.owner().await;
    revoke(&world, 2).await;
    let api = world.service.internal_api();
    let mut stream = follow(&api, 9).await;
    assert_eq!(numbers(&mut stream).await, (vec![], 2));
}

#[tokio::test]
async fn new_keys_are_told_to_those_who_follow_already() {
    let world = World::start().await;
    let api = world.service.internal_api();
    let mut stream = follow(&api, 0).await;
    assert!(matches!(next(&mut stream).await, Kind::Keys(_)));
    let change = Change { lead: TOKEN_KEY_TOLD_BEFORE, compromised: false };
    let made = rotate_token_key(&world.store, change, UnixMillis(world.now())).await.expect("made");
    loop {
        if let Kind::Keys(keys) = next(&mut stream).await {
            assert!(keys.keys.iter().any(|key| key.key_id == made));
            assert_eq!(keys.keys.len(), 2);
            return;
        }
    }
}

/// Waits until a follower hears that of its region; nothing else may be said of it before.
async fn hears_of_its_region(stream: &mut Stream, drains: bool) {
    loop {
        if let Kind::RegionDrain(drain) = next(stream).await {
            assert_eq!(drain.drains, drains);
            return;
        }
    }
}

#[tokio::test]
async fn a_follower_hears_when_its_own_region_drains_and_when_no_more() {
    let world = World::start().await;
    let api = world.service.internal_api();
    let mut stream = follow(&api, 0).await;
    hears_of_its_region(&mut stream, false).await;
    for (region, drains, heard) in [("us", true, false), ("eu", true, true), ("eu", false, true)] {
        let mut tx = world.store.write().await.expect("a transaction");
        let now = UnixMillis(world.now());
        if drains { tx.drain_region(region, now).await } else { tx.end_region_drain(region).await }.expect("noted");
        tx.commit().await.expect("committed");
        if heard {
            hears_of_its_region(&mut stream, drains).await;
        }
    }
    // One that comes again hears what holds now.
    hears_of_its_region(&mut follow(&api, 0).await, false).await;
}

#[tokio::test]
async fn only_gateways_and_nodes_may_ask() {
    let world = World::start().await;
    let api = world.service.internal_api();
    for role in [Role::Control, Role::Admin] {
        let refused = api.follow(of(role, v1::FollowRequest { after_number: 0 })).await.err().expect("refused");
        assert_eq!(refused.code() as i32, ErrorCode::Forbidden.grpc_code());
        let refused = api.report_links(of(role, report(&[]))).await.err().expect("refused");
        assert_eq!(refused.code() as i32, ErrorCode::Forbidden.grpc_code());
    }
    let unnamed = api.follow(Request::new(v1::FollowRequest { after_number: 0 })).await.err().expect("refused");
    assert_eq!(unnamed.code() as i32, ErrorCode::Unauthenticated.grpc_code());
}

#[tokio::test]
async fn streams_end_when_control_stops_so_that_followers_go_elsewhere() {
    let world = World::start().await;
    let api = world.service.internal_api();
    let mut stream = follow(&api, 0).await;
    assert!(matches!(next(&mut stream).await, Kind::Keys(_)));
    world.service.control().shutdown.begin();
    while stream.next().await.is_some() {}
}

fn report(links: &[v1::LinkReport]) -> v1::ReportLinksRequest {
    v1::ReportLinksRequest { region: "eu".to_owned(), links: links.to_vec() }
}

fn link(world: &World, phone: &Phone, desk: &Desk, link_counter: u64) -> v1::LinkReport {
    let machine_id: Uuid = desk.machine_id.parse().expect("an id");
    v1::LinkReport {
        account_id: Bytes::copy_from_slice(phone.account_id.as_bytes()),
        machine_id: Bytes::copy_from_slice(machine_id.as_bytes()),
        at_ms: world.now(),
        link_counter,
    }
}

#[tokio::test]
async fn a_report_moves_the_machine_for_every_control_process_and_over_a_restart() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let region = async |world: &World| {
        let answer = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
        answer.body["machines"][0]["region"].clone()
    };
    assert_eq!(region(&world).await, "local", "where it was paired, until a node has it");
    let api = world.service.internal_api();
    let link = link(&world, &phone, &desk, 1);
    api.report_links(of(Role::Machines, report(std::slice::from_ref(&link)))).await.expect("taken");
    assert_eq!(region(&world).await, "eu");
    drop(api);
    let world = world.restart().await;
    assert_eq!(region(&world).await, "eu");
}

#[tokio::test]
async fn a_report_that_swaps_the_ids_of_two_accounts_moves_nothing() {
    let world = World::start().await;
    let (one, other) = (world.owner().await, world.user(None, flydex_domain::scope::Role::Owner).await);
    let (of_one, of_other) = (world.pair(&one).await, world.pair(&other).await);
    let api = world.service.internal_api();
    let nobody = Bytes::from_static(&[9; 16]);
    let (mine, theirs) = (link(&world, &one, &of_one, 7), link(&world, &other, &of_other, 7));
    for swapped in [
        v1::LinkReport { machine_id: theirs.machine_id.clone(), ..mine.clone() },
        v1::LinkReport { machine_id: nobody.clone(), ..mine.clone() },
        v1::LinkReport { account_id: theirs.account_id.clone(), ..mine.clone() },
        v1::LinkReport { account_id: nobody, ..mine },
    ] {
        api.report_links(of(Role::Machines, report(&[swapped]))).await.expect("taken, whatever there is");
    }
    for phone in [&one, &other] {
        let answer = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
        assert_eq!(answer.body["machines"][0]["region"], "local");
    }
}

#[tokio::test]
async fn a_region_that_is_no_more_is_no_place_to_look() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let api = world.service.internal_api();
    let gone = v1::ReportLinksRequest { region: "gone".to_owned(), links: vec![link(&world, &phone, &desk, 1)] };
    let identity = PeerIdentity { region: "gone".to_owned(), role: Role::Machines, node_id: "n1".to_owned() };
    let mut request = Request::new(gone);
    request.extensions_mut().insert(identity);
    api.report_links(request).await.expect("taken");
    let answer = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
    assert_eq!(answer.body["machines"][0]["region"], "local");
}

#[tokio::test]
async fn a_report_of_another_region_or_role_or_one_that_is_too_long_or_malformed_is_refused_whole() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let link = link(&world, &phone, &desk, 1);
    let api = world.service.internal_api();
    let refused = async |request| api.report_links(request).await.err().expect("refused").code() as i32;
    let elsewhere = v1::ReportLinksRequest { region: "us".to_owned(), links: vec![link.clone()] };
    assert_eq!(refused(of(Role::Machines, elsewhere)).await, ErrorCode::Forbidden.grpc_code());
    let of_gateway = of(Role::Gateway, report(std::slice::from_ref(&link)));
    assert_eq!(refused(of_gateway).await, ErrorCode::Forbidden.grpc_code(), "a gateway has no links to report");
    let too_many = vec![link.clone(); LINK_REPORTS_MAX + 1];
    assert_eq!(refused(of(Role::Machines, report(&too_many))).await, ErrorCode::BadRequest.grpc_code());
    let malformed = v1::LinkReport { machine_id: Bytes::from_static(b"short"), ..link.clone() };
    assert_eq!(refused(of(Role::Machines, report(&[link, malformed]))).await, ErrorCode::BadRequest.grpc_code());
    let answer = world.page(Some(&phone.cookie), Method::GET, "/api/machines", None).await;
    assert_eq!(answer.body["machines"][0]["region"], "local");
}

#[tokio::test]
async fn the_longest_report_is_taken_and_a_longer_message_is_not_read() {
    let world = World::start().await;
    let phone = world.owner().await;
    let desk = world.pair(&phone).await;
    let mut client = InternalClient::new(world.service.internal());
    let longest = v1::LinkReport { link_counter: u64::MAX, ..link(&world, &phone, &desk, 1) };
    client.report_links(of(Role::Machines, report(&vec![longest; LINK_REPORTS_MAX]))).await.expect("taken");
    let longer = v1::ReportLinksRequest { region: "e".repeat(LINK_REPORT_BYTES_MAX), links: Vec::new() };
    let refused = client.report_links(of(Role::Machines, longer)).await.err().expect("refused");
    assert_eq!(refused.code(), Code::OutOfRange);
}
