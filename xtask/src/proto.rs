//! `cargo xtask proto`: turns the `.proto` files into the committed Rust code.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::shell;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when the committed code is not what the `.proto` files say.
    #[arg(long)]
    check: bool,
}

/// The generated files and where they lie.
const FILES: [(&str, &str); 2] =
    [("proto/src/generated", "flydex.v1.rs"), ("proto/agent/src/generated", "flydex.agent.v1.rs")];

/// Generates the code, or compares it.
///
/// # Errors
/// When a `.proto` file does not compile, a file cannot be written, or a compared file differs.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.check { check(root) } else { generate(root, root) }
}

/// Compares the committed code with what would be generated.
///
/// # Errors
/// When they differ.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let fresh = shell::target(root).join("xtask/proto");
    generate(root, &fresh)?;
    for (folder, name) in FILES {
        let committed = fs::read(root.join(folder).join(name)).with_context(|| format!("read {folder}/{name}"))?;
        let generated = fs::read(fresh.join(folder).join(name)).with_context(|| format!("read the fresh {name}"))?;
        if committed != generated {
            bail!("{folder}/{name} is not what the .proto files say: run `cargo xtask proto`");
        }
    }
    Ok(())
}

/// Writes the generated code of both wire crates below `to`.
fn generate(root: &Path, to: &Path) -> anyhow::Result<()> {
    let include = root.join("proto");
    let relay = ["command", "relay", "session", "link", "machine"].map(|name| format!("flydex/v1/{name}.proto"));
    compile(&include, &relay, &to.join(FILES[0].0))?;
    compile(&include, &["flydex/agent/v1/agent.proto".to_owned()], &to.join(FILES[1].0))
}

fn compile(include: &Path, files: &[String], out: &Path) -> anyhow::Result<()> {
    let descriptors = protox::compile(files, [include]).context("compile the .proto files")?;
    std::fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    tonic_prost_build::configure()
        .bytes(".")
        // Messages carry prompts and output: without Debug they cannot be printed by accident.
        .skip_debug(["."])
        .out_dir(out)
        .compile_fds(descriptors)
        .context("generate code")
}
