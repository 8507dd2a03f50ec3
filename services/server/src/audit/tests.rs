//! Databases and exports that somebody has tampered with, and what is said of them.

use std::cell::RefCell;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser as _;

use flydex_domain::audit::export::Line;
use flydex_domain::audit::head::{HeadClaims, SignedHead};
use flydex_domain::audit::{AuditEntry, AuditKind, ChainHead};
use flydex_domain::id::{AuditId, UserId};
use flydex_domain::scope::{AccountScope, Role};
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::TokenSigner;
use flydex_store::Sql;
use flydex_store::sql::{Account, User};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::launch::{Voice, run};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
/// Records of each account.
const RECORDS: u64 = 6;

/// A database with two accounts, and what one of them has taken away.
struct World {
    runtime: Runtime,
    folder: TempDir,
    sql: Sql,
    scopes: [AccountScope; 2],
    signer: TokenSigner,
}

/// What a run said, with its exit status.
type Told = (i32, String);

impl World {
    fn new() -> Self {
        let (runtime, folder) = (Runtime::new().unwrap(), TempDir::new().unwrap());
        let sql = runtime.block_on(Sql::open_sqlite(&folder.path().join("flydex.sqlite"))).unwrap();
        let users = [1, 2].map(|number| User {
            account_id: AccountId::try_from(&[number; 16][..]).unwrap(),
            user_id: UserId::try_from(&[number; 16][..]).unwrap(),
            role: Role::Owner,
        });
        let scopes = [users[0].principal().scope(), users[1].principal().scope()];
        let signer = TokenSigner::from_seed("k1", &SecretKey::new([1; 32]));
        let world = Self { runtime, folder, sql, scopes, signer };
        world.runtime.block_on(async {
            let mut tx = world.sql.write().await.unwrap();
            for user in &users {
                let account = Account { account_id: user.account_id, name: "Account".to_owned() };
                tx.create_account(&account, NOW).await.unwrap();
                tx.create_user(user, NOW).await.unwrap();
            }
            tx.commit().await.unwrap();
        });
        world.append(0, RECORDS);
        world
    }

    /// Appends records to both chains; their ids begin after `from`.
    fn append(&self, from: u64, count: u64) {
        self.runtime.block_on(async {
            let mut tx = self.sql.write().await.unwrap();
            for number in from + 1..=from + count {
                let id = AuditId::try_from(&u128::from(number).to_be_bytes()[..]).unwrap();
                let entry = AuditEntry::new(id, AuditKind::SignedIn, UnixMillis(NOW.0 + number));
                for scope in self.scopes {
                    tx.append_audit(scope, &entry).await.unwrap();
                }
            }
            tx.commit().await.unwrap();
        });
    }

    fn tamper(&self, statements: &[&'static str]) {
        for statement in statements {
            self.runtime.block_on(self.sql.tamper(statement));
        }
    }

    fn signed_head(&self) -> SignedHead {
        let head: ChainHead = self.runtime.block_on(async {
            let mut view = self.sql.read().await.unwrap();
            view.audit_head(self.scopes[0]).await.unwrap()
        });
        SignedHead(self.signer.sign(&HeadClaims::new(self.scopes[0].account_id(), head, NOW)))
    }

    /// What `/api/audit/export` gives, line by line.
    fn export(&self) -> Vec<String> {
        let records = self.runtime.block_on(async {
            let mut view = self.sql.read().await.unwrap();
            view.audit_after(self.scopes[0], 0).await.unwrap()
        });
        let account_id = self.scopes[0].account_id();
        let records = records.into_iter().map(|record| Line::Record(account_id, Box::new(record)).write());
        records.chain([Line::Head(self.signed_head()).write()]).collect()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    /// What `/api/audit/head` gives, in a file.
    fn keep_head(&self) -> PathBuf {
        let SignedHead(head) = self.signed_head();
        self.write("head.json", &json!({ "head": head, "number": RECORDS, "token_keys": self.keys() }).to_string())
    }

    fn keys(&self) -> serde_json::Value {
        let (key_id, key) = self.signer.public();
        json!([{ "key_id": key_id, "key": URL_SAFE_NO_PAD.encode(key) }])
    }

    fn keep_keys(&self) -> PathBuf {
        self.write("keys.json", &json!({ "token_keys": self.keys() }).to_string())
    }

    fn verify_database(&self, head: Option<&PathBuf>) -> Told {
        let file = self.folder.path().join("flydex.sqlite");
        let mut arguments = vec!["--sqlite", file.to_str().unwrap()];
        if let Some(head) = head {
            arguments.extend(["--head", head.to_str().unwrap()]);
        }
        told(&arguments)
    }

    fn verify_export(&self, lines: &[String], more: &[&str]) -> Told {
        let file = self.write("export.ndjson", &lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        told(&[&["--export", file.to_str().unwrap()], more].concat())
    }
}

/// Notes what was said.
#[derive(Default)]
struct Notes(RefCell<String>);

impl Voice for Notes {
    fn say(&self, line: &str) {
        self.0.borrow_mut().push_str(&format!("{line}\n"));
    }

    fn complain(&self, line: &str) {
        self.say(line);
    }
}

fn told(arguments: &[&str]) -> Told {
    let cli = crate::cli::Cli::try_parse_from(["flydex-server", "audit", "verify"].iter().chain(arguments)).unwrap();
    let notes = Notes::default();
    (run(cli, [], &notes), notes.0.into_inner())
}

#[track_caller]
fn holds((status, said): &Told, what: &str) {
    assert_eq!(*status, 0, "{said}");
    assert!(said.contains(what), "{said}");
}

#[track_caller]
fn does_not_hold((status, said): &Told, first: u64) {
    assert_eq!(*status, EXIT_AUDIT_BROKEN, "{said}");
    let account = "account 01010101-0101-0101-0101-010101010101: ";
    let first = format!("; the first record that does not fit is {first}\n");
    assert!(said.lines().any(|line| line.starts_with(account)) && said.contains(&first), "{said}");
    assert!(said.contains(" accounts does not hold"), "{said}");
}

#[test]
fn a_database_that_nobody_touched_holds_and_goes_on_from_a_kept_head() {
    let world = World::new();
    holds(&world.verify_database(None), "the audit holds: 12 records of 2 accounts");
    let head = world.keep_head();
    world.append(RECORDS, 3);
    let told = world.verify_database(Some(&head));
    holds(&told, "the audit holds: 18 records of 2 accounts");
    holds(&told, "record 6 of account 01010101-0101-0101-0101-010101010101");
    holds(&told, "its signature holds under the keys that were kept with it");
}

#[test]
fn a_database_that_was_tampered_with_is_told_by_account_and_record_with_status_3() {
    let cases: [(&[&'static str], u64); 3] = [
        (
            &[
                "DROP TRIGGER audit_is_never_changed",
                "UPDATE audit SET at = at + 1 WHERE number = 3 AND account_id = (SELECT MIN(account_id) FROM accounts)",
            ],
            3,
        ),
        (&["DELETE FROM audit WHERE number = 4 AND account_id = (SELECT MIN(account_id) FROM accounts)"], 4),
        (&["DELETE FROM audit WHERE number = 6 AND account_id = (SELECT MIN(account_id) FROM accounts)"], 6),
    ];
    for (statements, first) in cases {
        let world = World::new();
        world.tamper(statements);
        does_not_hold(&world.verify_database(None), first);
    }
}

#[test]
fn a_database_that_was_cut_or_rewritten_with_its_head_is_told_by_a_kept_head() {
    let world = World::new();
    let head = world.keep_head();
    world.tamper(&[
        "DELETE FROM audit WHERE number > 4 AND account_id = (SELECT MIN(account_id) FROM accounts)",
        "UPDATE accounts SET audit_number = 4, audit_hash = (SELECT hash FROM audit \
         WHERE audit.account_id = accounts.account_id AND number = 4) WHERE account_id = \
         (SELECT MIN(account_id) FROM accounts)",
    ]);
    holds(&world.verify_database(None), "10 records of 2 accounts");
    does_not_hold(&world.verify_database(Some(&head)), 5);
    world.append(100, 4);
    holds(&world.verify_database(None), "of 2 accounts");
    does_not_hold(&world.verify_database(Some(&head)), 6);
}

#[test]
fn an_export_that_nobody_touched_holds_under_keys_and_with_heads() {
    let world = World::new();
    let (head, keys) = (world.keep_head(), world.keep_keys());
    let (head, keys) = (head.to_str().unwrap(), keys.to_str().unwrap());
    world.append(RECORDS, 2);
    let export = world.export();
    holds(&world.verify_export(&export, &["--head", head, "--keys", keys]), "8 records of 1 accounts");
    holds(&world.verify_export(&export, &["--keys", keys]), "the audit holds");
    holds(&world.verify_export(&export, &[]), "the signature of the export's own head is not checked: give --keys");
}

#[test]
fn an_export_that_was_tampered_with_is_told_by_record_with_status_3() {
    let world = World::new();
    let (head, keys) = (world.keep_head(), world.keep_keys());
    let more = ["--head", head.to_str().unwrap(), "--keys", keys.to_str().unwrap()];
    let export = world.export();
    let tampered = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = export.clone();
        change(&mut lines);
        world.verify_export(&lines, &more)
    };
    let edit = |lines: &mut Vec<String>, old: &str, new: &str| {
        assert!(lines[2].contains(old));
        lines[2] = lines[2].replace(old, new);
    };
    does_not_hold(&tampered(&|lines| edit(lines, "\"at_ms\":1800000000003", "\"at_ms\":1800000000004")), 3);
    does_not_hold(&tampered(&|lines| edit(lines, "\"number\":3", "\"number\":4")), 3);
    does_not_hold(&tampered(&|lines| edit(lines, "signed_in", "signed_out")), 3);
    does_not_hold(&tampered(&|lines| edit(lines, "{", "{\"note\":\"x\",")), 3);
    does_not_hold(&tampered(&|lines| edit(lines, "01010101-0101", "02020202-0202")), 3);
    does_not_hold(&tampered(&|lines| lines[2] = "x".repeat(10_000)), 3);
    does_not_hold(&tampered(&|lines| drop(lines.remove(3))), 4);
    does_not_hold(&tampered(&|lines| lines.swap(1, 4)), 2);
    does_not_hold(&tampered(&|lines| lines.insert(5, lines[4].clone())), 6);
    does_not_hold(&tampered(&|lines| lines.push(lines[0].clone())), 7);
    // Cut in a record, after one, and with the head moved up to where it is cut.
    does_not_hold(
        &tampered(&|lines| {
            lines.truncate(4);
            lines[3].truncate(40)
        }),
        4,
    );
    does_not_hold(&tampered(&|lines| lines.truncate(4)), 5);
    does_not_hold(&tampered(&|lines| drop(lines.drain(4..6))), 5);
    does_not_hold(&tampered(&|lines| lines[0].clear()), 1);
}

#[test]
fn an_export_of_a_chain_that_was_cut_or_whose_head_is_forged_is_told() {
    let world = World::new();
    let (head, keys) = (world.keep_head(), world.keep_keys());
    let (head, keys) = (head.to_str().unwrap(), keys.to_str().unwrap());
    let forger = World::new();
    let older: Vec<String> = {
        forger.tamper(&[
            "DELETE FROM audit WHERE number > 4",
            "UPDATE accounts SET audit_number = 4, audit_hash = (SELECT hash FROM audit \
             WHERE audit.account_id = accounts.account_id AND number = 4)",
        ]);
        forger.export()
    };
    holds(&world.verify_export(&older, &["--keys", keys]), "4 records");
    does_not_hold(&world.verify_export(&older, &["--keys", keys, "--head", head]), 5);

    let forged = World { signer: TokenSigner::from_seed("k1", &SecretKey::new([9; 32])), ..World::new() };
    does_not_hold(&world.verify_export(&forged.export(), &["--keys", keys]), 7);
    let forged_head = forged.keep_head();
    let (status, said) = world.verify_database(Some(&forged_head));
    assert_eq!(status, 0, "it is of the same chain, and its own keys say so: {said}");
    let arguments = ["--head", forged_head.to_str().unwrap(), "--keys", keys];
    let (status, said) = world.verify_export(&world.export(), &arguments);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("none of the keys has signed it"), "{said}");
}

#[test]
fn what_cannot_be_looked_at_says_why_and_is_not_taken_for_broken() {
    let folder = TempDir::new().unwrap();
    let (status, said) = told(&["--sqlite", folder.path().join("none.sqlite").to_str().unwrap()]);
    assert_eq!(status, 1, "{said}");
    let (status, said) = told(&["--export", folder.path().join("none.ndjson").to_str().unwrap()]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("none.ndjson"), "{said}");
    let (status, said) = told(&[]);
    assert_eq!(status, flydex_runtime::config::EXIT_BAD_CONFIG, "{said}");
    assert!(said.contains("--sqlite") && said.contains("--export"), "{said}");
}
