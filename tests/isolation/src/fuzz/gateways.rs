//! A's node is not to be trusted: what it says to the gateway on the stream that carries A's machine, while B's machine is
//! on another. And what control says to gateway and node of what no longer holds.

use anyhow::Context as _;
use flydex_domain::revocation::RevocationEntry;
use flydex_proto::v1;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::owner_frame::Kind as FromOwner;
use prost_reflect::DynamicMessage;

use super::World;
use super::links::Signer;
use super::sessions::Observed;

impl World {
    /// Says things on the stream of A's node. Everything until a sign that A's session asks for is an answer to them.
    pub(super) async fn by_node(&mut self, messages: Vec<DynamicMessage>) -> anyhow::Result<Observed> {
        let doctored = self.doctored.clone().context("this node says nothing of its own")?;
        let before = self.begin();
        let mut frames = Vec::new();
        for message in messages {
            let mut frame = message.transcode_to::<v1::NodeFrame>()?;
            // A connector that attaches to another owner hears this one no more.
            if let Some(FromNode::ToLink(v1::NodeToLink { frame: Some(frame), .. })) = &mut frame.kind
                && matches!(frame.kind, Some(FromOwner::Attach(_)))
            {
                frame.epoch = before.wire_epoch();
            }
            frames.push(frame);
        }
        doctored.say(frames).await?;
        self.settled(before.attaches, Signer::Session).await
    }

    /// Says things to gateway and node, as control does. Everything until both have given a sign is an answer to them.
    pub(super) async fn by_control(&mut self, messages: Vec<DynamicMessage>) -> anyhow::Result<Observed> {
        let before = self.begin();
        for message in messages {
            // What is malformed ends the stream of control's own words; nothing of it is applied.
            if let Ok(entry) = RevocationEntry::try_from(message.transcode_to::<v1::RevocationRecord>()?) {
                self.stand.revoke(&entry);
            }
        }
        let (mut frames, mut seen) = self.settled(before.attaches, Signer::Link).await?;
        // A's other machine is told as well; that is not an answer to whatever is said next.
        let (more, ended) = self.by_gateway(&[], Vec::new()).await?;
        frames.extend(more);
        seen.extend(ended);
        Ok((frames, seen))
    }
}
