use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;

/// A life whose Codex answers whatever the test says.
struct Stage {
    life: Life,
    written: mpsc::Receiver<String>,
    allowed: watch::Sender<Allowed>,
    unfollowed: watch::Receiver<usize>,
}

fn thread(number: usize) -> ThreadId {
    ThreadId::from_uuid(Uuid::from_u128(number as u128 + 1))
}

impl Stage {
    fn new() -> Self {
        let (outbound, written) = mpsc::channel(1024);
        let allowed = watch::Sender::new(Allowed::default());
        let (count, unfollowed) = watch::channel(0);
        let generation = Generation::from_bytes([1; 32]);
        let client = Client::new(outbound);
        let life = Life::new(allowed.subscribe(), Clock::manual(0), client, generation, Arc::default(), count);
        Self { life, written, allowed, unfollowed }
    }

    /// One thread more works than can be followed.
    fn crowded() -> Self {
        let mut stage = Self::new();
        for number in 0..=WATCHED_THREADS_MAX {
            stage.notify("thread/status/changed", number, &json!({"type": "active", "activeFlags": []}));
            stage.answer_all();
        }
        assert_eq!((stage.life.followed.len(), *stage.unfollowed.borrow()), (WATCHED_THREADS_MAX, 1));
        stage
    }

    fn notify(&mut self, method: &str, number: usize, status: &Value) {
        let params = json!({"threadId": thread(number).to_string(), "status": status});
        self.life.message(Inbound::Notification { method: method.to_owned(), params });
    }

    /// Answers every resume as a thread that works; other questions get nothing to tell.
    fn answer_all(&mut self) {
        while let Ok(text) = self.written.try_recv() {
            let request: Value = serde_json::from_str(&text).unwrap();
            let id = request["id"].as_u64().unwrap();
            let status = json!({"type": "active", "activeFlags": []});
            let result = if request["method"] == "thread/resume" {
                json!({"thread": {"id": request["params"]["threadId"], "status": status}})
            } else {
                json!({})
            };
            self.life.message(Inbound::Response { id, outcome: Ok(result) });
        }
    }

    fn prepare(&mut self) -> Result<Option<String>, ErrorCode> {
        let (reply, mut answer) = oneshot::channel();
        self.life.order(Order::Prepare { thread_id: thread(0), reply });
        self.answer_all();
        answer.try_recv().unwrap().map_err(|refused| refused.code())
    }
}

#[test]
fn an_active_thread_without_room_is_counted_and_followed_when_there_is_room() {
    let mut stage = Stage::crowded();
    stage.notify("thread/closed", 0, &Value::Null);
    stage.answer_all();
    assert!(stage.life.followed.contains_key(&thread(WATCHED_THREADS_MAX)));
    assert_eq!(*stage.unfollowed.borrow(), 0);
}

#[test]
fn a_thread_that_stops_working_is_no_longer_missed() {
    let mut stage = Stage::crowded();
    stage.notify("thread/status/changed", WATCHED_THREADS_MAX, &json!({"type": "idle"}));
    assert_eq!(*stage.unfollowed.borrow(), 0);
}

#[test]
fn an_unguarded_thread_takes_prompts_once_the_desk_allows_it() {
    let mut stage = Stage::new();
    // A policy that is not told counts as none.
    assert_eq!(stage.prepare(), Err(ErrorCode::ThreadPolicyRefused));
    stage.allowed.send_replace(Allowed { allow_unguarded: true, ..Allowed::default() });
    assert_eq!(stage.prepare(), Ok(None));
}
