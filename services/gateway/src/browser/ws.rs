//! `GET /v1/session`: from an HTTP request of the web app to a session.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits;
use flydex_proto::v1;
use flydex_runtime::client::ClientAddress;
use futures_util::StreamExt as _;

use crate::Gateway;
use crate::admission::Handshake;
use crate::browser::session;
use crate::ending::{End, Ending, Refusal};
use crate::metrics::Peer;
use crate::outbox::{Framing, Outbox};
use crate::socket::{self, MessageReader};

/// Upgrades a request of a page of our own origin.
pub(crate) async fn upgrade(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    client: Option<ClientAddress>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else { return socket::refuse(ErrorCode::BadRequest) };
    match admit(&gateway, &headers, client) {
        Err(code) => {
            gateway.metrics.ended(Peer::Session, code.into());
            socket::refuse(code)
        }
        Ok(handshake) => match socket::prepare(upgrade, &headers) {
            Err(response) => *response,
            Ok(upgrade) => upgrade.on_upgrade(|socket| async move {
                let shutdown = gateway.shutdown.clone();
                shutdown.spawn(run(gateway, socket, handshake));
            }),
        },
    }
}

fn admit(gateway: &Gateway, headers: &HeaderMap, client: Option<ClientAddress>) -> Result<Handshake, ErrorCode> {
    let origin = headers.get(header::ORIGIN).map(axum::http::HeaderValue::as_bytes);
    if origin != Some(gateway.config.public_origin.as_bytes()) {
        return Err(ErrorCode::OriginRefused);
    }
    gateway.admission.handshake(client.map(|ClientAddress(address)| address))
}

async fn run(gateway: Arc<Gateway>, socket: WebSocket, handshake: Handshake) {
    let outbox = Arc::new(Outbox::new(Framing::Message));
    let ending = Ending::default();
    let (sink, stream) = socket.split();
    let mut reader = MessageReader::new(stream);
    let serve = async {
        let end = Box::pin(session::run(&gateway, &mut reader, &outbox, &ending, handshake)).await;
        gateway.metrics.ended(Peer::Session, end);
        finish(&outbox, end);
        end
    };
    let write = socket::write(sink, outbox.clone(), ending.clone(), Some(limits::PING_INTERVAL));
    let (end, ()) = tokio::join!(serve, write);
    if end != End::Gone {
        reader.linger().await;
    }
}

fn finish(outbox: &Outbox, end: End) {
    match end {
        End::Gone => outbox.finish(None::<&v1::SessionDown>, ErrorCode::GoingAway.close_code()),
        End::Refused(Refusal { code, retry_after_ms, link_counter }) => {
            let end = v1::SessionEnd { code: code.number().into(), retry_after_ms, link_counter };
            let last = v1::SessionDown { kind: Some(v1::session_down::Kind::End(end)) };
            outbox.finish(Some(&last), code.close_code());
        }
    }
}
