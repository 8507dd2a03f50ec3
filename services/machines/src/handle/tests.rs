use ractor::{Actor, ActorProcessingErr};
use tokio::sync::{Notify, mpsc};

use super::*;

/// An actor that handles a message only when it is let to.
struct Slow {
    go: Arc<Notify>,
    handled: mpsc::Sender<()>,
}

impl Actor for Slow {
    type Msg = Envelope;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Envelope>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Envelope>,
        message: Envelope,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        self.go.notified().await;
        drop(message);
        let _ = self.handled.send(()).await;
        Ok(())
    }
}

async fn slow() -> (MachineHandle, Arc<Notify>, mpsc::Receiver<()>) {
    let go = Arc::new(Notify::new());
    let (handled, seen) = mpsc::channel(8);
    let (actor, _ended) = Actor::spawn(None, Slow { go: Arc::clone(&go), handled }, ()).await.unwrap();
    (MachineHandle::new(actor, Gate::new()), go, seen)
}

#[tokio::test]
async fn a_full_mailbox_answers_overloaded_and_has_room_again_once_a_message_is_handled() {
    let (handle, go, mut seen) = slow().await;
    let (peer, _outgoing) = Peer::open(1);
    let most = ACTOR_MAILBOX_BYTES_MAX - 10;
    assert_eq!(handle.send(&peer, Input::Tick, most), Ok(()));
    assert_eq!(handle.send(&peer, Input::Tick, 11), Err(SendError::Overloaded));
    assert_eq!(handle.send(&peer, Input::Tick, 10), Ok(()), "a refused message holds nothing");
    assert_eq!(handle.send(&peer, Input::Tick, 1), Err(SendError::Overloaded));
    assert_eq!(handle.send_ending(&peer, Input::Tick), Ok(()), "an ending needs no room");
    go.notify_one();
    seen.recv().await.unwrap();
    assert_eq!(handle.send(&peer, Input::Tick, most), Ok(()));
}

#[tokio::test]
async fn messages_are_bounded_by_their_number_too() {
    let (handle, _go, _seen) = slow().await;
    let (peer, _outgoing) = Peer::open(1);
    for _ in 0..ACTOR_MAILBOX_MESSAGES_MAX {
        assert_eq!(handle.send(&peer, Input::Tick, 0), Ok(()));
    }
    assert_eq!(handle.send(&peer, Input::Tick, 0), Err(SendError::Overloaded));
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends_at_its_deadline() {
    let (handle, _go, _seen) = slow().await;
    assert_eq!(handle.inspect_within(Duration::from_millis(1)).await, Err(CallError::TimedOut));
}

#[tokio::test]
async fn a_retired_actor_handles_what_waits_and_takes_nothing_more() {
    let (handle, go, mut seen) = slow().await;
    let (peer, _outgoing) = Peer::open(1);
    assert_eq!(handle.send(&peer, Input::Tick, 1), Ok(()));
    assert_eq!(handle.send(&peer, Input::Tick, 1), Ok(()));
    handle.retire();
    assert_eq!(handle.send(&peer, Input::Tick, 1), Err(SendError::Stopped));
    for _ in 0..2 {
        go.notify_one();
        seen.recv().await.unwrap();
    }
    handle.retire_and_wait(Duration::from_secs(5)).await;
    assert_eq!(handle.inspect().await, Err(CallError::NotThere));
}
