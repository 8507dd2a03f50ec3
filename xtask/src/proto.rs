//! `cargo xtask proto`: turns the `.proto` files into the committed Rust code.

use std::path::Path;

use anyhow::Context as _;

/// Writes the generated code of both wire crates below `root`.
///
/// # Errors
/// When a `.proto` file does not compile or a file cannot be written.
pub(crate) fn generate(root: &Path) -> anyhow::Result<()> {
    let include = root.join("proto");
    let relay = ["command", "relay", "session", "link", "machine"].map(|name| format!("flydex/v1/{name}.proto"));
    compile(&include, &relay, &include.join("src/generated"))?;
    compile(&include, &["flydex/agent/v1/agent.proto".to_owned()], &include.join("agent/src/generated"))
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
