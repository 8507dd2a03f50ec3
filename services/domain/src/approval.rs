//! Approvals: what exactly is asked, the digest that binds an answer to it, and the rules of answering
//! (INV-APPROVE).

use crate::encoding::{Label, Transcript};
use crate::id::{ApprovalId, Generation, MachineId};
use crate::time::UnixMillis;

/// Kinds of approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApprovalKind {
    /// Run a command.
    Command,
    /// Change files.
    FileChange,
    /// Widen permissions for a turn.
    Permissions,
}

impl ApprovalKind {
    /// The name in digests and audit.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::FileChange => "file_change",
            Self::Permissions => "permissions",
        }
    }
}

/// One file of a change, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The path, as Codex gave it.
    pub path: String,
    /// `add`, `delete` or `update`.
    pub kind: String,
    /// Where an update moves the file to.
    pub moved_to: Option<String>,
    /// The whole diff.
    pub diff: String,
}

/// Exactly what would happen, as it is shown before the buttons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalAction {
    /// Which kind.
    pub kind: ApprovalKind,
    /// The command line, or empty.
    pub command: String,
    /// The folder it runs in, or empty.
    pub cwd: String,
    /// The network target `protocol://host`, when the approval is about one.
    pub network: Option<String>,
    /// Paths of further permissions, each `read:` or `write:` and a path.
    pub permissions: Vec<String>,
    /// Files that would change, in the order shown.
    pub changes: Vec<FileChange>,
    /// The agent's reason, as shown.
    pub reason: String,
}

/// What names an approval besides its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApprovalBinding {
    /// The machine that asks.
    pub machine_id: MachineId,
    /// The life of Codex that asks.
    pub generation: Generation,
    /// The approval.
    pub approval_id: ApprovalId,
    /// Until when it can be answered.
    pub expires_at: UnixMillis,
    /// Random, so that the digest does not tell a guessed command.
    pub salt: [u8; 16],
}

/// The digest that an answer signs: over every byte that a device shows before the buttons.
#[must_use]
pub fn digest(binding: &ApprovalBinding, action: &ApprovalAction) -> [u8; 32] {
    let mut transcript = Transcript::new(Label::ApprovalDigest)
        .bytes(binding.machine_id.as_bytes())
        .bytes(binding.generation.as_bytes())
        .bytes(binding.approval_id.as_bytes())
        .integer(binding.expires_at.0)
        .bytes(&binding.salt)
        .text(action.kind.name())
        .text(&action.command)
        .text(&action.cwd)
        .optional(action.network.as_deref().map(str::as_bytes))
        .text(&action.reason)
        .count(action.permissions.len());
    for permission in &action.permissions {
        transcript = transcript.text(permission);
    }
    transcript = transcript.count(action.changes.len());
    for change in &action.changes {
        transcript = transcript
            .text(&change.path)
            .text(&change.kind)
            .optional(change.moved_to.as_deref().map(str::as_bytes))
            .text(&change.diff);
    }
    transcript.sha256()
}

/// What identifies a question of Codex within one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalSource<'a> {
    /// The life of Codex.
    pub generation: Generation,
    /// Codex's request id, as JSON text; it starts at 0 in each life of Codex.
    pub request_id: &'a str,
    /// Codex's thread.
    pub thread_id: &'a str,
    /// Codex's turn.
    pub turn_id: &'a str,
    /// Codex's item.
    pub item_id: &'a str,
    /// When the item started, by Codex.
    pub started_at_ms: u64,
    /// How many times this question was renewed.
    pub renewal: u32,
}

impl ApprovalSource<'_> {
    /// The approval's id: the same question has the same id, a renewed one another.
    #[must_use]
    pub fn approval_id(&self) -> ApprovalId {
        let transcript = Transcript::new(Label::ApprovalId)
            .bytes(self.generation.as_bytes())
            .text(self.request_id)
            .text(self.thread_id)
            .text(self.turn_id)
            .text(self.item_id)
            .integer(self.started_at_ms)
            .integer(u64::from(self.renewal));
        ApprovalId::from_bytes(transcript.sha256())
    }
}

/// The transcript that the machine signs over an approval's exact bytes.
#[must_use]
pub fn approval_transcript(approval_bytes: &[u8]) -> Transcript {
    Transcript::new(Label::Approval).bytes(approval_bytes)
}
