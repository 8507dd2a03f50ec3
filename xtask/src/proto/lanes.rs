//! Reads from `proto/src/lanes/on_lane.rs` which lane each kind of message travels on: the code that decides it is the
//! only place that says so.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use syn::visit::{self, Visit};

/// Where it stands.
const SOURCE: &str = "proto/src/lanes/on_lane.rs";
/// What a kind says that carries another message.
pub(super) const INNER: &str = "that of its message";

/// By message and kind (`SessionUp`, `Hello`) the lane, in the words of the reference.
pub(super) type Lanes = BTreeMap<(String, String), String>;

/// Reads all of them.
///
/// # Errors
/// When the source is not there, is no Rust, or says of a kind something that this does not understand.
pub(super) fn read(root: &Path) -> anyhow::Result<Lanes> {
    let text = fs::read_to_string(root.join(SOURCE)).with_context(|| format!("read {SOURCE}"))?;
    let file = syn::parse_file(&text).with_context(|| format!("parse {SOURCE}"))?;
    let mut lanes = Lanes::new();
    for item in &file.items {
        let syn::Item::Impl(item) = item else { continue };
        let syn::Type::Path(message) = item.self_ty.as_ref() else { continue };
        let Some(message) = message.path.segments.last() else { continue };
        let mut arms = Arms::default();
        arms.visit_item_impl(item);
        for (kinds, lane) in arms.0 {
            let lane = lane.with_context(|| format!("{SOURCE} says of {} {kinds:?} no lane", message.ident))?;
            lanes.extend(kinds.into_iter().map(|kind| ((message.ident.to_string(), kind), lane.clone())));
        }
    }
    Ok(lanes)
}

/// The arms of every `match`, each with its kinds and the lane.
#[derive(Default)]
struct Arms(Vec<(Vec<String>, Option<String>)>);

impl Visit<'_> for Arms {
    fn visit_arm(&mut self, arm: &syn::Arm) {
        let mut kinds = Names::default();
        kinds.visit_pat(&arm.pat);
        let mut lane = Names::default();
        lane.visit_expr(&arm.body);
        let said = lane.of("Lane").first().map(|lane| lane.to_lowercase());
        self.0.push((kinds.of("Kind"), said.or_else(|| lane.asks_inner.then(|| INNER.to_owned()))));
    }
}

/// The paths that stand in a piece of code.
#[derive(Default)]
struct Names {
    paths: Vec<Vec<String>>,
    asks_inner: bool,
}

impl Names {
    /// The second names of those that begin with this one.
    fn of(&self, first: &str) -> Vec<String> {
        let named = |path: &Vec<String>| match path.as_slice() {
            [one, two] if one == first => Some(two.clone()),
            [..] => None,
        };
        self.paths.iter().filter_map(named).collect()
    }
}

impl Visit<'_> for Names {
    fn visit_path(&mut self, path: &syn::Path) {
        self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &syn::ExprMethodCall) {
        self.asks_inner |= call.method == "lane_of_kind";
        visit::visit_expr_method_call(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_lane_that_the_code_says() {
        let lanes = read(&crate::shell::root()).unwrap();
        let lane = |message: &str, kind: &str| lanes[&(message.to_owned(), kind.to_owned())].clone();
        assert_eq!(lane("SessionUp", "Hello"), "control");
        assert_eq!(lane("SessionUp", "ToMachine"), INNER);
        assert_eq!(lane("MachineMessage", "Chunk"), "bulk");
        assert_eq!(lane("OwnerFrame", "SessionGone"), "commands");
        assert_eq!(lanes.len(), 50);
    }
}
