//! What must stay between phone and machine: every prompt, answer, command output and secret that a test uses is
//! planted here, and looked for in whatever FlyDex's processes leave behind.
//!
//! The looking is done by whatever holds such a thing when it is dropped: a process its log, a relay its database and
//! metrics, a machine its state, a trace receiver its spans. So each test that starts them looks, without a word of
//! its own. What stands somewhere encoded, escaped or printed as a list is found as well ([`forms`]).

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;

mod forms;
mod index;
pub mod places;

use index::Index;

/// Shorter texts, such as "ok", may stand anywhere.
const CHARS_MIN: usize = 12;
/// So much of a text is looked for, since a log might hold the beginning of it.
const CHARS_MAX: usize = 24;

static PLANTED: Mutex<Option<Planted>> = Mutex::new(None);
static MARKS: AtomicU32 = AtomicU32::new(0);
static IS_OFF: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Planted {
    /// What is looked for, and what it is.
    texts: Vec<(Vec<u8>, &'static str)>,
    index: Index,
}

impl Planted {
    fn put(&mut self, what: &'static str, bytes: &[u8]) {
        if self.texts.iter().any(|(known, _)| known == bytes) {
            return;
        }
        for form in forms::of(bytes) {
            self.index.put(form, self.texts.len());
        }
        self.texts.push((bytes.to_vec(), what));
    }
}

fn with_planted<T>(act: impl FnOnce(&mut Planted) -> T) -> T {
    act(PLANTED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Notes a text that must not appear where content has no place. Texts of a few characters are not noted.
pub fn plant(what: &'static str, text: &str) {
    let beginning: String = text.trim().chars().take(CHARS_MAX).collect();
    if beginning.chars().count() >= CHARS_MIN {
        with_planted(|planted| planted.put(what, beginning.as_bytes()));
    }
}

/// Notes key material, or whatever else is bytes.
pub fn plant_bytes(what: &'static str, bytes: &[u8]) {
    if bytes.len() >= CHARS_MIN {
        with_planted(|planted| planted.put(what, bytes));
    }
}

/// Notes a secret that is written in base64url: the text, and the bytes behind it.
pub fn plant_token(what: &'static str, text: &str) {
    plant(what, text);
    if let Ok(bytes) = URL_SAFE_NO_PAD.decode(text) {
        plant_bytes(what, &bytes);
    }
}

/// Notes a signed token by its signature: header and claims are alike in many.
pub fn plant_signed(what: &'static str, token: &str) {
    let signed = token.split('.').nth(2).unwrap_or_default();
    plant(what, &signed[signed.len().saturating_sub(CHARS_MAX)..]);
}

/// Notes a code that a person could guess, such as six digits: by its hash, which is worth as much as the code. The
/// code itself is too short to be told from other numbers.
pub fn plant_code(what: &'static str, code: &str) {
    with_planted(|planted| {
        for form in forms::of_hash(code) {
            planted.index.put(form, planted.texts.len());
        }
        planted.texts.push((code.as_bytes().to_vec(), what));
    });
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
    with_planted(|planted| planted.index.found_in(bytes).into_iter().map(|number| planted.texts[number].1).collect())
}

/// What of it stands there that may not.
#[must_use]
pub fn found_beside(bytes: &[u8], allowed: &[&str]) -> Vec<&'static str> {
    found_in(bytes).into_iter().filter(|what| !allowed.contains(what)).collect()
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

/// A file that may hold something all the same, and what.
pub type Allowed = (&'static str, &'static [&'static str]);

/// A temporary folder of a process of ours. When it is dropped, nothing that was planted may be in its files, but what
/// a file is there for.
pub struct WatchedFolder {
    place: &'static str,
    folder: TempDir,
    /// The part that is ours.
    watched: PathBuf,
    allowed: &'static [Allowed],
}

impl WatchedFolder {
    /// Watches `folder/part`.
    #[must_use]
    pub fn new(place: &'static str, folder: TempDir, part: &str, allowed: &'static [Allowed]) -> Self {
        let watched = folder.path().join(part);
        Self { place, folder, watched, allowed }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for WatchedFolder {
    fn drop(&mut self) {
        report(self.place, &found_below(&self.watched, self.allowed));
    }
}

/// What stands in the files of a folder, and of those in it, that may not; a file is named by its path from there.
#[must_use]
pub fn found_below(folder: &Path, allowed: &[Allowed]) -> Vec<String> {
    let mut problems = Vec::new();
    search(folder, folder, allowed, &mut problems);
    problems
}

fn search(root: &Path, folder: &Path, allowed: &[Allowed], problems: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            search(root, &path, allowed, problems);
        } else if let Ok(bytes) = std::fs::read(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path);
            let exempt = allowed.iter().find(|(file, _)| name == Path::new(file)).map_or(&[][..], |(_, what)| what);
            let found = found_beside(&bytes, exempt).into_iter();
            problems.extend(found.map(|what| format!("{} holds a {what}", path.display())));
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
        drop(WatchedFolder::new("the state", folder, "state", &[]));
    }

    #[test]
    fn a_file_may_hold_what_it_is_there_for_and_no_other_file_may() {
        let folder = tempfile::tempdir().expect("a folder");
        plant_bytes("key", &[7; 32]);
        for name in ["key.pem", "other"] {
            std::fs::write(folder.path().join(name), URL_SAFE_NO_PAD.encode([7; 32])).expect("a file");
        }
        let found = found_below(folder.path(), &[("key.pem", &["key"])]);
        assert!(matches!(&found[..], [one] if one.ends_with("other holds a key")), "{found:?}");
    }

    #[test]
    fn a_code_is_found_by_its_hash_and_a_token_by_its_bytes() {
        plant_code("short code", "483 201");
        let hash = flydex_domain::encoding::sha256(b"483 201");
        assert_eq!(found_in(&hash), ["short code"]);
        let token = URL_SAFE_NO_PAD.encode([9; 32]);
        plant_token("bearer", &token);
        assert!(found_in(&[9; 40]).contains(&"bearer"));
        assert_eq!(found_in(format!("authorization: bearer {token}").as_bytes()), ["bearer", "bearer"]);
    }
}
