//! What a thread may do without asking, and whether a remote prompt may set it to work.

use serde_json::Value;

use super::json::{list, present, text};
use super::translate;

/// A thread's effective policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// It never asks, and nothing holds it.
    pub(super) unguarded: bool,
    /// For people.
    pub(super) text: String,
}

impl Policy {
    /// The policy in a result or in settings, where the sandbox has that field; none when it is not told.
    pub(super) fn read(value: &Value, sandbox_field: &str) -> Option<Self> {
        let approval = present(value, "approvalPolicy")?;
        let sandbox = present(value, sandbox_field)?;
        let unguarded = never_asks(approval) && is_open(sandbox);
        Some(Self { unguarded, text: translate::policy_text(approval, sandbox) })
    }
}

fn never_asks(approval: &Value) -> bool {
    match approval {
        Value::String(name) => name == "never",
        // A granular policy that asks about neither sandbox nor rules asks about no command.
        Value::Object(variant) => variant.get("granular").is_none_or(|granular| {
            granular.get("sandbox_approval") != Some(&Value::Bool(true))
                && granular.get("rules") != Some(&Value::Bool(true))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => true,
    }
}

/// An external sandbox is a promise of the environment that cannot be checked here: it counts as none. An
/// unknown sandbox too.
fn is_open(sandbox: &Value) -> bool {
    match text(sandbox, "type") {
        "readOnly" => false,
        "workspaceWrite" => list(sandbox, "writableRoots").iter().any(|root| root == "/"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unguarded(approval: Value, sandbox: Value) -> bool {
        let value = json!({"approvalPolicy": approval, "sandbox": sandbox});
        Policy::read(&value, "sandbox").expect("a policy").unguarded
    }

    #[test]
    fn only_never_with_an_open_sandbox_is_unguarded() {
        assert!(unguarded(json!("never"), json!({"type": "dangerFullAccess"})));
        assert!(unguarded(json!("never"), json!({"type": "externalSandbox"})));
        assert!(unguarded(json!("never"), json!({"type": "workspaceWrite", "writableRoots": ["/"]})));
        assert!(!unguarded(json!("never"), json!({"type": "workspaceWrite", "writableRoots": ["/w"]})));
        assert!(!unguarded(json!("never"), json!({"type": "readOnly"})));
        assert!(!unguarded(json!("on-request"), json!({"type": "dangerFullAccess"})));
    }

    #[test]
    fn what_is_not_known_counts_as_unguarded() {
        assert!(unguarded(json!({"novel": {}}), json!({"type": "novel"})));
        let granular = json!({"granular": {"sandbox_approval": false, "rules": false, "mcp_elicitations": true}});
        assert!(unguarded(granular, json!({"type": "dangerFullAccess"})));
        let granular = json!({"granular": {"sandbox_approval": true, "rules": false, "mcp_elicitations": true}});
        assert!(!unguarded(granular, json!({"type": "dangerFullAccess"})));
        assert_eq!(Policy::read(&json!({"approvalPolicy": "never"}), "sandbox"), None);
    }
}
