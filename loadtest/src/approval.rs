//! An approval as a device renders it: the machine's signed bytes, and the digest of all that stands in them.

use anyhow::{Context as _, bail, ensure};
use flydex_agent_proto::v1 as agent;
use flydex_domain::approval::{ApprovalAction, ApprovalBinding, ApprovalKind, FileChange, approval_transcript, digest};
use flydex_domain::invariant::Question;
use flydex_domain::time::UnixMillis;
use prost::Message as _;

use crate::account::PairedMachine;

/// An approval that a device was shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What names it.
    pub binding: ApprovalBinding,
    /// What would happen.
    pub action: ApprovalAction,
    /// Codex's item, as it names it.
    pub item_id: String,
}

impl Shown {
    /// Reads the bytes that a machine signed.
    ///
    /// # Errors
    /// When the machine did not sign them, or they are about another machine.
    pub fn read(signed: &agent::SignedApproval, machine: &PairedMachine) -> anyhow::Result<Self> {
        machine.machine_key.verify(approval_transcript(&signed.approval), &signed.signature)?;
        let shown = Self::of(agent::Approval::decode(signed.approval.clone())?)?;
        ensure!(shown.binding.machine_id == machine.machine_id, "an approval of another machine");
        Ok(shown)
    }

    /// Takes what is rendered as it is.
    ///
    /// # Errors
    /// When something of it is not of its shape.
    pub fn of(approval: agent::Approval) -> anyhow::Result<Self> {
        let kind = match approval.kind() {
            agent::ApprovalKind::Command => ApprovalKind::Command,
            agent::ApprovalKind::FileChange => ApprovalKind::FileChange,
            agent::ApprovalKind::Permissions => ApprovalKind::Permissions,
            agent::ApprovalKind::Unspecified => bail!("an approval of no kind"),
        };
        let binding = ApprovalBinding {
            machine_id: approval.machine_id.as_ref().try_into()?,
            generation: approval.generation.as_ref().try_into()?,
            approval_id: approval.approval_id.as_ref().try_into()?,
            expires_at: UnixMillis(approval.expires_at_ms),
            salt: approval.salt.as_ref().try_into().context("the salt is not 16 bytes")?,
        };
        let action = ApprovalAction {
            kind,
            command: approval.command,
            cwd: approval.cwd,
            network: approval.has_network.then_some(approval.network),
            permissions: approval.permissions,
            changes: approval.changes.into_iter().map(change).collect(),
            reason: approval.reason,
        };
        Ok(Self { binding, action, item_id: approval.item_id })
    }

    /// The digest that an answer signs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        digest(&self.binding, &self.action)
    }

    /// The stub's question behind it; none of the real Codex's.
    #[must_use]
    pub fn question(&self) -> Option<Question> {
        Some(Question { generation: self.binding.generation, number: self.item_id.parse().ok()? })
    }
}

fn change(change: agent::FileChange) -> FileChange {
    FileChange {
        path: change.path,
        kind: change.kind,
        moved_to: change.has_moved_to.then_some(change.moved_to),
        diff: change.diff,
    }
}
