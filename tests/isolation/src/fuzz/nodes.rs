//! A's gateway is not to be trusted: what it says to the node on a stream of its own.
//!
//! It has a session and a link of a machine of A open there, and answers for the connector itself. A node that is wrong on
//! purpose shows that the fuzzer finds what it is for.

mod doctored;

use anyhow::Context as _;
use bytes::Bytes;
use flydex_domain::scope::Role;
use flydex_proto::v1;
use flydex_proto::v1::connector_frame::Kind as FromConnector;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_client::MachineHostClient;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::owner_frame::Kind as FromOwner;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

pub use self::doctored::{Doctored, Fault};
use super::sessions::Observed;
use super::{Operation, World};
use crate::chance::Chance;
use crate::connector::receipt;
use crate::known::Known;
use crate::observe::Seen;
use crate::stand::{GATEWAY, REGION, Stand};
use crate::tenant::{Tenant, copy};
use crate::wire::PATIENCE;

/// Frames that may wait to be sent.
const WAITING_MAX: usize = 64;
/// How often a sign is asked for again while the machine is being attached.
const SIGNS_MAX: usize = 64;

/// A stream to the node with a session and a link on it.
pub(crate) struct Gateway {
    frames: mpsc::Sender<v1::GatewayFrame>,
    incoming: Streaming<v1::NodeFrame>,
    tenant: Tenant,
    session_id: Bytes,
    link_id: Bytes,
    links: u64,
    epoch: Option<v1::Epoch>,
    signs: u64,
    /// Whether a receipt is under way.
    answered: bool,
    log: Vec<Bytes>,
}

/// What a frame of the node means here.
enum Turn {
    /// The sign.
    Sign,
    /// The session is not open any more.
    SessionEnded(u32),
    /// The link is not open any more.
    LinkEnded(u32, u64),
    /// The link has attached.
    Attached,
    /// The machine could not give a sign.
    Offline,
    /// Something about a session or link of that id.
    About(Bytes),
}

impl Gateway {
    /// Opens the stream, and what is on it. The names of its machine are A's own.
    pub(crate) async fn start(stand: &Stand, a: &mut Tenant, chance: &mut Chance) -> anyhow::Result<Self> {
        let tenant = a.neighbour(chance);
        let (frames, outgoing) = mpsc::channel(WAITING_MAX);
        let mut client = MachineHostClient::new(stand.node());
        let incoming = client.exchange(ReceiverStream::new(outgoing)).await.context("open a stream")?.into_inner();
        let (session_id, link_id) = (copy(&chance.bytes::<16>()), copy(&chance.bytes::<16>()));
        for (name, value) in [("session_id", &session_id), ("link_id", &link_id)] {
            a.known.bytes(name, value);
        }
        a.known.bytes("machine_id", tenant.machine_id.as_bytes());
        let (epoch, log) = (None, Vec::new());
        let mut gateway =
            Self { frames, incoming, tenant, session_id, link_id, links: 1, epoch, signs: 0, answered: false, log };
        let hello = v1::GatewayHello { gateway_id: GATEWAY.to_owned(), region: REGION.to_owned() };
        gateway.send(ToNode::Hello(hello)).await?;
        gateway.open_link(stand).await?;
        gateway.open_session(stand).await?;
        gateway.settle().await?;
        gateway.log.clear();
        Ok(gateway)
    }

    async fn send(&self, kind: ToNode) -> anyhow::Result<()> {
        let (account_id, machine_id) = (self.tenant.account_id, self.tenant.machine_id);
        let (account_id, machine_id) = (copy(account_id.as_bytes()), copy(machine_id.as_bytes()));
        self.send_frame(v1::GatewayFrame { account_id, machine_id, deadline_ms: 0, kind: Some(kind) }).await
    }

    async fn send_frame(&self, frame: v1::GatewayFrame) -> anyhow::Result<()> {
        self.frames.send(frame).await.ok().context("the stream has ended")
    }

    async fn open_session(&self, stand: &Stand) -> anyhow::Result<()> {
        let grant = self.tenant.grant(stand, Role::Owner);
        let open = v1::OpenSession { session_id: self.session_id.clone(), grant, replacing: Bytes::new() };
        self.send(ToNode::OpenSession(open)).await
    }

    async fn open_link(&mut self, stand: &Stand) -> anyhow::Result<()> {
        self.links += 1;
        self.epoch = None;
        let open = v1::OpenLink {
            link_id: self.link_id.clone(),
            credential: self.tenant.credential(stand),
            link_counter: self.links,
            boot_id: copy(self.tenant.boot_id.as_bytes()),
            transport: v1::Transport::Websocket.into(),
            connector_version: self.tenant.marker.clone(),
            channel_bound: true,
            replacing: Bytes::new(),
        };
        self.send(ToNode::OpenLink(open)).await
    }

    async fn say(&self, epoch: Option<v1::Epoch>, kind: FromConnector) -> anyhow::Result<()> {
        let frame = Some(v1::ConnectorFrame { epoch, kind: Some(kind) });
        self.send(ToNode::LinkMessage(v1::LinkMessage { link_id: self.link_id.clone(), frame })).await
    }

    /// Asks for a sign: the session's probe, when it reaches the connector.
    async fn ask(&mut self) -> anyhow::Result<()> {
        self.signs += 1;
        let probe = v1::device_message::Kind::Probe(v1::Probe { nonce: u64::MAX - self.signs });
        let message = Some(v1::DeviceMessage { trace: None, kind: Some(probe) });
        self.send(ToNode::SessionMessage(v1::SessionMessage { session_id: self.session_id.clone(), message })).await
    }

    async fn next(&mut self) -> anyhow::Result<Turn> {
        let next = tokio::time::timeout(PATIENCE, self.incoming.message()).await;
        let frame = next.context("the node says nothing")??.context("the stream has ended")?;
        self.log.push(Bytes::from(frame.encode_to_vec()));
        let kind = frame.kind.context("an empty frame")?;
        Ok(match kind {
            FromNode::ToLink(to) if to.link_id == self.link_id => return self.owner_says(to.frame).await,
            FromNode::ToLink(to) => Turn::About(to.link_id),
            FromNode::EndSession(end) if end.session_id == self.session_id => Turn::SessionEnded(end.code),
            FromNode::EndLink(end) if end.link_id == self.link_id => Turn::LinkEnded(end.code, end.link_counter),
            FromNode::ToSession(to) => {
                let said = to.message.and_then(|message| message.kind);
                let failed = matches!(said, Some(Said::Failure(failure)) if failure.command_id.is_empty());
                if failed && to.session_id == self.session_id { Turn::Offline } else { Turn::About(to.session_id) }
            }
            FromNode::SessionOpened(opened) => Turn::About(opened.session_id),
            FromNode::LinkOpened(opened) => Turn::About(opened.link_id),
            FromNode::EndSession(end) => Turn::About(end.session_id),
            FromNode::EndLink(end) => Turn::About(end.link_id),
            FromNode::NotOwner(not_owner) if not_owner.subject_id == self.session_id => Turn::SessionEnded(0),
            FromNode::NotOwner(not_owner) if not_owner.subject_id == self.link_id => Turn::LinkEnded(0, 0),
            FromNode::NotOwner(not_owner) => Turn::About(not_owner.subject_id),
            FromNode::Hello(_) => Turn::About(Bytes::new()),
        })
    }

    async fn owner_says(&mut self, frame: Option<v1::OwnerFrame>) -> anyhow::Result<Turn> {
        let frame = frame.context("an empty frame")?;
        match frame.kind {
            Some(FromOwner::Attach(_)) => {
                self.epoch = frame.epoch.clone();
                let attached = FromConnector::Attached(v1::Attached { highest: frame.epoch });
                self.say(None, attached).await?;
                Ok(Turn::Attached)
            }
            Some(FromOwner::FromSession(from)) => {
                let asked = from.message.and_then(|message| message.kind);
                if let Some(v1::device_message::Kind::Command(command)) = &asked {
                    let header = v1::CommandHeader::decode(command.header.clone())?;
                    let receipt = receipt(&self.tenant, &header, &command.header);
                    let message = Some(v1::MachineMessage { trace: None, kind: Some(Said::Receipt(receipt)) });
                    let to = v1::ToSession { session_id: from.session_id.clone(), message };
                    self.say(frame.epoch, FromConnector::ToSession(to)).await?;
                    self.answered = true;
                }
                let sign = u64::MAX - self.signs;
                let is_sign = matches!(asked, Some(v1::device_message::Kind::Probe(probe)) if probe.nonce == sign);
                Ok(if is_sign { Turn::Sign } else { Turn::About(from.session_id) })
            }
            Some(FromOwner::RemoveDevice(remove)) => {
                let removed = v1::DeviceRemoved { device_id: remove.device_id, keeps: remove.keeps };
                self.say(frame.epoch, FromConnector::DeviceRemoved(removed)).await?;
                Ok(Turn::About(Bytes::new()))
            }
            Some(FromOwner::SessionGone(_)) | None => Ok(Turn::About(Bytes::new())),
        }
    }

    /// Reads until a sign comes. How the session or link ended, if one did.
    async fn settle(&mut self) -> anyhow::Result<Option<Turn>> {
        self.ask().await?;
        for _ in 0..SIGNS_MAX {
            loop {
                match self.next().await? {
                    // A receipt that has just left comes back before another sign.
                    Turn::Sign if std::mem::take(&mut self.answered) => break,
                    Turn::Sign => return Ok(None),
                    ended @ (Turn::SessionEnded(_) | Turn::LinkEnded(..)) => return Ok(Some(ended)),
                    Turn::Offline => {
                        tokio::task::yield_now().await;
                        break;
                    }
                    Turn::Attached => break,
                    Turn::About(_) => {}
                }
            }
            self.ask().await?;
        }
        anyhow::bail!("no sign comes")
    }

    /// What A knows, with what is open on the stream in its places.
    pub(super) fn known(&self, a: &Known, stand: &Stand) -> Known {
        let mut known = a.clone();
        known.set("machine_id", Value::Bytes(copy(self.tenant.machine_id.as_bytes())));
        known.set("session_id", Value::Bytes(self.session_id.clone()));
        known.set("link_id", Value::Bytes(self.link_id.clone()));
        known.set("replacing", Value::Bytes(Bytes::new()));
        known.set("grant", Value::String(self.tenant.grant(stand, Role::Owner)));
        known.set("credential", Value::String(self.tenant.credential(stand)));
        known.set("link_counter", Value::U64(self.links + 1));
        known
    }
}

impl World {
    /// Says things on the stream. Everything until a sign is an answer to them.
    pub(super) async fn by_gateway(
        &mut self,
        operations: &[Operation<'_>],
        messages: Vec<DynamicMessage>,
    ) -> anyhow::Result<Observed> {
        let gateway = &mut self.gateway;
        gateway.log.clear();
        let mut opened = None;
        for (operation, message) in operations.iter().zip(messages) {
            let mut said = message.transcode_to::<v1::GatewayFrame>()?;
            if let Some(ToNode::LinkMessage(message)) = &mut said.kind
                && let Some(frame) = &mut message.frame
                && !operation.place.is_within("epoch")
            {
                frame.epoch = gateway.epoch.clone();
            }
            let is_named = said.account_id.len() == 16 && said.machine_id.len() == 16;
            let subject = subject(&said).filter(|_| is_named);
            let elsewhere = |subject: &Bytes| is_elsewhere(&said, &gateway.tenant) || !gateway.has(subject);
            opened = subject.filter(elsewhere).map(|subject| (said.clone(), subject));
            gateway.send_frame(said).await?;
        }
        let (mut seen, mut ended) = (Vec::new(), None);
        if let Some((said, subject)) = opened {
            ended = gateway.until(&subject).await?;
            gateway.close(&said, subject).await?;
        }
        if ended.is_none() {
            ended = gateway.settle().await?;
        }
        if let Some(ended) = ended {
            seen.push(self.renew(ended).await?);
        }
        let descriptor = self.schema.message("NodeFrame")?;
        let frames = std::mem::take(&mut self.gateway.log);
        let frames: Vec<_> = frames.into_iter().filter(|frame| !is_about_sign(frame)).collect();
        Ok((frames.into_iter().map(|frame| (descriptor.clone(), frame)).collect(), seen))
    }

    /// Opens everything anew.
    pub(super) async fn renew_gateway(&mut self) -> anyhow::Result<()> {
        self.renew(Turn::LinkEnded(0, 0)).await.map(|_| ())
    }

    /// Opens anew what has ended.
    async fn renew(&mut self, mut ended: Turn) -> anyhow::Result<Seen> {
        let word = match &ended {
            Turn::SessionEnded(code) => Seen::word("session ended", *code),
            Turn::LinkEnded(code, _) => Seen::word("link ended", *code),
            Turn::Sign | Turn::Attached | Turn::Offline | Turn::About(_) => Seen::word("something ended", 0),
        };
        loop {
            if let Turn::LinkEnded(_, counter) = ended {
                self.gateway.links = self.gateway.links.max(counter);
            }
            let log = std::mem::take(&mut self.gateway.log);
            self.gateway.open_link(&self.stand).await?;
            self.gateway.open_session(&self.stand).await?;
            let settled = self.gateway.settle().await?;
            self.gateway.log = log;
            match settled {
                None => return Ok(word),
                Some(again) => ended = again,
            }
        }
    }
}

impl Gateway {
    fn has(&self, subject: &Bytes) -> bool {
        *subject == self.session_id || *subject == self.link_id
    }

    /// Reads until something about that session or link comes; what ended meanwhile.
    async fn until(&mut self, subject: &Bytes) -> anyhow::Result<Option<Turn>> {
        let mut ended = None;
        loop {
            let turn = self.next().await?;
            let last = match &turn {
                Turn::About(about) => about == subject,
                Turn::SessionEnded(_) => *subject == self.session_id,
                Turn::LinkEnded(..) => *subject == self.link_id,
                Turn::Sign | Turn::Attached | Turn::Offline => false,
            };
            if matches!(turn, Turn::SessionEnded(_) | Turn::LinkEnded(..)) {
                ended = Some(turn);
            }
            if last {
                return Ok(ended);
            }
        }
    }

    /// Closes what was opened where it was opened.
    async fn close(&self, opened: &v1::GatewayFrame, subject: Bytes) -> anyhow::Result<()> {
        let kind = match &opened.kind {
            Some(ToNode::OpenLink(_)) => ToNode::CloseLink(v1::CloseLink { link_id: subject }),
            _ => ToNode::CloseSession(v1::CloseSession { session_id: subject }),
        };
        self.send_frame(v1::GatewayFrame { kind: Some(kind), ..opened.clone() }).await
    }
}

/// The session or link that a frame opens.
fn subject(frame: &v1::GatewayFrame) -> Option<Bytes> {
    let id = match frame.kind.as_ref()? {
        ToNode::OpenSession(open) => open.session_id.clone(),
        ToNode::OpenLink(open) => open.link_id.clone(),
        ToNode::SessionMessage(_)
        | ToNode::CloseSession(_)
        | ToNode::LinkMessage(_)
        | ToNode::CloseLink(_)
        | ToNode::Hello(_) => return None,
    };
    (id.len() == 16).then_some(id)
}

fn is_elsewhere(frame: &v1::GatewayFrame, tenant: &Tenant) -> bool {
    frame.account_id != tenant.account_id.as_bytes().as_slice()
        || frame.machine_id != tenant.machine_id.as_bytes().as_slice()
}

/// Whether a frame is a sign, or says that none could be given: how often one is asked for is chance.
fn is_about_sign(frame: &Bytes) -> bool {
    let kind = v1::NodeFrame::decode(frame.clone()).ok().and_then(|frame| frame.kind);
    match kind {
        Some(FromNode::ToLink(to)) => {
            let from = to.frame.and_then(|frame| frame.kind);
            let Some(FromOwner::FromSession(from)) = from else { return false };
            let asked = from.message.and_then(|message| message.kind);
            matches!(asked, Some(v1::device_message::Kind::Probe(probe)) if probe.nonce > u64::MAX / 2)
        }
        Some(FromNode::ToSession(to)) => {
            let said = to.message.and_then(|message| message.kind);
            matches!(said, Some(Said::Failure(failure)) if failure.command_id.is_empty())
        }
        _ => false,
    }
}
