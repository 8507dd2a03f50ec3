//! A second client of the shared app-server: the program at the desk, which sees and answers what the phone does.

use std::path::Path;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::wait;

/// A connection to the app-server that speaks its JSON-RPC.
pub struct Desk {
    socket: WebSocketStream<UnixStream>,
    next_id: u64,
    seen: Vec<Value>,
}

impl Desk {
    /// Connects and introduces itself.
    ///
    /// # Errors
    /// When the app-server does not answer.
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await.context("connect to the app-server")?;
        let (socket, _) = tokio_tungstenite::client_async("ws://localhost/", stream).await.context("open WebSocket")?;
        let mut desk = Self { socket, next_id: 1, seen: Vec::new() };
        let client = json!({"name": "flydex_desk", "title": "Desk", "version": "0.0.0"});
        let capabilities = json!({"experimentalApi": true, "requestAttestation": false});
        desk.request("initialize", json!({"clientInfo": client, "capabilities": capabilities})).await?;
        desk.send(json!({"method": "initialized"})).await?;
        Ok(desk)
    }

    /// Calls a method and returns its result. What arrives meanwhile is kept for [`Desk::next`].
    ///
    /// # Errors
    /// When the app-server refuses, or does not answer in time.
    pub async fn request(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(json!({"id": id, "method": method, "params": params})).await?;
        loop {
            let message = self.receive(method).await?;
            if message["id"] != json!(id) || !message["method"].is_null() {
                self.seen.push(message);
            } else if message["error"].is_null() {
                return Ok(message["result"].clone());
            } else {
                bail!("{method}: {}", message["error"]);
            }
        }
    }

    /// Starts a thread in `cwd` and returns its id. The desk is subscribed to it.
    ///
    /// # Errors
    /// When the app-server refuses.
    pub async fn start_thread(&mut self, cwd: &Path) -> anyhow::Result<String> {
        let answer = self.request("thread/start", json!({"cwd": cwd})).await?;
        Ok(answer["thread"]["id"].as_str().context("thread/start: no id")?.to_owned())
    }

    /// Subscribes to a thread that another client started.
    ///
    /// # Errors
    /// When the app-server refuses.
    pub async fn resume_thread(&mut self, thread_id: &str) -> anyhow::Result<Value> {
        self.request("thread/resume", json!({"threadId": thread_id})).await
    }

    /// Sends a prompt and returns the turn's id.
    ///
    /// # Errors
    /// When the app-server refuses.
    pub async fn start_turn(&mut self, thread_id: &str, text: &str) -> anyhow::Result<String> {
        let input = json!([{"type": "text", "text": text, "text_elements": []}]);
        let answer = self.request("turn/start", json!({"threadId": thread_id, "input": input})).await?;
        Ok(answer["turn"]["id"].as_str().context("turn/start: no id")?.to_owned())
    }

    /// The first notification or request of that method which `fits`, among those kept and those to come.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn next(&mut self, method: &str, fits: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let wanted = |message: &Value| message["method"] == method && fits(&message["params"]);
        if let Some(at) = self.seen.iter().position(wanted) {
            return Ok(self.seen.remove(at));
        }
        loop {
            let message = self.receive(method).await?;
            if wanted(&message) {
                return Ok(message);
            }
            self.seen.push(message);
        }
    }

    /// Waits for an approval request of any kind.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn next_approval(&mut self) -> anyhow::Result<Value> {
        let wanted = |message: &Value| message["method"].as_str().is_some_and(|name| name.ends_with("requestApproval"));
        if let Some(at) = self.seen.iter().position(wanted) {
            return Ok(self.seen.remove(at));
        }
        loop {
            let message = self.receive("an approval request").await?;
            if wanted(&message) {
                return Ok(message);
            }
            self.seen.push(message);
        }
    }

    /// Answers a request of the app-server, such as an approval, with a decision.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn decide(&mut self, request: &Value, decision: &str) -> anyhow::Result<()> {
        self.send(json!({"id": request["id"], "result": {"decision": decision}})).await
    }

    /// Waits until the turn of the thread has ended and returns it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn turn_ended(&mut self, thread_id: &str) -> anyhow::Result<Value> {
        let ended = self.next("turn/completed", |params| params["threadId"] == thread_id).await?;
        Ok(ended["params"]["turn"].clone())
    }

    /// Waits until an item of that type ended and returns it.
    ///
    /// # Errors
    /// When none ends in time.
    pub async fn item_ended(&mut self, item_type: &str) -> anyhow::Result<Value> {
        let ended = self.next("item/completed", |params| params["item"]["type"] == item_type).await?;
        Ok(ended["params"]["item"].clone())
    }

    async fn send(&mut self, message: Value) -> anyhow::Result<()> {
        self.socket.send(Message::text(message.to_string())).await.context("write to the app-server")
    }

    async fn receive(&mut self, waiting_for: &str) -> anyhow::Result<Value> {
        loop {
            let message = wait::within(&format!("{waiting_for} at the desk"), self.socket.next()).await?;
            match message.context("the app-server closed the connection")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(_) => bail!("the app-server closed the connection"),
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }
}
