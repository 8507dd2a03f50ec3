//! The floor of a round trip: a bare WebSocket forwarder between the same two ends, with nothing checked.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, connect_async};

/// Starts an echo and a forwarder in front of it, each with its own sockets, and returns the forwarder's address.
///
/// # Errors
/// When no port can be had.
pub async fn start() -> anyhow::Result<SocketAddr> {
    let echo = TcpListener::bind("127.0.0.1:0").await?;
    let echo_address = echo.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = echo.accept().await {
            tokio::spawn(echo_messages(stream));
        }
    });
    let forwarder = TcpListener::bind("127.0.0.1:0").await?;
    let address = forwarder.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = forwarder.accept().await {
            tokio::spawn(forward_messages(stream, echo_address));
        }
    });
    Ok(address)
}

async fn echo_messages(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(mut socket) = accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn forward_messages(stream: TcpStream, echo: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let Ok(near) = accept_async(stream).await else { return };
    let Ok((far, _)) = connect_async(format!("ws://{echo}")).await else { return };
    let (mut near_tx, mut near_rx) = near.split();
    let (mut far_tx, mut far_rx) = far.split();
    let out = async {
        while let Some(Ok(message)) = near_rx.next().await {
            if message.is_binary() && far_tx.send(message).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        while let Some(Ok(Message::Binary(bytes))) = far_rx.next().await {
            if near_tx.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = back => {}
    }
}
