//! What the stub asks its users, and what becomes of it: as Codex does in a turn, in one life after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flydex_connector::codex::{AskedApproval, RequestKey, ThreadId};
use flydex_domain::approval::{ApprovalAction, ApprovalKind, ApprovalSource, FileChange};
use flydex_domain::command::Decision;
use flydex_domain::id::Generation;
use flydex_domain::invariant::Question;
use flydex_domain::time::UnixMillis;

use crate::record::Answered;

/// What is open in the present life.
pub(super) struct Questions(Mutex<Life>);

struct Life {
    generation: Generation,
    next: u64,
    open: BTreeMap<u64, AskedApproval>,
    at_desk: BTreeSet<u64>,
}

/// What an answer meets.
pub(super) enum Met {
    /// It takes effect.
    Open,
    /// A person at the machine was faster.
    AtDesk,
    /// Nobody asks that any more.
    Nothing,
}

impl Questions {
    pub(super) fn new() -> Self {
        let generation = Generation::from_bytes(rand::random());
        Self(Mutex::new(Life { generation, next: 0, open: BTreeMap::new(), at_desk: BTreeSet::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn generation(&self) -> Generation {
        self.lock().generation
    }

    /// Asks something new.
    pub(super) fn ask(
        &self,
        thread_id: ThreadId,
        changes_files: bool,
        reason: String,
        now: UnixMillis,
    ) -> AskedApproval {
        let mut life = self.lock();
        let number = life.next;
        life.next += 1;
        let asked = AskedApproval {
            key: RequestKey { generation: life.generation, request_id: number.to_string() },
            thread_id,
            turn_id: format!("t{number}"),
            item_id: number.to_string(),
            started_at_ms: now.0,
            opened_at: now,
            action: action(number, changes_files, reason),
            risk_high: false,
            session_scope_possible: false,
            desk_only: false,
        };
        life.open.insert(number, asked.clone());
        asked
    }

    /// Takes an answer; `effect` happens before anybody can learn of it, once.
    pub(super) fn answer(&self, key: &RequestKey, decision: Decision, effect: impl FnOnce(&Answered<'_>)) -> Met {
        let mut life = self.lock();
        let Some(number) = life.number(key) else { return Met::Nothing };
        if life.at_desk.contains(&number) {
            return Met::AtDesk;
        }
        let Some(asked) = life.open.remove(&number) else { return Met::Nothing };
        let thread_id = asked.thread_id.to_string();
        let source = ApprovalSource {
            generation: life.generation,
            request_id: &asked.key.request_id,
            thread_id: &thread_id,
            turn_id: &asked.turn_id,
            item_id: &asked.item_id,
            started_at_ms: asked.started_at_ms,
            renewal: 0,
        };
        let question = Question { generation: life.generation, number };
        effect(&Answered { source, question, decision, action: &asked.action });
        Met::Open
    }

    /// Ends what nobody has answered; `effect` happens with it. False when somebody had.
    pub(super) fn end(&self, key: &RequestKey, at_desk: bool, effect: impl FnOnce(Question)) -> bool {
        let mut life = self.lock();
        let Some(number) = life.number(key) else { return false };
        if life.open.remove(&number).is_none() {
            return false;
        }
        if at_desk {
            life.at_desk.insert(number);
        }
        effect(Question { generation: life.generation, number });
        true
    }

    /// Another life begins, with nothing open.
    pub(super) fn restart(&self) {
        let mut life = self.lock();
        *life = Life {
            generation: Generation::from_bytes(rand::random()),
            next: 0,
            open: BTreeMap::new(),
            at_desk: BTreeSet::new(),
        };
    }
}

impl Life {
    /// The number of a question of this life.
    fn number(&self, key: &RequestKey) -> Option<u64> {
        key.request_id.parse().ok().filter(|_| key.generation == self.generation)
    }
}

fn action(number: u64, changes_files: bool, reason: String) -> ApprovalAction {
    let kind = if changes_files { ApprovalKind::FileChange } else { ApprovalKind::Command };
    let (command, changes) = match kind {
        ApprovalKind::FileChange => (String::new(), vec![file_change(number)]),
        ApprovalKind::Command | ApprovalKind::Permissions => (format!("cargo test --test case_{number}"), Vec::new()),
    };
    let cwd = "/srv/app".to_owned();
    ApprovalAction { kind, command, cwd, network: None, permissions: Vec::new(), changes, reason }
}

fn file_change(number: u64) -> FileChange {
    FileChange {
        path: format!("src/case_{number}.rs"),
        kind: "update".to_owned(),
        moved_to: None,
        diff: format!("@@ -1 +1 @@\n-const CASE: u64 = 0;\n+const CASE: u64 = {number};\n"),
    }
}
