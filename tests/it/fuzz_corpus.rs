//! The committed corpus of the fuzz targets, replayed: what once was found stays found.

use std::fs;

#[path = "../../proto/fuzz/src/checks.rs"]
#[expect(unreachable_pub, reason = "the same file is the public module of the fuzz targets")]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = format!("{}/../proto/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let inputs: Vec<_> = fs::read_dir(&folder).expect("the corpus is in the tree").flatten().collect();
    assert!(inputs.len() >= 4, "{folder} is almost empty");
    for input in inputs {
        check(&fs::read(input.path()).expect("the file was just listed"));
    }
    check(&[]);
}

#[test]
fn frames_of_the_corpus_hold() {
    replay("frame", checks::frame);
}

#[test]
fn lanes_of_the_corpus_hold() {
    replay("lanes", checks::lanes);
}

#[test]
fn messages_of_the_corpus_hold() {
    replay("messages", checks::messages);
}

#[test]
fn commands_of_the_corpus_hold() {
    replay("command", checks::command);
}

#[test]
fn agent_messages_of_the_corpus_hold() {
    replay("agent", checks::agent);
}
