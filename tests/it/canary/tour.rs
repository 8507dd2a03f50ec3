//! Every route of the API and every entrance of a gateway, asked badly: what is refused is not repeated.

use anyhow::{Context as _, ensure};
use flydex_loadtest::account::key_json;
use flydex_loadtest::device::Device;
use flydex_tests::browser::Answer;
use flydex_tests::canary::{self, mark};
use flydex_tests::cluster::Cluster;
use reqwest::header::{CONTENT_TYPE, COOKIE, HeaderMap, ORIGIN, SET_COOKIE};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// Signs out: asked last.
const LAST: &str = "/api/sign-out";

/// Somebody of another account than the phone's, who asks for everything that the API's own description names, well
/// signed in and not. Every answer.
pub(super) async fn of(cluster: &Cluster) -> anyhow::Result<Vec<Answer>> {
    let mut tour = Tour::begin(cluster).await?;
    tour.signs_in(&cluster.account().await?).await?;
    tour.is_given_secrets().await?;
    let (_, description) = tour.call(Method::GET, "/api/openapi.json", "", String::new()).await?;
    let paths = description["paths"].as_object().context("the API describes itself")?.clone();
    let (last, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|(path, _)| path == LAST);
    for (path, operations) in others.into_iter().chain(last) {
        for method in operations.as_object().into_iter().flat_map(|operations| operations.keys()) {
            let method = Method::from_bytes(method.to_uppercase().as_bytes())?;
            tour.asks_badly(&method, &path).await?;
        }
    }
    tour.asks_others(cluster).await?;
    ensure!(tour.answers.len() > 100, "there is more to see than {} answers", tour.answers.len());
    Ok(tour.answers)
}

/// The same where control has lost its database: what it says then is not what it was asked with.
pub(super) async fn without_a_database(cluster: &Cluster) -> anyhow::Result<()> {
    let mut tour = Tour::begin(cluster).await?;
    let body = json!({ "token": canary_token() }).to_string();
    let (status, _) = tour.call(Method::POST, "/api/sign-in", "", body).await?;
    ensure!(status.is_server_error(), "signed in without a database: {status}");
    let problems = canary::places::answers(&tour.answers);
    ensure!(problems.is_empty(), "{problems:?}");
    Ok(())
}

struct Tour {
    client: Client,
    origin: String,
    /// Where it is called.
    base: String,
    cookie: String,
    answers: Vec<Answer>,
}

impl Tour {
    async fn begin(cluster: &Cluster) -> anyhow::Result<Self> {
        let tls = flydex_runtime::tls::client_config(Some(cluster.certificate_pem()), &[b"h2", b"http/1.1"])?;
        let client = Client::builder().tls_backend_preconfigured(tls).build()?;
        let origin = cluster.origin().to_owned();
        let mut tour = Self { client, base: origin.clone(), origin, cookie: String::new(), answers: Vec::new() };
        let (_, found) = tour.call(Method::GET, "/.well-known/flydex.json", "", String::new()).await?;
        tour.base = found["api_origin"].as_str().context("the app says where the API is")?.to_owned();
        Ok(tour)
    }

    async fn signs_in(&mut self, link: &str) -> anyhow::Result<()> {
        let token = link.split_once('#').context("no token in the link")?.1;
        canary::plant_token("sign-in token", token);
        self.enters("/api/sign-in", json!({ "token": token }).to_string()).await
    }

    async fn enters(&mut self, path: &str, body: String) -> anyhow::Result<()> {
        let (status, _) = self.call(Method::POST, path, "", body).await?;
        ensure!(status.is_success(), "not signed in at {path}: {status}");
        let answer = &self.answers.last().context("no answer")?.text;
        let set = answer.lines().find_map(|line| line.strip_prefix(&format!("{SET_COOKIE}: "))).context("no cookie")?;
        self.cookie = set.split(';').next().unwrap_or_default().to_owned();
        canary::plant_token("cookie", self.cookie.split_once('=').context("no value")?.1);
        Ok(())
    }

    async fn is_given_secrets(&mut self) -> anyhow::Result<()> {
        let cookie = self.cookie.clone();
        for device in [Device::new(), Device::p256()] {
            canary::plant_bytes("device key", &device.secret_bytes());
            let body = json!({ "device_key": key_json(&device.public_key()), "region": "one" }).to_string();
            let (_, given) = self.call(Method::POST, "/api/tickets", &cookie, body).await?;
            for what in ["ticket", "grant"] {
                canary::plant_signed(what, given[what].as_str().with_context(|| format!("no {what} in {given}"))?);
            }
        }
        let (_, link) = self.call(Method::POST, "/api/sign-in-links", &cookie, "{}".to_owned()).await?;
        let url = link["url"].as_str().context("no link")?;
        canary::plant_token("sign-in token", url.split_once('#').context("no token in the link")?.1);
        let body = json!({ "role": "viewer", "label": "a colleague" }).to_string();
        let (_, invitation) = self.call(Method::POST, "/api/invitations", &cookie, body).await?;
        let url = invitation["url"].as_str().with_context(|| format!("no invitation in {invitation}"))?;
        canary::plant_token("invitation token", url.split_once('#').context("no token in the link")?.1);
        self.recovers().await
    }

    /// By one of the codes that it is given.
    async fn recovers(&mut self) -> anyhow::Result<()> {
        let cookie = self.cookie.clone();
        let (_, given) = self.call(Method::POST, "/api/recovery-codes", &cookie, "{}".to_owned()).await?;
        let codes: Vec<_> = given["codes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for code in &codes {
            canary::plant("recovery code", code);
            canary::plant("recovery code", &code.replace('-', ""));
        }
        let body = json!({ "code": codes.first().with_context(|| format!("no codes in {given}"))? }).to_string();
        self.enters("/api/sign-in/recovery", body).await
    }

    /// With an id that is none and one that nobody has, with fields that nobody knows and a body that is no JSON, signed
    /// in and with a cookie that is none.
    async fn asks_badly(&mut self, method: &Method, path: &str) -> anyhow::Result<()> {
        let cookies = [self.cookie.clone(), format!("__Host-flydex={}", canary_token())];
        for cookie in &cookies {
            for id in [mark("path"), uuid::Uuid::new_v4().to_string()] {
                let path = format!("{}?{}={}", with_id(path, &id), mark("query"), mark("query"));
                for body in [odd_fields(), format!("{{\"token\": {}", mark("body"))] {
                    let (status, _) = self.call(method.clone(), &path, cookie, body).await?;
                    ensure!(!status.is_server_error(), "{method} {path} was answered {status}");
                }
            }
        }
        Ok(())
    }

    /// Gateways, and who serves the app.
    async fn asks_others(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let gateways = format!("https://localhost:{}", cluster.region().balancer.port());
        let cookie = self.cookie.clone();
        for base in [gateways, self.origin.clone()] {
            self.base = base;
            for path in ["/v1/session".to_owned(), "/v1/link".to_owned(), format!("/{}", mark("path"))] {
                let path = format!("{path}?ticket={}", mark("query"));
                let (status, _) = self.call(Method::GET, &path, &cookie, String::new()).await?;
                ensure!(!status.is_server_error(), "{path} was answered {status}");
            }
        }
        Ok(())
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        cookie: &str,
        body: String,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let request = self.client.request(method.clone(), format!("{}{path}", self.base));
        let request = request.header(ORIGIN, &self.origin).header(CONTENT_TYPE, "application/json");
        let request = request.header(COOKIE, cookie).header("x-forwarded-for", mark("header"));
        let response = request.header("authorization", format!("Bearer {}", canary_token())).body(body).send().await?;
        let (status, headers) = (response.status(), lines_of(response.headers()));
        let body = response.text().await?;
        let path = path.split('?').next().unwrap_or_default().to_owned();
        self.answers.push(Answer { method: method.to_string(), path, text: format!("{headers}\n{body}") });
        Ok((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
    }
}

fn lines_of(headers: &HeaderMap) -> String {
    let line = |(name, value): (_, &reqwest::header::HeaderValue)| {
        format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
    };
    headers.iter().map(line).collect()
}

fn with_id(path: &str, id: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { id } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// 32 bytes of base64url that nobody was given.
fn canary_token() -> String {
    let token = flydex_loadtest::account::encode(&flydex_domain::encoding::sha256(mark("token").as_bytes()));
    canary::plant_token("token", &token);
    token
}

/// Fields of the API with values that are none, and a field that is none.
fn odd_fields() -> String {
    let odd = mark("field");
    json!({
        "token": canary_token(), "device_label": mark("label"), "machine_label": mark("label"), "redeem_key": canary_token(),
        "device_key": { "algorithm": mark("algorithm"), "key": canary_token() }, "device_mac": canary_token(),
        "credential": mark("credential"), "region": mark("region"), "label": mark("label"), odd.as_str(): odd,
    })
    .to_string()
}
