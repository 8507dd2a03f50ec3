//! The Rust files of the tree, with their test parts told apart.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub(super) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// One Rust file that a person wrote.
pub(super) struct Source {
    /// From the root of the repository.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Source {
    /// Whether all of it is test code: a `tests` file or folder, or the crate of the black-box tests' flows.
    pub(super) fn is_test(&self) -> bool {
        self.path.file_stem().is_some_and(|stem| stem == "tests" || stem == "benches")
            || self.path.starts_with("tests/it")
            || self.path.components().skip(1).any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches")
    }

    /// The text before an inline `mod tests`.
    pub(super) fn without_tests(&self) -> &str {
        if self.is_test() { "" } else { self.split().0 }
    }

    /// The program text before an inline `mod tests`.
    pub(super) fn parsed(&self) -> syn::File {
        let file = syn::parse_file(self.without_tests());
        file.unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    /// The text of its tests.
    pub(super) fn tests(&self) -> &str {
        if self.is_test() { &self.text } else { self.split().1 }
    }

    fn split(&self) -> (&str, &str) {
        let at = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text.split_at(at)
    }
}

/// Every Rust file that is not generated, in the order of its path.
pub(super) fn all() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    for folder in ["connector", "loadtest", "proto", "services", "tests", "xtask"] {
        collect(&root, &root.join(folder), &mut sources);
    }
    assert!(sources.len() > 50, "the tree was not found");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("the folder was just listed").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            let foreign = ["target", "node_modules", "generated", "dist", "fuzz"];
            if !foreign.iter().any(|folder| name == *folder) {
                collect(root, &path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("the file was just listed");
            sources.push(Source { path: path.strip_prefix(root).expect("it lies below the root").to_owned(), text });
        }
    }
}

/// Fails with every offence in one message.
pub(super) fn none(offences: &[String], rule: &str) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}
