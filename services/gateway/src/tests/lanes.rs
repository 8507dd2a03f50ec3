//! A frame on another lane than its kind's ends the connection, whether the lane is a byte or a stream.

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_proto::codec::Lane;
use flydex_proto::lanes::OnLane as _;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as ConnectorKind;
use flydex_proto::v1::device_message::Kind as DeviceKind;
use flydex_proto::v1::link_up::Kind as LinkUp;
use flydex_proto::v1::session_up::Kind as SessionUp;

use super::wire::{Browser, Connector, Ended, Over, hello, link_hello};
use super::world::{World, soon};

#[tokio::test]
async fn a_session_must_use_the_lane_of_each_message() {
    let world = World::start().await;
    let to_machine = |kind| {
        let message = v1::DeviceMessage { trace: None, kind: Some(kind) };
        SessionUp::ToMachine(v1::ToMachine { machine_id: Bytes::from_static(&[1; 16]), message: Some(message) })
    };
    let kinds = [
        SessionUp::Ping(v1::Ping { nonce: 1 }),
        SessionUp::Open(v1::OpenMachine { machine_id: Bytes::from_static(&[1; 16]) }),
        to_machine(DeviceKind::Command(v1::Command::default())),
        to_machine(DeviceKind::EventCredit(v1::EventCredit { bytes: 1 })),
        to_machine(DeviceKind::Probe(v1::Probe { nonce: 1 })),
    ];
    let mut ticket = 0;
    for kind in kinds {
        let message = v1::SessionUp { kind: Some(kind) };
        for lane in Lane::ALL.into_iter().filter(|lane| *lane != message.lane()) {
            ticket += 1;
            let (mut browser, _) = Browser::open(&world, ticket).await;
            browser.socket.send_on(lane, &message).await;
            assert_eq!(browser.end().await, Ended::with(ErrorCode::UnexpectedFrame), "{lane:?}");
        }
    }
}

#[tokio::test]
async fn a_link_must_use_the_lane_of_each_frame() {
    let frame = |kind| LinkUp::Frame(v1::ConnectorFrame { epoch: None, kind: Some(kind) });
    let receipt = v1::machine_message::Kind::Receipt(v1::SignedReceipt::default());
    let message = Some(v1::MachineMessage { trace: None, kind: Some(receipt) });
    let kinds = [
        LinkUp::Ping(v1::Ping { nonce: 1 }),
        frame(ConnectorKind::Report(v1::MachineReport::default())),
        frame(ConnectorKind::SharedEvent(v1::Event::default())),
        frame(ConnectorKind::ToSession(v1::ToSession { session_id: Bytes::new(), message })),
    ];
    for over in Over::ALL {
        let mut world = World::start().await;
        for kind in &kinds {
            let own = v1::LinkUp { kind: Some(kind.clone()) }.lane();
            for lane in Lane::ALL.into_iter().filter(|lane| *lane != own) {
                let (mut connector, _) = Connector::open(&world, over).await;
                soon(world.host.link_opened()).await;
                connector.send_on(lane, kind.clone()).await;
                assert_eq!(connector.end().await, Ended::with(ErrorCode::UnexpectedFrame), "{over:?} {lane:?}");
                // The node hears of the end, and of no frame before it.
                let last = soon(world.host.next()).await.frame.kind;
                assert!(matches!(last, Some(v1::gateway_frame::Kind::CloseLink(_))), "{over:?} {lane:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_hello_on_another_lane_than_control_opens_nothing() {
    for lane in [Lane::Commands, Lane::Events, Lane::Bulk] {
        let world = World::start().await;
        let mut browser = Browser::connect(&world).await;
        let up = v1::SessionUp { kind: Some(SessionUp::Hello(hello(&world, 1))) };
        browser.socket.send_on(lane, &up).await;
        assert_eq!(browser.end().await, Ended::with(ErrorCode::UnexpectedFrame));
        for over in Over::ALL {
            let mut connector = Connector::connect(&world, over).await;
            connector.send_on(lane, LinkUp::Hello(link_hello(&world))).await;
            assert_eq!(connector.end().await, Ended::with(ErrorCode::UnexpectedFrame), "{over:?} {lane:?}");
        }
    }
}
