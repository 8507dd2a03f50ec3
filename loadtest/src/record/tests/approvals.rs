//! INV-APPROVE over histories: a right one as the recorder takes it, and the same with one line changed.

use flydex_domain::approval::{ApprovalAction, ApprovalBinding, ApprovalKind, ApprovalSource, digest};
use flydex_domain::command::{CommandKind, Decision};
use flydex_domain::id::Incarnation;
use flydex_domain::invariant::Question;
use flydex_domain::journal::{Begun, Journal, Record};
use uuid::Uuid;

use super::*;

const GENERATION: Generation = Generation::from_bytes([9; 32]);
const HASH: CommandHash = CommandHash::from_bytes([3; 32]);
const DEVICE: DeviceId = DeviceId::from_bytes([2; 32]);
const QUESTION: Question = Question { generation: GENERATION, number: 4 };
const EPOCH: Epoch = Epoch { counter: 1, incarnation: Incarnation::from_bytes([1; 16]) };
const BEGUN_AT: UnixMillis = UnixMillis(10);

fn machine() -> MachineId {
    MachineId::from_uuid(Uuid::from_u128(1))
}

fn id(number: u128) -> CommandId {
    CommandId::from_uuid(Uuid::from_u128(number))
}

fn action(command: &str) -> ApprovalAction {
    ApprovalAction {
        kind: ApprovalKind::Command,
        command: command.to_owned(),
        cwd: "/srv".to_owned(),
        network: None,
        permissions: Vec::new(),
        changes: Vec::new(),
        reason: "why".to_owned(),
    }
}

fn source(renewal: u32) -> ApprovalSource<'static> {
    ApprovalSource {
        generation: GENERATION,
        request_id: "4",
        thread_id: "a",
        turn_id: "b",
        item_id: "4",
        started_at_ms: 1,
        renewal,
    }
}

/// What a device was shown, after one renewal.
fn shown() -> ApprovalBinding {
    ApprovalBinding {
        machine_id: machine(),
        generation: GENERATION,
        approval_id: source(1).approval_id(),
        expires_at: UnixMillis(20),
        salt: [5; 16],
    }
}

/// A device asks with an answer, and the machine begins it.
fn begin(recorder: &Recorder, id: CommandId, decision: Decision, shown: ApprovalBinding) {
    let kind = "answer_approval".to_owned();
    let asked = Entry::Asked { device: DEVICE, id, hash: HASH, kind, effect: true, intended_us: 1 };
    recorder.take(1, machine(), asked);
    let (generation, digest) = (shown.generation, digest(&shown, &action("ls")));
    let answer = Answer { device: DEVICE, id, question: QUESTION, binding: shown, generation, decision, digest };
    recorder.answers(2, machine(), answer);
    if decision.is_accept() {
        recorder.audited(3, machine(), id, AuditedAt::Control);
        recorder.audited(3, machine(), id, AuditedAt::Machine);
    }
    let mut journal = Journal::default();
    journal.record(&Record::Begun(Begun {
        key: (DEVICE, id),
        hash: HASH,
        kind: CommandKind::AnswerApproval,
        issued_at: UnixMillis(1),
        at: BEGUN_AT,
        thread_id: String::new(),
    }));
    recorder.journalled(4, machine(), &journal);
}

fn act(recorder: &Recorder, decision: Decision, command: &str) {
    let action = action(command);
    let answered = Answered { source: source(0), question: QUESTION, decision, action: &action };
    recorder.answered(5, machine(), &answered, EPOCH);
}

fn recorded(what: impl FnOnce(&Recorder)) -> Vec<Line> {
    let file = Shared::default();
    let recorder = Recorder::new(Some(Box::new(file.clone())));
    recorder.take(0, machine(), Entry::Attached { epoch: EPOCH });
    what(&recorder);
    recorder.verdict().unwrap();
    let written = file.0.lock().unwrap();
    written.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn right() -> Vec<Line> {
    recorded(|recorder| {
        begin(recorder, id(1), Decision::Accept, shown());
        act(recorder, Decision::Accept, "ls");
        let told = Entry::Told { device: DEVICE, id: id(1), hash: HASH, effect: true, word: TheWord::Executed };
        recorder.take(6, machine(), told);
    })
}

fn judged(lines: &[Line]) -> Verdict {
    let mut judge = Judge::default();
    lines.iter().for_each(|line| judge.see(line));
    judge.verdict()
}

/// The right history with its accept changed.
fn doctored(change: impl Fn(&mut Entry)) -> Vec<Line> {
    let mut lines = right();
    let accept = lines.iter_mut().find(|line| matches!(line.entry, Entry::Accepted { .. }));
    change(&mut accept.expect("an accept").entry);
    lines
}

fn breaks_approve(lines: &[Line], why: &str) {
    let verdict = judged(lines);
    assert_eq!(verdict.broken, 1, "{why}: {:?}", verdict.violations);
    let violation = &verdict.violations[0];
    assert!(violation.contains("Approve: ") && violation.contains(why), "{why}: {violation}");
}

#[test]
fn an_accept_as_it_should_be_breaks_nothing() {
    let verdict = judged(&right());
    assert_eq!((verdict.broken, verdict.accepted, verdict.acted), (0, 1, 1), "{:?}", verdict.violations);
    let audited = right().iter().filter(|line| matches!(line.entry, Entry::Audited { .. })).count();
    assert_eq!(audited, 1, "the second record says nothing new");
}

#[test]
fn something_else_than_was_rendered_is_found() {
    let other = recorded(|recorder| {
        begin(recorder, id(1), Decision::Accept, shown());
        act(recorder, Decision::Accept, "rm");
    });
    breaks_approve(&other, "something else");
    let of_another_question = ApprovalBinding { approval_id: ApprovalId::from_bytes([1; 32]), ..shown() };
    let other = recorded(|recorder| {
        begin(recorder, id(1), Decision::Accept, of_another_question);
        act(recorder, Decision::Accept, "ls");
    });
    breaks_approve(&other, "something else");
}

#[test]
fn another_life_of_codex_is_found() {
    let doctored = doctored(|entry| {
        if let Entry::Accepted { answered, .. } = entry {
            *answered = Generation::from_bytes([1; 32]);
        }
    });
    breaks_approve(&doctored, "another life of Codex");
}

#[test]
fn an_accept_after_the_end_is_found() {
    let doctored = doctored(|entry| {
        if let Entry::Accepted { expires_at_ms, .. } = entry {
            *expires_at_ms = BEGUN_AT;
        }
    });
    breaks_approve(&doctored, "after its end");
}

#[test]
fn an_accept_that_is_not_audited_or_too_late_is_found() {
    let mut lines = right();
    let at = lines.iter().position(|line| matches!(line.entry, Entry::Audited { .. })).unwrap();
    let audited = lines.remove(at);
    breaks_approve(&lines, "audit record");
    lines.push(audited);
    breaks_approve(&lines, "audit record");
}

#[test]
fn a_second_answer_is_found_whoever_gave_the_first() {
    let twice = recorded(|recorder| {
        begin(recorder, id(1), Decision::Accept, shown());
        begin(recorder, id(2), Decision::Accept, shown());
        act(recorder, Decision::Accept, "ls");
        act(recorder, Decision::Accept, "ls");
    });
    breaks_approve(&twice, "answered twice");
    let after_a_decline = recorded(|recorder| {
        begin(recorder, id(1), Decision::Decline, shown());
        begin(recorder, id(2), Decision::Accept, shown());
        act(recorder, Decision::Decline, "ls");
        act(recorder, Decision::Accept, "ls");
    });
    breaks_approve(&after_a_decline, "answered twice");
    let after_the_desk = recorded(|recorder| {
        begin(recorder, id(1), Decision::Accept, shown());
        recorder.take(5, machine(), Entry::Closed { question: QUESTION.into() });
        act(recorder, Decision::Accept, "ls");
    });
    breaks_approve(&after_the_desk, "answered twice");
}

#[test]
fn an_answer_that_no_device_gave_is_found() {
    let invented = recorded(|recorder| act(recorder, Decision::Accept, "ls"));
    breaks_approve(&invented, "no device gave");
    let turned = recorded(|recorder| {
        begin(recorder, id(1), Decision::Decline, shown());
        act(recorder, Decision::Accept, "ls");
    });
    breaks_approve(&turned, "no device gave");
}
