//! What a phone asks: attaching, watching, and what its schedule says; and asking again.

use std::time::Instant;

use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{CommandClass, CommandKind, SignedCommand};
use flydex_domain::id::CommandId;
use flydex_domain::time::UnixMillis;
use flydex_proto::codec::Lane;
use flydex_proto::v1::{self, session_up};

use super::{Asked, Connection, Cursor, Life, What, send};
use crate::device::{Target, body};
use crate::record::Entry;
use crate::schedule::{Ask, Due};

impl Ask {
    /// The kind of command.
    #[must_use]
    pub const fn kind(self) -> CommandKind {
        match self {
            Self::ListThreads => CommandKind::ListThreads,
            Self::ReadThread => CommandKind::ReadThread,
            Self::ListModels => CommandKind::ListModels,
            Self::StartTurn => CommandKind::StartTurn,
            Self::RenameThread => CommandKind::RenameThread,
        }
    }

    fn body(self, thread_id: &str) -> Body {
        let thread_id = thread_id.to_owned();
        match self {
            Self::ListThreads => Body::ListThreads(agent::ListThreads { limit: 50, ..Default::default() }),
            Self::ReadThread => Body::ReadThread(agent::ReadThread { thread_id, ..Default::default() }),
            Self::ListModels => Body::ListModels(agent::ListModels {}),
            Self::StartTurn => {
                Body::StartTurn(agent::StartTurn { thread_id, text: "go on".to_owned(), ..Default::default() })
            }
            Self::RenameThread => Body::RenameThread(agent::RenameThread { thread_id, name: "tidy up".to_owned() }),
        }
    }
}

impl What {
    pub(super) const fn kind(self) -> CommandKind {
        match self {
            Self::Attach => CommandKind::Attach,
            Self::Watch => CommandKind::WatchThread,
            Self::Answer => CommandKind::AnswerApproval,
            Self::Load(ask) => ask.kind(),
        }
    }

    pub(super) fn acts(self) -> bool {
        self.kind().class() == CommandClass::Effect
    }
}

impl Life {
    /// Asks what the schedule wants.
    pub(super) async fn ask(&mut self, connection: &mut Connection, due: Due) -> anyhow::Result<()> {
        self.send_new(connection, What::Load(due.ask), due).await
    }

    /// Asks to be admitted and to watch, where neither is so nor asked: both at once, since the machine takes them in
    /// their order.
    pub(super) async fn admit(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        if connection.boot_id.is_none() {
            return Ok(());
        }
        let is_live =
            [(What::Attach, live(self.machine_stream.as_ref())), (What::Watch, live(self.thread_stream.as_ref()))];
        for (what, is_live) in is_live {
            if is_live || self.asked.values().any(|asked| asked.what == what) {
                continue;
            }
            let now = self.world().clock.instant();
            let due = Due { intended: now, phase: 0, ask: Ask::ListThreads, cast: None, first: false };
            self.send_new(connection, what, due).await?;
        }
        Ok(())
    }

    fn content(&self, what: What) -> Body {
        let wire = |cursor: &Cursor| agent::Cursor {
            stream_id: cursor.stream_id,
            boot_id: cursor.boot_id.clone(),
            seq: cursor.seq,
        };
        match what {
            What::Attach => Body::Attach(agent::Attach {
                cursor: self.machine_stream.as_ref().map(wire),
                client: "loadtest".to_owned(),
            }),
            What::Watch => Body::WatchThread(agent::WatchThread {
                thread_id: self.phone.thread_id.clone(),
                cursor: self.thread_stream.as_ref().map(wire),
            }),
            // An answer is signed once, and its bytes are sent again.
            What::Answer => Body::AnswerApproval(agent::AnswerApproval::default()),
            What::Load(ask) => ask.body(&self.phone.thread_id),
        }
    }

    /// Signs a command, keeps it, and sends it.
    async fn send_new(&mut self, connection: &mut Connection, what: What, due: Due) -> anyhow::Result<()> {
        let Some(boot_id) = connection.boot_id else { return Ok(()) };
        let (kind, content) = (what.kind(), body(self.content(what)));
        let session_id = (kind.class() == CommandClass::Read).then_some(connection.session_id);
        let (world, device, machine) = (&self.phone.world, &self.phone.device, &self.phone.machine);
        let target = Target { machine, boot_id, session_id, answer: None };
        let header = device.header(&target, kind, &content, UnixMillis(world.clock.unix_millis()));
        let wire = device.sign(&header, content);
        let hash = SignedCommand::try_from(wire.clone())?.hash();
        let entry = Entry::Asked {
            device: device.device_id(),
            id: header.command_id,
            hash,
            kind: kind.name().to_owned(),
            effect: what.acts(),
            intended_us: world.micros(due.intended),
        };
        world.recorder.take(world.now_us(), machine.machine_id, entry);
        let cursor = match what {
            What::Attach => self.machine_stream.as_ref(),
            What::Watch => self.thread_stream.as_ref(),
            What::Answer | What::Load(_) => None,
        };
        let cursor_seq = cursor.map_or(0, |cursor| cursor.seq);
        let asked = Asked { cursor_seq, ..Asked::new(wire.clone(), hash, due, what) };
        self.asked.insert(header.command_id, asked);
        self.tell_standing();
        self.send_command(connection, wire).await
    }

    pub(super) async fn send_command(&self, connection: &mut Connection, command: v1::Command) -> anyhow::Result<()> {
        let kind = Some(v1::device_message::Kind::Command(command));
        self.send_to_machine(connection, Lane::Commands, kind).await
    }

    pub(super) async fn send_to_machine(
        &self,
        connection: &mut Connection,
        lane: Lane,
        kind: Option<v1::device_message::Kind>,
    ) -> anyhow::Result<()> {
        let message = Some(v1::DeviceMessage { trace: None, kind });
        let to = v1::ToMachine { machine_id: self.machine_id(), message };
        send(&mut connection.socket, lane, session_up::Kind::ToMachine(to)).await
    }

    /// On a new socket: reads belonged to the old session; those that were wanted are asked anew, effects again.
    pub(super) fn forget_reads(&mut self) {
        let now = self.world().clock.instant();
        self.asked.retain(|_, asked| !asked.subscribes());
        self.given_up.clear();
        for asked in self.asked.values_mut() {
            asked.again_at = Some(now);
        }
    }

    /// The machine listens to nothing before it has admitted the session.
    pub(super) fn may_ask_again(&self, asked: &Asked) -> bool {
        live(self.machine_stream.as_ref()) || asked.subscribes()
    }

    /// Asks again for what failed on the way or was cut off, as soon as the machine listens.
    pub(super) async fn ask_again(&mut self, connection: &mut Connection, now: Instant) -> anyhow::Result<()> {
        if connection.boot_id.is_none() {
            return Ok(());
        }
        let is_due = |asked: &Asked| asked.again_at.is_some_and(|at| now >= at) && self.may_ask_again(asked);
        let due: Vec<CommandId> =
            self.asked.iter().filter(|(_, asked)| is_due(asked)).map(|(command_id, _)| *command_id).collect();
        for command_id in due {
            if let Some(asked) = self.asked.get_mut(&command_id)
                && asked.what.acts()
            {
                asked.again_at = None;
                let wire = asked.wire.clone();
                self.send_command(connection, wire).await?;
            } else if let Some(asked) = self.asked.remove(&command_id) {
                self.send_new(connection, asked.what, asked.due).await?;
            }
        }
        Ok(())
    }
}

pub(super) fn live(stream: Option<&Cursor>) -> bool {
    stream.is_some_and(|stream| stream.live)
}
