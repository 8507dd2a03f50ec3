use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::scope::Principal;
use futures_util::{FutureExt as _, StreamExt as _};
use uuid::Uuid;

use super::*;

#[tokio::test]
async fn frames_leave_in_order_and_the_stream_ends_when_it_is_finished_and_empty() {
    let (peer, outgoing) = Peer::open(1);
    for number in 0..3 {
        peer.send(key(), opened(number));
    }
    peer.finish();
    let frames: Vec<_> = outgoing.into_stream().collect().await;
    let numbers: Vec<u128> = frames
        .into_iter()
        .filter_map(|frame| {
            let Some(Kind::SessionOpened(opened)) = frame.ok()?.kind else { return None };
            Some(u128::from_be_bytes(opened.session_id.as_ref().try_into().ok()?))
        })
        .collect();
    assert_eq!(numbers, [0, 1, 2]);
}

#[tokio::test]
async fn a_gateway_that_does_not_read_is_cut_off_at_the_bound_in_frames() {
    let (peer, _outgoing) = Peer::with_bounds(1, 2, 1 << 20);
    peer.send(key(), opened(1));
    peer.send(key(), opened(2));
    assert!(peer.finished().now_or_never().is_none());
    peer.send(key(), opened(3));
    assert!(peer.finished().now_or_never().is_some());
}

#[tokio::test]
async fn a_gateway_that_does_not_read_is_cut_off_at_the_bound_in_bytes_and_reading_frees_them() {
    let (peer, outgoing) = Peer::with_bounds(1, 100, 100);
    let mut frames = Box::pin(outgoing.into_stream());
    for number in 0..10 {
        peer.send(key(), opened(number));
        assert!(frames.next().await.is_some());
    }
    assert!(peer.finished().now_or_never().is_none());
    peer.send(key(), opened(1));
    peer.send(key(), opened(2));
    assert!(peer.finished().now_or_never().is_some());
}

#[tokio::test]
async fn a_gateway_that_goes_away_finishes_the_stream() {
    let (peer, outgoing) = Peer::open(1);
    drop(outgoing);
    assert!(peer.finished().now_or_never().is_some());
}

fn key() -> MachineKey {
    let machine_id = MachineId::from_uuid(Uuid::from_u128(2));
    let machine = Principal::Machine { account_id: AccountId::from_uuid(Uuid::from_u128(1)), machine_id };
    MachineKey::new(machine.scope(), machine_id)
}

fn opened(number: u128) -> Kind {
    Kind::SessionOpened(v1::SessionOpened { session_id: copy(&number.to_be_bytes()) })
}
