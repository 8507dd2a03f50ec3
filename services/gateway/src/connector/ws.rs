//! `GET /v1/link`: from an HTTP request of a connector to a link.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use flydex_domain::error::ErrorCode;
use flydex_proto::v1;
use flydex_runtime::client::ClientAddress;
use flydex_runtime::tls::ChannelBinding;
use futures_util::StreamExt as _;

use crate::Gateway;
use crate::admission::Handshake;
use crate::auth::Binding;
use crate::connector::link;
use crate::ending::{End, Ending};
use crate::metrics::Peer;
use crate::outbox::{Framing, Outbox};
use crate::socket::{self, MessageReader};

/// Upgrades a request of a connector; a page of any origin is refused, since connectors have none.
pub(crate) async fn upgrade(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    client: Option<ClientAddress>,
    binding: Option<Extension<ChannelBinding>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else { return socket::refuse(ErrorCode::BadRequest) };
    match admit(&gateway, &headers, client) {
        Err(code) => {
            gateway.metrics.ended(Peer::WebSocketLink, code.into());
            socket::refuse(code)
        }
        Ok(handshake) => match socket::prepare(upgrade, &headers) {
            Err(response) => *response,
            Ok(upgrade) => {
                let exporter = binding.and_then(|Extension(ChannelBinding(exporter))| exporter);
                upgrade.on_upgrade(move |socket| async move {
                    let shutdown = gateway.shutdown.clone();
                    shutdown.spawn(run(gateway, socket, Binding { exporter, required: false }, handshake));
                })
            }
        },
    }
}

fn admit(gateway: &Gateway, headers: &HeaderMap, client: Option<ClientAddress>) -> Result<Handshake, ErrorCode> {
    if headers.contains_key(header::ORIGIN) {
        return Err(ErrorCode::OriginRefused);
    }
    gateway.admission.handshake(client.map(|ClientAddress(address)| address))
}

async fn run(gateway: Arc<Gateway>, socket: WebSocket, binding: Binding, handshake: Handshake) {
    let outbox = Arc::new(Outbox::new(Framing::Message));
    let ending = Ending::default();
    let (sink, stream) = socket.split();
    let mut reader = MessageReader::new(stream);
    let carrier =
        link::Carrier { transport: v1::Transport::Websocket, binding, outbox: outbox.clone(), ending: ending.clone() };
    let serve = async {
        let end = Box::pin(link::run(&gateway, &mut reader, &carrier, handshake)).await;
        gateway.metrics.ended(Peer::WebSocketLink, end);
        link::finish(&outbox, end);
        end
    };
    let write = socket::write(sink, outbox.clone(), ending.clone(), None);
    let (end, ()) = tokio::join!(serve, write);
    if end != End::Gone {
        reader.linger().await;
    }
}
