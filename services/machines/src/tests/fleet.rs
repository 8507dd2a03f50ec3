//! A gateway with many machines, which opens them at whichever node it is sent to, as a real one does.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::Incarnation;
use flydex_domain::scope::Role;
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_proto::v1::{connector_frame, owner_frame};

use super::fixture::*;

/// Sessions of machine `m` are numbered from here on, `m` times.
const SESSIONS_FROM: u128 = 1_000;

pub(super) struct Fleet<'a> {
    nodes: [&'a Node; 2],
    gateways: [Gateway; 2],
    /// At which node each machine has attached.
    attached_at: BTreeMap<u128, usize>,
    sessions_at: BTreeMap<u128, usize>,
    homeless: BTreeSet<u128>,
    /// Signed once, as a gateway keeps them.
    grant: String,
    credentials: BTreeMap<u128, String>,
    sessions: u128,
    over: [bool; 2],
    /// How many machines had no owner at one time.
    pub(super) most_homeless: usize,
    /// Sockets and sessions that a node ended.
    pub(super) ended: Vec<ErrorCode>,
}

impl<'a> Fleet<'a> {
    pub(super) async fn new(nodes: [&'a Node; 2]) -> Self {
        Self {
            gateways: [nodes[0].gateway().await, nodes[1].gateway().await],
            nodes,
            attached_at: BTreeMap::new(),
            sessions_at: BTreeMap::new(),
            homeless: BTreeSet::new(),
            grant: nodes[0].grant(ACCOUNT, 1, Role::Owner),
            credentials: BTreeMap::new(),
            sessions: 0,
            over: [false; 2],
            most_homeless: 0,
            ended: Vec::new(),
        }
    }

    /// Links machines at the first node, each with sessions.
    pub(super) async fn link(&mut self, machines: u128, sessions: u128) {
        self.link_from(1, machines, sessions).await;
    }

    /// [`Self::link`], the machines from one number to another.
    pub(super) async fn link_from(&mut self, first: u128, last: u128, sessions: u128) {
        self.sessions = sessions;
        for machine in first..=last {
            self.open_link(0, machine).await;
            for session in self.sessions_of(machine) {
                self.open_session(0, machine, session).await;
            }
            // As it goes, for what waits to be read is bounded.
            self.until(|fleet| fleet.attached_at.contains_key(&machine) && fleet.all_open()).await;
        }
        self.most_homeless = 0;
    }

    /// How many machines have attached at a node.
    pub(super) fn held_by(&self, node: usize) -> usize {
        self.attached_at.values().filter(|at| **at == node).count()
    }

    /// Whether every machine that has a link is open in all of its sessions where it has attached.
    pub(super) fn all_open(&self) -> bool {
        let open = |machine: &u128, node: &usize| {
            self.sessions_of(*machine).all(|session| self.sessions_at.get(&session) == Some(node))
        };
        self.homeless.is_empty() && self.attached_at.iter().all(|(machine, node)| open(machine, node))
    }

    /// Goes on until something holds.
    pub(super) async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let [first, second] = &mut self.gateways;
            let (from, frame) = tokio::select! {
                frame = first.next(), if !self.over[0] => (0, frame),
                frame = second.next(), if !self.over[1] => (1, frame),
            };
            match frame {
                Some(frame) => self.take(from, frame).await,
                None => self.over[from] = true,
            }
        }
    }

    /// Goes on for a time.
    pub(super) async fn pass(&mut self, time: std::time::Duration) {
        let _ = tokio::time::timeout(time, self.until(|_| false)).await;
    }

    fn sessions_of(&self, machine: u128) -> impl Iterator<Item = u128> + use<> {
        let sessions = self.sessions;
        (0..sessions).map(move |number| SESSIONS_FROM * machine + number)
    }

    async fn take(&mut self, from: usize, frame: v1::NodeFrame) {
        let Some(kind) = frame.kind else { return };
        let machine = number(&frame.machine_id);
        match kind {
            FromNode::NotOwner(not_owner) => {
                let to = self.node(&not_owner.owner).unwrap_or(1 - from);
                let subject = number(&not_owner.subject_id);
                if subject == machine {
                    self.attached_at.remove(&machine);
                    self.homeless.insert(machine);
                    self.most_homeless = self.most_homeless.max(self.homeless.len());
                    self.open_link(to, machine).await;
                } else {
                    self.sessions_at.remove(&subject);
                    self.open_session(to, machine, subject).await;
                }
            }
            FromNode::ToLink(to_link) => {
                let Some(v1::OwnerFrame { epoch, kind: Some(owner_frame::Kind::Attach(_)) }) = to_link.frame else {
                    return;
                };
                let attached = connector_frame::Kind::Attached(v1::Attached { highest: epoch });
                let frame = Some(v1::ConnectorFrame { epoch: None, kind: Some(attached) });
                let link_id = id(machine);
                let message = ToNode::LinkMessage(v1::LinkMessage { link_id, frame });
                self.gateways[from].send(ACCOUNT, machine, message).await;
                self.homeless.remove(&machine);
                self.attached_at.insert(machine, from);
            }
            FromNode::SessionOpened(opened) => {
                self.sessions_at.insert(number(&opened.session_id), from);
            }
            FromNode::EndSession(end) => {
                self.ended.extend(code(end.code));
            }
            FromNode::EndLink(end) => {
                self.ended.extend(code(end.code));
            }
            FromNode::Hello(_) | FromNode::LinkOpened(_) | FromNode::ToSession(_) => {}
        }
    }

    fn node(&self, owner: &[u8]) -> Option<usize> {
        let owner = Incarnation::try_from(owner).ok()?;
        [INCARNATION, OTHER_NODE].iter().position(|node| *node == owner)
    }

    async fn open_link(&mut self, at: usize, machine: u128) {
        let sign = || self.nodes[at].credential(ACCOUNT, machine);
        let open = v1::OpenLink {
            link_id: id(machine),
            credential: self.credentials.entry(machine).or_insert_with(sign).clone(),
            link_counter: 1,
            boot_id: copy(&[1; 16]),
            transport: v1::Transport::Websocket.into(),
            connector_version: "1.0.0".to_owned(),
            channel_bound: true,
            replacing: Bytes::new(),
        };
        self.gateways[at].send(ACCOUNT, machine, ToNode::OpenLink(open)).await;
    }

    async fn open_session(&mut self, at: usize, machine: u128, session: u128) {
        self.gateways[at].open(ACCOUNT, machine, session, self.grant.clone()).await;
    }
}

/// A hello is of no machine.
fn number(id: &[u8]) -> u128 {
    <[u8; 16]>::try_from(id).map_or(0, u128::from_be_bytes)
}
