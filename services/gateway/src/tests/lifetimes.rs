//! A link lives no longer than its credential and a session no longer than its grant, and each is told in time.

use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{
    CREDENTIAL_END_NOTICE, CREDENTIAL_LIFETIME, GRANT_END_NOTICE, GRANT_LIFETIME, HANDSHAKE_TIMEOUT, NOTICE_SPREAD,
    REGION_DRAIN_SPREAD_MIN, TOKEN_SKEW_MAX,
};
use flydex_domain::region::DRAIN_HINT;
use flydex_domain::secret::SecretKey;
use flydex_domain::token::{Grant, MachineCredential, TokenSigner};
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as ConnectorKind;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::link_down::Kind as LinkDown;
use flydex_proto::v1::link_up::Kind as LinkUp;
use flydex_proto::v1::session_down::Kind as SessionDown;
use flydex_proto::v1::session_up::Kind as SessionUp;
use tokio::net::TcpStream;

use super::wire::{Browser, Connector, Ended, Over, hello, link_hello};
use super::world::{World, machine, soon};

const MOMENT: Duration = Duration::from_millis(1);

fn report() -> LinkUp {
    let kind = Some(ConnectorKind::Report(v1::MachineReport::default()));
    LinkUp::Frame(v1::ConnectorFrame { epoch: None, kind })
}

async fn link_ended(world: &mut World) {
    let Some(ToNode::CloseLink(_)) = soon(world.host.next()).await.frame.kind else {
        panic!("the node is told that the link is gone")
    };
}

#[tokio::test]
async fn who_is_not_in_yet_does_not_hold_up_a_drain() {
    let world = World::start().await;
    // One says nothing where TLS is spoken, one is in and says nothing, one has its challenge.
    let _silent = TcpStream::connect(world.tls).await.unwrap();
    let mut browser = Browser::connect(&world).await;
    let mut connectors = Vec::new();
    for over in Over::ALL {
        let mut connector = Connector::connect(&world, over).await;
        connector.hello(link_hello(&world)).await.unwrap();
        connectors.push(connector);
    }
    let began = tokio::time::Instant::now();
    let shutdown = world.shutdown.clone();
    let drained = tokio::spawn(async move { shutdown.drain(Duration::from_secs(60)).await });
    assert_eq!(browser.end().await, Ended::with(ErrorCode::GoingAway));
    for connector in &mut connectors {
        assert_eq!(connector.end().await, Ended::with(ErrorCode::GoingAway));
    }
    drop((browser, connectors));
    assert!(soon(drained).await.unwrap());
    assert!(began.elapsed() < HANDSHAKE_TIMEOUT / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_link_is_told_in_time_and_ends_with_its_credential() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let hello = link_hello(&world);
        let (mut connector, _) = Connector::open_with(&world, over, hello.clone()).await;
        soon(world.host.link_opened()).await;

        world.clock.advance(CREDENTIAL_LIFETIME + TOKEN_SKEW_MAX - CREDENTIAL_END_NOTICE);
        let LinkDown::GoAway(go_away) = connector.next().await else { panic!("it is told to open another") };
        assert_eq!(u128::from(go_away.try_for_ms), CREDENTIAL_END_NOTICE.as_millis(), "{over:?}");
        assert!(u128::from(go_away.reconnect_in_ms) <= NOTICE_SPREAD.as_millis());

        // The replacement comes with a new credential while the old link serves.
        let (mut renewed, _) = Connector::open(&world, over).await;
        soon(world.host.link_opened()).await;
        connector.send(report()).await;
        assert!(matches!(soon(world.host.next()).await.frame.kind, Some(ToNode::LinkMessage(_))));

        world.clock.advance(CREDENTIAL_END_NOTICE);
        assert_eq!(connector.end().await, Ended::with(ErrorCode::CredentialInvalid), "{over:?}");
        link_ended(&mut world).await;

        let mut again = Connector::connect(&world, over).await;
        assert_eq!(again.hello(hello).await.err(), Some(Ended::with(ErrorCode::CredentialInvalid)), "{over:?}");
        renewed.send(report()).await;
        assert!(matches!(soon(world.host.next()).await.frame.kind, Some(ToNode::LinkMessage(_))));
    }
}

#[tokio::test]
async fn frames_without_pause_do_not_keep_a_link_beyond_its_credential() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut connector, _) = Connector::open(&world, over).await;
        soon(world.host.link_opened()).await;
        for _ in 0..16 {
            connector.send(report()).await;
        }
        world.clock.advance(CREDENTIAL_LIFETIME + TOKEN_SKEW_MAX);
        while !matches!(soon(world.host.next()).await.frame.kind, Some(ToNode::CloseLink(_))) {}
        assert_eq!(connector.end().await, Ended::with(ErrorCode::CredentialInvalid), "{over:?}");
    }
}

#[tokio::test]
async fn a_link_with_an_old_credential_is_not_told_again_and_ends_all_the_same() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let old = MachineCredential { expires_at: world.now().plus(CREDENTIAL_END_NOTICE / 2), ..world.credential() };
        let hello = v1::LinkHello { credential: world.sign(&old), ..link_hello(&world) };
        let (mut connector, _) = Connector::open_with(&world, over, hello).await;
        soon(world.host.link_opened()).await;
        world.clock.advance(CREDENTIAL_END_NOTICE / 2 + TOKEN_SKEW_MAX);
        assert_eq!(connector.end().await, Ended::with(ErrorCode::CredentialInvalid), "{over:?}");
        link_ended(&mut world).await;
    }
}

#[tokio::test]
async fn links_of_a_region_that_drains_are_told_once_and_served_and_sessions_are_not_told() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut browser, _) = Browser::open(&world, 1).await;
        let (mut before, _) = Connector::open(&world, over).await;
        soon(world.host.link_opened()).await;
        for _ in 0..2 {
            // Saying it again changes nothing, and another drain is another word.
            for _ in 0..2 {
                world.service.handle().drain_region(true);
            }
            let (mut later, _) = Connector::open(&world, over).await;
            soon(world.host.link_opened()).await;
            for connector in [&mut before, &mut later] {
                let LinkDown::GoAway(go_away) = connector.next().await else { panic!("it is told to go") };
                assert_eq!(go_away.hint, DRAIN_HINT, "{over:?}");
                assert!(u128::from(go_away.reconnect_in_ms) <= REGION_DRAIN_SPREAD_MIN.as_millis());
                connector.send(report()).await;
                assert!(matches!(soon(world.host.next()).await.frame.kind, Some(ToNode::LinkMessage(_))));
                connector.send(LinkUp::Ping(v1::Ping { nonce: 1 })).await;
                assert!(matches!(connector.next().await, LinkDown::Pong(_)), "it is told once, and served");
            }
            world.service.handle().drain_region(false);
            before.send(LinkUp::Ping(v1::Ping { nonce: 2 })).await;
            assert!(matches!(before.next().await, LinkDown::Pong(_)));
            drop(later);
            link_ended(&mut world).await;
        }
        browser.send(SessionUp::Ping(v1::Ping { nonce: 1 })).await;
        assert!(matches!(browser.next().await, SessionDown::Pong(_)), "a session follows its machines by itself");
    }
}

#[tokio::test]
async fn a_session_is_told_in_time_and_ends_with_its_grant() {
    let mut world = World::start().await;
    let (mut browser, _) = Browser::open(&world, 1).await;
    let machine_id = bytes::Bytes::copy_from_slice(machine(1).as_bytes());
    browser.send(SessionUp::Open(v1::OpenMachine { machine_id })).await;
    soon(world.host.session_opened()).await;

    world.clock.advance(GRANT_LIFETIME + TOKEN_SKEW_MAX - GRANT_END_NOTICE);
    let SessionDown::GoAway(go_away) = browser.next().await else { panic!("it is told to come back") };
    assert_eq!(u128::from(go_away.try_for_ms), GRANT_END_NOTICE.as_millis());
    world.clock.advance(GRANT_END_NOTICE - MOMENT);
    browser.send(SessionUp::Ping(v1::Ping { nonce: 1 })).await;
    assert!(matches!(browser.next().await, SessionDown::Pong(_)), "it is served until then");
    world.clock.advance(MOMENT);
    assert_eq!(browser.end().await, Ended::with(ErrorCode::GrantInvalid));
    let Some(ToNode::CloseSession(_)) = soon(world.host.next()).await.frame.kind else {
        panic!("the node is told that the session is gone")
    };
    // The device gets a new ticket, and a new grant with it.
    Browser::open(&world, 2).await;
}

#[tokio::test]
async fn a_session_with_an_old_grant_is_not_told_and_ends_all_the_same() {
    let world = World::start().await;
    let old = Grant { expires_at: world.now().plus(Duration::from_secs(2)), ..world.grant() };
    let hello = v1::SessionHello { grant: world.sign(&old), ..hello(&world, 1) };
    let (mut browser, _) = Browser::open_with(&world, hello).await;
    world.clock.advance(Duration::from_secs(2) + TOKEN_SKEW_MAX);
    assert_eq!(browser.end().await, Ended::with(ErrorCode::GrantInvalid));
}

#[tokio::test]
async fn a_withdrawn_key_ends_what_it_opened_at_the_next_frame() {
    for over in Over::ALL {
        let world = World::start().await;
        let (mut browser, _) = Browser::open(&world, 1).await;
        let (mut connector, _) = Connector::open_with(&world, over, link_hello(&world)).await;
        browser.send(SessionUp::Ping(v1::Ping { nonce: 1 })).await;
        assert!(matches!(browser.next().await, SessionDown::Pong(_)));
        world.verifier.replace([TokenSigner::from_seed("k2", &SecretKey::new([2; 32])).public()]);
        browser.send(SessionUp::Ping(v1::Ping { nonce: 2 })).await;
        assert_eq!(browser.end().await, Ended::with(ErrorCode::GrantInvalid), "{over:?}");
        connector.send(report()).await;
        assert_eq!(connector.end().await, Ended::with(ErrorCode::CredentialInvalid), "{over:?}");
    }
}
