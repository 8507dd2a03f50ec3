//! Documents: a page for every error code, links and names of tests that lead somewhere, generated code that is fresh.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flydex_domain::error::ErrorCode;
use flydex_tests::process;

use super::source;

/// What each page of `docs/errors` says.
const ERROR_PAGE_HEADINGS: [&str; 4] = ["## Cause", "## What you see", "## What to do", "## Where it comes from"];

#[test]
fn every_error_code_has_a_page_that_helps() {
    let folder = source::root().join("docs/errors");
    let mut offences = Vec::new();
    for code in ErrorCode::ALL {
        let page = folder.join(format!("{}.md", code.name()));
        let text = fs::read_to_string(&page).unwrap_or_default();
        let title = format!("# {} ({})\n", code.name(), code.number());
        if !text.starts_with(&title) {
            offences.push(format!("{} must begin with {}", page.display(), title.trim()));
        }
        if !text.contains(code.message()) {
            offences.push(format!("{} must quote: {}", page.display(), code.message()));
        }
        let missing = ERROR_PAGE_HEADINGS.iter().filter(|heading| !text.contains(*heading));
        offences.extend(missing.map(|heading| format!("{} lacks {heading:?}", page.display())));
    }
    source::none(&offences, "each code that a user can see has a page");
}

#[test]
fn no_page_describes_a_code_that_is_gone() {
    let known: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| format!("{}.md", code.name())).collect();
    let pages = fs::read_dir(source::root().join("docs/errors")).expect("docs/errors is in the tree").flatten();
    let pages = pages.map(|page| page.file_name().to_string_lossy().into_owned());
    let gone: Vec<_> = pages.filter(|page| page != "README.md" && !known.contains(page)).collect();
    source::none(&gone, "remove the page, or keep the code");
}

#[test]
fn links_of_documents_lead_somewhere() {
    let mut pages = vec![source::root().join("README.md")];
    collect_pages(&source::root().join("docs"), &mut pages);
    let mut offences = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap_or_default();
        let folder = page.parent().unwrap_or(Path::new("."));
        for link in links(&text) {
            if !folder.join(&link).exists() {
                offences.push(format!("{}: {link}", page.display()));
            }
        }
    }
    source::none(&offences, "the link leads to no file");
}

#[test]
fn tests_that_documents_name_exist() {
    let sources = source::all();
    let is_test = |name: &str| sources.iter().any(|source| source.tests().contains(&format!("fn {name}(")));
    let mut pages = Vec::new();
    collect_pages(&source::root().join("docs"), &mut pages);
    let mut offences = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap_or_default();
        let gone = test_names(&text).into_iter().filter(|name| !is_test(name));
        offences.extend(gone.map(|name| format!("{}: {name}", page.display())));
    }
    source::none(&offences, "there is no test of that name");
}

#[test]
fn limits_that_the_placement_page_names_exist() {
    let folder = source::root().join("services/domain/src");
    let mut files = vec![folder.join("limits.rs")];
    files.extend(fs::read_dir(folder.join("limits")).expect("limits have a folder").flatten().map(|file| file.path()));
    let limits: String = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
    let page = fs::read_to_string(source::root().join("docs/PLACEMENT.md")).expect("the page is in the tree");
    let is_limit =
        |name: &&str| name.contains('_') && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let named: BTreeSet<_> = page.split('`').skip(1).step_by(2).filter(is_limit).collect();
    assert!(named.len() > 20, "the page names its limits: {named:?}");
    let gone = named.into_iter().filter(|name| !limits.contains(&format!("pub const {name}:")));
    let gone: Vec<_> = gone.map(str::to_owned).collect();
    source::none(&gone, "there is no limit of that name");
}

#[test]
fn the_code_map_leads_to_files() {
    let text = fs::read_to_string(source::root().join("docs/ARCHITECTURE.md")).expect("the map is in the tree");
    let map = text.split("## Code map").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let rows = map.lines().filter(|line| line.starts_with("| `"));
    let mut offences = Vec::new();
    let mut count = 0;
    for row in rows {
        let mut quoted = row.split('`').skip(1).step_by(2);
        let folder = source::root().join(quoted.next().unwrap_or_default());
        let start = row.rsplit('|').nth(1).unwrap_or_default();
        for path in start.split('`').skip(1).step_by(2) {
            count += 1;
            if !folder.join(path).exists() {
                offences.push(format!("{}: {path}", folder.display()));
            }
        }
    }
    assert!(count > 20, "the map was read");
    source::none(&offences, "the map leads to no file");
}

/// What stands in backticks and is a sentence, as only the names of tests are.
fn test_names(text: &str) -> BTreeSet<String> {
    let is_word =
        |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'0'..=b'9'));
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(is_word).filter(|name| name.matches('_').count() > 3).map(str::to_owned).collect()
}

#[test]
fn a_sentence_in_backticks_is_the_name_of_a_test() {
    let names = test_names("the `a_test_of_this_form` and `LEASE_DEAD_AFTER`, `a b`, `codex_too_old`");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a_test_of_this_form"]);
}

fn collect_pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder was just listed").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_pages(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

/// Targets of `[text](target)` that are files of the tree, without their anchors.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let files = targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.contains(' '));
    files.map(str::to_owned).collect()
}

#[test]
fn generated_code_is_what_the_proto_files_say() {
    let xtask = process::binary("xtask").expect("the workspace is built before the flows run");
    let output = Command::new(xtask).args(["proto", "--check"]).output().expect("xtask was just found");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
