//! A is a connector: what it says on its link.

use anyhow::Context as _;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::link_up::Kind as Up;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::session_down::Kind as Down;

use super::sessions::Observed;
use super::{Operation, World};
use crate::connector::Connector;
use crate::observe::Seen;
use crate::session::{Ended, is_sign};
use crate::tenant::copy;

impl World {
    /// Says something on A's link. Everything until a sign of it reaches A's session, or until the link has ended, is an
    /// answer to it.
    pub(super) async fn by_link(&mut self, operation: &Operation<'_>) -> anyhow::Result<Observed> {
        let mut said = self.message(operation)?.transcode_to::<v1::LinkUp>()?;
        let before = self.a.connector.state();
        if let Some(Up::Frame(frame)) = &mut said.kind
            && !operation.place.is_within("epoch")
        {
            frame.epoch = before.wire_epoch();
        }
        self.a.session.take_log();
        let _ = self.a.connector.take_log();
        self.a.connector.send(said).await?;
        let mut seen = self.settle_link(before.attaches).await?;
        let mut frames = Vec::new();
        let (up, down) = (self.schema.message("SessionDown")?, self.schema.message("LinkDown")?);
        frames.extend(self.a.session.take_log().into_iter().map(|frame| (up.clone(), frame)));
        frames.extend(self.a.connector.take_log().into_iter().map(|frame| (down.clone(), frame)));
        if let Some(code) = self.a.connector.state().ended {
            seen.push(Seen::word("link ended", code));
            self.renew_link().await?;
        }
        // Pings come when they come.
        frames.retain(|(descriptor, frame)| descriptor != &down || !is_ping(frame));
        Ok((frames, seen))
    }

    async fn settle_link(&mut self, mut attaches: u64) -> anyhow::Result<Vec<Seen>> {
        let sign: [u8; 16] = self.chance.bytes();
        let mut seen = Vec::new();
        self.give_sign(sign).await?;
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
                    self.give_sign(sign).await?;
                }
                Some(Ok(kind)) if is_sign(&kind, &sign) => return Ok(seen),
                Some(Ok(Down::MachineClosed(_))) => {
                    let machine_id = *self.a.tenant.machine_id.as_bytes();
                    self.a.session.open_machine(&machine_id, true).await?;
                    self.give_sign(sign).await?;
                }
                Some(Ok(_)) => {}
                Some(Err(Ended(code))) => {
                    seen.push(Seen::word("session ended", code));
                    self.renew_session().await?;
                    self.give_sign(sign).await?;
                }
            }
        }
    }

    /// Has A's connector say something to A's session that comes after all else.
    async fn give_sign(&mut self, sign: [u8; 16]) -> anyhow::Result<()> {
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
        self.renew_session().await.context("a session after the link")
    }
}

fn is_ping(frame: &bytes::Bytes) -> bool {
    use prost::Message as _;
    let kind = v1::LinkDown::decode(frame.clone()).ok().and_then(|frame| frame.kind);
    matches!(kind, Some(v1::link_down::Kind::Ping(_) | v1::link_down::Kind::Pong(_)))
}
