use std::sync::Arc;

use flydex_domain::limits;
use flydex_proto::v1;
use flydex_proto::v1::link_down::Kind;

use super::*;

fn ping(nonce: u64) -> v1::LinkDown {
    v1::LinkDown { kind: Some(Kind::Ping(v1::Ping { nonce })) }
}

fn frame(bytes: usize, kind: impl Fn(Bytes) -> v1::device_message::Kind) -> v1::LinkDown {
    let message = v1::DeviceMessage { trace: None, kind: Some(kind(vec![0; bytes].into())) };
    let from = v1::FromSession { message: Some(message), ..Default::default() };
    let frame = v1::OwnerFrame { epoch: None, kind: Some(v1::owner_frame::Kind::FromSession(from)) };
    v1::LinkDown { kind: Some(Kind::Frame(frame)) }
}

fn command(bytes: usize) -> v1::LinkDown {
    frame(bytes, |body| v1::device_message::Kind::Command(v1::Command { body, ..Default::default() }))
}

#[tokio::test]
async fn a_waiting_writer_wakes_for_each_frame_and_for_the_end() {
    let outbox = Arc::new(Outbox::new(Framing::Message));
    let writer = tokio::spawn({
        let outbox = outbox.clone();
        async move {
            let mut frames = Vec::new();
            while let Some(frame) = outbox.next().await {
                frames.push(frame);
            }
            frames
        }
    });
    for nonce in 0..3 {
        outbox.send(&ping(nonce)).unwrap();
        tokio::task::yield_now().await;
    }
    outbox.finish(Some(&ping(9)), 4009);
    let frames = writer.await.unwrap();
    assert!(frames.last() == Some(&codec::encode_message(Lane::Control, &ping(9)).unwrap()));
    assert_eq!(outbox.close_code(), Some(4009));
}

#[tokio::test]
async fn lanes_of_their_own_pipe_do_not_wait_for_each_other() {
    let outbox = Outbox::new(Framing::Stream);
    outbox.send(&command(10)).unwrap();
    outbox.send(&ping(1)).unwrap();
    assert_eq!(outbox.next_from(Lane::Commands).await, codec::encode_stream(Lane::Commands, &command(10)).ok());
    assert_eq!(outbox.next_from(Lane::Control).await, codec::encode_stream(Lane::Control, &ping(1)).ok());
    outbox.finish(None::<&v1::LinkDown>, 4000);
    for lane in Lane::ALL {
        assert_eq!(outbox.next_from(lane).await, None);
    }
}

#[tokio::test]
async fn the_last_word_replaces_what_waits_and_nothing_follows_it() {
    let outbox = Outbox::new(Framing::Message);
    while outbox.send(&command(limits::COMMAND_BODY_BYTES_MAX)).is_ok() {}
    let full = outbox.send(&command(limits::COMMAND_BODY_BYTES_MAX)).err().unwrap();
    assert_eq!(full.code(), ErrorCode::SlowConsumer);
    outbox.finish(Some(&ping(1)), 4012);
    outbox.finish(Some(&ping(2)), 4000);
    outbox.send(&ping(3)).unwrap();
    assert_eq!(outbox.next().await, codec::encode_message(Lane::Control, &ping(1)).ok());
    assert_eq!(outbox.next().await, None);
    assert_eq!(outbox.close_code(), Some(4012));
}

#[test]
fn a_message_over_its_lanes_limit_is_a_defect_and_not_queued() {
    let outbox = Outbox::new(Framing::Message);
    let error = outbox.send(&command(limits::COMMAND_FRAME_BYTES_MAX + 1)).err().unwrap();
    assert_eq!(error.code(), ErrorCode::Internal);
    assert_eq!(outbox.try_next(), None);
}
