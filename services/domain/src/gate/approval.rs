//! Answering an approval: what must hold before a remote accept takes effect (INV-APPROVE).

use crate::approval::{ApprovalAction, ApprovalBinding, digest};
use crate::command::{ApprovalAnswer, Decision};
use crate::error::ErrorCode;
use crate::id::{AccountId, ApprovalId, CommandHash, CommandId, DeviceId, Generation, MachineId};
use crate::invariant::{self, approved};
use crate::time::UnixMillis;
use crate::token::{AuditReceipt, TokenVerifier};

/// An approval as the machine holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Its name, generation, end and salt.
    pub binding: ApprovalBinding,
    /// Exactly what would happen.
    pub action: ApprovalAction,
    /// What may be answered remotely.
    pub offered: Vec<Decision>,
    /// Only the desk may answer it.
    pub desk_only: bool,
    /// An accept carries a passkey's word on it.
    pub passkey_required: bool,
    /// Where it stands.
    pub state: State,
}

/// Where an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has answered.
    Open,
    /// An answer was taken and is under way.
    Taken(Answered),
    /// It has ended.
    Closed(End),
}

/// Who answered, what and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The device.
    pub device_id: DeviceId,
    /// Its answer.
    pub decision: Decision,
    /// The machine's clock.
    pub at: UnixMillis,
}

/// How an approval ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A device's answer took effect.
    Answered(Answered),
    /// A device's answer was written, and whether it took effect is not known.
    Unknown(Answered),
    /// A person at the machine answered.
    AtDesk,
    /// Its time was over; while Codex waits it is renewed under another id.
    Expired,
    /// Codex took it back.
    Withdrawn,
    /// Codex went away with it.
    CodexLost,
}

/// An answer as it arrived, after [`super::rule`] let it pass.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// What the header says.
    pub header: ApprovalAnswer,
    /// The digest of what the device rendered, from the signed body.
    pub digest: &'a [u8],
}

/// Whether an answer may take effect.
///
/// # Errors
/// `generation_mismatch`, `approval_not_found`, `already_answered`, `approval_expired`, `approval_withdrawn`,
/// `desk_only`, `decision_not_offered` or `digest_mismatch`. With `already_answered` the approval's state tells
/// who and when.
pub fn admit(
    approval: Option<&Approval>,
    generation: Option<Generation>,
    answer: &Answer<'_>,
    now: UnixMillis,
) -> Result<(), ErrorCode> {
    let Some(approval) = approval.filter(|approval| approval.binding.approval_id == answer.header.approval_id) else {
        let known_generation = generation == Some(answer.header.generation);
        return Err(if known_generation { ErrorCode::ApprovalNotFound } else { ErrorCode::GenerationMismatch });
    };
    if answer.header.generation != approval.binding.generation {
        return Err(ErrorCode::GenerationMismatch);
    }
    match approval.state {
        State::Open => {}
        State::Taken(_) | State::Closed(End::Answered(_) | End::Unknown(_) | End::AtDesk) => {
            return Err(ErrorCode::AlreadyAnswered);
        }
        State::Closed(End::Expired) => return Err(ErrorCode::ApprovalExpired),
        State::Closed(End::Withdrawn) => return Err(ErrorCode::ApprovalWithdrawn),
        State::Closed(End::CodexLost) => return Err(ErrorCode::GenerationMismatch),
    }
    if generation != Some(approval.binding.generation) {
        return Err(ErrorCode::GenerationMismatch);
    }
    if now >= approval.binding.expires_at {
        return Err(ErrorCode::ApprovalExpired);
    }
    if approval.desk_only {
        return Err(ErrorCode::DeskOnly);
    }
    if !approval.offered.contains(&answer.header.decision) {
        return Err(ErrorCode::DecisionNotOffered);
    }
    if answer.digest != digest(&approval.binding, &approval.action) {
        return Err(ErrorCode::DigestMismatch);
    }
    debug_assert_eq!(approved(&facts(approval, answer, now)), Ok(()));
    Ok(())
}

/// What INV-APPROVE is about, once the answer is admitted; its audit comes next ([`audit`]).
fn facts(approval: &Approval, answer: &Answer<'_>, at: UnixMillis) -> invariant::Accept {
    invariant::Accept {
        rendered: answer.digest.try_into().unwrap_or_default(),
        would_happen: digest(&approval.binding, &approval.action),
        answered: answer.header.generation,
        asking: approval.binding.generation,
        at,
        expires_at: approval.binding.expires_at,
        answered_before: approval.state != State::Open,
        audited: true,
    }
}

/// Who accepts what, for the comparison with control's word on it.
#[derive(Clone, Copy, Debug)]
pub struct Accept {
    /// The pinned account.
    pub account_id: AccountId,
    /// This machine.
    pub machine_id: MachineId,
    /// The device that accepts.
    pub device_id: DeviceId,
    /// The approval.
    pub approval_id: ApprovalId,
    /// The life of Codex that asks.
    pub generation: Generation,
    /// The command that carries the accept.
    pub command_id: CommandId,
    /// Its exact bytes.
    pub command_hash: CommandHash,
}

/// What the audit demands before an answer takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// Nothing before: it stops something, and is recorded after.
    After,
    /// Control has recorded it.
    Recorded,
    /// The machine must record it durably first, marked deferred.
    RecordFirst,
}

/// What the audit demands of an answer.
///
/// # Errors
/// `audit_unavailable` when the account is strict and control's word is missing or is about something else.
pub fn audit(
    decision: Decision,
    accept: &Accept,
    receipt: Option<&str>,
    verifier: &TokenVerifier,
    strict: bool,
    now: UnixMillis,
) -> Result<Audit, ErrorCode> {
    if !decision.is_accept() {
        return Ok(Audit::After);
    }
    let recorded = receipt
        .and_then(|token| verifier.verify::<AuditReceipt>(token, now).ok())
        .is_some_and(|receipt| is_about(&receipt, accept));
    match (recorded, strict) {
        (true, _) => Ok(Audit::Recorded),
        (false, false) => Ok(Audit::RecordFirst),
        (false, true) => Err(ErrorCode::AuditUnavailable),
    }
}

fn is_about(receipt: &AuditReceipt, accept: &Accept) -> bool {
    receipt.account_id == accept.account_id
        && receipt.machine_id == accept.machine_id
        && receipt.device_id == accept.device_id
        && receipt.approval_id == accept.approval_id
        && receipt.generation == accept.generation
        && receipt.command_id == accept.command_id
        && receipt.command_hash == accept.command_hash
}

#[cfg(test)]
mod tests;
