//! `cargo xtask test`: everything that is needed, everything that is tested, one count.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::count::Count;
use crate::{need, shell, web};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the Rust tests whose name contains this; the web app's own tests are left out.
    filter: Option<String>,
    /// Leave out the whole flows in tests/it and those of the web app, which need Chromium, Redis and PostgreSQL.
    #[arg(long)]
    no_flows: bool,
    /// Run by `cargo test` even where cargo-nextest is installed.
    #[arg(long)]
    no_nextest: bool,
}

/// Installs, builds, tests and counts.
///
/// # Errors
/// When something that the tests need is missing and cannot be installed.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    let count = match prepare(root, arguments) {
        Ok(codex) => test(root, arguments, &codex)?,
        Err(error) => {
            shell::say(&format!("error: {error:#}"));
            Count::one(false)
        }
    };
    shell::result(&count.to_string());
    Ok(count.failed == 0)
}

/// Installs what is needed and returns the path of the pinned Codex, which unit tests ask for its methods too.
fn prepare(root: &Path, arguments: &Arguments) -> anyhow::Result<PathBuf> {
    need::node(root)?;
    let codex = need::codex(root)?;
    if !arguments.no_flows {
        need::chromium(root)?;
        need::browser_driver(root)?;
        need::identity_provider(root)?;
        need::redis(root)?;
        need::postgres(root)?;
        need::networks(root)?;
    }
    web::build(root, false)?;
    Ok(codex)
}

fn test(root: &Path, arguments: &Arguments, codex: &Path) -> anyhow::Result<Count> {
    let mut count = rust(root, arguments, codex)?;
    if !arguments.no_flows && arguments.filter.is_none() {
        count += on_postgres(root, arguments)?;
    }
    if arguments.filter.is_none() {
        count += web_tests(root, "test")?;
        if !arguments.no_flows {
            count += web_tests(root, "test:browser")?;
        }
    }
    Ok(count)
}

fn rust(root: &Path, arguments: &Arguments, codex: &Path) -> anyhow::Result<Count> {
    // One set of features for the binaries that the flows start and for the tests, or all is built twice.
    if !shell::succeeds(&mut shell::cargo(root, &BUILD))? {
        return Ok(Count::one(false));
    }
    let nextest = has_nextest(root, arguments);
    let mut words = if nextest { NEXTEST.to_vec() } else { vec!["test", "--locked", "--workspace", "--no-fail-fast"] };
    if arguments.no_flows {
        words.extend(["--exclude", "flydex-tests"]);
    }
    if let Some(filter) = &arguments.filter {
        words.push(filter);
    }
    let (succeeded, output) = shell::watched(shell::cargo(root, &words).env(need::CODEX_VARIABLE, codex))?;
    Ok(Count::of_run(succeeded, &output))
}

fn has_nextest(root: &Path, arguments: &Arguments) -> bool {
    !arguments.no_nextest && shell::works(&mut shell::cargo(root, &["nextest", "--version"]))
}

const NEXTEST: [&str; 5] = ["nextest", "run", "--locked", "--workspace", "--no-fail-fast"];

/// The tests of everything that stands on SQL once more, on a PostgreSQL in place of SQLite.
fn on_postgres(root: &Path, arguments: &Arguments) -> anyhow::Result<Count> {
    let program = shell::target(root).join("debug/flydex-postgres");
    let mut server = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let mut address = String::new();
    BufReader::new(server.stdout.take().context("its output")?).read_line(&mut address)?;
    let words = if has_nextest(root, arguments) {
        [&NEXTEST[..], &["-E", "package(flydex-store) & test(sql::) | package(flydex-control)"]].concat()
    } else {
        vec!["test", "--locked", "--no-fail-fast", "-p", "flydex-store", "-p", "flydex-control"]
    };
    shell::say("the same on PostgreSQL");
    let result = shell::watched(shell::cargo(root, &words).env("FLYDEX_TEST_POSTGRES", address.trim()));
    // It ends with its input.
    drop(server.stdin.take());
    server.wait()?;
    let (succeeded, output) = result?;
    Ok(Count::of_run(succeeded, &output))
}

/// Builds every library, binary and test with the features that the tests ask for.
pub(crate) const BUILD: [&str; 6] = ["build", "--locked", "--workspace", "--lib", "--bins", "--tests"];

fn web_tests(root: &Path, script: &str) -> anyhow::Result<Count> {
    let mut vitest = shell::command(&root.join("services/web"), "npm", &["run", script]);
    let (succeeded, output) = shell::watched(vitest.env("NO_COLOR", "1"))?;
    Ok(Count::of_run(succeeded, &output))
}
