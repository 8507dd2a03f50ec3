//! How long a connection lives after its welcome: until it is ended, falls silent, or what it was opened with ends.
//!
//! Before the gateway drains, and before the token of a connection ends, the peer is told to open another one; this
//! one serves until then. A connection that opens so late that it would be told at once is not told: its peer had
//! no newer token, and telling it again would only make it come back with the same.
//!
//! When control withdraws the key that signed its token, a connection ends at its next frame, which is not read.
//!
//! While the region drains a link is told to go to another region, and served for as long as it stays.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits;
use flydex_domain::region::DRAIN_HINT;
use flydex_domain::time::UnixMillis;
use flydex_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Gateway;
use crate::drain;
use crate::ending::{End, Ending};
use crate::frame::{FrameReader, Inbound};

/// How long the token that opened a connection holds.
pub(crate) struct Term {
    pub(crate) holds_until: UnixMillis,
    /// How long before that the peer is told.
    pub(crate) notice: Duration,
    /// The names of control's keys that it was opened by: whoever was told that one is withdrawn serves it no more.
    pub(crate) signed_by: Vec<String>,
    /// What the connection ends with.
    pub(crate) code: ErrorCode,
}

/// What happens next on a connection that lives.
pub(crate) enum Turn {
    /// The peer gave a sign.
    Inbound(Inbound),
    /// The peer is to be told this.
    Tell(v1::GoAway),
}

/// The life of one connection.
pub(crate) struct Life {
    ending: Ending,
    hard: CancellationToken,
    soft: CancellationToken,
    gateway: Arc<Gateway>,
    told_of_drain: bool,
    signed_by: Vec<String>,
    /// Of a link: sessions follow their machines.
    region: Option<RegionDrain>,
    code: ErrorCode,
    over: Wait,
    notice: Option<(Wait, Duration)>,
    heard: Instant,
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Life {
    /// Begins now.
    pub(crate) fn new(gateway: &Arc<Gateway>, ending: &Ending, term: &Term) -> Self {
        let wait = |until: UnixMillis| -> Wait {
            let clock = gateway.clock.clone();
            Box::pin(async move { clock.until(until.0).await })
        };
        let notice_at = term.holds_until.minus(term.notice);
        Self {
            ending: ending.clone(),
            hard: gateway.shutdown.hard(),
            soft: gateway.shutdown.soft(),
            gateway: gateway.clone(),
            told_of_drain: false,
            signed_by: term.signed_by.clone(),
            region: None,
            code: term.code,
            over: wait(term.holds_until),
            notice: (gateway.now() < notice_at).then(|| (wait(notice_at), term.notice)),
            heard: Instant::now(),
        }
    }

    /// Of a link, which leaves a region that drains.
    pub(crate) fn of_link(self) -> Self {
        let drain = self.gateway.region_drain.subscribe();
        Self { region: Some(RegionDrain { drain, told: false }), ..self }
    }

    /// What happens next, or how the connection ends. Safe to cancel.
    pub(crate) async fn turn(&mut self, reader: &mut impl FrameReader) -> Result<Turn, End> {
        // Ends come first, so that a flood of frames does not delay them; silence is judged after reading.
        let inbound = tokio::select! {
            biased;
            end = self.ending.begun() => return Err(end),
            () = self.hard.cancelled() => return Err(ErrorCode::GoingAway.into()),
            () = &mut self.over => return Err(self.code.into()),
            () = self.soft.cancelled(), if !self.told_of_drain => {
                self.told_of_drain = true;
                let leaving = drain::leaving(self.gateway.drain_spread(), self.region.is_some());
                return Ok(Turn::Tell(go_away(leaving, self.gateway.config.drain_for, "")));
            }
            spread = region_drains(&mut self.region) => {
                let leaving = Duration::ZERO..=spread;
                return Ok(Turn::Tell(go_away(leaving, self.gateway.config.drain_for, DRAIN_HINT)));
            }
            try_for = noticed(&mut self.notice) => {
                return Ok(Turn::Tell(go_away(Duration::ZERO..=limits::NOTICE_SPREAD, try_for, "")));
            }
            inbound = reader.next() => inbound?,
            () = tokio::time::sleep_until(self.heard + limits::PEER_SILENCE_MAX) => {
                return Err(ErrorCode::PeerTimeout.into());
            }
        };
        // A peer that lives pings, so that this is looked at often enough for one that only listens.
        if !self.signed_by.iter().all(|key_id| self.gateway.verifier.holds(key_id)) {
            return Err(self.code.into());
        }
        self.heard = Instant::now();
        Ok(Turn::Inbound(inbound))
    }
}

/// Waits for the notice, once.
async fn noticed(notice: &mut Option<(Wait, Duration)>) -> Duration {
    let Some((wait, try_for)) = notice else { return std::future::pending().await };
    wait.await;
    let try_for = *try_for;
    *notice = None;
    try_for
}

/// What a link knows of the region's drain.
struct RegionDrain {
    drain: watch::Receiver<Option<Duration>>,
    told: bool,
}

/// Waits until the region drains and the link was not told yet.
async fn region_drains(region: &mut Option<RegionDrain>) -> Duration {
    let Some(RegionDrain { drain, told }) = region else { return std::future::pending().await };
    loop {
        let spread = *drain.borrow_and_update();
        match spread {
            Some(spread) if !*told => {
                *told = true;
                return spread;
            }
            Some(_) => {}
            None => *told = false,
        }
        if drain.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Come back at some time of these; until then this connection serves.
fn go_away(leaving: RangeInclusive<Duration>, try_for: Duration, hint: &str) -> v1::GoAway {
    v1::GoAway {
        reconnect_in_ms: rand::random_range(millis(*leaving.start())..=millis(*leaving.end())),
        try_for_ms: millis(try_for),
        hint: hint.to_owned(),
    }
}

pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
