use ed25519_dalek::{Signer as _, SigningKey};
use p256::ecdsa::SigningKey as Es256SigningKey;

use super::*;

const ORIGIN: &str = "https://relay.example:8443";

fn hash() -> CommandHash {
    CommandHash::from_bytes([9; 32])
}

enum Authenticator {
    Es256(Es256SigningKey),
    Ed25519(SigningKey),
}

impl Authenticator {
    fn both() -> [Self; 2] {
        let es256 = Es256SigningKey::from_slice(&[3; 32]).unwrap();
        [Self::Es256(es256), Self::Ed25519(SigningKey::from_bytes(&[4; 32]))]
    }

    fn passkey(&self) -> Passkey {
        match self {
            Self::Es256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                Passkey::new(b"credential", PasskeyAlgorithm::Es256, point.as_bytes()).unwrap()
            }
            Self::Ed25519(key) => {
                let key = key.verifying_key().to_bytes();
                Passkey::new(b"credential", PasskeyAlgorithm::Ed25519, &key).unwrap()
            }
        }
    }

    fn assertion(&self, data: &[u8], json: &str) -> Assertion {
        let signed = [data, &sha256(json.as_bytes())].concat();
        let signature = match self {
            Self::Es256(key) => {
                let signature: Es256Signature = p256::ecdsa::signature::Signer::sign(key, &signed);
                signature.to_der().as_bytes().to_vec()
            }
            Self::Ed25519(key) => key.sign(&signed).to_vec(),
        };
        Assertion {
            credential_id: b"credential".to_vec(),
            authenticator_data: data.to_vec(),
            client_data_json: json.as_bytes().to_vec(),
            signature,
        }
    }
}

fn data(host: &str, flags: u8) -> Vec<u8> {
    [&sha256(host.as_bytes())[..], &[flags, 0, 0, 0, 1]].concat()
}

fn json(kind: &str, challenge: [u8; 32], origin: &str, rest: &str) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(challenge);
    format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}"{rest}}}"#)
}

fn right() -> (Vec<u8>, String) {
    (data("relay.example", 0x1d), json("webauthn.get", [9; 32], ORIGIN, r#","crossOrigin":false,"new":[1]"#))
}

#[test]
fn an_assertion_of_the_pinned_passkey_on_the_command_holds() {
    for authenticator in Authenticator::both() {
        let (data, json) = right();
        let assertion = authenticator.assertion(&data, &json);
        assert_eq!(verify(&authenticator.passkey(), &assertion, ORIGIN, hash()), Ok(()));
    }
}

#[test]
fn everything_else_is_refused_with_one_code() {
    let refused = Err(ErrorCode::PasskeyInvalid);
    for authenticator in Authenticator::both() {
        let passkey = authenticator.passkey();
        let (data_right, json_right) = right();
        for (data, json) in [
            (data("relay.example", 0x01), json_right.clone()),
            (data("relay.example", 0x04), json_right.clone()),
            (data("relay.example", 0x00), json_right.clone()),
            (data("other.example", 0x05), json_right.clone()),
            (data("relay.example:8443", 0x05), json_right.clone()),
            (data_right[..36].to_vec(), json_right.clone()),
            (Vec::new(), json_right.clone()),
            (data_right.clone(), json("webauthn.create", [9; 32], ORIGIN, "")),
            (data_right.clone(), json("webauthn.get", [8; 32], ORIGIN, "")),
            (data_right.clone(), json("webauthn.get", [9; 32], "https://relay.example", "")),
            (data_right.clone(), json("webauthn.get", [9; 32], "https://evil.example", "")),
            (data_right.clone(), json("webauthn.get", [9; 32], ORIGIN, r#","crossOrigin":true"#)),
            (data_right.clone(), json("webauthn.get", [9; 32], ORIGIN, r#","topOrigin":"https://evil.example""#)),
            (data_right.clone(), json("webauthn.get", [9; 32], ORIGIN, r#","origin":"https://evil.example""#)),
            (data_right.clone(), "not json".to_owned()),
        ] {
            let assertion = authenticator.assertion(&data, &json);
            assert_eq!(verify(&passkey, &assertion, ORIGIN, hash()), refused, "{json}");
        }
        let good = authenticator.assertion(&data_right, &json_right);
        assert_eq!(verify(&passkey, &good, ORIGIN, CommandHash::from_bytes([8; 32])), refused);
        let other_id = Assertion { credential_id: b"other".to_vec(), ..good.clone() };
        assert_eq!(verify(&passkey, &other_id, ORIGIN, hash()), refused);
        let mut flipped = good.clone();
        *flipped.signature.last_mut().unwrap() ^= 1;
        assert_eq!(verify(&passkey, &flipped, ORIGIN, hash()), refused);
        let empty = Assertion { signature: Vec::new(), ..good };
        assert_eq!(verify(&passkey, &empty, ORIGIN, hash()), refused);
    }
    let [one, other] = Authenticator::both();
    let (data, json) = right();
    assert_eq!(verify(&one.passkey(), &other.assertion(&data, &json), ORIGIN, hash()), refused);
}

#[test]
fn only_a_key_of_its_algorithm_can_be_pinned_and_it_survives_the_disk() {
    for authenticator in Authenticator::both() {
        let passkey = authenticator.passkey();
        let text = serde_json::to_string(&passkey).unwrap();
        assert_eq!(serde_json::from_str::<Passkey>(&text).unwrap(), passkey);
    }
    for (id, algorithm, key) in [
        (&b""[..], PasskeyAlgorithm::Ed25519, &[4; 32][..]),
        (&[1; PASSKEY_CREDENTIAL_BYTES_MAX + 1], PasskeyAlgorithm::Ed25519, &[4; 32]),
        (b"id", PasskeyAlgorithm::Ed25519, &[0; 32]),
        (b"id", PasskeyAlgorithm::Ed25519, &[4; 31]),
        (b"id", PasskeyAlgorithm::Es256, &[4; 65]),
        (b"id", PasskeyAlgorithm::Es256, &[]),
    ] {
        assert_eq!(Passkey::new(id, algorithm, key), Err(ErrorCode::BadRequest));
    }
}
