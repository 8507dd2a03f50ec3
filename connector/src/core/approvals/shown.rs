//! An approval as devices render it: everything that the digest covers, and what names it.

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_domain::approval::{ApprovalKind, FileChange};
use flydex_domain::command::Decision;
use flydex_domain::gate::approval::Approval;
use flydex_domain::limits::PREVIEW_BYTES_MAX;

use crate::codex::AskedApproval;

pub(super) fn end_of(decision: Decision) -> agent::ApprovalEnd {
    match decision {
        Decision::Accept | Decision::AcceptForSession => agent::ApprovalEnd::Accepted,
        Decision::Decline => agent::ApprovalEnd::Declined,
        Decision::Cancel => agent::ApprovalEnd::Cancelled,
    }
}

/// An action that no session could be shown whole is answered at the desk.
pub(super) fn cut_for_the_desk(approval: &mut Approval) {
    approval.desk_only = true;
    approval.passkey_required = false;
    approval.offered.clear();
    let action = &mut approval.action;
    action.changes.clear();
    action.permissions.clear();
    for text in [&mut action.command, &mut action.cwd, &mut action.reason] {
        text.truncate(text.floor_char_boundary(PREVIEW_BYTES_MAX));
    }
}

/// The bytes that devices render: everything that the digest covers, and what names it.
pub(super) fn shown(approval: &Approval, asked: &AskedApproval) -> agent::Approval {
    let (binding, action) = (&approval.binding, &approval.action);
    agent::Approval {
        approval_id: Bytes::copy_from_slice(binding.approval_id.as_bytes()),
        machine_id: Bytes::copy_from_slice(binding.machine_id.as_bytes()),
        generation: Bytes::copy_from_slice(binding.generation.as_bytes()),
        thread_id: asked.thread_id.to_string(),
        turn_id: asked.turn_id.clone(),
        item_id: asked.item_id.clone(),
        kind: match action.kind {
            ApprovalKind::Command => agent::ApprovalKind::Command,
            ApprovalKind::FileChange => agent::ApprovalKind::FileChange,
            ApprovalKind::Permissions => agent::ApprovalKind::Permissions,
        }
        .into(),
        risk: if asked.risk_high { agent::Risk::High } else { agent::Risk::Normal }.into(),
        opened_at_ms: asked.opened_at.0,
        expires_at_ms: binding.expires_at.0,
        salt: Bytes::copy_from_slice(&binding.salt),
        command: action.command.clone(),
        cwd: action.cwd.clone(),
        network: action.network.clone().unwrap_or_default(),
        has_network: action.network.is_some(),
        permissions: action.permissions.clone(),
        changes: action.changes.iter().map(shown_change).collect(),
        reason: action.reason.clone(),
        decisions: approval.offered.iter().map(|decision| offered(*decision).into()).collect(),
        desk_only: approval.desk_only,
        passkey_required: approval.passkey_required,
    }
}

fn shown_change(change: &FileChange) -> agent::FileChange {
    agent::FileChange {
        path: change.path.clone(),
        kind: change.kind.clone(),
        moved_to: change.moved_to.clone().unwrap_or_default(),
        has_moved_to: change.moved_to.is_some(),
        diff: change.diff.clone(),
    }
}

fn offered(decision: Decision) -> agent::OfferedDecision {
    match decision {
        Decision::Accept => agent::OfferedDecision::Accept,
        Decision::AcceptForSession => agent::OfferedDecision::AcceptForSession,
        Decision::Decline => agent::OfferedDecision::Decline,
        Decision::Cancel => agent::OfferedDecision::Cancel,
    }
}
