//! Where to look beside logs and folders: stores, answers, processes as others see them, browsers.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{found_below, found_beside, found_in};
use crate::browser::{Answer, Page};
use crate::cluster::{Cluster, Store};
use crate::postgres::Postgres;
use crate::redis::{Monitor, Redis};

/// What an answer of the API may hold, by method and path: the one thing that it is there for.
const ANSWERS: &[(&str, &str, &[&str])] = &[
    ("POST", "/api/sign-in/recovery", &["cookie"]),
    ("POST", "/api/recovery-codes", &["recovery code"]),
    ("POST", "/api/invitations", &["invitation token"]),
    ("POST", "/api/sign-in", &["cookie"]),
    ("GET", "/api/session", &["cookie"]),
    ("POST", "/api/tickets", &["ticket", "grant"]),
    ("POST", "/api/sign-in-links", &["sign-in token"]),
];

/// What stands in a Redis: in what it holds, and in what it was told.
///
/// # Errors
/// When it does not answer.
pub async fn redis(redis: &Redis, monitor: &Monitor) -> anyhow::Result<Vec<String>> {
    let held = named("what Redis holds", &redis.everything().await?);
    Ok([held, named("what Redis was told", &monitor.heard())].concat())
}

/// What is kept in the database and nowhere else: see [`plant_controls_keys`].
const CONTROLS_KEY: &str = "key of control";

/// Looks from now on for the keys that control processes share by their database: what signs tokens, and what hashes
/// addresses.
///
/// # Errors
/// When there are none.
pub async fn plant_controls_keys(postgres: &Postgres) -> anyhow::Result<()> {
    for keys in [
        "SELECT encode(value, 'base64') FROM settings WHERE length(value) = 32",
        "SELECT encode(seed, 'base64') FROM token_keys WHERE seed IS NOT NULL",
    ] {
        let found = postgres.execute(keys).await?;
        anyhow::ensure!(found.lines().count() > 0, "no keys in the database: {keys}");
        for key in found.lines() {
            super::plant_bytes(CONTROLS_KEY, &STANDARD.decode(key)?);
        }
    }
    Ok(())
}

/// Looks from now on for the keys of certificates that lie in a folder.
///
/// # Errors
/// When there are none.
pub fn plant_certificate_keys(folder: &Path) -> anyhow::Result<()> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let Some((_, rest)) = text.split_once("PRIVATE KEY-----") else { continue };
        let encoded: String = rest.lines().take_while(|line| !line.starts_with("-----")).collect();
        // The number itself stands after the names of the algorithm.
        let key = STANDARD.decode(encoded)?;
        super::plant_bytes("key of a certificate", key.get(36..68).context("a short key")?);
        count += 1;
    }
    anyhow::ensure!(count > 0, "no keys in {}", folder.display());
    Ok(())
}

/// What stands in a PostgreSQL: in its rows, and in its files, where rows live on that are gone.
///
/// # Errors
/// When it cannot be read.
pub async fn postgres(postgres: &Postgres) -> anyhow::Result<Vec<String>> {
    let rows = named("a row of PostgreSQL", &postgres.everything().await?);
    postgres.execute("CHECKPOINT").await?;
    let all = [rows, found_below(&postgres.data(), &[])].concat();
    Ok(all.into_iter().filter(|problem| !problem.ends_with(CONTROLS_KEY)).collect())
}

/// What answers hold beside what they are there for.
#[must_use]
pub fn answers(answers: &[Answer]) -> Vec<String> {
    let mut problems = Vec::new();
    for Answer { method, path, text } in answers {
        let allowed = ANSWERS.iter().find(|(of, at, _)| of == method && at == path).map_or(&[][..], |(.., what)| what);
        let found = found_beside(text.as_bytes(), allowed).into_iter();
        problems.extend(found.map(|what| format!("the answer to {method} {path} holds a {what}")));
    }
    problems
}

/// What others see of a process: its arguments and, where they may, its environment.
///
/// # Errors
/// When it does not run.
pub fn process(pid: Option<u32>) -> anyhow::Result<Vec<String>> {
    let folder = of_process(pid)?;
    let mut problems = Vec::new();
    for file in ["cmdline", "environ", "comm", "status"] {
        let path = folder.join(file);
        match fs::read(&path) {
            Ok(bytes) => problems.extend(named(&path.display().to_string(), &bytes)),
            // Ours let nobody look but root.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(problems)
}

/// Files that a process holds open, also those that nobody else finds any more; none where one may not look.
///
/// # Errors
/// When it does not run.
pub fn open_files(pid: Option<u32>) -> anyhow::Result<Vec<PathBuf>> {
    let links = match fs::read_dir(of_process(pid)?.join("fd")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Vec::new()),
        links => links?,
    };
    let targets = links.flatten().filter_map(|link| fs::read_link(link.path()).ok());
    // Sockets and pipes have names that are no paths.
    Ok(targets.filter(|target| target.is_absolute() && !target.starts_with("/dev")).collect())
}

fn of_process(pid: Option<u32>) -> anyhow::Result<PathBuf> {
    Ok(Path::new("/proc").join(pid.context("it does not run")?.to_string()))
}

/// What stands in the metrics of a cluster that runs, beside its processes, and in files that are not their logs.
///
/// # Errors
/// When one does not answer.
pub async fn cluster(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for part in cluster.parts().filter(|part| part.runs()) {
        problems.extend(named(&format!("the metrics of {}", part.name), part.metrics().await?.as_bytes()));
        let pid = part.process()?.pid();
        problems.extend(process(pid)?);
        let others = open_files(pid)?.into_iter().filter(|file| *file != part.log());
        problems.extend(others.map(|file| format!("{} keeps something in {}", part.name, file.display())));
    }
    Ok(problems)
}

/// The only Redis of a region without a sentinel.
///
/// # Errors
/// When there is a sentinel.
pub fn only_redis(store: &Store) -> anyhow::Result<&Redis> {
    match store {
        Store::Alone(redis) => Ok(redis),
        Store::Sentinel(_) => anyhow::bail!("there is a sentinel"),
    }
}

/// What a browser keeps of an origin, and what any script of that origin can read of it.
#[derive(Debug)]
pub struct Kept {
    /// `localStorage`.
    pub local: Value,
    /// IndexedDB: each table with its rows; of a key its kind, bytes as hexadecimal.
    pub tables: Value,
    /// All the rest: `sessionStorage`, cookies that scripts see, caches with their bodies, the addresses of the tab.
    pub rest: String,
}

/// Reads all of it.
///
/// # Errors
/// When Chromium does not answer.
pub async fn browser(page: &Page) -> anyhow::Result<Kept> {
    let mut all = page.evaluate(KEPT).await?;
    let (local, tables) = (all["local"].take(), all["tables"].take());
    let mut addresses = page.history().await?;
    // A fragment is not sent.
    let asked = page.requests().await?;
    addresses.extend(asked.iter().map(|url| url.split('#').next().unwrap_or_default().to_owned()));
    Ok(Kept { local, tables, rest: format!("{all} {addresses:?}") })
}

/// What stands in a place.
#[must_use]
pub fn named(place: &str, bytes: &[u8]) -> Vec<String> {
    found_in(bytes).into_iter().map(|what| format!("{place} holds a {what}")).collect()
}

const KEPT: &str = r#"(async () => {
  const done = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const plain = (value) => {
    if (value instanceof CryptoKey) return { key: value.type, extractable: value.extractable, usages: value.usages };
    if (value instanceof ArrayBuffer) return { bytes: hex(new Uint8Array(value)) };
    if (ArrayBuffer.isView(value)) return { bytes: hex(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) };
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value === "bigint") return value.toString();
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, plain(part)]));
  };
  const tables = {};
  for (const { name } of await indexedDB.databases()) {
    const database = await done(indexedDB.open(name));
    for (const table of database.objectStoreNames)
      tables[`${name}.${table}`] = plain(await done(database.transaction(table).objectStore(table).getAll()));
    database.close();
  }
  const cached = {};
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) cached[request.url] = await (await cache.match(request)).text();
  }
  // The page's own entry has the address that it was opened with; it goes with the page.
  const timed = performance.getEntries().filter((entry) => entry.entryType !== "navigation").map((entry) => entry.name);
  return { local: { ...localStorage }, tables, cached, timed, session: { ...sessionStorage }, cookie: document.cookie };
})()"#;
