//! Files: their length, their documentation, and what may not stand in them.

use super::source::{self, Source};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 500;

#[test]
fn files_fit_in_five_hundred_lines() {
    let long = |source: &Source| {
        let lines = source.without_tests().lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", source.path.display()))
    };
    source::none(&source::all().iter().filter_map(long).collect::<Vec<_>>(), "a file holds one subject; split it");
}

#[test]
fn every_module_says_what_it_is_for() {
    let bare = |source: &&Source| !source.is_test() && !source.text.starts_with("//! ");
    let all = source::all();
    let offences: Vec<_> = all.iter().filter(bare).map(|source| source.path.display().to_string()).collect();
    source::none(&offences, "begin the file with //!: purpose, flow, invariants");
}

#[test]
fn modules_are_files_beside_their_folders() {
    let all = source::all();
    let offences: Vec<_> = all.iter().filter(|source| source.path.ends_with("mod.rs")).collect();
    let offences: Vec<_> = offences.iter().map(|source| source.path.display().to_string()).collect();
    source::none(&offences, "use foo.rs and foo/, not foo/mod.rs");
}

/// What waits because that is what it is for: a network's delay, and how long a fault lasts.
const WAITING: [&str; 2] = ["tests/src/cluster/balancer.rs", "tests/src/cluster/fault.rs"];

#[test]
fn no_test_is_ignored_or_waits_for_time_to_pass() {
    let forbidden = [concat!("#[", "ignore"), concat!("sleep", "("), concat!("sleep_", "until(")];
    let mut offences = Vec::new();
    for source in source::all().into_iter().filter(|source| !WAITING.iter().any(|path| source.path.ends_with(path))) {
        let black_box = source.path.starts_with("tests");
        let text = if black_box { source.text.as_str() } else { source.tests() };
        let stops_the_clock = text.contains("tokio::time::pause()");
        let mut paused = stops_the_clock;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("#[tokio::test") {
                // Under a paused clock nothing waits: time is what the test says.
                paused = stops_the_clock || line.contains("start_paused = true");
            }
            if !paused && forbidden.iter().any(|word| line.contains(word)) {
                offences.push(format!("{} (+{}): {}", source.path.display(), number + 1, line.trim()));
            }
        }
    }
    source::none(&offences, "wait for a condition instead (flydex_tests::wait, a watch, a notify)");
}
