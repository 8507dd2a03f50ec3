//! The loop: everything that happens to the core comes through here, one thing after the other.

use std::future::Future;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{CORE_TICK, JOURNAL_BYTES_MAX, JOURNAL_EVICT_INTERVAL};
use tokio::sync::mpsc;

use super::owner::LinkEvent;
use super::port::CodexPort;
use super::{Core, Done};
use crate::codex::{CodexEvent, RequestKey, Resolution};

impl<P: CodexPort> Core<P> {
    pub(super) async fn serve(mut self, mut events: mpsc::Receiver<CodexEvent>, mut links: mpsc::Receiver<LinkEvent>) {
        let (soft, hard) = (self.shutdown.soft(), self.shutdown.hard());
        let (mut policy, mut keys) = (self.paired.policy.clone(), self.paired.machine_key.clone());
        let (mut credential, mut strict) = (self.paired.credential.clone(), self.is_strict());
        let mut tick = tokio::time::interval(CORE_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.publish_status();
        loop {
            let bulk_taken = self.bulk_taken();
            tokio::select! {
                // What ends waits comes before what begins work; the tick last, since nothing depends on it at once.
                biased;
                () = hard.cancelled() => break,
                () = soft.cancelled(), if !self.draining => self.begin_drain(),
                Some(written) = self.written_rx.recv() => self.journal_written(written),
                Some(done) = self.done_rx.recv() => self.done(done).await,
                Ok(()) = policy.changed() => {
                    let policy = policy.borrow_and_update().clone();
                    self.policy_changed(policy);
                }
                Ok(()) = credential.changed() => {
                    credential.mark_unchanged();
                    if std::mem::replace(&mut strict, self.is_strict()) != strict {
                        self.machine_changed();
                    }
                }
                Ok(()) = keys.changed() => {
                    keys.mark_unchanged();
                    self.sign_approvals_anew();
                }
                Some(request) = self.desk.recv() => self.desk_request(request).await,
                Some(event) = events.recv() => self.codex_event(event),
                Some(event) = links.recv() => self.link_event(event).await,
                () = bulk_taken => self.pump_bulk(),
                _ = tick.tick() => self.tick(),
            }
            if self.draining && self.in_flight.is_empty() && self.waiting.is_empty() {
                break;
            }
        }
        self.close().await;
    }

    /// Completes when the link has taken a bulk frame, while more is to be sent.
    fn bulk_taken(&self) -> impl Future<Output = ()> + use<P> {
        let outbox = self.link.as_ref().map(|link| link.outbox.clone()).filter(|_| !self.bulk.is_empty());
        let taken = outbox.map(|outbox| outbox.bulk_taken());
        async move {
            match taken {
                Some(taken) => taken.await,
                None => std::future::pending().await,
            }
        }
    }

    fn begin_drain(&mut self) {
        tracing::info!("the connector is going away");
        self.draining = true;
        self.send_report();
    }

    /// Lets the links write what is queued, then ends them.
    async fn close(&mut self) {
        let links: Vec<_> = self.waiting_links.values().map(|waiting| waiting.outbox.clone()).collect();
        if let Some(link) = self.link.take() {
            let hard = self.shutdown.hard();
            tokio::select! {
                () = link.outbox.drained() => {}
                () = hard.cancelled() => {}
            }
            link.outbox.close(ErrorCode::GoingAway);
        }
        for outbox in links {
            outbox.close(ErrorCode::GoingAway);
        }
    }

    fn codex_event(&mut self, event: CodexEvent) {
        match event {
            CodexEvent::Status(status) => self.codex_changed(status),
            CodexEvent::Machine(event) => {
                if let Some(kind) = event.kind {
                    self.machine_event(kind);
                }
            }
            CodexEvent::Watched { watch_id, thread_id: _, outcome } => self.watched(watch_id, outcome),
            CodexEvent::Thread { thread_id, event } => self.thread_event(thread_id, &event),
            CodexEvent::ApprovalAsked(asked) => self.approval_asked(asked),
            CodexEvent::QuestionAsked(asked) => self.question_asked(asked),
            CodexEvent::RequestResolved { key, how } => self.request_resolved(&key, how),
            CodexEvent::ThreadLost { thread_id } => self.thread_lost(thread_id, ErrorCode::CodexUnavailable),
        }
    }

    fn request_resolved(&mut self, key: &RequestKey, how: Resolution) {
        self.approval_resolved(key, how);
        self.question_resolved(key, how);
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Executed(key, result) => self.executed(key, result),
            Done::WatchRefused(watch_id, refused) => self.watch_refused(watch_id, &refused),
            Done::ApprovalAnswered(key, approval_id, outcome) => self.approval_answered(key, approval_id, outcome),
            Done::QuestionAnswered(key, question_id, outcome) => self.question_answered(key, question_id, outcome),
            Done::RecordedFirst(asked, act, durable) => self.recorded_first(asked, *act, durable),
            Done::Proof(key, found) => self.proof(key, found),
            Done::Devices(key, change) => self.change_devices(key, *change).await,
        }
    }

    fn tick(&mut self) {
        self.renew_expired_approvals();
        self.forget_idle_threads();
        self.pump_bulk();
        let now = self.clock.instant();
        let retry = self.journal_retry_at.is_some_and(|at| now >= at);
        let is_due = now >= self.journal_evict_at || self.journal.live_bytes() > JOURNAL_BYTES_MAX;
        if is_due {
            self.journal_evict_at = now + JOURNAL_EVICT_INTERVAL;
        }
        if (is_due && self.journal.evict(self.now())) || retry {
            self.journal_retry_at = None;
            self.rewrite_journal();
        }
    }
}
