//! Links: the same body over a plain WebSocket, a WebSocket in TLS, and QUIC.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{self, CREDENTIAL_LIFETIME, TOKEN_SKEW_MAX};
use flydex_domain::revocation::{Revocation, RevocationEntry};
use flydex_domain::token::MachineCredential;
use flydex_proto::codec::{self, Lane, SUBPROTOCOL};
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as ConnectorKind;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::link_down::Kind as Down;
use flydex_proto::v1::link_up::Kind as Up;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::owner_frame::Kind as OwnerKind;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;

use super::host::Arrived;
use super::wire::{BOOT, Connector, Ended, Over, Socket, link_hello, link_transcript, link_transcript_for};
use super::world::{ORIGIN, World, account, machine, machine_key, soon};

fn connector_frame(kind: ConnectorKind) -> Up {
    let epoch = Some(v1::Epoch { counter: 3, incarnation: Bytes::from_static(&[4; 16]) });
    Up::Frame(v1::ConnectorFrame { epoch, kind: Some(kind) })
}

fn to_link(link_id: &Bytes, kind: OwnerKind) -> FromNode {
    let frame = v1::OwnerFrame { epoch: None, kind: Some(kind) };
    FromNode::ToLink(v1::NodeToLink { link_id: link_id.clone(), frame: Some(frame) })
}

async fn opened(world: &mut World, over: Over) -> (Connector, Bytes, Arrived) {
    let (connector, link_id) = Connector::open(world, over).await;
    let (arrived, _) = soon(world.host.link_opened()).await;
    (connector, link_id, arrived)
}

async fn closed(world: &mut World, link_id: &Bytes) {
    let Some(ToNode::CloseLink(close)) = soon(world.host.next()).await.frame.kind else {
        panic!("the node is told that the link is gone")
    };
    assert_eq!(close.link_id, link_id);
}

#[tokio::test]
async fn a_machine_that_proves_its_key_is_linked_and_frames_travel_both_ways() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut connector, link_id) = Connector::open(&world, over).await;
        let (arrived, open) = soon(world.host.link_opened()).await;
        assert_eq!(open.link_id, link_id);
        assert_eq!(open.link_counter, 5);
        assert_eq!(open.boot_id, BOOT.as_slice());
        assert_eq!(open.channel_bound, over != Over::PlainWebSocket, "{over:?}");
        assert_eq!(open.transport() == v1::Transport::Quic, over == Over::Quic);
        assert_eq!(arrived.frame.account_id, account(1).as_bytes().as_slice());
        assert_eq!(arrived.frame.machine_id, machine(1).as_bytes().as_slice());

        arrived.answer(to_link(&link_id, OwnerKind::Attach(v1::AttachOwner {}))).await;
        let Down::Frame(frame) = connector.next().await else { panic!("the owner's frame arrives") };
        assert!(matches!(frame.kind, Some(OwnerKind::Attach(_))));

        for kind in every_lane() {
            connector.send(connector_frame(kind.clone())).await;
            let Some(ToNode::LinkMessage(message)) = soon(world.host.next()).await.frame.kind else {
                panic!("the connector's frame arrives")
            };
            assert_eq!(message.link_id, link_id);
            assert!(message.frame.unwrap().kind == Some(kind));
        }

        connector.send(Up::Ping(v1::Ping { nonce: 8 })).await;
        let Down::Pong(pong) = connector.next().await else { panic!("a pong follows a ping") };
        assert_eq!(pong.nonce, 8);
        drop(connector);
        closed(&mut world, &link_id).await;
    }
}

fn every_lane() -> [ConnectorKind; 4] {
    let to_session = |kind| {
        ConnectorKind::ToSession(v1::ToSession {
            session_id: Bytes::from_static(&[5; 16]),
            message: Some(v1::MachineMessage { trace: None, kind: Some(kind) }),
        })
    };
    let chunk = v1::BulkChunk { bytes: vec![1; limits::BULK_CHUNK_BYTES_MAX].into(), ..Default::default() };
    [
        ConnectorKind::Report(v1::MachineReport::default()),
        to_session(v1::machine_message::Kind::Receipt(v1::SignedReceipt::default())),
        ConnectorKind::SharedEvent(v1::Event { stream_id: 1, seq: 1, body: vec![2; 100_000].into() }),
        to_session(v1::machine_message::Kind::Chunk(chunk)),
    ]
}

#[tokio::test]
async fn a_wrong_key_a_wrong_binding_and_a_replayed_nonce_are_refused() {
    for over in Over::ALL {
        let world = World::start().await;
        let wrong_key = SigningKey::from_bytes(&[77; 32]);
        let mut connector = Connector::connect(&world, over).await;
        let first = connector.hello(link_hello(&world)).await.unwrap();
        let transcript = link_transcript(&first, connector.exporter.as_ref());
        let bound = connector.exporter.is_some();
        let refused = connector.prove(transcript.clone(), bound, &wrong_key).await.err();
        assert_eq!(refused, Some(Ended::with(ErrorCode::ProofInvalid)), "{over:?}");

        // The right key, but over the nonce and the exporter of the connection before: a relayed proof.
        let mut connector = Connector::connect(&world, over).await;
        connector.hello(link_hello(&world)).await.unwrap();
        let refused = connector.prove(transcript, bound, &machine_key()).await.err();
        assert_eq!(refused, Some(Ended::with(ErrorCode::ProofInvalid)), "{over:?}");

        let mut connector = Connector::connect(&world, over).await;
        let challenge = connector.hello(link_hello(&world)).await.unwrap();
        let transcript = link_transcript(&challenge, Some(&[0; 32]));
        let refused = connector.prove(transcript, true, &machine_key()).await.err();
        assert_eq!(refused, Some(Ended::with(ErrorCode::ProofInvalid)), "{over:?}");
    }
}

#[tokio::test]
async fn a_proof_made_for_another_host_is_refused() {
    for over in Over::ALL {
        let world = World::start().await;
        // The web app's own host, a host under it, and one that passes the proof on from elsewhere.
        for host in ["app.example", "eu.app.example", "evil.example", ""] {
            let mut connector = Connector::connect(&world, over).await;
            let challenge = connector.hello(link_hello(&world)).await.unwrap();
            let transcript = link_transcript_for(host, &challenge, connector.exporter.as_ref());
            let bound = connector.exporter.is_some();
            let refused = connector.prove(transcript, bound, &machine_key()).await.err();
            assert_eq!(refused, Some(Ended::with(ErrorCode::ProofInvalid)), "{over:?} {host}");
        }
    }
}

#[tokio::test]
async fn a_proof_without_binding_is_taken_where_tls_may_end_on_the_way_and_refused_on_quic() {
    for (over, taken) in [(Over::PlainWebSocket, true), (Over::TlsWebSocket, true), (Over::Quic, false)] {
        let mut world = World::start().await;
        let mut connector = Connector::connect(&world, over).await;
        let challenge = connector.hello(link_hello(&world)).await.unwrap();
        let proved = connector.prove(link_transcript(&challenge, None), false, &machine_key()).await;
        assert_eq!(proved.is_ok(), taken, "{over:?}");
        if taken {
            let (_, open) = soon(world.host.link_opened()).await;
            assert!(!open.channel_bound);
        }
    }
}

#[tokio::test]
async fn a_bad_credential_version_or_boot_is_refused() {
    for over in Over::ALL {
        let world = World::start().await;
        let good = || link_hello(&world);
        let pinned = MachineCredential { region_pin: Some("far".to_owned()), ..world.credential() };
        let expired = MachineCredential { expires_at: world.now().minus(TOKEN_SKEW_MAX), ..world.credential() };
        let cases = [
            (v1::LinkHello { credential: world.sign(&world.grant()), ..good() }, ErrorCode::CredentialInvalid),
            (v1::LinkHello { credential: world.sign(&pinned), ..good() }, ErrorCode::MachineWrongRegion),
            (v1::LinkHello { credential: world.sign(&expired), ..good() }, ErrorCode::CredentialInvalid),
            (v1::LinkHello { boot_id: Bytes::new(), ..good() }, ErrorCode::BadRequest),
            (v1::LinkHello { version: 5, version_min: 4, ..good() }, ErrorCode::UnsupportedVersion),
        ];
        for (hello, code) in cases {
            let mut connector = Connector::connect(&world, over).await;
            assert_eq!(connector.hello(hello).await.err(), Some(Ended::with(code)), "{over:?}");
        }
        assert!(CREDENTIAL_LIFETIME > TOKEN_SKEW_MAX);
    }
}

#[tokio::test]
async fn the_owner_ends_a_link_with_its_own_code() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut connector, link_id, arrived) = opened(&mut world, over).await;
        let end = v1::EndLink {
            link_id: link_id.clone(),
            code: ErrorCode::LinkSuperseded.number().into(),
            retry_after_ms: 0,
            link_counter: 0,
        };
        arrived.answer(FromNode::EndLink(end)).await;
        assert_eq!(connector.end().await, Ended::with(ErrorCode::LinkSuperseded), "{over:?}");
        closed(&mut world, &link_id).await;
    }
}

#[tokio::test]
async fn a_connector_that_has_lost_count_of_its_links_is_told_the_one_on_record() {
    for over in Over::ALL {
        for (code, told) in [(ErrorCode::LinkSuperseded, 41), (ErrorCode::EpochRefused, 0)] {
            let mut world = World::start().await;
            let (mut connector, link_id, arrived) = opened(&mut world, over).await;
            let code = u32::from(code.number());
            let end = v1::EndLink { link_id, code, retry_after_ms: 0, link_counter: 41 };
            arrived.answer(FromNode::EndLink(end)).await;
            let Down::End(end) = connector.next().await else { panic!("the link ends") };
            assert_eq!((end.code, end.link_counter), (code, told), "{over:?}");
        }
    }
}

#[tokio::test]
async fn a_quarantine_ends_a_link_until_the_machine_is_paired_again() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut connector, _, _) = opened(&mut world, over).await;
        let serial = world.credential().serial;
        let revocation = Revocation::Quarantine { account_id: account(1), machine_id: machine(1), serial };
        world.service.handle().revoke(&RevocationEntry { number: 1, at: world.now(), revocation });
        assert_eq!(connector.end().await, Ended::with(ErrorCode::MachineKeyCloned), "{over:?}");
        let mut again = Connector::connect(&world, over).await;
        let refused = again.hello(link_hello(&world)).await.err();
        assert_eq!(refused, Some(Ended::with(ErrorCode::MachineKeyCloned)), "{over:?}");
    }
}

#[tokio::test]
async fn a_link_ends_with_the_credential_that_opened_it_and_not_with_an_older_one() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut connector, _, _) = opened(&mut world, over).await;
        let serial = world.credential().serial;
        let revoke = |serial| {
            let revocation = Revocation::Superseded { account_id: account(1), machine_id: machine(1), serial };
            world.service.handle().revoke(&RevocationEntry { number: 1, at: world.now(), revocation });
        };
        revoke(serial - 1);
        revoke(serial);
        assert_eq!(connector.end().await, Ended::with(ErrorCode::CredentialInvalid), "{over:?}");
        let mut again = Connector::connect(&world, over).await;
        let refused = again.hello(link_hello(&world)).await.err();
        assert_eq!(refused, Some(Ended::with(ErrorCode::CredentialInvalid)), "{over:?}");
    }
}

#[tokio::test]
async fn a_revocation_and_a_drain_end_a_link() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut connector, link_id, _) = opened(&mut world, over).await;
        let revocation = Revocation::Machine { account_id: account(1), machine_id: machine(1) };
        world.service.handle().revoke(&RevocationEntry { number: 1, at: world.now(), revocation });
        assert_eq!(connector.end().await, Ended::with(ErrorCode::MachineRevoked), "{over:?}");
        closed(&mut world, &link_id).await;
        let mut again = Connector::connect(&world, over).await;
        let refused = again.hello(link_hello(&world)).await.err();
        assert_eq!(refused, Some(Ended::with(ErrorCode::MachineRevoked)), "{over:?}");

        world.clock.advance(std::time::Duration::from_millis(1));
        let (mut connector, _, _) = opened(&mut world, over).await;
        world.shutdown.begin();
        assert!(matches!(connector.next().await, Down::GoAway(_)), "{over:?}");
        world.shutdown.force();
        assert_eq!(connector.end().await, Ended::with(ErrorCode::GoingAway), "{over:?}");
    }
}

#[tokio::test]
async fn a_silent_connector_is_pinged_and_then_cut_off() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let silent_since = tokio::time::Instant::now();
        let (mut connector, link_id, _) = opened(&mut world, over).await;
        tokio::time::pause();
        assert!(matches!(connector.next().await, Down::Ping(_)), "{over:?}");
        let mut last = connector.next().await;
        while let Down::Ping(_) = last {
            assert!(silent_since.elapsed() < 2 * limits::PEER_SILENCE_MAX, "{over:?}: it is pinged and never cut off");
            last = connector.next().await;
        }
        let Down::End(end) = last else { panic!("the link ends") };
        assert_eq!(end.code, u32::from(ErrorCode::PeerTimeout.number()));
        assert!(silent_since.elapsed() >= limits::PEER_SILENCE_MAX);
        tokio::time::resume();
        closed(&mut world, &link_id).await;
    }
}

#[tokio::test]
async fn a_malformed_lane_of_quic_ends_the_link_with_its_own_code() {
    let announced = |lane: Lane| u32::try_from(lane.body_bytes_max() + 1).unwrap().to_be_bytes();
    let cases: [(Lane, Vec<u8>, ErrorCode); 4] = [
        (Lane::Control, announced(Lane::Control).to_vec(), ErrorCode::FrameTooLarge),
        (Lane::Bulk, u32::MAX.to_be_bytes().to_vec(), ErrorCode::FrameTooLarge),
        (Lane::Control, vec![0, 0, 0, 2, 0x22, 9], ErrorCode::FrameTruncated),
        (Lane::Events, vec![0, 0, 0, 0], ErrorCode::UnexpectedFrame),
    ];
    for (lane, bytes, code) in cases {
        let mut world = World::start().await;
        let (mut connector, link_id, _) = opened(&mut world, Over::Quic).await;
        connector.send_raw(lane, &bytes).await;
        assert_eq!(connector.end().await, Ended::with(code));
        closed(&mut world, &link_id).await;
    }
}

#[tokio::test]
async fn what_a_node_says_for_another_account_or_machine_is_dropped() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut connector, link_id, arrived) = opened(&mut world, over).await;
        let foreign_account = Bytes::copy_from_slice(account(2).as_bytes());
        let foreign_machine = Bytes::copy_from_slice(machine(2).as_bytes());
        let (account_id, machine_id) = (arrived.frame.account_id.clone(), arrived.frame.machine_id.clone());
        let attach = || to_link(&link_id, OwnerKind::Attach(v1::AttachOwner {}));
        arrived.answer_as(foreign_account, machine_id, attach()).await;
        arrived.answer_as(account_id, foreign_machine, attach()).await;
        let remove = v1::RemoveDevice { device_id: Bytes::from_static(&[1; 32]), keeps: String::new() };
        arrived.answer(to_link(&link_id, OwnerKind::RemoveDevice(remove))).await;
        let Down::Frame(frame) = connector.next().await else { panic!("a frame arrives") };
        assert!(matches!(frame.kind, Some(OwnerKind::RemoveDevice(_))), "{over:?}");
    }
}

#[tokio::test]
async fn content_over_its_own_limit_ends_the_link_that_sent_it() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (mut connector, link_id, _) = opened(&mut world, over).await;
        let body = vec![0; limits::EVENT_BODY_BYTES_MAX + 1].into();
        connector.send(connector_frame(ConnectorKind::SharedEvent(v1::Event { stream_id: 0, seq: 1, body }))).await;
        assert_eq!(connector.end().await, Ended::with(ErrorCode::FrameTooLarge), "{over:?}");
        closed(&mut world, &link_id).await;
    }
}

#[tokio::test]
async fn a_connector_that_does_not_read_is_cut_off() {
    for over in Over::ALL {
        let mut world = World::start().await;
        let (connector, link_id, arrived) = opened(&mut world, over).await;
        let command = v1::Command { body: vec![0; limits::COMMAND_BODY_BYTES_MAX].into(), ..Default::default() };
        let message = v1::DeviceMessage { trace: None, kind: Some(v1::device_message::Kind::Command(command)) };
        let from = v1::FromSession { message: Some(message), ..Default::default() };
        let mut sent = 0;
        let closed = loop {
            let frame = to_link(&link_id, OwnerKind::FromSession(from.clone()));
            tokio::select! {
                biased;
                closed = world.host.next() => break closed,
                () = arrived.answer(frame) => sent += 1,
            }
            assert!(sent < 512, "{over:?}: the connection and the queue have a bound");
        };
        assert!(matches!(closed.frame.kind, Some(ToNode::CloseLink(_))));
        drop(connector);
    }
}

#[tokio::test]
async fn a_web_page_cannot_open_a_link() {
    let world = World::start().await;
    let io = Box::new(TcpStream::connect(world.plain).await.unwrap());
    let headers = [("origin", ORIGIN), ("sec-websocket-protocol", SUBPROTOCOL)];
    let Err(tungstenite::Error::Http(response)) = Socket::connect(io, "/v1/link", &headers).await else {
        panic!("the upgrade is refused")
    };
    assert_eq!(response.status().as_u16(), 403);
    assert_eq!(codec::VERSION, 1);
}
