//! `cargo xtask fuzz`: libFuzzer over the targets in proto/fuzz, by the toolchain that builds everything else; and the
//! fuzzer of two accounts, which is a program of its own.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::shell;

/// The targets of proto/fuzz.
const TARGETS: [&str; 5] = ["frame", "lanes", "messages", "command", "agent"];
/// The fuzzer in tests/isolation.
const ISOLATION: &str = "isolation";
/// One operation of the API is tried for each of this many of the relay.
const API_PART: u64 = 100;
/// The flags by which libFuzzer sees what an input reaches. There is no address sanitizer, which would need a
/// nightly toolchain: the code under test has no `unsafe`, so that what can go wrong is a panic.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Copt-level=3 -Cdebug-assertions -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Bytes of the longest input that is tried.
const INPUT_BYTES_MAX: u32 = 4096;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One target; all of libFuzzer's in turn without it. `isolation` is the fuzzer of two accounts.
    #[arg(value_parser = TARGETS.into_iter().chain([ISOLATION]).collect::<Vec<_>>())]
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Of `isolation`: how many messages to send.
    #[arg(long, default_value_t = 1_000_000)]
    operations: u64,
    /// Of `isolation`: what decides everything that is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Fuzzes each target for its time. What reaches new code is kept beside the build for the next run; an input that
/// fails is left in the corpus, where the tests replay it.
///
/// # Errors
/// When the targets do not build.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    if arguments.target.as_deref() == Some(ISOLATION) {
        return isolation(root, arguments);
    }
    let folder = root.join("proto/fuzz");
    let programs = build(root, &folder)?;
    let mut passed = true;
    for target in TARGETS.iter().filter(|target| arguments.target.as_deref().is_none_or(|one| one == **target)) {
        let corpus = folder.join("corpus").join(target);
        let found = shell::target(root).join("fuzz/found").join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
        let program = programs.join(target).to_string_lossy().into_owned();
        let (corpus, found) = (corpus.to_string_lossy(), found.to_string_lossy());
        let words = [
            &*found,
            &*corpus,
            &format!("-max_total_time={}", arguments.seconds),
            &format!("-max_len={INPUT_BYTES_MAX}"),
            &format!("-artifact_prefix={corpus}/"),
            "-print_final_stats=1",
        ];
        passed &= shell::succeeds(&mut shell::command(root, &program, &words))?;
    }
    Ok(passed)
}

/// Two accounts at relays of their own, with optimisation; then at the API.
fn isolation(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    shell::run(&mut shell::cargo(
        root,
        &["build", "--locked", "--release", "--package", "flydex-isolation", "--bins"],
    ))?;
    let program = shell::target(root).join("release/flydex-isolate").to_string_lossy().into_owned();
    let (operations, seed) = (arguments.operations.to_string(), arguments.seed.to_string());
    let relay = shell::succeeds(&mut shell::command(root, &program, &["--operations", &operations, "--seed", &seed]))?;
    // The API stands on a database, which is slower.
    let operations = (arguments.operations / API_PART).to_string();
    let words = ["test", "--locked", "--package", "flydex-control", "--lib", "tests::isolation::two_accounts"];
    let mut api = shell::cargo(root, &words);
    api.env("FLYDEX_ISOLATION_OPERATIONS", operations).env("FLYDEX_ISOLATION_SEED", seed);
    Ok(shell::succeeds(&mut api)? && relay)
}

/// Builds the targets for libFuzzer and returns the folder of the programs.
fn build(root: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let version = shell::output(&mut shell::command(root, "rustc", &["-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let built = shell::target(root).join("fuzz");
    // Naming the platform keeps the flags away from build scripts and macros.
    let words = ["build", "--locked", "--bins", "--target", host];
    let mut build = shell::cargo(folder, &words);
    shell::run(build.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &built))
        .context("build the fuzz targets (libFuzzer needs a C++ compiler: `apt-get install g++`)")?;
    Ok(built.join(host).join("debug"))
}
