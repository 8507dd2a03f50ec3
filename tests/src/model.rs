//! A scripted model: a small server of the OpenAI Responses API on loopback.
//!
//! Codex is real in every test; the model behind it is this. Keywords in the prompt choose what it does (see
//! [`script::Step`]), and gates let a test hold a response at a known point without waiting for time to pass:
//! `[[stream 3]] [[gate half]] [[stream 3]]` stops in the middle until [`Model::open`] is called for `half`.

mod events;
mod play;
pub mod request;
pub mod script;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::events::Writer;
pub use self::request::Request;
use self::script::Step;
use crate::{canary, wait};

/// The name by which Codex knows the model.
pub const NAME: &str = "flydex-scripted";
/// Pieces of a response that may wait for Codex to read them.
const PIECES_WAITING_MAX: usize = 64;

/// A running model. Stops when dropped.
pub struct Model {
    address: SocketAddr,
    state: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Shared {
    requests: watch::Sender<Vec<Request>>,
    gates: Mutex<BTreeMap<String, Arc<Gate>>>,
    scripts: Mutex<BTreeMap<String, String>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Gate {
    reached: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Model {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub async fn start() -> anyhow::Result<Self> {
        Self::bind("127.0.0.1:0").await
    }

    /// Starts on that address.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn bind(address: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("bind the model to {address}"))?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let state = Arc::new(Shared { stop: stop.clone(), ..Shared::default() });
        let router = axum::Router::new()
            .route("/v1/responses", post(respond))
            .route("/v1/models", get(models))
            .with_state(Arc::clone(&state));
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            // An accept error ends the model; the test that needs it then fails by its own deadline.
            let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
        });
        Ok(Self { address, state, stop })
    }

    /// The base of the API, for Codex's configuration.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Opens a gate: responses that wait at it, or come to it later, go on.
    pub fn open(&self, gate: &str) {
        self.state.gate(gate).open.send_replace(true);
    }

    /// Answers the prompt `prompt`, which needs no keywords then, by the steps in `script`.
    pub fn answer(&self, prompt: &str, script: &str) {
        let mut scripts = self.state.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        scripts.insert(prompt.to_owned(), script.to_owned());
    }

    /// Waits until a response stands at the gate: everything before it was sent to Codex.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn reached(&self, gate: &str) -> anyhow::Result<()> {
        let mut reached = self.state.gate(gate).reached.subscribe();
        wait::within(&format!("a response at the gate {gate}"), reached.wait_for(|reached| *reached)).await??;
        Ok(())
    }

    /// Every request so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.borrow().clone()
    }

    /// Waits for the first request that fits.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn request(&self, fits: impl Fn(&Request) -> bool) -> anyhow::Result<Request> {
        let mut requests = self.state.requests.subscribe();
        let all = wait::within("a request to the model", requests.wait_for(|all| all.iter().any(&fits))).await??;
        all.iter().find(|request| fits(request)).cloned().context("the request that was just there")
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn gate(&self, name: &str) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(name.to_owned()).or_default())
    }

    /// The script that a test gave for the prompt, else the prompt itself.
    fn script_of(&self, prompt: &str) -> String {
        let scripts = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        scripts.get(prompt).map_or(prompt, String::as_str).to_owned()
    }

    fn record(&self, request: Request) -> usize {
        canary::plant("prompt", &request.prompt);
        request.outputs.iter().for_each(|output| canary::plant("command's output", output));
        let mut number = 0;
        self.requests.send_modify(|requests| {
            requests.push(request);
            number = requests.len();
        });
        number
    }
}

async fn models() -> Json<Value> {
    Json(json!({"object": "list", "data": [{"id": NAME, "object": "model"}], "models": []}))
}

async fn respond(State(state): State<Arc<Shared>>, Json(body): Json<Value>) -> Response {
    let request = Request::read(&body);
    let number = state.record(request.clone());
    let steps = response_steps(&request, &state.script_of(&request.prompt));
    if let Some(status) = steps.iter().find_map(http_status) {
        return (status, Json(json!({"error": {"message": "the scripted model refuses", "code": "scripted"}})))
            .into_response();
    }
    let (out, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(async move {
        let play = play::play(&state, Writer::new(out, number), steps);
        tokio::select! {
            () = state.stop.cancelled() => {}
            () = play => {}
        }
    });
    let body = stream::unfold(pieces, |mut pieces| async { pieces.recv().await.map(|piece| (piece, pieces)) });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
}

fn http_status(step: &Step) -> Option<StatusCode> {
    if let Step::Http(code) = step { StatusCode::from_u16(*code).ok() } else { None }
}

/// The steps for this request; where the script is over or absent, one sentence.
fn response_steps(request: &Request, script: &str) -> Vec<Step> {
    let script = script::parse(script);
    let steps = script::response(&script, request.outputs.len());
    if !steps.is_empty() {
        return steps;
    }
    let sentence = match request.outputs.last() {
        Some(output) => format!("done: {}", first_chars(output, 60)),
        None => format!(
            "This is a scripted model; you wrote: {}. Try [[stream 40]], [[esc uname -a]] or [[patch notes.txt]].",
            first_chars(&request.prompt, 200)
        ),
    };
    vec![Step::Say(sentence)]
}

fn first_chars(text: &str, count: usize) -> String {
    text.chars().take(count).collect()
}

#[cfg(test)]
mod tests;
