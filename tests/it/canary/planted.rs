//! The search is worth what it finds: a leak planted on purpose in each place is found there.

use axum::Router;
use axum::routing::get;
use flydex_tests::browser::{Answer, Browser};
use flydex_tests::canary::{mark, places};
use flydex_tests::otlp::Sink;
use flydex_tests::postgres::Postgres;
use flydex_tests::process::Process;
use flydex_tests::redis::Redis;
use flydex_tests::wait;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::Command;

#[track_caller]
fn holds(problems: &[String], what: &str) {
    assert!(problems.iter().any(|problem| problem.ends_with(&format!("holds a {what}"))), "{problems:?}");
}

/// What a process writes to its log, in base64, as a library would that prints a frame.
#[tokio::test]
#[should_panic(expected = "holds a prompt")]
async fn a_leak_in_a_line_of_a_log_is_found() {
    let encoded = flydex_loadtest::account::encode(format!("x{}y", mark("prompt")).as_bytes());
    let mut command = Command::new("sh");
    command.args(["-c", "read line; echo \"1790000000000 TRACE h2 frame data=$line\" >&2"]);
    let mut process = Process::start("sh", &mut command).expect("a shell");
    process.tell(&encoded).await.expect("it reads");
    process.ended().await.expect("it ends");
}

/// The words of a panic, as they come where nobody keeps them back.
#[tokio::test]
#[should_panic(expected = "holds a cookie")]
async fn a_leak_in_a_panic_is_found() {
    let mut command = Command::new("sh");
    command.args(["-c", "read line; echo \"thread 'main' (1) panicked at src/main.rs:1:2:\" >&2; echo \"$line\" >&2"]);
    let mut process = Process::start("sh", &mut command).expect("a shell");
    process.tell(&format!("called `unwrap()` on {:?}", mark("cookie"))).await.expect("it reads");
    process.ended().await.expect("it ends");
}

async fn export(span: Span) -> Sink {
    let sink = Sink::start().expect("a port");
    let mut client = TraceServiceClient::connect(sink.endpoint()).await.expect("it listens");
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    client.export(ExportTraceServiceRequest { resource_spans }).await.expect("it takes spans");
    sink
}

fn attribute(text: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Attribute::StringValue(text)) });
    KeyValue { key: "error".to_owned(), value, ..KeyValue::default() }
}

#[tokio::test]
#[should_panic(expected = "holds a token")]
async fn a_leak_in_an_attribute_of_a_span_is_found() {
    drop(export(Span { attributes: vec![attribute(mark("token"))], ..Span::default() }).await);
}

#[tokio::test]
#[should_panic(expected = "holds a token")]
async fn a_leak_in_an_event_of_a_span_is_found() {
    let events = vec![Event { attributes: vec![attribute(mark("token"))], ..Event::default() }];
    drop(export(Span { events, ..Span::default() }).await);
}

#[tokio::test]
async fn a_leak_in_a_label_of_a_metric_is_found() -> anyhow::Result<()> {
    let text = format!("requests_total{{path=\"/api/{}\"}} 1\n", mark("path"));
    let router = Router::new().route("/metrics", get(async move || text.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let metrics = tokio::task::spawn_blocking(move || flydex_tests::cluster::part::get(address, "/metrics")).await??;
    holds(&places::named("a metric", metrics.as_bytes()), "path");
    Ok(())
}

#[tokio::test]
async fn a_leak_in_redis_is_found_also_when_it_is_gone_at_once() -> anyhow::Result<()> {
    let redis = Redis::start().await?;
    let monitor = redis.monitor().await?;
    redis.ask(&["SET", "a", &mark("kept")]).await?;
    redis.ask(&["HSET", &mark("key"), "field", "1"]).await?;
    redis.ask(&["EVAL", &format!("return '{}'", mark("script")), "0"]).await?;
    redis.ask(&["SET", "b", &mark("passing"), "PX", "1"]).await?;
    redis.ask(&["DEL", "b"]).await?;
    wait::until("redis to say all", async || monitor.heard().ends_with(b"\"DEL\" \"b\"\r\n").then_some(())).await?;
    let problems = places::redis(&redis, &monitor).await?;
    for what in ["kept", "key", "script", "passing"] {
        holds(&problems, what);
    }
    let held = format!("what Redis holds holds a {}", "passing");
    assert!(!problems.contains(&held), "{problems:?}");
    Ok(())
}

#[tokio::test]
async fn a_leak_in_any_table_is_found_also_in_one_that_is_new_and_in_a_row_that_is_gone() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let (row, bytes, gone) = (mark("row"), mark("bytes"), mark("gone"));
    postgres.execute("CREATE SCHEMA x; CREATE TABLE x.later (a text, b bytea, c jsonb)").await?;
    postgres.execute(&format!("INSERT INTO x.later VALUES ('{row}', '{bytes}', '{{}}')")).await?;
    postgres.execute(&format!("INSERT INTO x.later VALUES ('', '', '[\"{gone}\"]')")).await?;
    postgres.execute("DELETE FROM x.later WHERE a = ''").await?;
    let problems = places::postgres(&postgres).await?;
    for what in ["row", "bytes", "gone"] {
        holds(&problems, what);
    }
    assert!(!problems.iter().any(|problem| problem == "a row of PostgreSQL holds a gone"), "{problems:?}");
    Ok(())
}

#[test]
fn a_leak_in_a_header_or_a_body_of_an_answer_is_found_and_what_an_answer_is_there_for_is_none() {
    let (cookie, ticket) = (mark("cookie"), mark("ticket"));
    let answer =
        |method: &str, path: &str, text: String| Answer { method: method.to_owned(), path: path.to_owned(), text };
    let set = format!("set-cookie: __Host-flydex={cookie}\n\n");
    assert!(places::answers(&[answer("POST", "/api/sign-in", set.clone())]).is_empty());
    holds(&places::answers(&[answer("GET", "/api/machines", set)]), "cookie");
    let body = format!("content-type: application/json\n\n{}", json!({ "ticket": ticket }));
    assert!(places::answers(&[answer("POST", "/api/tickets", body.clone())]).is_empty());
    holds(&places::answers(&[answer("GET", "/api/tickets", body)]), "ticket");
}

#[tokio::test]
async fn a_leak_in_the_arguments_or_the_environment_of_a_process_is_found() -> anyhow::Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", "read line", &mark("argument")]).env("SECRET", mark("variable"));
    let process = Process::start_foreign("sh", &mut command)?;
    // It has its own once it runs, which is a moment after it was started.
    wait::until("both to be found", async || {
        let problems = places::process(process.pid()).ok()?;
        ["argument", "variable"].iter().all(|what| problems.iter().any(|problem| problem.ends_with(what))).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_file_that_a_process_holds_open_is_found_also_when_it_has_no_name_any_more() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("spill");
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3>spill; rm spill; echo there; read line"]).current_dir(folder.path());
    let process = Process::start_foreign("sh", &mut command)?;
    process.says("there").await?;
    let open = places::open_files(process.pid())?;
    assert!(open.iter().any(|file| file.to_string_lossy().starts_with(&*path.to_string_lossy())), "{open:?}");
    Ok(())
}

#[tokio::test]
async fn a_leak_in_anything_that_a_browser_keeps_is_found() -> anyhow::Result<()> {
    let origin = format!("http://{}", served().await?);
    let browser = Browser::start()?;
    let page = browser.phone().await?;
    let marks = ["local", "session", "cookie", "table", "cache", "address"].map(|what| (what, mark(what)));
    let [local, session, cookie, table, cache, address] = marks.each_ref().map(|(_, mark)| mark);
    page.goto(&format!("{origin}/#{address}")).await?;
    let script = format!(
        r#"(async () => {{
          history.replaceState(null, "", "/");
          localStorage.setItem("a", "{local}");
          sessionStorage.setItem("a", "{session}");
          document.cookie = "a={cookie}";
          await (await caches.open("a")).put("/a", new Response("{cache}"));
          const request = indexedDB.open("a");
          request.onupgradeneeded = () => request.result.createObjectStore("b");
          await new Promise((resolve) => (request.onsuccess = resolve));
          const write = request.result.transaction("b", "readwrite");
          write.objectStore("b").put({{ deep: [new TextEncoder().encode("{table}")] }}, 1);
          await new Promise((resolve) => (write.oncomplete = resolve));
          request.result.close();
        }})()"#
    );
    page.evaluate(&script).await?;
    page.goto(&format!("{origin}/next#{address}")).await?;
    page.goto(&format!("{origin}/")).await?;
    let kept = places::browser(&page).await?;
    let problems = places::named("it", format!("{kept:?}").as_bytes());
    for (what, _) in &marks {
        holds(&problems, what);
    }
    Ok(())
}

/// A page that says nothing.
async fn served() -> anyhow::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(async || axum::response::Html("<title>a page</title>"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}
