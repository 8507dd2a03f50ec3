//! Approvals: shown to every session, answered once, renewed while Codex waits (INV-APPROVE).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as EventKind;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::approval::{ApprovalBinding, ApprovalSource, approval_transcript};
use flydex_domain::command::{CommandKind, Decision};
use flydex_domain::gate::approval::{Approval, End, State};
use flydex_domain::id::{ApprovalId, DeviceId};
use flydex_domain::key::sign;
use flydex_domain::limits::{APPROVAL_BYTES_MAX, APPROVALS_CLOSED_MAX, APPROVALS_OPEN_MAX};
use flydex_domain::time::UnixMillis;
use prost::Message as _;

use super::Core;
use super::kind::with_label;
use super::port::CodexPort;
use super::receipt::{Answer, Asked};
use crate::codex::{AskedApproval, RequestKey, Resolution};

mod answer;
mod shown;

use shown::{cut_for_the_desk, end_of, shown};

/// Every approval that is open, and the newest that have ended, for whoever answers late.
#[derive(Default)]
pub(super) struct Approvals {
    entries: BTreeMap<ApprovalId, Entry>,
    by_key: BTreeMap<RequestKey, ApprovalId>,
    closed: VecDeque<ApprovalId>,
}

struct Entry {
    approval: Approval,
    asked: AskedApproval,
    renewal: u32,
    signed: agent::SignedApproval,
    closed_at: UnixMillis,
    /// The command whose answer was taken.
    answer: Option<Asked>,
}

impl Entry {
    fn is_open(&self) -> bool {
        match self.approval.state {
            State::Open | State::Taken(_) => true,
            State::Closed(_) => false,
        }
    }
}

impl Approvals {
    /// What is shown as open, oldest first.
    pub(super) fn open(&self) -> Vec<agent::SignedApproval> {
        let mut open: Vec<_> = self.entries.values().filter(|entry| entry.is_open()).collect();
        open.sort_by_key(|entry| entry.asked.opened_at);
        open.into_iter().map(|entry| entry.signed.clone()).collect()
    }

    fn open_count(&self) -> usize {
        self.entries.len() - self.closed.len()
    }
}

impl<P: CodexPort> Core<P> {
    // === Codex asks, and takes back ===

    pub(super) fn approval_asked(&mut self, asked: AskedApproval) {
        if self.approvals.by_key.contains_key(&asked.key) {
            return;
        }
        if self.approvals.open_count() >= APPROVALS_OPEN_MAX {
            tracing::warn!("too many approvals are open; this one waits for the desk");
            return;
        }
        self.open_approval(asked, 0);
    }

    pub(super) fn approval_resolved(&mut self, key: &RequestKey, how: Resolution) {
        let Some(approval_id) = self.approvals.by_key.get(key).copied() else { return };
        let Some(entry) = self.approvals.entries.get(&approval_id) else { return };
        match (entry.approval.state, how) {
            (State::Open, Resolution::AtDesk | Resolution::OursConfirmed(_) | Resolution::OursAnswered) => {
                self.close_approval(approval_id, End::AtDesk);
            }
            (State::Open, Resolution::Withdrawn) => self.close_approval(approval_id, End::Withdrawn),
            (State::Open, Resolution::CodexLost) => self.close_approval(approval_id, End::CodexLost),
            // The answer that is under way learns the same and closes it.
            (State::Taken(_), _) => {}
            (State::Closed(End::Unknown(answered)), Resolution::OursConfirmed(decision))
                if answered.decision == decision =>
            {
                self.supersede_unknown(approval_id, answered);
            }
            (State::Closed(_), _) => {}
        }
        self.approvals.by_key.remove(key);
    }

    /// Ends what belongs to another life of Codex than the present one.
    pub(super) fn end_lost_approvals(&mut self) {
        let generation = self.generation();
        let lost: Vec<_> = self
            .approvals
            .entries
            .iter()
            .filter(|(_, entry)| entry.approval.state == State::Open)
            .filter(|(_, entry)| generation.is_some_and(|generation| entry.asked.key.generation != generation))
            .map(|(approval_id, entry)| (*approval_id, entry.asked.key.clone()))
            .collect();
        for (approval_id, key) in lost {
            self.close_approval(approval_id, End::CodexLost);
            self.approvals.by_key.remove(&key);
        }
    }

    /// Renews what nobody answered in time while Codex still waits.
    pub(super) fn renew_expired_approvals(&mut self) {
        let now = self.now();
        let expired: Vec<_> = self
            .approvals
            .entries
            .iter()
            .filter(|(_, entry)| entry.approval.state == State::Open && now >= entry.approval.binding.expires_at)
            .map(|(approval_id, entry)| (*approval_id, entry.asked.clone(), entry.renewal))
            .collect();
        for (approval_id, asked, renewal) in expired {
            self.close_approval(approval_id, End::Expired);
            self.open_approval(asked, renewal.saturating_add(1));
        }
    }

    /// The desk changed what may be answered remotely: the approvals that are open are asked anew.
    pub(super) fn renew_open_approvals(&mut self) {
        let open: Vec<_> = self
            .approvals
            .entries
            .iter()
            .filter(|(_, entry)| entry.approval.state == State::Open)
            .filter(|(_, entry)| entry.asked.session_scope_possible || entry.asked.risk_high)
            .map(|(approval_id, entry)| (*approval_id, entry.asked.clone(), entry.renewal))
            .collect();
        for (approval_id, asked, renewal) in open {
            self.close_approval(approval_id, End::Expired);
            self.open_approval(asked, renewal.saturating_add(1));
        }
    }

    fn open_approval(&mut self, asked: AskedApproval, renewal: u32) {
        let thread_id = asked.thread_id.to_string();
        let source = ApprovalSource {
            generation: asked.key.generation,
            request_id: &asked.key.request_id,
            thread_id: &thread_id,
            turn_id: &asked.turn_id,
            item_id: &asked.item_id,
            started_at_ms: asked.started_at_ms,
            renewal,
        };
        let approval_id = source.approval_id();
        let binding = ApprovalBinding {
            machine_id: self.paired.machine_id,
            generation: asked.key.generation,
            approval_id,
            expires_at: self.now().plus(self.approval_lifetime),
            salt: self.entropy.bytes(),
        };
        let mut approval = Approval {
            binding,
            action: asked.action.clone(),
            offered: self.offered(&asked),
            desk_only: asked.desk_only,
            passkey_required: self.policy.passkey_for_high_risk && asked.risk_high && !asked.desk_only,
            state: State::Open,
        };
        let mut message = shown(&approval, &asked);
        if message.encoded_len() > APPROVAL_BYTES_MAX {
            cut_for_the_desk(&mut approval);
            message = shown(&approval, &asked);
        }
        let signed = self.signed(&message);
        let entry = Entry {
            approval,
            renewal,
            signed: signed.clone(),
            closed_at: UnixMillis(0),
            answer: None,
            asked: asked.clone(),
        };
        self.approvals.by_key.insert(asked.key, approval_id);
        self.approvals.entries.insert(approval_id, entry);
        self.machine_event(EventKind::ApprovalOpened(signed));
    }

    fn offered(&self, asked: &AskedApproval) -> Vec<Decision> {
        if asked.desk_only {
            return Vec::new();
        }
        let session =
            (asked.session_scope_possible && self.policy.session_acceptance).then_some(Decision::AcceptForSession);
        [Decision::Accept].into_iter().chain(session).chain([Decision::Decline, Decision::Cancel]).collect()
    }

    fn signed(&self, message: &agent::Approval) -> agent::SignedApproval {
        let bytes = Bytes::from(message.encode_to_vec());
        let signature = sign(&self.paired.machine_key.borrow(), approval_transcript(&bytes));
        agent::SignedApproval { approval: bytes, signature: Bytes::copy_from_slice(&signature) }
    }

    /// Signs what is open anew: whoever knows the new key of the machine knows the old one no more.
    pub(super) fn sign_approvals_anew(&mut self) {
        let key = self.paired.machine_key.borrow().clone();
        for entry in self.approvals.entries.values_mut().filter(|entry| entry.is_open()) {
            let signature = sign(&key, approval_transcript(&entry.signed.approval));
            entry.signed.signature = Bytes::copy_from_slice(&signature);
        }
    }

    fn close_approval(&mut self, approval_id: ApprovalId, end: End) {
        let now = self.now();
        let Some(entry) = self.approvals.entries.get_mut(&approval_id) else { return };
        if entry.is_open() {
            self.approvals.closed.push_back(approval_id);
        }
        entry.approval.state = State::Closed(end);
        entry.closed_at = now;
        // What an ended approval was about is nobody's business any more.
        entry.signed = agent::SignedApproval::default();
        entry.approval.action.changes.clear();
        if end == End::AtDesk {
            let generation = entry.approval.binding.generation;
            self.audit_desk_answer(approval_id, generation);
        }
        while self.approvals.closed.len() > APPROVALS_CLOSED_MAX {
            if let Some(oldest) = self.approvals.closed.pop_front() {
                self.approvals.entries.remove(&oldest);
            }
        }
        if let Some(closed) = self.closed(approval_id) {
            self.machine_event(EventKind::ApprovalClosed(closed));
        }
    }

    /// Who ended an approval, how and when.
    fn closed(&self, approval_id: ApprovalId) -> Option<agent::ApprovalClosed> {
        let entry = self.approvals.entries.get(&approval_id)?;
        let (end, answered) = match entry.approval.state {
            State::Open => return None,
            State::Taken(answered) => (end_of(answered.decision), Some(answered)),
            State::Closed(End::Answered(answered)) => (end_of(answered.decision), Some(answered)),
            State::Closed(End::Unknown(answered)) => (agent::ApprovalEnd::Unknown, Some(answered)),
            State::Closed(End::AtDesk) => (agent::ApprovalEnd::AtDesk, None),
            State::Closed(End::Expired) => (agent::ApprovalEnd::Expired, None),
            State::Closed(End::Withdrawn) => (agent::ApprovalEnd::Withdrawn, None),
            State::Closed(End::CodexLost) => (agent::ApprovalEnd::CodexLost, None),
        };
        let device_id = answered.map(|answered| answered.device_id);
        let device = device_id.and_then(|device_id| self.devices.get(&device_id));
        Some(agent::ApprovalClosed {
            approval_id: Bytes::copy_from_slice(approval_id.as_bytes()),
            end: end.into(),
            device_id: device_id.map(|device_id| Bytes::copy_from_slice(device_id.as_bytes())).unwrap_or_default(),
            device_label: device.map(|device| device.label.clone()).unwrap_or_default(),
            at_ms: answered.map_or(entry.closed_at, |answered| answered.at).0,
        })
    }

    /// A result that the journal kept, with the device's present name.
    pub(super) fn retold(&self, kind: CommandKind, kept: Bytes) -> Bytes {
        if kind != CommandKind::AnswerApproval {
            return kept;
        }
        with_label(&kept, |closed| {
            let device_id = DeviceId::try_from(closed.device_id.as_ref()).ok();
            let device = device_id.and_then(|device_id| self.devices.get(&device_id));
            closed.device_label = device.map(|device| device.label.clone()).unwrap_or_default();
        })
    }

    fn who_was_first(&self, approval_id: ApprovalId) -> Answer {
        let refusal = agent::Refusal { approval: self.closed(approval_id), running_turn_id: String::new() };
        Answer::of(ResultKind::Refusal(refusal))
    }
}
