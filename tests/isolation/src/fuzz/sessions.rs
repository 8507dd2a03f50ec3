//! A is a device: what it says on its WebSocket.

use anyhow::Context as _;
use bytes::Bytes;
use flydex_proto::v1;
use flydex_proto::v1::device_message::Kind as Asked;
use flydex_proto::v1::link_down::Kind as LinkDownKind;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::session_down::Kind as Down;
use flydex_proto::v1::session_up::Kind as Up;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::{Operation, World};
use crate::observe::Seen;
use crate::session::{Ended, Session, is_sign};
use crate::tenant::Tenant;

/// Frames with what they are, and what else was seen.
pub(super) type Observed = (Vec<(MessageDescriptor, Bytes)>, Vec<Seen>);

impl World {
    /// Says something in A's session. Everything until a sign through A's own machine is an answer to it.
    pub(super) async fn by_session(&mut self, operation: &Operation<'_>) -> anyhow::Result<Observed> {
        let said = self.message(operation)?.transcode_to::<v1::SessionUp>()?.kind.context("a kind")?;
        let own = self.a.tenant.machine_id;
        let foreign = match &said {
            Up::ToMachine(to) if to.machine_id != own.as_bytes().as_slice() && to.machine_id.len() == 16 => {
                Some(to.machine_id.clone())
            }
            Up::Open(_) | Up::Close(_) | Up::ToMachine(_) | Up::Ping(_) | Up::Hello(_) | Up::Proof(_) => None,
        };
        let opened = if let Up::Open(open) = &said { Some(open.machine_id.clone()) } else { None };
        self.a.session.take_log();
        let mut foreign = foreign;
        if let Some(machine_id) = &foreign
            && !self.a.session.open_machine(machine_id, false).await?
        {
            foreign = None;
        }
        self.a.session.send(said).await?;
        if let Some(machine_id) = &foreign {
            // It is not there, and says so after all else.
            self.a.session.say(machine_id, Asked::Probe(v1::Probe { nonce: 1 })).await?;
        }
        let ended = match (&foreign, &opened) {
            (Some(machine_id), _) => self.until(|kind| is_absent(kind, machine_id)).await?,
            (None, Some(machine_id)) if machine_id.len() == 16 => self.until(|kind| is_about(kind, machine_id)).await?,
            (None, _) => None,
        };
        let ended = match ended {
            Some(ended) => Some(ended),
            None => {
                if let Some(machine_id) = foreign.or(opened) {
                    self.a.session.send(Up::Close(v1::CloseMachine { machine_id })).await?;
                }
                let sign: [u8; 16] = self.chance.bytes();
                // A session that is ending takes no more; how it ended is read all the same.
                let _ = self.a.session.ask_for_sign(own.as_bytes(), sign).await;
                self.until(|kind| is_sign(kind, &sign)).await?
            }
        };
        let frames = self.a.session.take_log();
        let mut seen = Vec::new();
        if let Some(Ended(code)) = ended {
            seen.push(Seen::word("session ended", code));
            self.renew_session().await?;
        }
        let descriptor = self.schema.message("SessionDown")?;
        Ok((frames.into_iter().map(|frame| (descriptor.clone(), frame)).collect(), seen))
    }

    /// The message of an operation, with the value in its place.
    pub(super) fn message(&mut self, operation: &Operation<'_>) -> anyhow::Result<DynamicMessage> {
        let place = operation.place;
        let tenant = &mut self.a.tenant;
        // Each command is a new one, unless its id is what is swapped.
        tenant.known.set("command_id", Value::Bytes(Bytes::copy_from_slice(&self.chance.bytes::<16>())));
        let mut message = self.schema.sample(place.root(), &place.variant, &tenant.known)?;
        Tenant::commands_in(&mut message, &|command| tenant.complete(command))?;
        self.schema.put(&mut message, &place.path, &operation.value.clone().into())?;
        if operation.signs && !place.is_within("signature") {
            Tenant::commands_in(&mut message, &|command| tenant.signed(command))?;
        }
        Ok(message)
    }

    /// Reads until a frame fits; how the session ended, if it did.
    pub(super) async fn until(&mut self, fits: impl Fn(&Down) -> bool) -> anyhow::Result<Option<Ended>> {
        loop {
            match self.a.session.next().await? {
                Err(ended) => return Ok(Some(ended)),
                Ok(kind) if fits(&kind) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    /// Another session in place of the one that ended.
    pub(super) async fn renew_session(&mut self) -> anyhow::Result<()> {
        self.a.session = Session::ready(&self.stand, &self.a.tenant, &mut self.chance).await?;
        let session_id = self.a.session.session_id.clone();
        self.a.tenant.known.set("session_id", Value::Bytes(session_id));
        Ok(())
    }
}

/// Whether a machine says that it is not there, or is closed.
fn is_absent(kind: &Down, machine_id: &Bytes) -> bool {
    match kind {
        Down::FromMachine(from) => {
            let said = from.message.as_ref().and_then(|message| message.kind.as_ref());
            let absent = matches!(said, Some(Said::Failure(failure)) if failure.command_id.is_empty());
            absent && from.machine_id == machine_id
        }
        Down::MachineClosed(closed) => closed.machine_id == machine_id,
        Down::Challenge(_) | Down::Welcome(_) | Down::Pong(_) | Down::GoAway(_) | Down::End(_) => false,
    }
}

/// Whether a frame answers the opening of a machine.
fn is_about(kind: &Down, machine_id: &Bytes) -> bool {
    match kind {
        Down::FromMachine(from) => from.machine_id == machine_id,
        Down::MachineClosed(closed) => closed.machine_id == machine_id,
        Down::Challenge(_) | Down::Welcome(_) | Down::Pong(_) | Down::GoAway(_) | Down::End(_) => false,
    }
}

/// Whether a connector hears a session in this frame.
pub(super) fn is_from_session(frame: &Bytes) -> bool {
    let Ok(v1::LinkDown { kind: Some(LinkDownKind::Frame(frame)) }) = v1::LinkDown::decode(frame.clone()) else {
        return false;
    };
    matches!(frame.kind, Some(v1::owner_frame::Kind::FromSession(_)))
}
