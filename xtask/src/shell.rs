//! Running other programs: said before they run, and named when they fail.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, bail};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo builds: `CARGO_TARGET_DIR` or `target`.
pub(crate) fn target(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => root.join(path),
        None => root.join("target"),
    }
}

/// Writes a line for the person at the terminal.
#[expect(clippy::print_stderr, reason = "the program's own output")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// Writes the result of a task.
#[expect(clippy::print_stdout, reason = "the program's own output")]
pub(crate) fn result(line: &str) {
    println!("{line}");
}

/// A program to run in `folder`.
pub(crate) fn command<S: AsRef<OsStr>>(folder: &Path, program: &str, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    command
}

/// The cargo that runs this task.
pub(crate) fn cargo<S: AsRef<OsStr>>(root: &Path, arguments: &[S]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = command(root, &cargo, arguments);
    // Set for this process by `cargo run`; they must not leak into the builds that it starts.
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" || name == "CARGO_MANIFEST_PATH" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it with its output on the terminal.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    if succeeds(command)? { Ok(()) } else { bail!("{} failed", line(command)) }
}

/// Runs it with its output on the terminal, and says whether it succeeded.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn succeeds(command: &mut Command) -> anyhow::Result<bool> {
    say(&format!("$ {}", line(command)));
    Ok(command.status().with_context(|| format!("start {}", line(command)))?.success())
}

/// Whether it can be run and succeeds, without output.
pub(crate) fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// What it writes to its standard output.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("start {}", line(command)))?;
    if !output.status.success() {
        bail!("{} failed", line(command));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs it with its output on the terminal and returns that output too, and whether it succeeded.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn watched(command: &mut Command) -> anyhow::Result<(bool, String)> {
    say(&format!("$ {}", line(command)));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("start {}", line(command)))?;
    let out = child.stdout.take().map(|pipe| thread::spawn(|| relay(pipe)));
    let err = child.stderr.take().map(|pipe| thread::spawn(|| relay(pipe)));
    let status = child.wait()?;
    let lines = [out, err].into_iter().flatten().filter_map(|thread| thread.join().ok());
    Ok((status.success(), lines.collect::<Vec<_>>().join("\n")))
}

fn relay(pipe: impl Read) -> String {
    let mut kept = String::new();
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        say(&line);
        kept.push_str(&line);
        kept.push('\n');
    }
    kept
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
