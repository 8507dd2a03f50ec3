//! The nodes of the region over mTLS: at the address that a record names, or wherever a name in DNS leads.

use std::collections::BTreeSet;

use flydex_gateway::{DialError, Seeds, tuned};
use flydex_runtime::mutual::{Expected, MutualTls, Role};
use futures_util::future::BoxFuture;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::BadField;

/// The way to nodes of the region, which their certificates must say that they are.
#[derive(Clone)]
pub(super) struct Nodes {
    pub(super) mutual: MutualTls,
    pub(super) region: String,
}

impl Nodes {
    /// A channel to the node at an address: the one of that name, or any.
    pub(super) fn dial(&self, address: &str, node_id: Option<&str>) -> Result<Channel, DialError> {
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(DialError::new)?;
        let expected =
            Expected { role: Role::Machines, region: Some(self.region.clone()), node_id: node_id.map(str::to_owned) };
        Ok(tuned(endpoint).connect_with_connector_lazy(self.mutual.connector(expected)))
    }
}

/// Names in DNS whose addresses are those of the nodes.
pub(super) struct Names {
    names: Vec<String>,
    nodes: Nodes,
}

impl Names {
    /// Each name as `host:port`.
    pub(super) fn new(names: &[String], nodes: Nodes) -> Result<Self, BadField> {
        let is_named = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
        if let Some(name) = names.iter().find(|name| !name.rsplit_once(':').is_some_and(is_named)) {
            return Err(BadField::new("nodes_dns", format!("{name} is not host:port")));
        }
        Ok(Self { names: names.to_vec(), nodes })
    }
}

impl Seeds for Names {
    fn addresses(&self) -> BoxFuture<'_, std::io::Result<Vec<String>>> {
        Box::pin(async move {
            let (mut addresses, mut failed) = (BTreeSet::new(), None);
            for name in &self.names {
                match tokio::net::lookup_host(name).await {
                    Ok(found) => addresses.extend(found),
                    Err(error) => failed = Some(error),
                }
            }
            if let (true, Some(error)) = (addresses.is_empty(), failed) {
                return Err(error);
            }
            Ok(addresses.into_iter().map(|address| format!("https://{address}")).collect())
        })
    }

    fn dial(&self, address: &str) -> Result<Channel, DialError> {
        self.nodes.dial(address, None)
    }
}

#[cfg(test)]
mod tests;
