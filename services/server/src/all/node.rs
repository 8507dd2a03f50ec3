//! The joints between roles in one process: gRPC over memory, and the revocation log.

use flydex_domain::placement::NodeRecord;
use flydex_domain::revocation::RevocationEntry;
use flydex_gateway::{Dial, tuned};
use flydex_proto::v1::machine_host_server::{MachineHost, MachineHostServer};
use flydex_runtime::lifecycle::Shutdown;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server, Uri};

/// Bytes in flight in each direction of the in-memory connection, as a socket buffer would hold.
const DUPLEX_BYTES: usize = 1024 * 1024;
/// Connections waiting to be accepted; the gateway opens few.
const CONNECTIONS_WAITING_MAX: usize = 16;

/// Serves `host` in memory; the way to it, whatever its record says.
pub(super) fn in_memory<H: MachineHost>(host: MachineHostServer<H>, shutdown: &Shutdown) -> impl Dial + use<H> {
    let (accept, incoming) = mpsc::channel::<DuplexStream>(CONNECTIONS_WAITING_MAX);
    let incoming = ReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
    let hard = shutdown.hard();
    shutdown.spawn(async move {
        let serving = Server::builder().add_service(host).serve_with_incoming_shutdown(incoming, hard.cancelled());
        if serving.await.is_err() {
            tracing::error!("the in-process node stopped");
        }
    });
    move |_: &NodeRecord| {
        let accept = accept.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let accept = accept.clone();
            async move {
                let (near, far) = tokio::io::duplex(DUPLEX_BYTES);
                accept.send(far).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
                Ok::<_, std::io::Error>(TokioIo::new(near))
            }
        });
        Ok(tuned(Endpoint::from_static("http://node.invalid")).connect_with_connector_lazy(connector))
    }
}

/// Hands every entry of the revocation log to gateway and node; one that was missed is read again.
pub(super) fn forward_revocations(
    control: flydex_control::Service,
    gateway: flydex_gateway::Handle,
    machines: flydex_machines::Handle,
    shutdown: &Shutdown,
) {
    let soft = shutdown.soft();
    let revoke = move |entry: RevocationEntry| {
        gateway.revoke(&entry);
        machines.revoke(entry);
    };
    shutdown.spawn(async move {
        let mut log = control.revocations();
        let mut last = 0;
        loop {
            let entry = tokio::select! {
                () = soft.cancelled() => return,
                entry = log.recv() => entry,
            };
            match entry {
                Ok(entry) => {
                    last = entry.number;
                    revoke(entry);
                }
                Err(broadcast::error::RecvError::Lagged(_)) => match control.revocations_after(last).await {
                    Ok(missed) => {
                        for entry in missed {
                            last = entry.number;
                            revoke(entry);
                        }
                    }
                    Err(error) => {
                        let error: &(dyn std::error::Error + 'static) = &error;
                        tracing::error!(error, "revocations were missed");
                    }
                },
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}

#[cfg(test)]
mod tests;
