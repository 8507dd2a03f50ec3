//! The web app at an origin of its own: whoever breaks into what has the accounts does not serve its code.

use anyhow::Context as _;
use flydex_tests::cluster::{Cluster, RegionSettings, Settings};
use reqwest::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, ORIGIN,
};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn the_web_app_comes_from_a_process_of_its_own_and_its_pages_alone_may_call_the_api() -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    let regions = vec![RegionSettings { name: "one", gateways: 1, nodes: 1 }];
    let cluster = Cluster::start(Settings { regions, controls: 1, ..Settings::default() }).await?;
    let app = cluster.origin().to_owned();
    let tls = flydex_runtime::tls::client_config(Some(cluster.certificate_pem()), &[b"h2", b"http/1.1"])?;
    let client = Client::builder().tls_backend_preconfigured(tls).build()?;

    let page = client.get(format!("{app}/")).send().await?;
    assert!(header(page.headers(), CONTENT_TYPE.as_str()).starts_with("text/html"));
    let policy = header(page.headers(), CONTENT_SECURITY_POLICY.as_str()).to_owned();
    let whereabouts: Value = client.get(format!("{app}/.well-known/flydex.json")).send().await?.json().await?;
    let api = whereabouts["api_origin"].as_str().context("an API")?.to_owned();
    assert_ne!(api, app);
    let gateways = format!("wss://localhost:{}", cluster.region().balancer.port());
    assert!(policy.contains(&format!("connect-src 'self' {api} {gateways};")), "{policy}");
    let at_the_app = client.post(format!("{app}/api/sign-in")).json(&json!({})).send().await?;
    assert_eq!(at_the_app.status(), StatusCode::METHOD_NOT_ALLOWED, "no API is there");

    for path in ["/", "/pair", "/index.html", "/sw.js", "/.well-known/flydex.json"] {
        assert_eq!(client.get(format!("{api}{path}")).send().await?.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let gateway = format!("https://localhost:{}/v1/session", cluster.region().balancer.port());
    for url in [gateway, format!("{api}/api/session"), format!("{app}/nothing.js")] {
        let answer = client.get(&url).send().await?;
        for (name, told) in [
            ("content-security-policy", "default-src 'none'"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("strict-transport-security", "max-age=63072000"),
        ] {
            assert!(header(answer.headers(), name).starts_with(told), "{url}: {name}");
        }
    }
    let ours = preflight(&client, &api, &app).await?;
    assert_eq!(header(ours.headers(), ACCESS_CONTROL_ALLOW_ORIGIN.as_str()), app);
    assert_eq!(header(ours.headers(), ACCESS_CONTROL_ALLOW_CREDENTIALS.as_str()), "true");
    for foreign in ["https://localhost", "https://app.example", "null", api.as_str()] {
        let answer = preflight(&client, &api, foreign).await?;
        assert_ne!(header(answer.headers(), ACCESS_CONTROL_ALLOW_ORIGIN.as_str()), foreign);
        let asked = client.post(format!("{api}/api/sign-out")).header(ORIGIN, foreign).json(&json!({})).send().await?;
        assert_eq!(asked.status(), StatusCode::FORBIDDEN, "{foreign}");
    }
    cluster.stop().await
}

async fn preflight(client: &Client, api: &str, origin: &str) -> anyhow::Result<Response> {
    let request = client
        .request(Method::OPTIONS, format!("{api}/api/tickets"))
        .header(ORIGIN, origin)
        .header(ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(ACCESS_CONTROL_REQUEST_HEADERS, "content-type");
    Ok(request.send().await?)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
