//! A link in another region, opened beside the one that serves.

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{HANDSHAKE_TIMEOUT, REGION_MOVE_TIMEOUT};

use super::Running;
use super::error::DialError;
use super::open::Dialler;
use crate::outbox::Outbox;
use crate::paired::RegionEndpoint;

/// Opens a link in a region and waits until an owner speaks over it.
pub(super) async fn arrive(dialler: &Dialler, to: &RegionEndpoint) -> Result<Running, DialError> {
    let arriving = async {
        let mut link = dialler.open(to, HANDSHAKE_TIMEOUT).await?;
        let guard = CloseUnlessDone { outbox: link.outbox.clone(), done: false };
        link.owned.wait_for(|owned| *owned).await.map_err(|_| DialError::Unowned)?;
        guard.done();
        Ok(link)
    };
    tokio::time::timeout(REGION_MOVE_TIMEOUT, arriving).await.unwrap_or(Err(DialError::Timeout))
}

/// Ends a link that nobody will watch over.
struct CloseUnlessDone {
    outbox: Outbox,
    done: bool,
}

impl CloseUnlessDone {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for CloseUnlessDone {
    fn drop(&mut self) {
        if !self.done {
            self.outbox.close(ErrorCode::GoingAway);
        }
    }
}
