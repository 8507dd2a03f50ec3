//! What a phone is told: statuses, receipts, failures, events and pieces.

use std::time::Duration;

use anyhow::bail;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as EventKind;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{Outcome, Receipt, receipt_transcript};
use flydex_domain::error::{ErrorCode, Retry};
use flydex_domain::id::CommandId;
use flydex_proto::codec::Lane;
use flydex_proto::v1::{self, device_message, machine_message, session_down, stream_verdict};
use prost::Message as _;

use super::{Asked, Connection, Cursor, Life, What, code_name};
use crate::figures::{ANSWER, DELIVERED, FIRST_DELIVERED};
use crate::machine;
use crate::record::{Entry, TheWord};

/// Wait before a command that failed on the way is sent again, where the relay gives no advice.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

impl Life {
    /// Takes a message of the gateway.
    pub(super) async fn take(&mut self, connection: &mut Connection, kind: session_down::Kind) -> anyhow::Result<()> {
        match kind {
            session_down::Kind::FromMachine(from) => match from.message.and_then(|message| message.kind) {
                Some(kind) => self.take_from_machine(connection, kind).await,
                None => Ok(()),
            },
            session_down::Kind::MachineClosed(closed) => {
                self.count(&format!("machine closed: {}", code_name(closed.code)));
                self.pause_streams();
                connection.boot_id = None;
                let wait = Duration::from_millis(closed.retry_after_ms.into()).max(AGAIN_AFTER / 2);
                connection.open_at = Some(self.world().clock.instant() + wait);
                self.ask_all_again();
                Ok(())
            }
            session_down::Kind::End(end) => bail!("the session ended with {}", code_name(end.code)),
            session_down::Kind::GoAway(away) => {
                self.count("told to go away");
                let wait = Duration::from_millis(away.reconnect_in_ms.into());
                connection.leave_at = Some(self.world().clock.instant() + wait);
                Ok(())
            }
            session_down::Kind::Challenge(_) | session_down::Kind::Welcome(_) | session_down::Kind::Pong(_) => Ok(()),
        }
    }

    async fn take_from_machine(
        &mut self,
        connection: &mut Connection,
        kind: machine_message::Kind,
    ) -> anyhow::Result<()> {
        match kind {
            machine_message::Kind::Status(status) => {
                let was = connection.boot_id;
                connection.boot_id = status.boot_id.as_ref().try_into().ok();
                self.boot_id = connection.boot_id.or(self.boot_id);
                if connection.boot_id.is_none() || (was.is_some() && was != connection.boot_id) {
                    self.pause_streams();
                }
                Ok(())
            }
            machine_message::Kind::Progress(progress) => {
                self.progress(&progress);
                Ok(())
            }
            machine_message::Kind::Receipt(signed) => self.receipt(&signed),
            machine_message::Kind::Failure(failure) => {
                self.failure(&failure);
                Ok(())
            }
            machine_message::Kind::Verdict(verdict) => {
                self.verdict(connection, &verdict);
                Ok(())
            }
            machine_message::Kind::Event(event) => self.event(connection, &event).await,
            machine_message::Kind::Chunk(chunk) => self.chunk(connection, &chunk).await,
            machine_message::Kind::StreamEnd(end) => {
                self.count(&format!("stream ended: {}", code_name(end.code)));
                self.end_stream(connection, end.stream_id);
                Ok(())
            }
            machine_message::Kind::ProbeReply(_) => Ok(()),
        }
    }

    // === Commands ===

    fn progress(&mut self, progress: &v1::Progress) {
        let Ok(id) = CommandId::try_from(progress.command_id.as_ref()) else { return };
        let Some(asked) = self.asked.get_mut(&id) else { return };
        if progress.state != i32::from(v1::ProgressState::Delivered) || !asked.what.acts() {
            return;
        }
        let before = std::mem::replace(&mut asked.delivered, true);
        let Some(asked) = self.asked.get(&id) else { return };
        self.told(id, asked, TheWord::Delivered);
        if !before {
            self.time_delivered(asked);
        }
    }

    /// The word that the machine has it, or whatever stands for it.
    fn time_delivered(&self, asked: &Asked) {
        if asked.answer.is_some() {
            // It waited for control, and is another kind of figure.
            return;
        }
        self.time(asked, &format!("{DELIVERED}{}", asked.what.kind().name()));
        if asked.due.first {
            self.time(asked, FIRST_DELIVERED);
        }
    }

    fn receipt(&mut self, signed: &v1::SignedReceipt) -> anyhow::Result<()> {
        let machine = &self.phone.machine;
        machine.machine_key.verify(receipt_transcript(&signed.receipt), &signed.signature)?;
        let receipt = Receipt::try_from(v1::Receipt::decode(signed.receipt.clone())?)?;
        let Some(asked) = self.asked.get_mut(&receipt.command_id) else { return Ok(()) };
        // The word comes on another lane than the verdict, and before or after it.
        let waits_for_verdict = asked.subscribes() && !std::mem::replace(&mut asked.half_done, true);
        if receipt.command_hash != asked.hash {
            bail!("a receipt was for other bytes than were sent");
        }
        asked.bulk_left = receipt.bulk.map(|bulk| bulk.total_bytes);
        let comes_more = asked.bulk_left.is_some() || waits_for_verdict;
        if asked.what == What::Attach
            && let Some(ResultKind::Attached(agent::Attached { snapshot: Some(snapshot), .. })) =
                agent::CommandResult::decode(receipt.result.expose().clone())?.kind
        {
            self.approvals_listed(&snapshot.approvals)?;
        }
        if comes_more && receipt.outcome == Outcome::Executed {
            return Ok(());
        }
        self.finish(receipt.command_id, receipt.outcome);
        Ok(())
    }

    fn finish(&mut self, id: CommandId, outcome: Outcome) {
        let Some(asked) = self.asked.remove(&id) else { return };
        let word = match outcome {
            Outcome::Executed => TheWord::Executed,
            Outcome::Refused(_) => TheWord::Refused,
            Outcome::Unknown => TheWord::Unknown,
        };
        self.told(id, &asked, word);
        if asked.answer.is_some() {
            self.answered(id, asked, outcome);
            return self.tell_standing();
        }
        let name = asked.what.kind().name();
        // An attach or a watch is asked for anew until it holds.
        let again = if asked.subscribes() { "asked anew: " } else { "" };
        match outcome {
            Outcome::Executed => {}
            Outcome::Refused(code) => self.count(&format!("{again}refused: {name}: {}", code.name())),
            Outcome::Unknown => self.count(&format!("{again}unknown: {name}")),
        }
        // The receipt says it too, where the word before it was lost.
        if asked.what.acts() && !asked.delivered {
            self.time_delivered(&asked);
        }
        if let What::Load(_) = asked.what
            && word == TheWord::Executed
        {
            self.time(&asked, &format!("{ANSWER}{name}"));
        }
        self.settle();
    }

    fn failure(&mut self, failure: &v1::Failure) {
        let Ok(id) = CommandId::try_from(failure.command_id.as_ref()) else {
            return self.count(&format!("failed: {}", code_name(failure.code)));
        };
        let (now, phone) = (self.world().clock.instant(), &self.phone);
        let Some(asked) = self.asked.get_mut(&id) else { return };
        let code = code_name(failure.code);
        let entry = Entry::Failed { device: phone.device.device_id(), id, code: code.to_owned() };
        phone.world.recorder.take(phone.world.now_us(), phone.machine.machine_id, entry);
        let of = match asked.what {
            What::Attach | What::Watch => "asked anew: ",
            What::Answer => "approval: ",
            What::Load(_) => "",
        };
        phone.world.figures.count(phone.world.phase_at(now), &format!("{of}failed: {code}"));
        let hopeless = ErrorCode::from_number(failure.code).is_none_or(|code| code.retry() == Retry::Never);
        if hopeless && !asked.subscribes() {
            self.asked.remove(&id);
            return self.tell_standing();
        }
        let wait = Duration::from_millis(failure.retry_after_ms.into()).max(AGAIN_AFTER);
        asked.again_at = Some(now + wait);
    }

    fn ask_all_again(&mut self) {
        let at = self.world().clock.instant();
        self.give_up(|_| true);
        for asked in self.asked.values_mut() {
            asked.again_at.get_or_insert(at);
        }
    }

    async fn chunk(&mut self, connection: &mut Connection, chunk: &v1::BulkChunk) -> anyhow::Result<()> {
        let bytes = u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
        let credit = v1::BulkCredit { command_id: chunk.command_id.clone(), bytes };
        self.send_to_machine(connection, Lane::Commands, Some(device_message::Kind::BulkCredit(credit))).await?;
        let Ok(id) = CommandId::try_from(chunk.command_id.as_ref()) else { return Ok(()) };
        let Some(left) = self.asked.get_mut(&id).and_then(|asked| asked.bulk_left.as_mut()) else { return Ok(()) };
        *left = left.saturating_sub(bytes);
        let finished = *left == 0;
        let subscribes = self.asked.get(&id).is_some_and(Asked::subscribes);
        if finished && !subscribes {
            self.finish(id, Outcome::Executed);
        }
        Ok(())
    }

    fn told(&self, id: CommandId, asked: &Asked, word: TheWord) {
        let (world, device) = (self.world(), self.phone.device.device_id());
        let entry = Entry::Told { device, id, hash: asked.hash, effect: asked.what.acts(), word };
        world.recorder.take(world.now_us(), self.phone.machine.machine_id, entry);
    }

    /// Counts from when it should have begun, whatever kept it.
    fn time(&self, asked: &Asked, kind: &str) {
        let took = self.world().clock.instant().saturating_duration_since(asked.due.intended);
        self.world().figures.time(asked.due.phase + 1, kind, took);
    }

    // === Streams ===

    fn verdict(&mut self, connection: &Connection, verdict: &v1::StreamVerdict) {
        let of_machine = verdict.stream_id == 0;
        let slot = if of_machine { &self.machine_stream } else { &self.thread_stream };
        let (after, resumed) = match verdict.verdict {
            Some(stream_verdict::Verdict::ResumedFrom(from)) => (from, Some(self.cursor_sent(&verdict.command_id))),
            Some(stream_verdict::Verdict::GapAsOf(as_of)) => (as_of, None),
            None => return,
        };
        match resumed {
            Some(_) => self.count("streams resumed"),
            None if slot.is_some() => self.count("streams resumed with a gap"),
            None => {}
        }
        let (world, session) = (self.world(), connection.session_id);
        let entry = Entry::Watches { session, stream: verdict.stream_id, after, resumed };
        world.recorder.take(world.now_us(), self.phone.machine.machine_id, entry);
        if let Ok(id) = CommandId::try_from(verdict.command_id.as_ref())
            && let Some(asked) = self.asked.get_mut(&id)
            && std::mem::replace(&mut asked.half_done, true)
        {
            self.finish(id, Outcome::Executed);
        }
        let boot_id = verdict.boot_id.clone();
        let cursor = Cursor { stream_id: verdict.stream_id, boot_id, seq: after, live: true };
        let slot = if of_machine { &mut self.machine_stream } else { &mut self.thread_stream };
        *slot = Some(cursor);
        self.settle();
    }

    /// The cursor that an attach or a watch carried; what came late on the old subscription is after it.
    fn cursor_sent(&self, command_id: &[u8]) -> u64 {
        let Ok(id) = CommandId::try_from(command_id) else { return 0 };
        let sent = self.asked.get(&id).map(|asked| asked.cursor_seq);
        sent.or_else(|| self.given_up.get(&id).copied()).unwrap_or(0)
    }

    async fn event(&mut self, connection: &mut Connection, event: &v1::Event) -> anyhow::Result<()> {
        let (world, session) = (&self.phone.world, connection.session_id);
        let entry = Entry::Seen { session, stream: event.stream_id, seq: event.seq };
        world.recorder.take(world.now_us(), self.phone.machine.machine_id, entry);
        for stream in [&mut self.machine_stream, &mut self.thread_stream].into_iter().flatten() {
            if stream.stream_id == event.stream_id {
                stream.seq = event.seq;
            }
        }
        let bytes = u32::try_from(event.body.len()).unwrap_or(u32::MAX);
        self.take_event(agent::AgentEvent::decode(event.body.clone())?)?;
        let credit = v1::EventCredit { bytes };
        self.send_to_machine(connection, Lane::Commands, Some(device_message::Kind::EventCredit(credit))).await
    }

    /// What an event says: when it was to be told where it is one of the stub's, or what becomes of an approval.
    fn take_event(&mut self, event: agent::AgentEvent) -> anyhow::Result<()> {
        match event.kind {
            Some(EventKind::ItemDelta(delta)) => {
                if let Some((phase, intended_us)) = machine::stamped(&delta.text) {
                    let world = self.world();
                    let took = Duration::from_micros(world.now_us().saturating_sub(intended_us));
                    world.figures.time(phase, "event", took);
                }
                Ok(())
            }
            Some(EventKind::ApprovalOpened(signed)) => self.approval_opened(&signed),
            Some(EventKind::ApprovalClosed(closed)) => {
                self.approval_closed(&closed);
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The session was told that it gets a stream no longer.
    fn end_stream(&mut self, connection: &Connection, stream_id: u32) {
        let (world, session) = (&self.phone.world, connection.session_id);
        let entry = Entry::Ended { session, stream: stream_id };
        world.recorder.take(world.now_us(), self.phone.machine.machine_id, entry);
        for stream in [&mut self.machine_stream, &mut self.thread_stream].into_iter().flatten() {
            stream.live &= stream.stream_id != stream_id;
        }
        self.settle();
    }

    /// The machine went away. What of its streams is still on the way on their own lane may yet come.
    fn pause_streams(&mut self) {
        self.give_up(|_| true);
        for stream in [&mut self.machine_stream, &mut self.thread_stream].into_iter().flatten() {
            stream.live = false;
        }
        self.settle();
    }
}
