//! The loop of a life: orders before news, news before what time brings.

use std::path::Path;
use std::time::Instant;

use flydex_domain::limits::CODEX_DAEMON_LOOK_INTERVAL;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::api::CodexEvent;
use super::super::order::Order;
use super::super::rpc::Inbound;
use super::super::socket;
use super::Life;

/// Why a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codex) enum End {
    /// The connector stops.
    Stopped,
    /// The connection ended.
    Lost,
    /// Nothing runs, and the shared daemon is there now.
    DaemonFound,
}

/// Reads Codex until the connection ends, the connector stops, or a better Codex is found.
pub(in crate::codex) async fn run(
    life: &mut Life,
    inbound: &mut mpsc::Receiver<Inbound>,
    orders: &mut mpsc::Receiver<Order>,
    events: &mpsc::Sender<CodexEvent>,
    stopped: &CancellationToken,
    daemon: Option<&Path>,
) -> End {
    life.begin();
    let end = loop {
        for event in life.take_told() {
            // Without a core there is nobody to tell; its going stops the connector.
            if stopped.run_until_cancelled(events.send(event)).await.is_none() {
                return End::Stopped;
            }
        }
        if life.is_broken() {
            break End::Lost;
        }
        let deadline = life.deadline();
        // Answers of people go before news, news before what time brings.
        tokio::select! {
            biased;
            () = stopped.cancelled() => return End::Stopped,
            order = orders.recv() => match order {
                Some(order) => life.order(order),
                None => return End::Stopped,
            },
            message = inbound.recv() => match message {
                Some(message) => life.message(message),
                None => break End::Lost,
            },
            () = until(deadline) => life.due(),
            () = found(daemon), if life.is_quiet() => break End::DaemonFound,
        }
    };
    life.end();
    for event in life.take_told() {
        if stopped.run_until_cancelled(events.send(event)).await.is_none() {
            return End::Stopped;
        }
    }
    end
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for the shared daemon, where it is wanted.
async fn found(daemon: Option<&Path>) {
    let Some(path) = daemon else { return std::future::pending().await };
    loop {
        tokio::time::sleep(CODEX_DAEMON_LOOK_INTERVAL).await;
        if socket::attach(path).await.is_ok() {
            return;
        }
    }
}
