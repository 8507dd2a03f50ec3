//! The server-sent events of one response, in the least form that Codex accepts.

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A piece of a response body; an error breaks the connection.
pub(super) type Piece = Result<Bytes, std::io::Error>;

/// Writes one response. Nothing is written any more once Codex has gone.
pub(super) struct Writer {
    out: mpsc::Sender<Piece>,
    response_id: String,
    item_number: usize,
    message: Option<Message>,
}

struct Message {
    id: String,
    text: String,
}

impl Writer {
    pub(super) fn new(out: mpsc::Sender<Piece>, number: usize) -> Self {
        Self { out, response_id: format!("resp_{number:04}"), item_number: 0, message: None }
    }

    pub(super) async fn created(&self) {
        self.event("response.created", json!({"response": {"id": self.response_id}})).await;
    }

    /// Appends text to the open message, which is opened if there is none.
    pub(super) async fn text(&mut self, delta: &str) {
        if self.message.is_none() {
            let id = self.next_id("msg");
            let item = json!({"type": "message", "id": id, "role": "assistant", "content": []});
            self.event("response.output_item.added", json!({"item": item})).await;
            self.message = Some(Message { id, text: String::new() });
        }
        if let Some(message) = &mut self.message {
            message.text.push_str(delta);
            let body = json!({"item_id": message.id, "output_index": 0, "content_index": 0, "delta": delta});
            self.event("response.output_text.delta", body).await;
        }
    }

    /// Ends the open message.
    pub(super) async fn end_message(&mut self) {
        let Some(message) = self.message.take() else {
            return;
        };
        let content = json!([{"type": "output_text", "text": message.text, "annotations": []}]);
        let item = json!({"type": "message", "id": message.id, "role": "assistant", "content": content});
        self.event("response.output_item.done", json!({"item": item})).await;
    }

    pub(super) async fn reasoning(&mut self, summary: &str) {
        self.end_message().await;
        let id = self.next_id("rs");
        let empty = json!({"type": "reasoning", "id": id, "summary": []});
        self.event("response.output_item.added", json!({"item": empty})).await;
        self.event("response.reasoning_summary_part.added", json!({"item_id": id, "summary_index": 0})).await;
        let delta = json!({"item_id": id, "summary_index": 0, "delta": summary});
        self.event("response.reasoning_summary_text.delta", delta).await;
        let item = json!({"type": "reasoning", "id": id, "summary": [{"type": "summary_text", "text": summary}]});
        self.event("response.output_item.done", json!({"item": item})).await;
    }

    pub(super) async fn function_call(&mut self, name: &str, arguments: &str) {
        let call_id = self.next_call_id();
        let id = self.next_id("fc");
        let item = json!({"type": "function_call", "id": id, "call_id": call_id, "name": name, "arguments": arguments});
        self.whole_item(item).await;
    }

    pub(super) async fn custom_call(&mut self, name: &str, input: &str) {
        let call_id = self.next_call_id();
        let id = self.next_id("ctc");
        let item = json!({"type": "custom_tool_call", "id": id, "call_id": call_id, "name": name, "input": input});
        self.whole_item(item).await;
    }

    pub(super) async fn completed(&mut self) {
        self.end_message().await;
        let usage = json!({
            "input_tokens": 100, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 100, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 200,
        });
        self.event("response.completed", json!({"response": {"id": self.response_id, "usage": usage}})).await;
    }

    pub(super) async fn failed(&self) {
        let error = json!({"code": "server_error", "message": "the scripted model fails"});
        self.event("response.failed", json!({"response": {"id": self.response_id, "error": error}})).await;
    }

    pub(super) async fn broken(&self) {
        // What was written before must reach Codex first: the HTTP server writes it out when it finds no more.
        let _ = self.out.reserve_many(self.out.max_capacity()).await;
        tokio::task::yield_now().await;
        // Codex may be gone already, and then there is nobody to tell.
        let _ = self.out.send(Err(std::io::Error::other("the scripted model drops the connection"))).await;
    }

    async fn whole_item(&mut self, item: Value) {
        self.end_message().await;
        self.event("response.output_item.added", json!({"item": item})).await;
        self.event("response.output_item.done", json!({"item": item})).await;
    }

    fn next_call_id(&self) -> String {
        format!("call_{}_{}", self.response_id.trim_start_matches("resp_"), self.item_number)
    }

    fn next_id(&mut self, prefix: &str) -> String {
        let id = format!("{prefix}_{}_{}", self.response_id.trim_start_matches("resp_"), self.item_number);
        self.item_number += 1;
        id
    }

    async fn event(&self, kind: &str, mut body: Value) {
        body["type"] = json!(kind);
        let piece = Bytes::from(format!("event: {kind}\ndata: {body}\n\n"));
        let _ = self.out.send(Ok(piece)).await;
    }
}
