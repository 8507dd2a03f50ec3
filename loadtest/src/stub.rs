//! A stand-in for the Codex app-server, for benches only: it answers at once, so that what is measured is FlyDex.
//!
//! It speaks the app-server's JSON lines on standard input and output and knows the reads that the phone's views
//! make. Every test of behaviour uses the real Codex.

use std::io::{self, BufRead as _, Write as _};

use serde_json::{Value, json};

/// Version that the stub claims: the pinned one.
const CODEX_VERSION: &str = "0.169.0";
/// A fixed time for every thread, so that runs are alike.
const EPOCH_SECONDS: u64 = 1_795_000_000;
/// Text of one item of history, in bytes.
const ITEM_BYTES: usize = 2_000;
/// Items of one turn.
const TURN_ITEMS: usize = 10;

/// How much the stub has to tell.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct StubArguments {
    /// Threads in the list.
    #[arg(long, env = "FLYDEX_STUB_THREADS", default_value_t = 5_000)]
    pub threads: usize,
    /// Bytes of history in every thread.
    #[arg(long, env = "FLYDEX_STUB_HISTORY_BYTES", default_value_t = 20_000_000)]
    pub history_bytes: usize,
}

/// Answers requests until the input ends.
///
/// # Errors
/// When input or output fails.
pub fn serve(arguments: StubArguments) -> io::Result<()> {
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let Ok(request) = serde_json::from_str::<Value>(&line?) else { continue };
        let (Some(id), Some(method)) = (request.get("id"), request["method"].as_str()) else { continue };
        let answer = match answer(arguments, method, &request["params"]) {
            Some(result) => json!({ "id": id, "result": result }),
            None => json!({ "id": id, "error": { "code": -32600, "message": "not part of the stub" } }),
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn answer(arguments: StubArguments, method: &str, params: &Value) -> Option<Value> {
    Some(match method {
        "initialize" => json!({
            "userAgent": format!("flydex_connector/{CODEX_VERSION} (stub)"),
            "codexHome": "/nonexistent", "platformFamily": "unix", "platformOs": "linux",
        }),
        "model/list" => json!({ "data": [{ "id": "stub", "displayName": "Stub", "supportedReasoningEfforts": [] }] }),
        "thread/loaded/list" => json!({ "data": [] }),
        "thread/unsubscribe" => json!({ "status": "unsubscribed" }),
        "thread/list" => thread_list(arguments, params),
        "thread/read" => json!({ "thread": thread(index_of(params)) }),
        "thread/resume" => json!({
            "thread": thread(index_of(params)), "model": "stub", "modelProvider": "stub", "cwd": "/srv/app",
            "approvalPolicy": "on-request", "sandbox": { "type": "workspaceWrite" },
            "initialTurnsPage": turns(arguments, &json!({ "limit": params["initialTurnsPage"]["limit"] })),
        }),
        "thread/turns/list" => turns(arguments, params),
        _ => return None,
    })
}

fn thread_list(arguments: StubArguments, params: &Value) -> Value {
    let from: usize = params["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let limit = usize::try_from(params["limit"].as_u64().unwrap_or(25)).unwrap_or(25);
    let end = arguments.threads.min(from + limit);
    let data: Vec<Value> = (from..end).map(thread).collect();
    let next = (end < arguments.threads).then(|| end.to_string());
    json!({ "data": data, "readStates": [], "nextCursor": next, "backwardsCursor": null })
}

fn thread(index: usize) -> Value {
    let seconds = EPOCH_SECONDS - index as u64 * 60;
    json!({
        "id": format!("01a20000-0000-7000-8000-{index:012x}"), "preview": format!("Thread {index}: tidy up the parser"),
        "name": null, "cwd": "/srv/app", "createdAt": seconds, "updatedAt": seconds, "modelProvider": "stub",
        "historyMode": "paginated", "status": { "type": "idle" }, "path": null, "source": "cli", "gitInfo": null,
        "ephemeral": false, "cliVersion": CODEX_VERSION, "turns": [],
    })
}

fn index_of(params: &Value) -> usize {
    let id = params["threadId"].as_str().unwrap_or_default();
    usize::from_str_radix(id.rsplit('-').next().unwrap_or_default(), 16).unwrap_or(0)
}

/// A page of turns, newest first; the cursor is the number of turns before it.
fn turns(arguments: StubArguments, params: &Value) -> Value {
    let total = arguments.history_bytes / (ITEM_BYTES * TURN_ITEMS);
    let newer: usize = params["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let limit = usize::try_from(params["limit"].as_u64().unwrap_or(25)).unwrap_or(25);
    let end = total.min(newer + limit);
    let data: Vec<Value> = (newer..end).map(|age| turn(total - age)).collect();
    let next = (end < total).then(|| end.to_string());
    json!({ "data": data, "nextCursor": next, "backwardsCursor": null })
}

fn turn(number: usize) -> Value {
    let text = "All work and no play makes a dull run. ".repeat(ITEM_BYTES / 39);
    let item = |index: usize| match index {
        0 => {
            json!({ "type": "userMessage", "id": format!("t{number}i0"), "content": [{ "type": "text", "text": "go on" }] })
        }
        _ => json!({ "type": "agentMessage", "id": format!("t{number}i{index}"), "text": text }),
    };
    json!({
        "id": format!("01a30000-0000-7000-8000-{number:012x}"), "status": "completed", "error": null,
        "items": (0..TURN_ITEMS).map(item).collect::<Vec<_>>(), "startedAt": EPOCH_SECONDS, "completedAt": EPOCH_SECONDS + 1,
    })
}
