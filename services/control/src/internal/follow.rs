//! One follower's stream: the keys, whether its region drains, then the log up to the head, then a heartbeat; and again
//! whenever the head is seen.

use flydex_domain::error::ErrorCode;
use flydex_proto::follow::wire_token_keys;
use flydex_proto::v1;
use flydex_proto::v1::followed::Kind;
use tokio::sync::mpsc;
use tonic::Status;

use super::status;
use crate::service::Control;

type Sender = mpsc::Sender<Result<v1::Followed, Status>>;

/// Sends until the follower is gone or the database does not answer.
pub(super) async fn run(control: &Control, region: &str, after: u64, sender: &Sender) {
    if let Err(Ended::Store) = follow(control, region, after, sender).await {
        // The follower goes elsewhere, or comes again.
        let _ = sender.send(Err(status(ErrorCode::StoreUnavailable))).await;
    }
}

enum Ended {
    /// Nobody listens any more.
    Gone,
    /// The log cannot be read.
    Store,
}

async fn follow(control: &Control, region: &str, after: u64, sender: &Sender) -> Result<(), Ended> {
    let mut head = control.head.subscribe();
    let mut sent_keys = Vec::new();
    let mut sent = if after == 0 { control.head.oldest() } else { after };
    let (mut read, mut drained) = (0, None);
    loop {
        let keys = control.tokens.verifier.keys();
        if keys != sent_keys {
            send(sender, Kind::Keys(wire_token_keys(&keys))).await?;
            sent_keys = keys;
        }
        let seen = *head.borrow_and_update();
        if let Some(seen) = seen {
            let drains = control.head.drains(region);
            if drained != Some(drains) {
                send(sender, Kind::RegionDrain(v1::RegionDrain { drains })).await?;
                drained = Some(drains);
            }
            while sent < seen.number {
                let page = control.revocations_after(sent).await.map_err(|_| Ended::Store)?;
                for entry in &page {
                    control.metrics.revocation_sent(&entry.revocation);
                    send(sender, Kind::Revocation(entry.into())).await?;
                    (sent, read) = (entry.number, entry.number);
                }
                if page.is_empty() {
                    return Err(Ended::Store);
                }
            }
            // The page may reach past what was seen; and a follower that knows of more than there is must hear it.
            let heartbeat = v1::Heartbeat { head_number: read.max(seen.number), at_ms: seen.at.0 };
            send(sender, Kind::Heartbeat(heartbeat)).await?;
        }
        head.changed().await.map_err(|_| Ended::Gone)?;
    }
}

async fn send(sender: &Sender, kind: Kind) -> Result<(), Ended> {
    sender.send(Ok(v1::Followed { kind: Some(kind) })).await.map_err(|_| Ended::Gone)
}
