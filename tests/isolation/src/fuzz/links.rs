//! A is a connector: what it says on its link.

use anyhow::Context as _;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::link_up::Kind as Up;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::session_down::Kind as Down;
use prost_reflect::{DynamicMessage, Value};

use super::sessions::Observed;
use super::{Operation, World};
use crate::connector::{Connector, State};
use crate::observe::Seen;
use crate::session::{Ended, is_sign};
use crate::tenant::copy;

/// Who has A's connector say that everything before has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signer {
    /// The connector by itself, on the way that its link takes.
    Link,
    /// A's session, which waits until its machine has a place again.
    Session,
}

impl World {
    /// Says things on A's link. Everything until a sign of it reaches A's session, or until the link has ended, is an
    /// answer to them.
    pub(super) async fn by_link(
        &mut self,
        operations: &[Operation<'_>],
        messages: Vec<DynamicMessage>,
    ) -> anyhow::Result<Observed> {
        let before = self.begin();
        for (operation, message) in operations.iter().zip(messages) {
            let mut said = message.transcode_to::<v1::LinkUp>()?;
            if let Some(Up::Frame(frame)) = &mut said.kind
                && !operation.place.is_within("epoch")
            {
                frame.epoch = before.wire_epoch();
            }
            // A link that has ended shows as such.
            let _ = self.a.connector.send(said).await;
        }
        self.settled(before.attaches, Signer::Link).await
    }

    /// Forgets what A has heard so far; how its link stands.
    pub(super) fn begin(&mut self) -> State {
        self.a.session.take_log();
        let _ = self.a.connector.take_log();
        self.a.connector.state()
    }

    /// Everything that A hears until a sign of its link.
    pub(super) async fn settled(&mut self, attaches: u64, signer: Signer) -> anyhow::Result<Observed> {
        let mut seen = self.settle_link(attaches, signer).await?;
        let mut frames = Vec::new();
        let (up, down) = (self.schema.message("SessionDown")?, self.schema.message("LinkDown")?);
        frames.extend(self.a.session.take_log().into_iter().map(|frame| (up.clone(), frame)));
        // Pings come when they come.
        let heard = self.a.connector.take_log().into_iter().filter(|frame| !is_ping(frame));
        frames.extend(heard.map(|frame| (down.clone(), frame)));
        if let Some(code) = self.a.connector.state().ended {
            seen.push(Seen::word("link ended", code));
            self.renew_link().await?;
        }
        Ok((frames, seen))
    }

    async fn settle_link(&mut self, mut attaches: u64, signer: Signer) -> anyhow::Result<Vec<Seen>> {
        let sign: [u8; 16] = self.chance.bytes();
        let mut seen = Vec::new();
        self.give_sign(sign, signer).await?;
        loop {
            let (session, connector) = (&mut self.a.session, &mut self.a.connector);
            let next = tokio::select! {
                next = session.next() => Some(next?),
                state = connector.changed(attaches) => {
                    let state = state?;
                    if state.ended.is_some() {
                        return Ok(seen);
                    }
                    attaches = state.attaches;
                    None
                }
            };
            match next {
                // It is attached anew: the sign was for the epoch before.
                None => {
                    seen.push(Seen::word("attach", 0));
                    self.give_sign(sign, signer).await?;
                }
                Some(Ok(kind)) if is_sign(&kind, &sign) => return Ok(seen),
                Some(Ok(Down::MachineClosed(_))) => {
                    // Its link may have ended as well: then it never gets ready.
                    let machine_id = *self.a.tenant.machine_id.as_bytes();
                    self.a.session.open_machine(&machine_id, false).await?;
                    self.give_sign(sign, signer).await?;
                }
                Some(Ok(_)) => {}
                Some(Err(Ended(code))) => {
                    seen.push(Seen::word("session ended", code));
                    self.renew_session().await?;
                    self.give_sign(sign, signer).await?;
                }
            }
        }
    }

    /// Has A's connector say something to A's session that comes after all else.
    async fn give_sign(&mut self, sign: [u8; 16], signer: Signer) -> anyhow::Result<()> {
        if signer == Signer::Session {
            let machine_id = *self.a.tenant.machine_id.as_bytes();
            // A session that has ended shows as such.
            let _ = self.a.session.ask_for_sign(&machine_id, sign).await;
            return Ok(());
        }
        let chunk = Said::Chunk(v1::BulkChunk { command_id: copy(&sign), offset: 0, bytes: copy(b"sign") });
        let to = v1::ToSession {
            session_id: self.a.session.session_id.clone(),
            message: Some(v1::MachineMessage { trace: None, kind: Some(chunk) }),
        };
        let epoch = self.a.connector.state().wire_epoch();
        let frame = v1::ConnectorFrame { epoch, kind: Some(FromConnector::ToSession(to)) };
        // A link that has ended shows as such.
        let _ = self.a.connector.send(v1::LinkUp { kind: Some(Up::Frame(frame)) }).await;
        Ok(())
    }

    /// Another link in place of the one that ended.
    pub(super) async fn renew_link(&mut self) -> anyhow::Result<()> {
        self.a.links += 1;
        self.a.connector = Connector::attach(&self.stand, &self.a.tenant, self.a.links).await?;
        self.a.tenant.known.set("link_id", Value::Bytes(self.a.connector.link_id.clone()));
        self.renew_session().await.context("a session after the link")
    }
}

fn is_ping(frame: &bytes::Bytes) -> bool {
    use prost::Message as _;
    let kind = v1::LinkDown::decode(frame.clone()).ok().and_then(|frame| frame.kind);
    matches!(kind, Some(v1::link_down::Kind::Ping(_) | v1::link_down::Kind::Pong(_)))
}
