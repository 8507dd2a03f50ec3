//! What gateways and nodes hear of control: the keys that tokens verify with, every revocation in its order, and whether
//! their region drains.
//!
//! One stream to one control process is kept up; another is asked when it breaks, falls silent or leaves something out.
//! Every number of the log is applied in its turn, and what was missed is read again. Until there is a first heartbeat,
//! and an hour after the last, the verifier is stale: nobody new is let in, and what is open goes on.

mod log;

use std::sync::Arc;
use std::time::Duration;

use flydex_domain::limits::{
    FOLLOW_RETRY_WAIT_MAX, FOLLOW_RETRY_WAIT_MIN, FOLLOW_SILENCE_MAX, REVOCATION_STALENESS_MAX,
};
use flydex_domain::revocation::RevocationEntry;
use flydex_domain::token::TokenVerifier;
use flydex_proto::v1::FollowRequest;
use flydex_proto::v1::internal_client::InternalClient;
use flydex_runtime::lifecycle::Shutdown;
use opentelemetry::metrics::{Counter, ObservableGauge};
use opentelemetry::{KeyValue, global};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;

use self::log::{Log, Step};

/// Why a stream ended; the reasons are labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Control does not answer, or ended the stream.
    Unreachable,
    /// Nothing came for too long.
    Silent,
    /// What came is not what it should be.
    Broken(log::Broken),
}

/// What is heard besides the keys.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// The next entry of the revocation log.
    Revoked(RevocationEntry),
    /// Whether the region drains.
    RegionDrains(bool),
}

/// Keeps up with the control plane.
pub struct Follower {
    channels: Vec<Channel>,
    verifier: Arc<TokenVerifier>,
    apply: Box<dyn Fn(News) + Send + Sync>,
    /// When everything there was had been heard.
    complete: watch::Sender<Option<Instant>>,
    breaks: Counter<u64>,
    /// Kept, since the gauge is read as long as it lives.
    _age: ObservableGauge<f64>,
}

impl Follower {
    /// Follows the control processes behind `channels`, beginning with any. The verifier should begin
    /// [unknowing](TokenVerifier::unknowing); it stops being stale when all is known. It ends with the soft stop of
    /// `shutdown`: that of what lies under the services, since who is revoked must be cut while they drain, too.
    pub fn start(
        channels: Vec<Channel>,
        verifier: Arc<TokenVerifier>,
        apply: impl Fn(News) + Send + Sync + 'static,
        shutdown: &Shutdown,
    ) {
        let (complete, completed) = watch::channel(None);
        let meter = global::meter("flydex-server");
        let observed = completed.clone();
        let follower = Self {
            channels,
            verifier: Arc::clone(&verifier),
            apply: Box::new(apply),
            complete,
            breaks: meter
                .u64_counter("flydex_follow_breaks")
                .with_description("Streams of revocations from control that ended, by reason")
                .build(),
            _age: meter
                .f64_observable_gauge("flydex_revocations_age_seconds")
                .with_description("Time since every revocation that control knew of was known here")
                .with_callback(move |observer| {
                    if let Some(at) = *observed.borrow() {
                        observer.observe(at.elapsed().as_secs_f64(), &[]);
                    }
                })
                .build(),
        };
        let stopped = shutdown.soft();
        shutdown.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = follower.run() => {}
                () = judge(completed, &verifier) => {}
            }
        });
    }

    async fn run(&self) {
        if self.channels.is_empty() {
            return std::future::pending().await;
        }
        let mut log = Log::default();
        let mut wait = FOLLOW_RETRY_WAIT_MIN;
        let mut next = rand::random_range(0..self.channels.len());
        loop {
            let before = *self.complete.borrow();
            let ended = self.follow(&self.channels[next], &mut log).await;
            self.breaks.add(1, &[KeyValue::new("reason", ended.name())]);
            if *self.complete.borrow() != before {
                tracing::warn!(reason = ended.name(), "control is not followed any more; asking again");
                wait = FOLLOW_RETRY_WAIT_MIN;
            }
            next = (next + 1) % self.channels.len();
            tokio::time::sleep(spread(wait)).await;
            wait = (wait * 2).min(FOLLOW_RETRY_WAIT_MAX);
        }
    }

    /// Reads one stream to its end.
    async fn follow(&self, channel: &Channel, log: &mut Log) -> Ended {
        log.begin_stream();
        let mut client = InternalClient::new(channel.clone());
        let opening = client.follow(FollowRequest { after_number: log.last() });
        let mut stream = match tokio::time::timeout(FOLLOW_SILENCE_MAX, opening).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(_)) => return Ended::Unreachable,
            Err(_) => return Ended::Silent,
        };
        loop {
            let message = match tokio::time::timeout(FOLLOW_SILENCE_MAX, stream.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None) | Err(_)) => return Ended::Unreachable,
                Err(_) => return Ended::Silent,
            };
            match log.take(message) {
                Ok(Step::Keys(keys)) => self.verifier.replace(keys),
                Ok(Step::Apply(entry)) => (self.apply)(News::Revoked(entry)),
                Ok(Step::Drain(drains)) => (self.apply)(News::RegionDrains(drains)),
                Ok(Step::Complete) => {
                    self.complete.send_replace(Some(Instant::now()));
                }
                Ok(Step::Nothing) => {}
                Err(broken) => return Ended::Broken(broken),
            }
        }
    }
}

impl Ended {
    const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Broken(log::Broken::Malformed) => "malformed",
            Self::Broken(log::Broken::Gap) => "gap",
            Self::Broken(log::Broken::Rewound) => "rewound",
        }
    }
}

/// Says when knowledge is whole, and when it is too old. Nobody else does.
async fn judge(mut completed: watch::Receiver<Option<Instant>>, verifier: &TokenVerifier) {
    loop {
        let at = *completed.borrow_and_update();
        if let Some(at) = at {
            if verifier.is_stale() {
                tracing::info!("keys and revocations are known");
                verifier.set_stale(false);
            }
            tokio::select! {
                changed = completed.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(at + REVOCATION_STALENESS_MAX) => {
                    tracing::error!("control was not heard of for too long; nobody new is let in");
                    verifier.set_stale(true);
                }
            }
        }
        if completed.changed().await.is_err() {
            return;
        }
    }
}

/// Between a half and the whole of a wait, so that those who lost control at once do not return at once.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

#[cfg(test)]
mod tests;
