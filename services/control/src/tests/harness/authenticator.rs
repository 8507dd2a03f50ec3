//! An authenticator in software: it makes passkeys and signs with them as a security key does, and misbehaves on wish.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use flydex_domain::encoding::sha256;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{Answer, ORIGIN, World, encode, text};

const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const HAS_CREDENTIAL: u8 = 0x40;

/// One passkey.
pub(in crate::tests) struct Authenticator {
    key: EcdsaKeyPair,
    credential_id: [u8; 32],
    user_handle: String,
    /// What the next assertion says; zero says that nothing is counted.
    pub(in crate::tests) counter: u32,
    /// Whether the person showed a finger or a PIN.
    pub(in crate::tests) verified: bool,
    /// The page that asks.
    pub(in crate::tests) origin: &'static str,
}

impl Authenticator {
    pub(in crate::tests) fn new() -> Self {
        Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"),
            credential_id: rand::random(),
            user_handle: String::new(),
            counter: 1,
            verified: true,
            origin: ORIGIN,
        }
    }

    /// Answers `navigator.credentials.create`.
    pub(in crate::tests) fn create(&mut self, options: &Value) -> Value {
        self.user_handle = text(&options["user"], "id");
        let client_data = self.client_data("webauthn.create", options);
        let mut data = self.authenticator_data(HAS_CREDENTIAL, &text(&options["rp"], "id"));
        data.extend([0; 16]);
        data.extend([0, 32]);
        data.extend(self.credential_id);
        data.extend(self.cose_key());
        self.counter += u32::from(self.counter > 0);
        let mut attestation = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58".to_vec();
        attestation.push(u8::try_from(data.len()).expect("short"));
        attestation.extend(data);
        self.credential(json!({ "clientDataJSON": encode(&client_data), "attestationObject": encode(&attestation) }))
    }

    /// Answers `navigator.credentials.get`.
    pub(in crate::tests) fn get(&mut self, options: &Value) -> Value {
        let client_data = self.client_data("webauthn.get", options);
        let data = self.authenticator_data(0, &text(options, "rpId"));
        self.counter += u32::from(self.counter > 0);
        let signed = [data.as_slice(), &sha256(&client_data)].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).expect("a signature");
        self.credential(json!({
            "clientDataJSON": encode(&client_data),
            "authenticatorData": encode(&data),
            "signature": encode(signature.as_ref()),
            "userHandle": self.user_handle,
        }))
    }

    fn credential(&self, response: Value) -> Value {
        let id = encode(&self.credential_id);
        json!({ "id": id, "rawId": id, "type": "public-key", "clientExtensionResults": {}, "response": response })
    }

    fn client_data(&self, kind: &str, options: &Value) -> Vec<u8> {
        let challenge = text(options, "challenge");
        json!({ "type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false })
            .to_string()
            .into_bytes()
    }

    fn authenticator_data(&self, flags: u8, relying_party: &str) -> Vec<u8> {
        let verified = if self.verified { VERIFIED } else { 0 };
        let mut data = sha256(relying_party.as_bytes()).to_vec();
        data.push(PRESENT | verified | flags);
        data.extend(self.counter.to_be_bytes());
        data
    }

    fn cose_key(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        [b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20".as_slice(), &point[1..33], b"\x22\x58\x20", &point[33..65]]
            .concat()
    }
}

impl World {
    /// The first step of something: its options, and the cookie that the second needs.
    pub(in crate::tests) async fn first_step(&self, cookie: Option<&str>, path: &str) -> (Value, String) {
        let answer = self.page(cookie, Method::POST, path, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let attempt = answer_cookie(&answer).expect("an attempt's cookie");
        (answer.body["options"].clone(), attempt)
    }

    /// Adds a passkey to a browser's user; its new cookie is given back.
    pub(in crate::tests) async fn add_passkey(&self, cookie: &str, label: &str) -> (Authenticator, String) {
        // Never of the same millisecond as another.
        self.advance(Duration::from_millis(1));
        let mut authenticator = Authenticator::new();
        let (options, attempt) = self.first_step(Some(cookie), "/api/passkeys/start").await;
        let body = json!({ "label": label, "credential": authenticator.create(&options) });
        let both = format!("{cookie}; {attempt}");
        let answer = self.page(Some(&both), Method::POST, "/api/passkeys/finish", Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        (authenticator, answer_cookie(&answer).expect("a new token"))
    }

    /// Signs in with a passkey, in a browser that may have cookies.
    pub(in crate::tests) async fn passkey_sign_in(&self, authenticator: &mut Authenticator) -> Answer {
        let (options, attempt) = self.first_step(None, "/api/sign-in/passkey/start").await;
        let body = json!({ "credential": authenticator.get(&options) });
        self.page(Some(&attempt), Method::POST, "/api/sign-in/passkey/finish", Some(body)).await
    }

    /// A fresh assertion in a session.
    pub(in crate::tests) async fn assert_presence(&self, cookie: &str, authenticator: &mut Authenticator) -> Answer {
        let (options, attempt) = self.first_step(Some(cookie), "/api/presence/start").await;
        let body = json!({ "credential": authenticator.get(&options) });
        let both = format!("{cookie}; {attempt}");
        self.page(Some(&both), Method::POST, "/api/presence/finish", Some(body)).await
    }
}

/// The name and value of the cookie that an answer sets, if it sets one.
pub(in crate::tests) fn answer_cookie(answer: &Answer) -> Option<String> {
    let set = answer.headers.get(header::SET_COOKIE)?.to_str().ok()?;
    set.split(';').next().map(str::to_owned)
}
