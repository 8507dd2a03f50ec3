//! The joints between roles in one process: gRPC over memory, and the revocation log.

use flydex_domain::revocation::RevocationEntry;
use flydex_proto::v1::machine_host_server::{MachineHost, MachineHostServer};
use flydex_runtime::lifecycle::Shutdown;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};

/// Bytes in flight in each direction of the in-memory connection, as a socket buffer would hold.
const DUPLEX_BYTES: usize = 1024 * 1024;
/// Connections waiting to be accepted; the gateway opens few.
const CONNECTIONS_WAITING_MAX: usize = 16;

/// Serves `host` in memory and returns a channel to it.
///
/// # Errors
/// Never in practice: the address is a constant.
pub(super) fn in_memory<H: MachineHost>(host: MachineHostServer<H>, shutdown: &Shutdown) -> anyhow::Result<Channel> {
    let (accept, incoming) = mpsc::channel::<DuplexStream>(CONNECTIONS_WAITING_MAX);
    let incoming = ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
    let hard = shutdown.hard();
    shutdown.spawn(async move {
        let serving = Server::builder().add_service(host).serve_with_incoming_shutdown(incoming, hard.cancelled());
        if serving.await.is_err() {
            tracing::error!("the in-process node stopped");
        }
    });
    let connector = tower::service_fn(move |_: Uri| {
        let accept = accept.clone();
        async move {
            let (near, far) = tokio::io::duplex(DUPLEX_BYTES);
            accept.send(far).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
            Ok::<_, std::io::Error>(TokioIo::new(near))
        }
    });
    Ok(Endpoint::try_from("http://node.invalid")?.connect_with_connector_lazy(connector))
}

/// Hands every entry of the revocation log to gateway and node.
pub(super) fn forward_revocations(
    mut log: broadcast::Receiver<RevocationEntry>,
    gateway: flydex_gateway::Handle,
    machines: flydex_machines::Handle,
    shutdown: &Shutdown,
) {
    let soft = shutdown.soft();
    shutdown.spawn(async move {
        loop {
            let entry = tokio::select! {
                () = soft.cancelled() => return,
                entry = log.recv() => entry,
            };
            match entry {
                Ok(entry) => {
                    gateway.revoke(&entry);
                    machines.revoke(entry);
                }
                Err(broadcast::error::RecvError::Lagged(count)) => tracing::error!(count, "revocations were missed"),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}
