//! What time brings: texts that are due, requests that Codex left unanswered, threads to be let go.

use std::time::Instant;

use super::super::api::ThreadId;
use super::super::rpc::Error as RpcError;
use super::{Life, thread_event};

impl Life {
    /// Does what is due by now.
    pub(super) fn due(&mut self) {
        let now = self.clock.instant();
        for (thread_id, followed) in &mut self.followed {
            let event = followed.view.due(now);
            if let Some(kind) = event.filter(|_| followed.watched) {
                self.told.push(thread_event(*thread_id, kind));
            }
        }
        let effects = self.table.due(now);
        self.apply(effects);
        let late: Vec<u64> =
            self.asked.iter().filter(|(_, (_, deadline))| *deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some((then, _)) = self.asked.remove(&id) {
                self.answered(then, Err(RpcError::Unanswered));
            }
        }
        let unprepared: Vec<ThreadId> = self
            .followed
            .iter()
            .filter(|(_, followed)| followed.keep_until.is_some_and(|until| until <= now))
            .map(|(thread_id, _)| *thread_id)
            .collect();
        for thread_id in unprepared {
            if let Some(followed) = self.followed.get_mut(&thread_id) {
                followed.keep_until = None;
            }
            self.release(thread_id);
        }
        for fresh in self.fresh.extract_if(.., |fresh| fresh.at <= now).collect::<Vec<_>>() {
            self.follow(fresh.thread_id, fresh.want, fresh.tries);
        }
        self.ask_queued();
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let texts = self.followed.values().filter_map(|followed| followed.view.deadline());
        let kept = self.followed.values().filter_map(|followed| followed.keep_until);
        let asked = self.asked.values().map(|(_, deadline)| *deadline);
        let fresh = self.fresh.iter().map(|fresh| fresh.at);
        texts.chain(kept).chain(asked).chain(fresh).chain(self.table.deadline()).min()
    }
}
