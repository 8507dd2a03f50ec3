//! The nodes that this gateway keeps streams to: every member, and others for as long as they carry something. While the
//! directory is away, nodes are also looked for where `seeds` lead.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use flydex_domain::id::Incarnation;
use flydex_domain::limits::{LEASE_RENEW_INTERVAL, MEMBERS_MAX, SEEDS_LOOK_INTERVAL};
use flydex_domain::placement::{Member, NodeRecord};
use flydex_domain::scope::MachineKey;
use flydex_store::directory::Directory;
use tokio::time::Instant;

use crate::dial::Dial;
use crate::members::Members;
use crate::node::{Bound, Context, Node};
use crate::seeds::{self, Found, Seeds};

/// The nodes by their lives.
pub(crate) struct Pool {
    members: Members,
    context: Arc<Context>,
    nodes: RwLock<Nodes>,
}

struct Nodes {
    by_life: BTreeMap<Incarnation, Arc<Node>>,
    /// None once the drain is over: what only waits to be dialled may end then.
    dial: Option<Arc<dyn Dial>>,
}

impl Pool {
    /// Follows the directory until the drain is over.
    pub(crate) fn start(
        directory: Arc<dyn Directory>,
        dial: Arc<dyn Dial>,
        seeds: Option<Arc<dyn Seeds>>,
        context: Arc<Context>,
    ) -> Arc<Self> {
        let shutdown = context.shutdown.clone();
        let pool = Arc::new(Self {
            members: Members::new(directory),
            context,
            nodes: RwLock::new(Nodes { by_life: BTreeMap::new(), dial: Some(dial) }),
        });
        shutdown.spawn(pool.clone().follow(seeds));
        pool
    }

    /// The nodes of the region by the directory's last answer.
    pub(crate) fn members(&self) -> Arc<[Member]> {
        self.members.list()
    }

    /// Asks the directory for the nodes unless it was asked since `since`.
    pub(crate) async fn refresh_since(&self, since: Instant) {
        self.members.refresh_since(since).await;
        self.adopt(&self.members.list());
    }

    /// The machine's stream to a node; nothing when the node does not answer.
    pub(crate) async fn bound(&self, node: Incarnation, machine: MachineKey) -> Option<Bound> {
        let node = self.node(node)?;
        node.bound(machine).await
    }

    /// Whether this gateway keeps streams to a node.
    pub(crate) fn knows(&self, node: Incarnation) -> bool {
        self.node(node).is_some()
    }

    /// Whether a node is not there for a machine, whatever the directory says of it.
    pub(crate) fn is_lost(&self, node: Incarnation, machine: MachineKey) -> bool {
        self.node(node).is_none_or(|node| node.is_lost(machine))
    }

    /// Whether some node is reached on every stream.
    pub(crate) fn is_ready(&self) -> bool {
        self.up() > 0
    }

    /// Waits until that many nodes are reached on every stream.
    pub(crate) async fn ready(&self, nodes: usize) {
        let mut changed = self.context.changed.subscribe();
        while self.up() < nodes {
            // The sender lives in the same context.
            let _ = changed.changed().await;
        }
    }

    fn up(&self) -> usize {
        self.nodes().by_life.values().filter(|node| node.is_up()).count()
    }

    fn node(&self, node: Incarnation) -> Option<Arc<Node>> {
        self.nodes().by_life.get(&node).cloned()
    }

    async fn follow(self: Arc<Self>, seeds: Option<Arc<dyn Seeds>>) {
        let (soft, hard) = (self.context.shutdown.soft(), self.context.shutdown.hard());
        let drained = async {
            soft.cancelled().await;
            self.context.registry.emptied().await;
        };
        let follow = async {
            loop {
                self.members.refresh().await;
                self.context.metrics.directory_up(!self.members.is_away());
                self.adopt(&self.members.list());
                tokio::time::sleep(LEASE_RENEW_INTERVAL).await;
            }
        };
        tokio::select! {
            () = hard.cancelled() => {}
            () = drained => {}
            () = follow => {}
            () = self.look_at(seeds) => {}
        }
        self.nodes_mut().dial = None;
    }

    /// Looks for nodes where `seeds` lead, whenever the directory is away.
    async fn look_at(&self, seeds: Option<Arc<dyn Seeds>>) {
        let Some(seeds) = seeds else { return std::future::pending().await };
        loop {
            self.members.away().await;
            let was = self.members.found();
            if let Some(found) = seeds::look(&seeds, &self.context.hello, &self.reached(&was)).await {
                if found != was {
                    tracing::info!(count = found.len(), "nodes found without the directory");
                }
                self.members.set_found(found);
                self.adopt(&self.members.list());
            }
            tokio::time::sleep(SEEDS_LOOK_INTERVAL.mul_f64(rand::random_range(0.5..1.0))).await;
        }
    }

    /// Who is known to be at which address: nodes that answer, of those found or named by the directory.
    fn reached(&self, found: &Found) -> Found {
        let nodes = self.nodes();
        let is_up = |record: &&NodeRecord| nodes.by_life.get(&record.incarnation).is_some_and(|node| node.is_up());
        let members = self.members.list();
        let known = found.values().chain(members.iter().map(|member| &member.record));
        known.filter(is_up).map(|record| (record.address.clone(), record.clone())).collect()
    }

    /// Begins streams to new members, and lets those go that are members no more and carry nothing.
    fn adopt(&self, members: &[Member]) {
        let mut nodes = self.nodes_mut();
        let Nodes { by_life, dial: Some(dial) } = &mut *nodes else { return };
        let is_member = |node: Incarnation| members.iter().any(|member| member.record.incarnation == node);
        by_life.retain(|incarnation, node| {
            let kept = is_member(*incarnation) || node.carries();
            if !kept {
                node.let_go();
            }
            kept
        });
        for Member { record, .. } in members {
            if by_life.contains_key(&record.incarnation) {
                continue;
            }
            if by_life.len() >= MEMBERS_MAX {
                tracing::warn!(limit = "members", "no streams to a node: those that left still carry too much");
                return;
            }
            match Node::start(record, &**dial, &self.context) {
                Ok(node) => {
                    by_life.insert(record.incarnation, Arc::new(node));
                }
                Err(error) => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::error!(error, "node.id" = record.node_id.as_str(), "a node has no address to dial");
                }
            }
        }
    }

    fn nodes(&self) -> RwLockReadGuard<'_, Nodes> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes_mut(&self) -> RwLockWriteGuard<'_, Nodes> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }
}
