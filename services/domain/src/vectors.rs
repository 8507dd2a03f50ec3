//! Holds this crate and the web app to the same bytes.
//!
//! `proto/vectors/v1.json` states inputs and expected outputs. The test below computes the outputs anew; the web
//! app's tests (`services/web/src/protocol/vectors.test.ts`) do the same with their own code. With
//! `FLYDEX_WRITE_VECTORS` set, the file is written instead.

use std::path::Path;

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::approval::{self, ApprovalAction, ApprovalBinding, ApprovalKind, FileChange, approval_transcript};
use crate::audit::AuditKind;
use crate::command::{command_transcript, receipt_transcript};
use crate::encoding::{Label, Transcript};
use crate::endorsement::IntroductionTerms;
use crate::error::ErrorCode;
use crate::id::{AccountId, ApprovalId, ClaimId, Generation, MachineId};
use crate::key::{PublicKey, sign};
use crate::pairing::{ClaimKeys, PairingTerms};
use crate::rotation::KeyRotation;
use crate::scope::Role;
use crate::secret::SecretKey;
use crate::time::UnixMillis;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn transcript() -> Value {
    let bytes = Transcript::new(Label::Pairing)
        .text("grüße")
        .bytes(&[0, 255])
        .integer(u64::MAX)
        .optional(None)
        .optional(Some(b""))
        .count(3)
        .finish();
    json!({ "hex": hex(&bytes) })
}

fn pairing() -> Value {
    let machine = SigningKey::from_bytes(&[4; 32]);
    let device = SigningKey::from_bytes(&[5; 32]);
    let secret = [6; 32];
    let keys = ClaimKeys::derive(&SecretKey::new(secret));
    let terms = PairingTerms {
        origin: "https://relay.example:8443".to_owned(),
        claim_id: ClaimId::from_uuid(Uuid::from_u128(1)),
        expires_at: UnixMillis(1_763_800_000_123),
        account_id: AccountId::from_uuid(Uuid::from_u128(2)),
        machine_id: MachineId::from_uuid(Uuid::from_u128(3)),
        role: Role::Owner,
        machine_key: PublicKey::of(&machine),
        device_key: PublicKey::of(&device),
    };
    json!({
        "secret": hex(&secret),
        "origin": terms.origin,
        "claim_id": terms.claim_id.to_string(),
        "expires_at_ms": terms.expires_at.0,
        "account_id": terms.account_id.to_string(),
        "machine_id": terms.machine_id.to_string(),
        "role": terms.role.as_str(),
        "machine_key": hex(terms.machine_key.as_bytes()),
        "device_key": hex(terms.device_key.as_bytes()),
        "redeem": hex(keys.redeem.expose()),
        "device_to_machine": hex(keys.device_to_machine.expose()),
        "machine_to_device": hex(keys.machine_to_device.expose()),
        "device_mac": hex(&terms.mac(&keys.device_to_machine)),
        "machine_mac": hex(&terms.mac(&keys.machine_to_device)),
        "short_code": terms.short_code(),
        "device_id": hex(terms.device_key.device_id().as_bytes()),
    })
}

fn introduction() -> Value {
    let secret = [12; 32];
    let terms = IntroductionTerms {
        origin: "https://relay.example:8443".to_owned(),
        account_id: AccountId::from_uuid(Uuid::from_u128(2)),
        machine_id: MachineId::from_uuid(Uuid::from_u128(3)),
        machine_key: PublicKey::of(&SigningKey::from_bytes(&[4; 32])),
        device_key: PublicKey::of(&SigningKey::from_bytes(&[5; 32])),
        role: Role::Operator,
    };
    json!({
        "secret": hex(&secret),
        "origin": terms.origin,
        "account_id": terms.account_id.to_string(),
        "machine_id": terms.machine_id.to_string(),
        "machine_key": hex(terms.machine_key.as_bytes()),
        "device_key": hex(terms.device_key.as_bytes()),
        "role": terms.role.as_str(),
        "mac": hex(&terms.mac(&SecretKey::new(secret))),
    })
}

fn signatures() -> Value {
    let key = SigningKey::from_bytes(&[7; 32]);
    let bytes = b"any bytes at all".as_slice();
    json!({
        "public_key": hex(PublicKey::of(&key).as_bytes()),
        "bytes": hex(bytes),
        "command_hash": hex(&command_transcript(bytes).sha256()),
        "command_signature": hex(&sign(&key, command_transcript(bytes))),
        "receipt_signature": hex(&sign(&key, receipt_transcript(bytes))),
        "approval_signature": hex(&sign(&key, approval_transcript(bytes))),
    })
}

fn p256() -> Value {
    let key = p256::ecdsa::SigningKey::from_slice(&[14; 32]).expect("a number below the order");
    let bytes = b"any bytes at all".as_slice();
    let public = PublicKey::of_p256(&key);
    json!({
        "public_key": hex(public.as_bytes()),
        "device_id": hex(public.device_id().as_bytes()),
        "bytes": hex(bytes),
        "command_signature": hex(&crate::key::sign_p256(&key, command_transcript(bytes))),
    })
}

fn approval_digests() -> Value {
    let binding = ApprovalBinding {
        machine_id: MachineId::from_uuid(Uuid::from_u128(3)),
        generation: Generation::from_bytes([8; 32]),
        approval_id: ApprovalId::from_bytes([9; 32]),
        expires_at: UnixMillis(1_763_800_600_000),
        salt: [10; 16],
    };
    let command = ApprovalAction {
        kind: ApprovalKind::Command,
        command: "/bin/sh -c 'id -u && echo ✓'".to_owned(),
        cwd: "/home/me/project".to_owned(),
        network: Some("https://example.org".to_owned()),
        permissions: vec!["write:/home/me".to_owned(), "read:/etc".to_owned()],
        changes: Vec::new(),
        reason: "needs to run outside the sandbox".to_owned(),
    };
    let file_change = ApprovalAction {
        kind: ApprovalKind::FileChange,
        command: String::new(),
        cwd: String::new(),
        network: None,
        permissions: Vec::new(),
        changes: vec![
            FileChange {
                path: "a.txt".to_owned(),
                kind: "update".to_owned(),
                moved_to: Some("b.txt".to_owned()),
                diff: "@@ -1 +1 @@\n-a\n+b\n".to_owned(),
            },
            FileChange { path: "c.txt".to_owned(), kind: "add".to_owned(), moved_to: None, diff: "+c\n".to_owned() },
        ],
        reason: String::new(),
    };
    json!({
        "machine_id": hex(binding.machine_id.as_bytes()),
        "generation": hex(binding.generation.as_bytes()),
        "approval_id": hex(binding.approval_id.as_bytes()),
        "expires_at_ms": binding.expires_at.0,
        "salt": hex(&binding.salt),
        "cases": [approval_case(&binding, &command), approval_case(&binding, &file_change)],
    })
}

fn approval_case(binding: &ApprovalBinding, action: &ApprovalAction) -> Value {
    let changes: Vec<_> = action
        .changes
        .iter()
        .map(|change| {
            json!({ "path": change.path, "kind": change.kind, "moved_to": change.moved_to, "diff": change.diff })
        })
        .collect();
    json!({
        "kind": action.kind.name(),
        "command": action.command,
        "cwd": action.cwd,
        "network": action.network,
        "permissions": action.permissions,
        "changes": changes,
        "reason": action.reason,
        "digest": hex(&approval::digest(binding, action)),
    })
}

fn rotation() -> Value {
    let key = |seed: u8| SigningKey::from_bytes(&[seed; 32]);
    let of = (AccountId::from_uuid(Uuid::from_u128(2)), MachineId::from_uuid(Uuid::from_u128(3)));
    let at = UnixMillis(1_763_800_000_123);
    let statements = [
        KeyRotation::make(of, 1, at, &key(11), &key(12)),
        KeyRotation::make(of, 3, UnixMillis(at.0 + 1), &key(12), &key(13)),
    ];
    json!({
        "account_id": of.0.to_string(),
        "machine_id": of.1.to_string(),
        "first_key": hex(PublicKey::of(&key(11)).as_bytes()),
        "newest_key": hex(PublicKey::of(&key(13)).as_bytes()),
        "statements": statements,
    })
}

fn error_codes() -> Value {
    ErrorCode::ALL.iter().map(|code| json!({ "number": code.number(), "name": code.name() })).collect()
}

fn audit_kinds() -> Value {
    AuditKind::ALL.iter().map(|kind| kind.name()).collect()
}

#[test]
fn the_shared_vectors_hold() {
    let computed = json!({
        "transcript": transcript(),
        "pairing": pairing(),
        "introduction": introduction(),
        "signatures": signatures(),
        "p256": p256(),
        "approval": approval_digests(),
        "rotation": rotation(),
        "error_codes": error_codes(),
        "audit_kinds": audit_kinds(),
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors/v1.json");
    if std::env::var_os("FLYDEX_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&computed).expect("a JSON value always serialises");
        std::fs::write(&path, text + "\n").expect("write vectors");
    }
    let stated: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("read vectors")).expect("parse vectors");
    assert_eq!(stated, computed, "run with FLYDEX_WRITE_VECTORS=1 after a deliberate change");
}
