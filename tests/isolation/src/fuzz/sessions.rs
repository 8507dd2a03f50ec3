//! A is a device: what it says on its WebSocket.

use std::collections::BTreeSet;

use anyhow::Context as _;
use bytes::Bytes;
use flydex_proto::v1;
use flydex_proto::v1::device_message::Kind as Asked;
use flydex_proto::v1::link_down::Kind as LinkDownKind;
use flydex_proto::v1::session_down::Kind as Down;
use flydex_proto::v1::session_up::Kind as Up;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::places::Place;
use super::{Operation, World};
use crate::observe::Seen;
use crate::session::{Ended, is_sign};
use crate::tenant::{Tenant, copy};

/// Frames with what they are, and what else was seen.
pub(super) type Observed = (Vec<(MessageDescriptor, Bytes)>, Vec<Seen>);

impl World {
    /// Says things in A's session. Everything until a sign through A's own machine, and one of each other machine that
    /// something was said to, is an answer to them.
    pub(super) async fn by_session(&mut self, messages: Vec<DynamicMessage>) -> anyhow::Result<Observed> {
        let own = copy(self.a.tenant.machine_id.as_bytes());
        let sign: [u8; 16] = self.chance.bytes();
        let session = &mut self.a.session;
        session.take_log();
        // A session that ends under way takes no more; how it ended is read all the same.
        let (mut waiting, mut asked) = (BTreeSet::new(), BTreeSet::new());
        for message in messages {
            let said = message.transcode_to::<v1::SessionUp>()?.kind.context("a kind")?;
            match &said {
                Up::ToMachine(to) if to.machine_id != own && to.machine_id.len() == 16 => {
                    if asked.insert(to.machine_id.clone()) {
                        let _ = session.feed(Up::Open(v1::OpenMachine { machine_id: to.machine_id.clone() })).await;
                    }
                }
                Up::Open(open) if open.machine_id != own && open.machine_id.len() == 16 => {
                    waiting.insert(open.machine_id.clone());
                }
                Up::Open(_) | Up::Close(_) | Up::ToMachine(_) | Up::Ping(_) | Up::Hello(_) | Up::Proof(_) => {}
            }
            let _ = session.feed(said).await;
        }
        for machine_id in &asked {
            // It is not there, and says so after all else.
            let probe = Asked::Probe(v1::Probe { nonce: 1 });
            let _ = session.feed(to_machine(machine_id.clone(), probe, Some(sign))).await;
        }
        let credit = Asked::BulkCredit(v1::BulkCredit { command_id: copy(&sign), bytes: 1 });
        let _ = session.feed(to_machine(own, credit, None)).await;
        let _ = session.flush().await;
        let ended = self.answers(&asked, waiting, sign).await?;
        let frames = self.a.session.take_log();
        let mut seen = Vec::new();
        if let Some(Ended(code)) = ended {
            seen.push(Seen::word("session ended", code));
            self.renew_session().await?;
        }
        let descriptor = self.schema.message("SessionDown")?;
        Ok((frames.into_iter().map(|frame| (descriptor.clone(), frame)).collect(), seen))
    }

    /// Reads until every machine and the sign have answered, and closes what was opened; how the session ended, if it did.
    async fn answers(
        &mut self,
        asked: &BTreeSet<Bytes>,
        opened: BTreeSet<Bytes>,
        sign: [u8; 16],
    ) -> anyhow::Result<Option<Ended>> {
        let session = &mut self.a.session;
        let (mut silent, mut unopened, mut signed) = (asked.clone(), opened.clone(), false);
        while !signed || !silent.is_empty() || !unopened.is_empty() {
            let kind = match session.next().await? {
                Ok(kind) => kind,
                Err(ended) => return Ok(Some(ended)),
            };
            signed |= is_sign(&kind, &sign);
            match &kind {
                Down::FromMachine(from) => {
                    unopened.remove(&from.machine_id);
                    let trace = from.message.as_ref().and_then(|message| message.trace.as_ref());
                    if trace.is_some_and(|trace| trace.trace_id.as_ref() == sign) {
                        silent.remove(&from.machine_id);
                    }
                }
                Down::MachineClosed(closed) => {
                    unopened.remove(&closed.machine_id);
                    silent.remove(&closed.machine_id);
                }
                Down::Challenge(_) | Down::Welcome(_) | Down::Pong(_) | Down::GoAway(_) | Down::End(_) => {}
            }
        }
        for machine_id in asked.union(&opened) {
            let _ = session.feed(Up::Close(v1::CloseMachine { machine_id: machine_id.clone() })).await;
        }
        Ok(None)
    }

    /// The messages of operations, each with the value in its place.
    pub(super) fn messages(&mut self, operations: &[Operation<'_>]) -> anyhow::Result<Vec<DynamicMessage>> {
        let first = operations.first().map(|operation| operation.place);
        if first.is_some_and(Place::opens) {
            // Its hello is made from fresh tokens.
            return Ok(Vec::new());
        }
        self.a.tenant.known.set("at_ms", Value::U64(self.stand.now().0));
        if first.is_some_and(|place| place.root() == "GatewayFrame") {
            let known = self.gateway.known(&self.a.tenant.known, &self.stand);
            let ours = std::mem::replace(&mut self.a.tenant.known, known);
            let messages = operations.iter().map(|operation| self.message(operation)).collect();
            self.a.tenant.known = ours;
            return messages;
        }
        operations.iter().map(|operation| self.message(operation)).collect()
    }

    fn message(&mut self, operation: &Operation<'_>) -> anyhow::Result<DynamicMessage> {
        let place = operation.place;
        let tenant = &mut self.a.tenant;
        // Each command is a new one, unless its id is what is swapped.
        tenant.known.set("command_id", Value::Bytes(copy(&self.chance.bytes::<16>())));
        let mut message = self.schema.sample(place.root(), &place.variant, &tenant.known)?;
        Tenant::commands_in(&mut message, &|command| tenant.complete(command))?;
        self.schema.put(&mut message, &place.path, &operation.value.clone().into())?;
        if !operation.address.is_empty() {
            self.schema.readdress(&mut message, &operation.address)?;
        }
        if operation.signs && !place.is_within("signature") {
            Tenant::commands_in(&mut message, &|command| tenant.signed(command))?;
        }
        Ok(message)
    }
}

/// Something for a machine, in a trace by which its answer is known.
fn to_machine(machine_id: Bytes, kind: Asked, trace: Option<[u8; 16]>) -> Up {
    let trace = trace.map(|sign| v1::TraceContext { trace_id: copy(&sign), span_id: copy(&sign[..8]), flags: 0 });
    Up::ToMachine(v1::ToMachine { machine_id, message: Some(v1::DeviceMessage { trace, kind: Some(kind) }) })
}

/// Whether a connector hears a session in this frame.
pub(super) fn is_from_session(frame: &Bytes) -> bool {
    let Ok(v1::LinkDown { kind: Some(LinkDownKind::Frame(frame)) }) = v1::LinkDown::decode(frame.clone()) else {
        return false;
    };
    matches!(frame.kind, Some(v1::owner_frame::Kind::FromSession(_)))
}
