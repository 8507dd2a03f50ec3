//! Who may depend on whom. What depends on more than its layer allows cannot be reasoned about alone.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use super::source;

/// Each of our crates and which of ours it may build on.
const LAYERS: [(&str, &[&str]); 15] = [
    ("flydex-agent-proto", &[]),
    ("flydex-connector", &["flydex-domain", "flydex-proto", "flydex-agent-proto", "flydex-runtime"]),
    ("flydex-control", SERVICE),
    ("flydex-domain", &[]),
    ("flydex-gateway", SERVICE),
    ("flydex-isolation", RELAY),
    (
        "flydex-loadtest",
        &[
            "flydex-agent-proto",
            "flydex-connector",
            "flydex-domain",
            "flydex-gateway",
            "flydex-machines",
            "flydex-proto",
            "flydex-runtime",
            "flydex-store",
        ],
    ),
    ("flydex-machines", SERVICE),
    ("flydex-proof", &["flydex-domain"]),
    ("flydex-proto", &["flydex-domain"]),
    ("flydex-runtime", &[]),
    (
        "flydex-server",
        &[
            "flydex-control",
            "flydex-domain",
            "flydex-gateway",
            "flydex-machines",
            "flydex-proto",
            "flydex-runtime",
            "flydex-store",
        ],
    ),
    ("flydex-store", &["flydex-domain"]),
    (
        "flydex-tests",
        &[
            "flydex-agent-proto",
            "flydex-connector",
            "flydex-domain",
            "flydex-loadtest",
            "flydex-proto",
            "flydex-runtime",
            "flydex-store",
        ],
    ),
    ("xtask", &[]),
];
const RELAY: &[&str] =
    &["flydex-domain", "flydex-gateway", "flydex-machines", "flydex-proto", "flydex-runtime", "flydex-store"];
const SERVICE: &[&str] = &["flydex-domain", "flydex-proto", "flydex-runtime", "flydex-store"];

/// What a crate's tests may use beside its layer.
const FOR_TESTS: [&str; 1] = ["flydex-tests"];

/// Crates of others that one of ours keeps to itself, or that nobody may have.
const RESERVED: [(&str, &[&str]); 7] = [
    ("sqlx", &["flydex-store"]),
    ("redis", &["flydex-store"]),
    ("ractor", &["flydex-machines"]),
    ("ractor_cluster", &[]),
    ("openssl", &[]),
    ("native-tls", &[]),
    ("ring", &[]),
];

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.current_dir(source::root()).no_deps();
    command.exec().expect("cargo metadata works where cargo test does")
}

#[test]
fn our_crates_keep_to_their_layers() {
    let metadata = metadata();
    let layers: BTreeMap<_, _> = LAYERS.into_iter().collect();
    let mut offences = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(allowed) = layers.get(package.name.as_str()) else {
            offences.push(format!("{} is in no layer: add it to LAYERS", package.name));
            continue;
        };
        offences.extend(beyond_layer(package, allowed, &layers));
    }
    source::none(&offences, "the dependency rule of docs/ARCHITECTURE.md");
}

fn beyond_layer(package: &Package, allowed: &[&str], layers: &BTreeMap<&str, &[&str]>) -> Vec<String> {
    let ours = package.dependencies.iter().filter(|dependency| layers.contains_key(dependency.name.as_str()));
    let beyond = ours.filter(|dependency| {
        let name = dependency.name.as_str();
        let for_tests = dependency.kind == DependencyKind::Development && FOR_TESTS.contains(&name);
        !allowed.contains(&name) && !for_tests
    });
    beyond.map(|dependency| format!("{} must not depend on {}", package.name, dependency.name)).collect()
}

#[test]
fn reserved_crates_stay_where_they_belong() {
    let metadata = metadata();
    let mut offences = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            let reserved = RESERVED.iter().find(|(name, _)| *name == dependency.name);
            if let Some((name, _)) = reserved.filter(|(_, owners)| !owners.contains(&package.name.as_str())) {
                offences.push(format!("{} must not depend on {name}", package.name));
            }
        }
    }
    source::none(&offences, "each outer system has one crate that speaks to it");
}

#[test]
fn versions_are_chosen_in_one_place() {
    let manifests: BTreeSet<_> = metadata().workspace_packages().iter().map(|it| it.manifest_path.clone()).collect();
    let mut offences = Vec::new();
    for manifest in manifests {
        let text = std::fs::read_to_string(&manifest).expect("cargo has just read it");
        let dependencies = text.lines().skip_while(|line| !line.contains("dependencies]"));
        let own = dependencies.filter(|line| line.contains(" = ") && !line.contains("workspace = true"));
        let own = own.take_while(|line| !line.starts_with('['));
        offences.extend(own.map(|line| format!("{manifest}: {line}")));
    }
    source::none(&offences, "versions stand in workspace.dependencies");
}
