//! `cargo xtask web`: the web app, built when its sources changed.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::{need, shell};

/// Folder of the web app.
const WEB: &str = "services/web";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build even when nothing changed.
    #[arg(long)]
    force: bool,
}

/// Installs the web app's packages and builds it.
///
/// # Errors
/// When Node is missing or the build fails.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    build(root, arguments.force)
}

/// Builds the web app unless what is there was built from the same sources.
///
/// # Errors
/// When Node is missing or the build fails.
pub(crate) fn build(root: &Path, force: bool) -> anyhow::Result<()> {
    need::npm_packages(root, WEB).context("install the web app's packages")?;
    let web = root.join(WEB);
    let fingerprint = fingerprint(&web)?;
    let stamp = web.join("dist/.built-from");
    if !force && fs::read_to_string(&stamp).is_ok_and(|built_from| built_from == fingerprint) {
        return Ok(());
    }
    shell::run(&mut shell::command(&web, "npm", &["run", "build"]))?;
    fs::write(&stamp, fingerprint).context("note what was built")
}

/// A hash over the names and contents of all sources.
fn fingerprint(web: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    collect(web, &mut files)?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file).with_context(|| format!("read {}", file.display()))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = entry.path();
        if name == "node_modules" || name == "dist" {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
