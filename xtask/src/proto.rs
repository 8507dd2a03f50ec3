//! `cargo xtask proto`: turns the `.proto` files into the committed code, in Rust and for the web app, and into the
//! page that documents them.
//!
//! No protoc is needed: protox compiles the files, and the web app's generator is handed what protoc would hand it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use prost::Message as _;
use prost_types::compiler::{CodeGeneratorRequest, CodeGeneratorResponse};

use crate::{need, shell};

mod lanes;
mod reference;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when what is committed is not what the `.proto` files say.
    #[arg(long)]
    check: bool,
}

/// The Rust files and where they lie.
const FILES: [(&str, &str); 2] =
    [("proto/src/generated", "flydex.v1.rs"), ("proto/agent/src/generated", "flydex.agent.v1.rs")];
/// What the web app speaks; the rest stays inside of the cluster.
const WEB_FILES: [&str; 4] =
    ["flydex/v1/command.proto", "flydex/v1/relay.proto", "flydex/v1/session.proto", "flydex/agent/v1/agent.proto"];
/// Where the web app's generated code lies.
const WEB_FOLDER: &str = "services/web/src/gen";

/// Generates the code and the reference, or compares them.
///
/// # Errors
/// When a `.proto` file does not compile, a file cannot be written, or a compared file differs.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.check {
        return check(root);
    }
    generate(root, root)?;
    fs::write(root.join(reference::PAGE), reference::page(root)?).context("write the protocol reference")?;
    need::npm_packages(root, "services/web")?;
    for (path, content) in web(root)? {
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Compares what is committed with what would be generated; the web app's where its packages are installed.
///
/// # Errors
/// When they differ.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let fresh = shell::target(root).join("xtask/proto");
    generate(root, &fresh)?;
    let mut expected = Vec::new();
    for (folder, name) in FILES {
        let generated =
            fs::read_to_string(fresh.join(folder).join(name)).with_context(|| format!("read the fresh {name}"))?;
        expected.push((root.join(folder).join(name), generated));
    }
    expected.push((root.join(reference::PAGE), reference::page(root)?));
    if generator(root).exists() {
        expected.extend(web(root)?);
    }
    for (path, generated) in expected {
        let committed = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        if committed != generated {
            bail!("{} is not what the .proto files say: run `cargo xtask proto`", path.display());
        }
    }
    Ok(())
}

/// Writes the generated Rust code of both wire crates below `to`.
fn generate(root: &Path, to: &Path) -> anyhow::Result<()> {
    let include = root.join("proto");
    let relay =
        ["command", "relay", "session", "link", "machine", "internal"].map(|name| format!("flydex/v1/{name}.proto"));
    compile(&include, &relay, &to.join(FILES[0].0))?;
    compile(&include, &["flydex/agent/v1/agent.proto".to_owned()], &to.join(FILES[1].0))
}

fn generator(root: &Path) -> PathBuf {
    root.join("services/web/node_modules/@bufbuild/protoc-gen-es/bin/protoc-gen-es")
}

/// The web app's generated files: asks its generator as protoc would.
fn web(root: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut compiler = protox::Compiler::new([root.join("proto")])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(WEB_FILES).context("compile the .proto files")?;
    let request = CodeGeneratorRequest {
        file_to_generate: WEB_FILES.map(str::to_owned).to_vec(),
        parameter: Some("target=ts".to_owned()),
        proto_file: compiler.file_descriptor_set().file,
        compiler_version: None,
    };
    let script = generator(root);
    let mut node = shell::command(root, "node", &[&script]);
    let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start node")?;
    let mut stdin = node.stdin.take().context("open node's standard input")?;
    stdin.write_all(&request.encode_to_vec()).context("hand the files to protoc-gen-es")?;
    drop(stdin);
    let output = node.wait_with_output().context("run protoc-gen-es")?;
    let response = CodeGeneratorResponse::decode(output.stdout.as_slice()).context("read protoc-gen-es")?;
    if let Some(error) = response.error {
        bail!("protoc-gen-es: {error}");
    }
    let folder = root.join(WEB_FOLDER);
    Ok(response.file.into_iter().map(|file| (folder.join(file.name()), file.content().to_owned())).collect())
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
