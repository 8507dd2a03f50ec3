//! Actor hosts: one actor per machine, the only writer of that machine's relay state.
//!
//! Flow: `grpc` takes frames of a gateway's stream, verifies who is asking and finds the machine in the asker's
//! scope; `handle` lets what fits into the actor's mailbox; `machine` (the actor) hands it to
//! `flydex_domain::machine`, which decides, and performs the effects; `ask` asks the directory for it; `peer` carries
//! the answers back. `host`
//! starts, supervises and retires the actors; `lease` keeps the node on record in the directory, and
//! `hand_over` gives its machines to others when it goes, and `rebalance` some while others have fewer; `report` tells
//! control where they are.

mod ask;
mod convert;
mod grpc;
mod hand_over;
mod handle;
mod host;
mod lease;
mod machine;
mod metrics;
mod peer;
mod rebalance;
mod report;
mod revocations;

use std::sync::Arc;

use flydex_domain::id::{Incarnation, NodeId};
use flydex_domain::revocation::RevocationEntry;
use flydex_domain::scope::MachineKey;
use flydex_domain::token::TokenVerifier;
use flydex_proto::v1::machine_host_server::{MachineHost, MachineHostServer};
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_store::directory::Directory;
use tonic::transport::Channel;

pub use handle::{CallError, Snapshot};

/// Which node this is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its configured name.
    pub node_id: NodeId,
    /// The life of this process; random.
    pub incarnation: Incarnation,
    /// Where gateways reach its gRPC: `https://host:port`, or any word that they understand.
    pub address: String,
    /// Its region.
    pub region: String,
}

/// The machines of one node.
pub struct Service {
    host: Arc<host::Host>,
}

/// A way to a running [`Service`]. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    host: Arc<host::Host>,
}

impl Service {
    /// Starts a node without machines. It lives until `shutdown`, which ends every session and link first.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(
        config: Config,
        directory: Arc<dyn Directory>,
        verifier: Arc<TokenVerifier>,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Self {
        let context = host::Context {
            node_id: config.node_id,
            incarnation: config.incarnation,
            address: config.address,
            region: config.region,
            directory,
            verifier,
            assertions_due: std::sync::atomic::AtomicBool::new(false),
            started: clock.instant(),
            clock,
            shutdown,
            metrics: metrics::Metrics::new(),
            revocations: revocations::Revocations::default(),
            reports: report::Reports::default(),
        };
        Self { host: host::Host::start(context) }
    }

    /// A way to this service for the rest of the process.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { host: Arc::clone(&self.host) }
    }

    /// The gRPC service, for a tonic server.
    #[must_use]
    pub fn into_grpc(self) -> MachineHostServer<impl MachineHost> {
        grpc::server(self.host)
    }
}

impl Handle {
    /// Applies a revocation to everything here, and to everything that comes while a token could say otherwise.
    pub fn revoke(&self, entry: RevocationEntry) {
        self.host.revoke(&entry);
    }

    /// Reports to control, from now to the drain, where machines are linked; any of the processes behind `channels`
    /// will do.
    pub fn report_links(&self, channels: Vec<Channel>) {
        let [first, ..] = self.host.context.incarnation.as_bytes();
        let control = report::ControlProcesses::new(channels, usize::from(*first));
        let (host, shutdown) = (Arc::clone(&self.host), &self.host.context.shutdown);
        let soft = shutdown.soft();
        // What is linked elsewhere after the drain is reported from there.
        shutdown.spawn(async move {
            let _ = soft.run_until_cancelled(report::run(host, control)).await;
        });
    }

    /// Looks at one machine.
    ///
    /// # Errors
    /// [`CallError`] when the machine has no actor here, or it does not answer.
    pub async fn inspect(&self, machine: MachineKey) -> Result<Snapshot, CallError> {
        let handle = self.host.find(machine).ok_or(CallError::NotThere)?;
        handle.inspect().await
    }
}

#[cfg(test)]
mod tests;
