//! An identity provider in the test's hand: it keeps to the standard, or breaks it in the way that a test asks for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use flydex_domain::encoding::sha256;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::StatusCode;
use openidconnect::url::{Url, form_urlencoded};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use super::{START_MILLIS, encode};
use crate::IdentityProvider;

const CLIENT_ID: &str = "flydex";
const CLIENT_SECRET: &str = "a secret of client and provider";

/// A provider that listens.
pub(in crate::tests) struct FakeProvider {
    pub(in crate::tests) issuer: String,
    state: Shared,
}

type Shared = Arc<Mutex<Inner>>;

/// What it does and what it knows.
pub(in crate::tests) struct Inner {
    issuer: String,
    key: EcdsaKeyPair,
    key_id: String,
    codes: HashMap<String, Granted>,
    /// How often its keys were asked for.
    pub(in crate::tests) keys_asked: usize,
    /// Claims that go in place of the right ones; null takes one away.
    pub(in crate::tests) claims: Value,
    /// How its tokens are signed.
    pub(in crate::tests) signed: Signed,
    /// Whether it answers at all.
    pub(in crate::tests) silent: bool,
}

/// How a token is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tests) enum Signed {
    /// By its key.
    Well,
    /// Not at all.
    Not,
    /// By an HMAC whose key is the client's secret.
    ByTheSecret,
    /// By a key under a name that it does not publish.
    ByAnUnknownKey,
    /// By another key under its own name.
    ByAnotherKey,
}

struct Granted {
    challenge: String,
    nonce: String,
    subject: String,
}

impl FakeProvider {
    pub(in crate::tests) async fn start() -> Self {
        flydex_runtime::tls::install_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(Inner {
            issuer: issuer.clone(),
            key: new_key(),
            key_id: "first".to_owned(),
            codes: HashMap::new(),
            keys_asked: 0,
            claims: json!({}),
            signed: Signed::Well,
            silent: false,
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(configuration))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { issuer, state }
    }

    /// How a server is set up with it.
    pub(in crate::tests) fn settings(&self) -> IdentityProvider {
        IdentityProvider {
            name: "Example".to_owned(),
            issuer: self.issuer.clone(),
            client_id: CLIENT_ID.to_owned(),
            client_secret: CLIENT_SECRET.into(),
        }
    }

    /// Its mind, to change it.
    pub(in crate::tests) fn mind(&self) -> MutexGuard<'_, Inner> {
        lock(&self.state)
    }

    /// Takes another key, under another name.
    pub(in crate::tests) fn rotate(&self) {
        let mut mind = self.mind();
        mind.key = new_key();
        mind.key_id = format!("{}-next", mind.key_id);
    }

    /// What it would answer a browser that came by that address with a person who signs in: code and state.
    pub(in crate::tests) fn visit(&self, url: &str, subject: &str) -> (String, String) {
        let url = Url::parse(url).expect("an address");
        assert!(url.as_str().starts_with(&format!("{}/authorize?", self.issuer)), "{url}");
        let words: HashMap<String, String> = url.query_pairs().into_owned().collect();
        assert_eq!(words["response_type"], "code");
        assert_eq!(words["scope"], "openid");
        assert_eq!(words["code_challenge_method"], "S256");
        assert_eq!(words["client_id"], CLIENT_ID);
        assert_eq!(words["redirect_uri"], format!("{}/sign-in/identity", super::ORIGIN));
        let code = encode(&rand::random::<[u8; 32]>());
        let granted = Granted {
            challenge: words["code_challenge"].clone(),
            nonce: words["nonce"].clone(),
            subject: subject.to_owned(),
        };
        self.mind().codes.insert(code.clone(), granted);
        (code, words["state"].clone())
    }
}

impl Inner {
    fn id_token(&self, granted: &Granted) -> String {
        let seconds = START_MILLIS / 1_000;
        let mut claims = json!({
            "iss": self.issuer, "sub": granted.subject, "aud": CLIENT_ID, "nonce": granted.nonce,
            "iat": seconds, "exp": seconds + 3_600,
        });
        for (name, value) in self.claims.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        let claims: serde_json::Map<_, _> =
            claims.as_object().expect("claims").clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
        let (alg, key_id) = match self.signed {
            Signed::Well | Signed::ByAnotherKey => ("ES256", self.key_id.as_str()),
            Signed::ByAnUnknownKey => ("ES256", "made up"),
            Signed::Not => ("none", self.key_id.as_str()),
            Signed::ByTheSecret => ("HS256", self.key_id.as_str()),
        };
        let part = |value: Value| encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(json!({ "alg": alg, "kid": key_id })), part(Value::Object(claims)));
        let by = |key: &EcdsaKeyPair| {
            let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
            encode(signature.as_ref())
        };
        let signature = match self.signed {
            Signed::Well => by(&self.key),
            Signed::ByAnotherKey | Signed::ByAnUnknownKey => by(&new_key()),
            Signed::Not => String::new(),
            Signed::ByTheSecret => {
                let mut hmac = Hmac::<Sha256>::new_from_slice(CLIENT_SECRET.as_bytes()).expect("a key");
                hmac.update(signed.as_bytes());
                encode(&hmac.finalize().into_bytes())
            }
        };
        format!("{signed}.{signature}")
    }
}

async fn configuration(State(state): State<Shared>) -> Result<Json<Value>, StatusCode> {
    let mind = lock(&state);
    if mind.silent {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let issuer = &mind.issuer;
    Ok(Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
    })))
}

async fn keys(State(state): State<Shared>) -> Json<Value> {
    let mut mind = lock(&state);
    mind.keys_asked += 1;
    let point = mind.key.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..65]));
    Json(json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": mind.key_id, "x": x, "y": y },
    ] }))
}

async fn token(State(state): State<Shared>, body: String) -> (StatusCode, Json<Value>) {
    let words: HashMap<String, String> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let mut mind = lock(&state);
    let granted = words.get("code").and_then(|code| mind.codes.remove(code));
    let verifier = words.get("code_verifier").map(String::as_str).unwrap_or_default();
    match granted.filter(|granted| encode(&sha256(verifier.as_bytes())) == granted.challenge) {
        None => (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))),
        Some(granted) => {
            let id_token = mind.id_token(&granted);
            let answer = json!({ "access_token": "token", "token_type": "Bearer", "id_token": id_token });
            (StatusCode::OK, Json(answer))
        }
    }
}

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")
}

fn lock(state: &Shared) -> MutexGuard<'_, Inner> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
