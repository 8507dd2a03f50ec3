//! What must stay between phone and machine: every prompt, answer, command output and secret that a test uses is
//! planted here, and looked for in whatever FlyDex's processes leave behind.
//!
//! The looking is done by whatever holds such a thing when it is dropped: a process its log, a relay its database and
//! metrics, a machine its state, a trace receiver its spans. So each test that starts them looks, without a word of
//! its own.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// Shorter texts, such as "ok", may stand anywhere.
const CHARS_MIN: usize = 12;
/// So much of a text is looked for, since a log might hold the beginning of it.
const CHARS_MAX: usize = 24;

static PLANTED: Mutex<Vec<Planted>> = Mutex::new(Vec::new());
static MARKS: AtomicU32 = AtomicU32::new(0);
static IS_OFF: AtomicBool = AtomicBool::new(false);

struct Planted {
    what: &'static str,
    beginning: String,
}

/// Notes a text that must not appear where content has no place. Texts of a few characters are not noted.
pub fn plant(what: &'static str, text: &str) {
    let beginning: String = text.trim().chars().take(CHARS_MAX).collect();
    if beginning.chars().count() < CHARS_MIN {
        return;
    }
    let mut planted = PLANTED.lock().unwrap_or_else(PoisonError::into_inner);
    if planted.iter().all(|one| one.beginning != beginning) {
        planted.push(Planted { what, beginning });
    }
}

/// A word that stands nowhere else, planted.
#[must_use]
pub fn mark(what: &'static str) -> String {
    let number = MARKS.fetch_add(1, Ordering::Relaxed);
    let word = format!("canary{}in{what}{number}x", std::process::id());
    plant(what, &word);
    word
}

/// Where a person looks on, nothing is checked: their threads are not a test's.
pub fn off() {
    IS_OFF.store(true, Ordering::Relaxed);
}

/// What of all that was planted stands in these bytes.
#[must_use]
pub fn found_in(bytes: &[u8]) -> Vec<&'static str> {
    let planted = PLANTED.lock().unwrap_or_else(PoisonError::into_inner);
    planted.iter().filter(|one| holds(bytes, one.beginning.as_bytes())).map(|one| one.what).collect()
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Fails the test that drops `place` unless there are no problems, or it fails already.
///
/// # Panics
/// When there are problems.
pub fn report(place: &str, problems: &[impl Display]) {
    if problems.is_empty() || IS_OFF.load(Ordering::Relaxed) {
        return;
    }
    let list: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    let text = format!("{place}: {list}");
    assert!(std::thread::panicking(), "{text}");
    say(&text);
}

#[expect(clippy::print_stderr, reason = "the test fails of something else; this is said beside it")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// A temporary folder of a process of ours. When it is dropped, nothing that was planted may be in its files.
pub struct WatchedFolder {
    place: &'static str,
    folder: TempDir,
    /// The part that is ours.
    watched: PathBuf,
}

impl WatchedFolder {
    /// Watches `folder/part`.
    #[must_use]
    pub fn new(place: &'static str, folder: TempDir, part: &str) -> Self {
        let watched = folder.path().join(part);
        Self { place, folder, watched }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for WatchedFolder {
    fn drop(&mut self) {
        let mut problems = Vec::new();
        search(&self.watched, &mut problems);
        report(self.place, &problems);
    }
}

fn search(folder: &Path, problems: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            search(&path, problems);
        } else if let Ok(bytes) = std::fs::read(&path) {
            problems.extend(found_in(&bytes).into_iter().map(|what| format!("{} holds a {what}", path.display())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_what_was_planted_is_found_and_short_texts_are_not_looked_for() {
        plant("prompt", "sing a song of sixpence, a pocket full of rye");
        plant("output", "ok");
        assert_eq!(found_in(b"got \"sing a song of sixpence, a...\" ok"), ["prompt"]);
        assert_eq!(found_in(b"sing another song, ok"), Vec::<&str>::new());
        let word = mark("name");
        assert_eq!(found_in(word.as_bytes()), ["name"]);
    }

    #[test]
    #[should_panic(expected = "holds a cookie")]
    fn a_folder_that_holds_what_was_planted_fails_whoever_drops_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("state/deep");
        std::fs::create_dir_all(&inner).expect("a folder in it");
        std::fs::write(inner.join("file"), format!("\0\0{}\0", mark("cookie"))).expect("a file");
        drop(WatchedFolder::new("the state", folder, "state"));
    }
}
