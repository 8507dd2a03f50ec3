//! `cargo xtask check`: form, dependencies, documentation and generated code. Behaviour is `cargo xtask test`.

use std::path::Path;

use crate::count::Count;
use crate::{need, proto, shell, web};

/// The version of cargo-deny that is installed where there is none.
const CARGO_DENY_VERSION: &str = "0.20.2";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Do not install cargo-deny where it is missing (four minutes on two cores); leave its step out.
    #[arg(long)]
    no_install: bool,
}

type Step = (&'static str, fn(&Path, &Arguments) -> anyhow::Result<bool>);

const STEPS: [Step; 7] = [
    ("rustfmt", rustfmt),
    ("generated code", generated_code),
    ("clippy", clippy),
    ("documentation", documentation),
    ("tidy", tidy),
    ("web types", web_types),
    ("dependencies", dependencies),
];

/// Runs every step, also after a failure, and counts.
///
/// # Errors
/// None: a step that cannot run has failed.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    let mut count = Count::default();
    for (name, step) in STEPS {
        shell::say(&format!("-- {name}"));
        let passed = step(root, arguments).unwrap_or_else(|error| {
            shell::say(&format!("error: {error:#}"));
            false
        });
        shell::say(&format!("-- {name}: {}", if passed { "passed" } else { "FAILED" }));
        count += Count::one(passed);
    }
    shell::result(&count.to_string());
    Ok(count.failed == 0)
}

fn rustfmt(root: &Path, _: &Arguments) -> anyhow::Result<bool> {
    shell::succeeds(&mut shell::cargo(root, &["fmt", "--all", "--check"]))
}

fn generated_code(root: &Path, _: &Arguments) -> anyhow::Result<bool> {
    need::npm_packages(root, "services/web")?;
    proto::check(root).map(|()| true)
}

fn clippy(root: &Path, _: &Arguments) -> anyhow::Result<bool> {
    let words = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    shell::succeeds(&mut shell::cargo(root, &words))
}

fn documentation(root: &Path, _: &Arguments) -> anyhow::Result<bool> {
    let mut doc = shell::cargo(root, &["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
    // These pages are for whoever works on the code: they show private items, and may link to them.
    shell::succeeds(doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}

fn tidy(root: &Path, _: &Arguments) -> anyhow::Result<bool> {
    shell::succeeds(&mut shell::cargo(
        root,
        &["test", "--locked", "--package", "flydex-tests", "--test", "it", "tidy::"],
    ))
}

fn web_types(root: &Path, _: &Arguments) -> anyhow::Result<bool> {
    web::build(root, false)?;
    shell::succeeds(&mut shell::command(&root.join("services/web"), "npm", &["run", "check"]))
}

fn dependencies(root: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    if arguments.no_install && !shell::works(&mut shell::cargo(root, &["deny", "--version"])) {
        shell::say(&format!("left out: get it by `cargo install --locked cargo-deny@{CARGO_DENY_VERSION}`"));
        return Ok(true);
    }
    need::cargo_tool(root, "cargo-deny", CARGO_DENY_VERSION)?;
    let rules = ["deny", "--locked", "check", "bans", "licenses", "sources"];
    Ok(shell::succeeds(&mut shell::cargo(root, &rules))? & advisories(root)?)
}

/// Known weaknesses of what is used. Their database comes from the network; where it cannot be reached, that is said.
fn advisories(root: &Path) -> anyhow::Result<bool> {
    if !shell::succeeds(&mut shell::cargo(root, &["deny", "--locked", "fetch", "db"]))? {
        shell::say("advisories were NOT checked: their database cannot be reached from here");
        return Ok(true);
    }
    shell::succeeds(&mut shell::cargo(root, &["deny", "--locked", "check", "--disable-fetch", "advisories"]))
}
