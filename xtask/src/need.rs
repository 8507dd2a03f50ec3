//! What tasks need beyond Rust: installed where that is possible, else named with the way to get it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::shell;

/// The oldest Node that the web app's tools run on.
const NODE_VERSION_MIN: (u32, u32) = (20, 19);
/// Names a Chromium to use instead of the system's.
const CHROMIUM_VARIABLE: &str = "FLYDEX_CHROMIUM";
/// Names a Codex to use instead of the pinned one.
pub(crate) const CODEX_VARIABLE: &str = "FLYDEX_CODEX";

/// A Node that is new enough.
///
/// # Errors
/// When there is none; the message says how to get one.
pub(crate) fn node(root: &Path) -> anyhow::Result<()> {
    let hint = "install Node 20.19 or newer with npm: https://nodejs.org or `apt-get install nodejs npm`";
    let version = shell::output(&mut shell::command(root, "node", &["--version"])).context(hint)?;
    let mut numbers = version.trim().trim_start_matches('v').split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < NODE_VERSION_MIN {
        bail!("Node {} is too old: {hint}", version.trim());
    }
    Ok(())
}

/// The packages of `folder`, exactly as its lock file says.
///
/// # Errors
/// When npm is missing or fails.
pub(crate) fn npm_packages(root: &Path, folder: &str) -> anyhow::Result<()> {
    let folder = root.join(folder);
    let lock = fs::read(folder.join("package-lock.json"))
        .with_context(|| format!("read {}", folder.join("package-lock.json").display()))?;
    let stamp = folder.join("node_modules/.flydex-installed");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    node(root)?;
    shell::run(&mut shell::command(&folder, "npm", &["ci", "--no-audit", "--no-fund"]))?;
    fs::create_dir_all(folder.join("node_modules"))?;
    fs::write(&stamp, lock).context("note what was installed")
}

/// A Chromium, installed from Debian when there is none and this is root.
///
/// # Errors
/// When there is none and it cannot be installed; the message says how to get it.
pub(crate) fn chromium(root: &Path) -> anyhow::Result<PathBuf> {
    if let Some(found) = find_chromium() {
        return Ok(found);
    }
    let hint = format!("install Chromium (`apt-get install chromium`) or name one by {CHROMIUM_VARIABLE}");
    if !Path::new("/usr/bin/apt-get").exists() || !is_root(root) {
        bail!("no Chromium found: {hint}");
    }
    debian_package(root, "chromium").context(hint.clone())?;
    find_chromium().context(hint)
}

/// A Redis server (Sentinel is the same program), installed from Debian when there is none and this is root.
///
/// # Errors
/// When there is none and it cannot be installed; the message says how to get it.
pub(crate) fn redis(root: &Path) -> anyhow::Result<()> {
    let works = || shell::works(&mut shell::command(root, "redis-server", &["--version"]));
    if works() {
        return Ok(());
    }
    let hint = "install Redis 7 or newer (`apt-get install redis-server`)";
    if !Path::new("/usr/bin/apt-get").exists() || !is_root(root) {
        bail!("no redis-server found: {hint}");
    }
    debian_package(root, "redis-server").context(hint)?;
    if works() { Ok(()) } else { bail!("redis-server does not run: {hint}") }
}

/// The tool that makes networks for a node of their own, installed from Debian when it is missing and this is root. Who is
/// not root can make none, and needs none.
///
/// # Errors
/// When it cannot be installed; the message says how to get it.
pub(crate) fn networks(root: &Path) -> anyhow::Result<()> {
    if !is_root(root) || shell::works(&mut shell::command(root, "ip", &["-V"])) {
        return Ok(());
    }
    let hint = "install iproute2 (`apt-get install iproute2`)";
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("no ip found: {hint}");
    }
    debian_package(root, "iproute2").context(hint)
}

/// A PostgreSQL server, installed from Debian when there is none and this is root.
///
/// # Errors
/// When there is none and it cannot be installed; the message says how to get it.
pub(crate) fn postgres(root: &Path) -> anyhow::Result<()> {
    if has_postgres() {
        return Ok(());
    }
    let hint = "install PostgreSQL 15 or newer (`apt-get install postgresql-15`)";
    if !Path::new("/usr/bin/apt-get").exists() || !is_root(root) {
        bail!("no PostgreSQL found: {hint}");
    }
    debian_package(root, "postgresql-15").context(hint)?;
    if has_postgres() { Ok(()) } else { bail!("PostgreSQL is not where Debian puts it: {hint}") }
}

/// Whether its programs are in `PATH` or where Debian puts them, out of it.
fn has_postgres() -> bool {
    let in_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    in_path.chain(debian.map(|version| version.path().join("bin"))).any(|folder| folder.join("initdb").is_file())
}

/// The path of the pinned Codex, or of the one that is named.
///
/// # Errors
/// When npm is missing or fails, or has no Codex for this platform.
pub(crate) fn codex(root: &Path) -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os(CODEX_VARIABLE) {
        return Ok(PathBuf::from(named));
    }
    npm_packages(root, "tests/codex").context("install the pinned Codex")?;
    // The native binary lies in a package per platform: codex-<os>-<cpu>/vendor/<target>/bin/codex.
    let packages = fs::read_dir(root.join("tests/codex/node_modules/@openai"))?.flatten();
    let targets = packages.filter_map(|package| fs::read_dir(package.path().join("vendor")).ok()).flatten().flatten();
    let binary = targets.map(|target| target.path().join("bin/codex")).find(|binary| binary.is_file());
    binary.with_context(|| format!("npm has no Codex for this platform: name one by {CODEX_VARIABLE}"))
}

/// The browser driver of the tests.
///
/// # Errors
/// When npm is missing or fails.
pub(crate) fn browser_driver(root: &Path) -> anyhow::Result<()> {
    npm_packages(root, "tests/browser").context("install the browser driver")
}

/// The identity provider of the tests.
///
/// # Errors
/// When npm is missing or fails.
pub(crate) fn identity_provider(root: &Path) -> anyhow::Result<()> {
    npm_packages(root, "tests/oidc").context("install the identity provider")
}

/// Installs a cargo tool of that exact version when it is missing.
///
/// # Errors
/// When it does not build.
pub(crate) fn cargo_tool(root: &Path, tool: &str, version: &str) -> anyhow::Result<()> {
    let subcommand = tool.trim_start_matches("cargo-");
    if shell::works(&mut shell::cargo(root, &[subcommand, "--version"])) {
        return Ok(());
    }
    let build = shell::target(root).join("tools");
    let crate_at = format!("{tool}@{version}");
    let mut install = shell::cargo(root, &["install", "--locked", "--debug", &crate_at]);
    shell::run(install.env("CARGO_TARGET_DIR", build))
        .with_context(|| format!("install it yourself: cargo install --locked {crate_at}"))
}

fn find_chromium() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(CHROMIUM_VARIABLE) {
        return Some(PathBuf::from(named));
    }
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|candidate| candidate.is_file())
}

fn is_root(root: &Path) -> bool {
    shell::output(&mut shell::command(root, "id", &["-u"])).is_ok_and(|id| id.trim() == "0")
}

fn debian_package(root: &Path, package: &str) -> anyhow::Result<()> {
    let install = ["install", "--yes", "--no-install-recommends", package];
    let mut attempt = shell::command(root, "apt-get", &install);
    if shell::succeeds(attempt.env("DEBIAN_FRONTEND", "noninteractive"))? {
        return Ok(());
    }
    shell::run(&mut shell::command(root, "apt-get", &["update"]))?;
    let mut install = shell::command(root, "apt-get", &install);
    shell::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}
