//! Approvals: rendered from the machine's signed bytes, answered as they are played.
//!
//! An accept is first recorded at control, as the web app does, which has a second for it; without its word the answer
//! goes as it is, and the machine records it before it acts. Nothing else waits meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{ApprovalAnswer, CommandHeader, CommandKind, Outcome, SignedCommand};
use flydex_domain::id::{ApprovalId, CommandId, Generation};
use flydex_domain::invariant::Question;
use flydex_domain::limits::AUDIT_WAIT;
use flydex_domain::time::UnixMillis;
use reqwest::Method;
use serde_json::json;
use tokio::sync::mpsc;

use super::commands::live;
use super::{Asked, Connection, Life, What};
use crate::account::{Account, encode};
use crate::approval::Shown;
use crate::device::{Target, body};
use crate::machine;
use crate::play::{Attempt, Cast, Then, Twist};
use crate::record::{Answer, AuditedAt, Entry};
use crate::schedule::{Ask, Due};

/// Accepts of one phone that are being recorded at once.
const RECORDING_MAX: usize = 64;

/// What a phone has to do with approvals.
pub(super) struct Approvals {
    /// What it sees open.
    shown: BTreeMap<ApprovalId, Open>,
    /// Questions of which it saw an approval end, and that may be renewed.
    ended: BTreeSet<Question>,
    /// Answers that it is about to sign.
    next: VecDeque<(Open, Attempt)>,
    /// Accepts that control is asked to record.
    recording: BTreeMap<CommandId, Asked>,
    recorded_tx: mpsc::Sender<(CommandId, String)>,
    /// Which of them control has recorded, with its word; an empty one where it did not answer.
    pub(super) recorded: mpsc::Receiver<(CommandId, String)>,
}

/// An approval that a phone was shown, and what is played.
#[derive(Clone)]
pub(super) struct Open {
    shown: Arc<Shown>,
    cast: Cast,
}

/// An answer on its way.
#[derive(Clone)]
pub(super) struct Answering {
    open: Open,
    attempt: Attempt,
    /// The same bytes were sent again after they were answered.
    repeated: bool,
}

impl Approvals {
    pub(super) fn new() -> Self {
        let (recorded_tx, recorded) = mpsc::channel(RECORDING_MAX);
        Self {
            shown: BTreeMap::new(),
            ended: BTreeSet::new(),
            next: VecDeque::new(),
            recording: BTreeMap::new(),
            recorded_tx,
            recorded,
        }
    }

    /// Answers that are not sent yet.
    pub(super) fn waiting(&self) -> usize {
        self.next.len() + self.recording.len()
    }
}

impl Life {
    // === What is shown ===

    pub(super) fn approval_opened(&mut self, signed: &agent::SignedApproval) -> anyhow::Result<()> {
        let shown = Shown::read(signed, &self.phone.machine).context("an approval does not hold")?;
        let approval_id = shown.binding.approval_id;
        let question = shown.question().context("an approval of no question")?;
        let Some((phase, intended_us, cast)) = played(&shown.action.reason) else { return Ok(()) };
        if self.approvals.shown.contains_key(&approval_id) {
            return Ok(());
        }
        let renewed = self.approvals.ended.contains(&question);
        if !renewed {
            let world = self.world();
            let took = Duration::from_micros(world.now_us().saturating_sub(intended_us));
            world.figures.time(phase, "approval: shown", took);
        }
        let open = Open { shown: Arc::new(shown), cast };
        if let Some(attempt) = cast.at_opening(self.phone.number, renewed) {
            self.approvals.next.push_back((open.clone(), attempt));
        }
        self.approvals.shown.insert(approval_id, open);
        Ok(())
    }

    pub(super) fn approval_closed(&mut self, closed: &agent::ApprovalClosed) {
        let Ok(approval_id) = ApprovalId::try_from(closed.approval_id.as_ref()) else { return };
        self.approval_ended(&approval_id);
    }

    fn approval_ended(&mut self, approval_id: &ApprovalId) {
        let Some(open) = self.approvals.shown.remove(approval_id) else { return };
        self.approvals.ended.extend(open.shown.question());
        if let Some(attempt) = open.cast.at_end(self.phone.number) {
            self.approvals.next.push_back((open, attempt));
        }
    }

    /// The machine says which approvals are open.
    pub(super) fn approvals_listed(&mut self, listed: &[agent::SignedApproval]) -> anyhow::Result<()> {
        let before: Vec<_> = self.approvals.shown.keys().copied().collect();
        let mut open = BTreeSet::new();
        for signed in listed {
            open.insert(Shown::read(signed, &self.phone.machine)?.binding.approval_id);
            self.approval_opened(signed)?;
        }
        for approval_id in before.iter().filter(|approval_id| !open.contains(*approval_id)) {
            self.approval_ended(approval_id);
        }
        Ok(())
    }

    // === Answers ===

    /// Signs what is to be answered. An accept goes to control first, all else to the machine.
    pub(super) async fn answer(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        while let Some(boot_id) = connection.boot_id.or(self.boot_id)
            && let Some((open, attempt)) = self.approvals.next.pop_front()
        {
            let answer = ApprovalAnswer {
                approval_id: open.shown.binding.approval_id,
                generation: match attempt.twist {
                    Twist::None | Twist::Digest => open.shown.binding.generation,
                    Twist::Generation => Generation::from_bytes(rand::random()),
                },
                decision: attempt.decision,
            };
            let digest = match attempt.twist {
                Twist::None | Twist::Generation => open.shown.digest(),
                Twist::Digest => rand::random(),
            };
            let content = body(Body::AnswerApproval(agent::AnswerApproval { digest: digest.to_vec().into() }));
            let (world, device, machine) = (&self.phone.world, &self.phone.device, &self.phone.machine);
            let target = Target { machine, boot_id, session_id: None, answer: Some(answer) };
            let now = UnixMillis(world.clock.unix_millis());
            let header = device.header(&target, CommandKind::AnswerApproval, &content, now);
            let wire = device.sign(&header, content);
            let hash = SignedCommand::try_from(wire.clone())?.hash();
            let intended = world.clock.instant();
            let phase = world.phase_at(intended).saturating_sub(1);
            let due = Due { intended, phase, ask: Ask::ListThreads, cast: None, first: false };
            let question = open.shown.question().context("an approval of no question")?;
            let answering = Answering { open, attempt, repeated: false };
            let asked = Asked { answer: Some(answering), ..Asked::new(wire, hash, due, What::Answer) };
            self.record_answer(&header, &asked, question, digest);
            if attempt.decision.is_accept() {
                self.record_at_control(&header, asked);
            } else {
                self.dispatch(connection, header.command_id, asked).await?;
            }
        }
        self.tell_standing();
        Ok(())
    }

    fn record_answer(&self, header: &CommandHeader, asked: &Asked, question: Question, digest: [u8; 32]) {
        let (Some(answer), Some(answering)) = (header.answer, &asked.answer) else { return };
        let (world, device, machine_id) = (self.world(), header.device_id, header.machine_id);
        let entry = Entry::Asked {
            device,
            id: header.command_id,
            hash: asked.hash,
            kind: header.kind.name().to_owned(),
            effect: true,
            intended_us: world.micros(asked.due.intended),
        };
        world.recorder.take(world.now_us(), machine_id, entry);
        let answer = Answer {
            device,
            id: header.command_id,
            question,
            binding: answering.open.shown.binding,
            generation: answer.generation,
            decision: answer.decision,
            digest,
        };
        world.recorder.answers(world.now_us(), machine_id, answer);
    }

    /// Asks control to record an accept; what it says comes back as `recorded`.
    fn record_at_control(&mut self, header: &CommandHeader, asked: Asked) {
        let Some(answer) = header.answer else { return };
        let intent = json!({
            "machine_id": header.machine_id,
            "device_id": header.device_id,
            "approval_id": answer.approval_id,
            "generation": answer.generation,
            "decision": answer.decision.name(),
            "command_id": header.command_id,
            "command_hash": encode(asked.hash.as_bytes()),
        });
        let (id, machine_id) = (header.command_id, header.machine_id);
        let (world, account) = (self.phone.world.clone(), self.phone.account.clone());
        let recorded = self.approvals.recorded_tx.clone();
        self.approvals.recording.insert(id, asked);
        self.phone.world.shutdown.spawn(async move {
            let word = control_word(&account, intent).await;
            if word.is_some() {
                world.recorder.audited(world.now_us(), machine_id, id, AuditedAt::Control);
            }
            let what = if word.is_some() { "approval: recorded at control" } else { "approval: deferred" };
            world.figures.count(world.phase_at(world.clock.instant()), what);
            // The phone is gone only when the run ends.
            let _ = recorded.send((id, word.unwrap_or_default())).await;
        });
    }

    /// Control has answered, or has not in time: the accept goes to the machine.
    pub(super) async fn accept(
        &mut self,
        connection: &mut Connection,
        (id, word): (CommandId, String),
    ) -> anyhow::Result<()> {
        let Some(mut asked) = self.approvals.recording.remove(&id) else { return Ok(()) };
        asked.wire.audit_receipt = word;
        self.dispatch(connection, id, asked).await
    }

    async fn dispatch(&mut self, connection: &mut Connection, id: CommandId, mut asked: Asked) -> anyhow::Result<()> {
        let listens = connection.boot_id.is_some() && live(self.machine_stream.as_ref());
        let wire = asked.wire.clone();
        asked.again_at = (!listens).then(|| self.world().clock.instant());
        self.asked.insert(id, asked);
        if listens {
            self.send_command(connection, wire).await?;
        }
        Ok(())
    }

    /// The machine's word on an answer: counted, and followed by what is played next.
    pub(super) fn answered(&mut self, id: CommandId, asked: Asked, outcome: Outcome) {
        let now = self.world().clock.instant();
        let Some(answering) = asked.answer.clone() else { return };
        let Answering { open, attempt, repeated } = &answering;
        let decision = attempt.decision.name();
        match outcome {
            Outcome::Executed if *repeated => self.count("approval: executed as before"),
            Outcome::Executed => {
                self.count(&format!("approval: executed: {decision}"));
                let took = now.saturating_duration_since(asked.due.intended);
                self.world().figures.time(asked.due.phase + 1, "approval: answered", took);
            }
            Outcome::Refused(code) => self.count(&format!("approval: refused: {}", code.name())),
            Outcome::Unknown => self.count("approval: unknown"),
        }
        if attempt.then == Then::SameBytes && !repeated {
            let answering = Answering { repeated: true, ..answering };
            self.asked.insert(id, Asked { answer: Some(answering), again_at: Some(now), ..asked });
        } else if let Some(next) = attempt.next() {
            self.approvals.next.push_back((open.clone(), next));
        }
    }
}

/// Control's signed word that an accept is recorded, where it answers in time.
async fn control_word(account: &Account, intent: serde_json::Value) -> Option<String> {
    let asked = account.call(Method::POST, "/api/audit/intents", Some(intent));
    let (status, answer) = tokio::time::timeout(AUDIT_WAIT, asked).await.ok()?.ok()?;
    answer["audit_receipt"].as_str().filter(|_| status.is_success()).map(ToOwned::to_owned)
}

/// When an approval was to be asked for, in which phase, and what is played.
fn played(reason: &str) -> Option<(usize, u64, Cast)> {
    let (phase, intended_us) = machine::stamped(reason)?;
    Some((phase, intended_us, Cast::heard(reason.split(' ').skip(2))?))
}
