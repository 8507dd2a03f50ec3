use futures_util::{FutureExt as _, StreamExt as _};

use super::*;

fn account(tag: u8) -> AccountId {
    AccountId::try_from([tag; 16].as_slice()).unwrap()
}

/// A frame that names its account and carries a number.
fn frame(tag: u8, number: u32, bytes: usize) -> v1::GatewayFrame {
    let machine_id = vec![0; bytes].into();
    v1::GatewayFrame { account_id: vec![tag; 16].into(), machine_id, deadline_ms: number, kind: None }
}

/// Queues a frame if there is room now.
fn push(queue: &Queue, frame: v1::GatewayFrame) -> bool {
    let account_id = AccountId::try_from(frame.account_id.as_ref()).unwrap();
    match queue.room(account_id, &frame).now_or_never() {
        Some(Ok(room)) => {
            queue.push(frame, room);
            true
        }
        Some(Err(TooLarge)) | None => false,
    }
}

fn pop(queue: &Queue) -> Option<(u8, u32)> {
    queue.pop().map(|frame| (frame.account_id[0], frame.deadline_ms))
}

#[test]
fn one_account_fills_its_share_and_leaves_the_room_of_others() {
    let queue = Queue::new();
    let filled = (0..).take_while(|number| push(&queue, frame(1, *number, 64 * 1024))).count();
    let most = limits::NODE_STREAM_ACCOUNT_BYTES_MAX / (64 * 1024);
    assert!((most - 2..=most).contains(&filled), "{filled}");
    assert!(push(&queue, frame(2, 0, 64 * 1024)));
    while pop(&queue).is_some_and(|(tag, _)| tag != 1) {}
    assert!(push(&queue, frame(1, 0, 64 * 1024)), "what was sent makes room");
}

#[test]
fn a_frame_waits_for_one_turn_of_another_account_and_not_for_all_that_it_has_queued() {
    let queue = Queue::new();
    for number in 0..1000 {
        assert!(push(&queue, frame(1, number, 1024)));
    }
    for number in 0..3 {
        assert!(push(&queue, frame(2, number, 1024)));
    }
    let order: Vec<(u8, u32)> = std::iter::from_fn(|| pop(&queue)).collect();
    assert_eq!(order.len(), 1003);
    let last = order.iter().rposition(|(tag, _)| *tag == 2).unwrap();
    assert!(last <= limits::NODE_STREAM_TURN_BYTES / 1024 + 3, "{last}");
    for tag in [1, 2] {
        let numbers: Vec<u32> = order.iter().filter(|(of, _)| *of == tag).map(|(_, number)| *number).collect();
        assert!(numbers.is_sorted(), "each account keeps its own order");
    }
}

#[test]
fn a_frame_larger_than_a_turn_comes_in_time_and_one_larger_than_the_share_never() {
    let queue = Queue::new();
    assert!(push(&queue, frame(1, 1, limits::NODE_STREAM_TURN_BYTES * 3)));
    for number in 0..100 {
        assert!(push(&queue, frame(2, number, 1024)));
    }
    let before = std::iter::from_fn(|| pop(&queue)).take_while(|(tag, _)| *tag != 1).count();
    assert!(before < 100, "{before}");
    let large = frame(1, 1, limits::NODE_STREAM_ACCOUNT_BYTES_MAX);
    assert_eq!(queue.room(account(1), &large).now_or_never().map(Result::err), Some(Some(TooLarge)));
}

#[test]
fn shares_that_nobody_uses_are_forgotten() {
    let queue = Queue::new();
    for number in 0..10 * TIDY_AT_MIN {
        let account_id = AccountId::try_from((number as u128).to_be_bytes().as_slice()).unwrap();
        assert!(matches!(queue.room(account_id, &frame(1, 0, 1)).now_or_never(), Some(Ok(_))));
    }
    assert!(queue.shares.lock().unwrap().by_account.len() <= TIDY_AT_MIN);
}

#[tokio::test]
async fn a_reader_that_waits_gets_the_frame_that_comes() {
    let queue = Queue::new();
    let frames = queue.clone().frames(CancellationToken::new());
    tokio::pin!(frames);
    assert!(frames.next().now_or_never().is_none());
    assert!(push(&queue, frame(1, 7, 1)));
    assert_eq!(frames.next().now_or_never().flatten().map(|frame| frame.deadline_ms), Some(7));
}
