//! A link that was welcomed: frames to the core, signs of life, and its end.

use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_proto::v1;
use flydex_proto::v1::link_down::Kind as Down;
use flydex_proto::v1::link_up::Kind as Up;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::hello::Pace;
use super::wire::{Incoming, Wire};
use crate::core::{LinkEvent, LinkNumber};

/// Why a link ended.
pub(super) struct Ended {
    pub(super) code: ErrorCode,
    pub(super) retry_after: Duration,
    /// How far a newer link has counted; 0 when nobody says so.
    pub(super) link_counter: u64,
}

/// What a link tells its supervisor while it serves.
pub(super) struct Signals {
    /// The gateway wants the machine to open another one.
    pub(super) go_away: mpsc::Sender<v1::GoAway>,
    /// An owner speaks over it.
    pub(super) owned: watch::Sender<bool>,
}

impl From<ErrorCode> for Ended {
    fn from(code: ErrorCode) -> Self {
        Self { code, retry_after: Duration::ZERO, link_counter: 0 }
    }
}

pub(super) async fn serve(
    mut wire: Wire,
    pace: Pace,
    link: LinkNumber,
    events: mpsc::Sender<LinkEvent>,
    signals: Signals,
) -> Ended {
    let up = LinkEvent::Up { link, outbox: wire.outbox.clone(), channel: wire.channel() };
    if events.send(up).await.is_err() {
        return ErrorCode::GoingAway.into();
    }
    let ended = carry(&mut wire, pace, link, &events, &signals).await;
    let code = wire.outbox.closed().unwrap_or(ended.code);
    wire.outbox.close(code);
    tracing::info!(error.code = code.name(), "link ended");
    // The core is gone only when the process ends.
    let _ = events.send(LinkEvent::Down { link, code: Some(code) }).await;
    Ended { code, ..ended }
}

async fn carry(
    wire: &mut Wire,
    pace: Pace,
    link: LinkNumber,
    events: &mpsc::Sender<LinkEvent>,
    signals: &Signals,
) -> Ended {
    let mut pings = tokio::time::interval(pace.ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard_at = Instant::now();
    let mut nonce = 0;
    loop {
        let incoming = tokio::select! {
            incoming = wire.incoming.recv() => incoming,
            _ = pings.tick() => {
                nonce += 1;
                if wire.outbox.send(&up(Up::Ping(v1::Ping { nonce }))).is_err() {
                    return ErrorCode::SlowConsumer.into();
                }
                continue;
            }
            () = tokio::time::sleep_until(heard_at + pace.silence_max) => return ErrorCode::PeerTimeout.into(),
        };
        heard_at = Instant::now();
        let message = match incoming {
            Some(Incoming::Message(message)) => message,
            Some(Incoming::Alive) => continue,
            Some(Incoming::End(code)) => return code.into(),
            None => return ErrorCode::PeerTimeout.into(),
        };
        match message.kind {
            Some(Down::Frame(frame)) => {
                signals.owned.send_if_modified(|owned| !std::mem::replace(owned, true));
                let taken = events.send(LinkEvent::Frame { link, frame }).await;
                if taken.is_err() {
                    return ErrorCode::GoingAway.into();
                }
            }
            Some(Down::Ping(ping)) => {
                let pong = v1::Pong { nonce: ping.nonce, server_time_ms: 0 };
                let answered = wire.outbox.send(&up(Up::Pong(pong)));
                if answered.is_err() {
                    return ErrorCode::SlowConsumer.into();
                }
            }
            Some(Down::Pong(_)) => {}
            Some(Down::GoAway(away)) => {
                // Nobody listens when another link has taken over already; once is enough.
                let _ = signals.go_away.try_send(away);
            }
            Some(Down::End(end)) => {
                let code = ErrorCode::from_number(end.code).unwrap_or(ErrorCode::Internal);
                let retry_after = Duration::from_millis(end.retry_after_ms.into());
                return Ended { code, retry_after, link_counter: end.link_counter };
            }
            Some(Down::Challenge(_) | Down::Welcome(_)) => return ErrorCode::UnexpectedFrame.into(),
            // A kind that a newer gateway knows.
            None => {}
        }
    }
}

fn up(kind: Up) -> v1::LinkUp {
    v1::LinkUp { kind: Some(kind) }
}
