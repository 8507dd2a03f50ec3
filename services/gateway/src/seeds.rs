//! Nodes without the directory: addresses from elsewhere, and whoever answers there.
//!
//! A headless service in DNS leads to the addresses of a region's nodes, and says nothing more. So each is asked: its
//! certificate must be that of a node of the region, and its hello says which node it is and which life of it. From then
//! on it is dialled as that very node, as one from the directory is; what it said of itself must then hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flydex_domain::id::{Incarnation, NodeId};
use flydex_domain::limits::{MEMBERS_MAX, NODE_CONNECT_TIMEOUT, SEEDS_ASKED_AT_ONCE, SEEDS_RESOLVE_TIMEOUT};
use flydex_domain::placement::{NodeRecord, NodeState};
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_client::MachineHostClient;
use flydex_proto::v1::node_frame::Kind as FromNode;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use tonic::transport::Channel;

use crate::dial::DialError;

/// Where nodes may be, whatever the directory says.
pub trait Seeds: Send + Sync + 'static {
    /// The addresses, in the form in which a node's record has its own: `https://host:port`.
    ///
    /// # Errors
    /// When the names lead nowhere right now.
    fn addresses(&self) -> BoxFuture<'_, std::io::Result<Vec<String>>>;

    /// A channel to whichever node of the region is at an address.
    ///
    /// # Errors
    /// [`DialError`] when the address does not lead anywhere.
    fn dial(&self, address: &str) -> Result<Channel, DialError>;
}

/// The nodes that were found, by address.
pub(crate) type Found = BTreeMap<String, NodeRecord>;

/// Looks for nodes: what is known of an address in `known` is taken as it is, and every other address is asked. Nothing
/// when the names led nowhere.
pub(crate) async fn look(seeds: &Arc<dyn Seeds>, hello: &v1::GatewayHello, known: &Found) -> Option<Found> {
    let addresses = match tokio::time::timeout(SEEDS_RESOLVE_TIMEOUT, seeds.addresses()).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::debug!(error, "names of nodes not resolved");
            return None;
        }
        Err(_) => {
            tracing::debug!(reason = "timeout", "names of nodes not resolved");
            return None;
        }
    };
    let addresses: BTreeSet<String> = addresses.into_iter().take(MEMBERS_MAX).collect();
    let (known_ones, others): (Vec<String>, Vec<String>) =
        addresses.into_iter().partition(|address| known.contains_key(address));
    let mut found: Found =
        known_ones.into_iter().filter_map(|address| Some((address.clone(), known.get(&address)?.clone()))).collect();
    let asked = others.into_iter().map(|address| async move {
        let record = ask(seeds.dial(&address).ok()?, hello, &address).await?;
        Some((address, record))
    });
    let mut answers = futures_util::stream::iter(asked).buffer_unordered(SEEDS_ASKED_AT_ONCE);
    while let Some(answer) = answers.next().await {
        found.extend(answer);
    }
    Some(found)
}

/// Asks who is at an address; the stream is ended again.
async fn ask(channel: Channel, hello: &v1::GatewayHello, address: &str) -> Option<NodeRecord> {
    let greeting = v1::GatewayFrame { kind: Some(ToNode::Hello(hello.clone())), ..v1::GatewayFrame::default() };
    let outgoing = futures_util::stream::iter([greeting]).chain(futures_util::stream::pending());
    let mut client = MachineHostClient::new(channel);
    let answer = tokio::time::timeout(NODE_CONNECT_TIMEOUT, async {
        let mut incoming = client.exchange(outgoing).await.ok()?.into_inner();
        incoming.message().await.ok()?
    });
    let Some(FromNode::Hello(node)) = answer.await.ok()??.kind else { return None };
    if node.region != hello.region {
        return None;
    }
    Some(NodeRecord {
        incarnation: Incarnation::try_from(node.incarnation.as_ref()).ok()?,
        node_id: NodeId::try_from(node.node_id).ok()?,
        address: address.to_owned(),
        state: NodeState::Active,
        machines: 0,
    })
}
