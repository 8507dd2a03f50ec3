use axum::http::Method;
use flydex_domain::limits::HELPER_BODY_BYTES_MAX;

use super::guard::{Admission, admit};
use super::*;
use crate::cli::screen::Screen;
use crate::pair::desk::{Desk, DeskAnswer, Question, Stage};
use crate::pair::tests::Shown;

const RELAY: &str = "https://relay.example";

struct Served {
    port: u16,
    token: PageToken,
    desk: Desk,
    staged: mpsc::Receiver<()>,
    shutdown: Shutdown,
    http: reqwest::Client,
}

impl Served {
    async fn with(readiness: Readiness) -> Self {
        flydex_runtime::tls::install_provider();
        let helper = Helper::bind(0).await.unwrap();
        let port = helper.port();
        let token = PageToken::draw(&Entropy::from_fn(|bytes| bytes.fill(0x5a)));
        let (desk, desk_port) = Desk::new(Screen::of(Shown::default()));
        let (staged_tx, staged) = mpsc::channel(1);
        let config = HelperConfig {
            origin: RELAY.parse().unwrap(),
            token: token.clone(),
            desk: desk_port,
            staged: staged_tx,
            readiness: watch::channel(readiness).1,
        };
        let shutdown = Shutdown::new();
        helper.serve(config, &shutdown);
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { port, token, desk, staged, shutdown, http }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> reqwest::Response {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = self.http.request(method, url).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn refusal(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let answer = self.send(method, path, headers, body).await;
        assert!(!answer.status().is_success(), "{path} {headers:?}");
        assert!(answer.headers().get("access-control-allow-origin").is_none(), "{path} {headers:?}");
        let body: serde_json::Value = answer.json().await.unwrap();
        body["error"]["code"].as_str().unwrap().to_owned()
    }

    fn form(&self, question: u64, answer: &str) -> String {
        format!("t={}&question={question}&answer={answer}", self.token.expose())
    }
}

fn question(number: u64) -> Question {
    Question {
        number,
        account_name: "Ada <script>".to_owned(),
        device_label: "\"phone\"".to_owned(),
        role: flydex_domain::scope::Role::Owner,
        short_code: "123 456".to_owned(),
    }
}

#[tokio::test]
async fn the_relays_page_learns_that_a_connector_is_here_and_no_more() {
    let served = Served::with(Readiness::CodexReady).await;
    let answer = served.send(Method::GET, "/v1/health", &[("origin", RELAY)], "").await;
    assert_eq!(answer.headers()["access-control-allow-origin"], RELAY);
    let body: serde_json::Value = answer.json().await.unwrap();
    let expected = serde_json::json!({
        "product": "flydex", "version": env!("CARGO_PKG_VERSION"), "readiness": "codex_ready",
    });
    assert_eq!(body, expected);
    assert!(served.shutdown.drain(std::time::Duration::from_secs(5)).await);
}

#[tokio::test]
async fn other_hosts_and_origins_are_refused() {
    let served = Served::with(Readiness::CodexReady).await;
    let rebound = format!("evil.example:{}", served.port);
    for headers in [
        vec![("host", rebound.as_str()), ("origin", RELAY)],
        vec![("host", "127.0.0.1"), ("origin", RELAY)],
        vec![("host", "127.0.0.1:1"), ("origin", RELAY)],
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("origin", "http://127.0.0.1:3000")],
        vec![("origin", "https://relay.example.evil.example")],
        vec![("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(served.refusal(Method::GET, "/v1/health", &headers, "").await, "local_origin_refused");
    }
    let elsewhere =
        [(Method::GET, "/v1/connect"), (Method::GET, "/v1/"), (Method::DELETE, "/"), (Method::PUT, "/answer")];
    for (method, path) in elsewhere {
        assert_eq!(served.refusal(method, path, &[("origin", RELAY)], "").await, "local_origin_refused");
    }
}

#[tokio::test]
async fn a_preflight_is_answered_for_the_relay_on_its_two_routes_only() {
    let served = Served::with(Readiness::CodexReady).await;
    let asked = [("origin", RELAY), ("access-control-request-private-network", "true")];
    let answer = served.send(Method::OPTIONS, "/v1/connect", &asked, "").await;
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.headers()["access-control-allow-origin"], RELAY);
    assert_eq!(answer.headers()["access-control-allow-private-network"], "true");
    for (path, origin) in [("/", RELAY), ("/answer", RELAY), ("/v1/connect", "https://evil.example")] {
        let code = served.refusal(Method::OPTIONS, path, &[("origin", origin)], "").await;
        assert_eq!(code, "local_origin_refused", "{path}");
    }
}

#[tokio::test]
async fn a_wish_to_pair_is_staged_for_the_relays_page_only() {
    let mut served = Served::with(Readiness::CodexReady).await;
    let json = ("content-type", "application/json");
    for headers in [
        vec![json],
        vec![json, ("origin", "https://evil.example")],
        vec![("origin", RELAY), ("content-type", "text/plain")],
    ] {
        assert_eq!(served.refusal(Method::POST, "/v1/connect", &headers, "{}").await, "local_origin_refused");
    }
    assert!(served.staged.try_recv().is_err());
    for _ in 0..2 {
        let answer = served.send(Method::POST, "/v1/connect", &[json, ("origin", RELAY)], "{}").await;
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.text().await.unwrap(), r#"{"status":"awaiting_desk"}"#);
    }
    assert_eq!(served.staged.recv().await, Some(()));
    assert!(served.staged.try_recv().is_err(), "two wishes are one question");
}

#[tokio::test]
async fn the_page_opens_with_its_token_only() {
    let mut served = Served::with(Readiness::Pairing).await;
    served.desk.show(Stage::Asked(question(1)));
    for path in ["/", "/?t=", "/?t=wrong", "/?x=1"] {
        let answer = served.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.status(), 403, "{path}");
        assert!(!answer.text().await.unwrap().contains("123 456"));
    }
    let answer = served.send(Method::GET, &format!("/?t={}", served.token.expose()), &[], "").await;
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()["x-frame-options"], "DENY");
    assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let page = answer.text().await.unwrap();
    assert!(page.contains("123 456") && page.contains("Ada &lt;script&gt;") && page.contains("&quot;phone&quot;"));
    assert!(!page.contains("<script"), "{page}");
}

#[tokio::test]
async fn an_answer_needs_the_pages_own_origin_and_token() {
    let mut served = Served::with(Readiness::Pairing).await;
    served.desk.show(Stage::Asked(question(1)));
    let own = format!("http://127.0.0.1:{}", served.port);
    let form = served.form(1, "yes");
    for headers in [
        vec![],
        vec![("origin", RELAY)],
        vec![("origin", "http://127.0.0.1:1")],
        vec![("origin", own.as_str()), ("sec-fetch-site", "same-site")],
    ] {
        assert_eq!(served.refusal(Method::POST, "/answer", &headers, &form).await, "local_origin_refused");
    }
    let forged = form.replace(served.token.expose(), "wrong");
    let own_headers = [("origin", own.as_str())];
    assert_eq!(served.refusal(Method::POST, "/answer", &own_headers, &forged).await, "local_origin_refused");
    assert_eq!(served.refusal(Method::POST, "/answer", &own_headers, "").await, "local_origin_refused");
    assert!(served.desk.answered().is_none());

    let answer = served.send(Method::POST, "/answer", &own_headers, &form).await;
    assert_eq!(answer.status(), 303);
    assert_eq!(served.desk.answered(), Some(DeskAnswer { yes: true, question: Some(1) }));
    served.send(Method::POST, "/answer", &own_headers, &served.form(1, "maybe")).await;
    assert_eq!(served.desk.answered(), Some(DeskAnswer { yes: false, question: Some(1) }));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let served = Served::with(Readiness::Pairing).await;
    let own = format!("http://127.0.0.1:{}", served.port);
    let body = "x".repeat(HELPER_BODY_BYTES_MAX + 1);
    let answer = served.send(Method::POST, "/answer", &[("origin", &own)], &body).await;
    assert_eq!(answer.status(), 413);
}

#[tokio::test]
async fn a_taken_port_is_told() {
    let first = Helper::bind(0).await.unwrap();
    let error = Helper::bind(first.port()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::LocalPortTaken);
}

#[test]
fn a_doubled_header_is_refused() {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:9"));
    headers.append(header::ORIGIN, HeaderValue::from_static(RELAY));
    let uri = "/v1/health".parse().unwrap();
    assert_eq!(admit(&Method::GET, &uri, &headers, 9, RELAY), Admission::Relay);
    headers.append(header::ORIGIN, HeaderValue::from_static("https://evil.example"));
    assert_eq!(admit(&Method::GET, &uri, &headers, 9, RELAY), Admission::Refused);
}

#[test]
fn the_debug_output_of_a_token_shows_nothing() {
    let token = PageToken::draw(&Entropy::from_fn(|bytes| bytes.fill(0x5a)));
    assert_eq!(format!("{token:?}"), "PageToken(redacted)");
    assert!(token.is(token.expose()) && !token.is("") && !token.is("WlpaWlpa"));
}
