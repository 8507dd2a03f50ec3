use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::*;

const KNOWN: &str = include_str!("../methods.txt");
const USED: &[Method] = &[
    Method::Initialize,
    Method::ThreadResume,
    Method::ThreadUnsubscribe,
    Method::ThreadLoadedList,
    Method::ThreadList,
    Method::ThreadRead,
    Method::ThreadTurnsList,
    Method::ModelList,
    Method::ThreadStart,
    Method::TurnStart,
    Method::TurnSteer,
    Method::TurnInterrupt,
    Method::ThreadNameSet,
    Method::ThreadArchive,
    Method::ThreadUnarchive,
    Method::ReviewStart,
];

fn known(direction: &str) -> BTreeSet<&'static str> {
    KNOWN.lines().filter_map(|line| line.strip_prefix(direction)?.strip_prefix(' ')).collect()
}

/// Every name of the lists once, or the names that are in two.
fn union(lists: &[&[&'static str]]) -> BTreeSet<&'static str> {
    let mut all = BTreeSet::new();
    for name in lists.iter().copied().flatten() {
        assert!(all.insert(*name), "{name} has two classes");
    }
    all
}

#[test]
fn every_request_to_codex_has_one_class() {
    assert_eq!(union(&[CONNECTOR_LOCAL, READ, WRITE, OFF, DENIED]), known("client-request"));
    assert_eq!(known("client-notification"), BTreeSet::from(["initialized"]));
}

#[test]
fn every_notification_and_request_of_codex_has_one_class() {
    assert_eq!(union(&[NOTIFICATIONS_USED, NOTIFICATIONS_UNWANTED]), known("server-notification"));
    assert_eq!(union(&[REQUESTS_TOLD, REQUESTS_LEFT]), known("server-request"));
}

#[test]
fn no_request_is_made_that_is_off_or_denied() {
    let allowed = union(&[CONNECTOR_LOCAL, READ, WRITE]);
    for method in USED {
        assert!(allowed.contains(method.as_str()), "{}", method.as_str());
    }
}

#[test]
fn the_installed_codex_has_no_method_without_a_class() {
    let Some(program) = std::env::var_os("FLYDEX_CODEX") else {
        panic!("set FLYDEX_CODEX to the pinned Codex (`cargo xtask test` installs it and sets the variable)");
    };
    let folder = tempfile::tempdir().expect("a folder");
    let status = Command::new(program)
        .args(["app-server", "generate-json-schema", "--experimental", "--out"])
        .arg(folder.path())
        .status()
        .expect("run codex");
    assert!(status.success());
    let mut lines = BTreeSet::new();
    for (file, direction) in [
        ("ClientRequest", "client-request"),
        ("ClientNotification", "client-notification"),
        ("ServerRequest", "server-request"),
        ("ServerNotification", "server-notification"),
    ] {
        lines.extend(names(&folder.path().join(format!("{file}.json"))).map(|name| format!("{direction} {name}")));
    }
    let known: BTreeSet<String> = KNOWN.lines().map(str::to_owned).collect();
    let new: Vec<_> = lines.difference(&known).collect();
    let gone: Vec<_> = known.difference(&lines).collect();
    assert!(new.is_empty() && gone.is_empty(), "classify the new {new:?} and drop {gone:?} in methods.txt");
}

fn names(schema: &Path) -> impl Iterator<Item = String> {
    let text = std::fs::read_to_string(schema).expect("a schema");
    let schema: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let variants = schema["oneOf"].as_array().expect("variants").clone();
    variants.into_iter().map(|variant| variant["properties"]["method"]["enum"][0].as_str().expect("a name").to_owned())
}
