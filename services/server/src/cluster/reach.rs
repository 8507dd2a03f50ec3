//! Who this process is in the cluster, and its ways to Redis and control.

use std::sync::Arc;

use flydex_domain::id::NodeId;
use flydex_runtime::clock::Clock;
use flydex_runtime::mutual::{Expected, MutualConfig, MutualTls, Role};
use flydex_runtime::telemetry::log::chain;
use flydex_store::directory::redis::{Endpoint as RedisEndpoint, Keeper};
use flydex_store::directory::{Directory, RedisDirectory};
use http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::secret::{expose, secret};
use super::{BadField, Life, RedisConfig};

/// Loads the certificate of a process, which says who it is, and keeps it up to date.
///
/// # Errors
/// [`BadField`] when the files cannot be used, or are those of another role.
pub(crate) fn member(config: &MutualConfig, role: Role, life: &Life) -> Result<(MutualTls, NodeId), BadField> {
    let bad = |problem: String| BadField::new("mutual", problem);
    let mutual = MutualTls::load(config.clone(), Clock::system()).map_err(|error| bad(chain(&error)))?;
    let identity = mutual.identity();
    if identity.role != role {
        let (is, wanted) = (identity.role.name(), role.name());
        return Err(bad(format!("the certificate is of the role {is}, and this is {wanted}")));
    }
    mutual.watch(&life.shutdown).map_err(|error| bad(format!("listen for SIGHUP: {error}")))?;
    let node_id = NodeId::try_from(identity.node_id).map_err(|error| bad(error.to_string()))?;
    Ok((mutual, node_id))
}

/// The directory in Redis; its connection is kept up for as long as anything of the process lives.
///
/// # Errors
/// [`BadField`] for an address that is none.
pub(crate) fn directory(config: &RedisConfig, life: &Life) -> Result<Arc<dyn Directory>, BadField> {
    let url = secret("redis.url", config.url.as_ref(), config.url_file.as_deref())?;
    let endpoint = match (&config.sentinels[..], &config.master) {
        ([], None) => RedisEndpoint::alone(expose(&url)),
        ([], Some(_)) => return Err(BadField::new("redis.master", "it goes with redis.sentinels")),
        (_, None) => return Err(BadField::new("redis.master", "sentinels need the name of the master")),
        (sentinels, Some(master)) => RedisEndpoint::sentinel(sentinels, master, expose(&url)),
    };
    // The address itself may hold a password.
    let endpoint = endpoint.map_err(|_| BadField::new("redis", "an address is not redis://host:port"))?;
    let (keeper, keep) = Keeper::new(endpoint);
    life.under(keep);
    Ok(Arc::new(RedisDirectory::new(keeper)))
}

/// Ways to the control processes at `host:port`.
///
/// # Errors
/// [`BadField`] when there is none, or an address is none.
pub(crate) fn control(addresses: &[String], mutual: &MutualTls) -> Result<Vec<Channel>, BadField> {
    if addresses.is_empty() {
        return Err(BadField::new("control", "name at least one control process as host:port"));
    }
    let channel = |address: &String| {
        let bad = || BadField::new("control", format!("{address} is not host:port"));
        let uri: Uri = format!("https://{address}").parse().map_err(|_| bad())?;
        if uri.port_u16().is_none() || uri.path() != "/" {
            return Err(bad());
        }
        let expected = Expected { role: Role::Control, region: None, node_id: None };
        Ok(Endpoint::from(uri).connect_with_connector_lazy(mutual.connector(expected)))
    };
    addresses.iter().map(channel).collect()
}
