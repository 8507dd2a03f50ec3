//! The way of the machine's audit records to control: oldest first, again and again until acknowledged.

use std::sync::Arc;
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{AUDIT_UPLOAD_RECORDS_MAX, CREDENTIAL_RETRY_MAX, RECONNECT_WAIT_MIN};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError, AuditUpload, MachineAuth};
use crate::credential::Keyring;
use crate::spool::Spool;

/// Drains the spool.
#[derive(Clone)]
pub struct Uploader {
    /// The control plane.
    pub api: Api,
    /// What the machine proves itself with.
    pub keyring: Arc<Keyring>,
    /// What waits.
    pub spool: Spool,
}

impl Uploader {
    /// Uploads whatever is pending until `stop`; failures are tried again with growing waits.
    pub async fn run(self, stop: CancellationToken) {
        let mut pending = self.spool.watch();
        let mut failures = 0_u32;
        loop {
            let wait = async {
                if failures > 0 {
                    tokio::time::sleep(backoff(failures)).await;
                }
                pending.wait_for(|count| *count > 0).await.is_ok()
            };
            let go_on = tokio::select! {
                biased; // the stop comes first
                () = stop.cancelled() => return,
                go_on = wait => go_on,
            };
            if !go_on {
                return;
            }
            match self.upload().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(error.code = error.code().name(), "audit records not uploaded");
                }
            }
        }
    }

    /// Uploads the oldest records once, and forgets those that control has.
    ///
    /// # Errors
    /// [`ApiError`]; an answer that acknowledges nothing is one too, so that it is not repeated without a pause.
    pub async fn upload(&self) -> Result<(), ApiError> {
        let records = self.spool.pending(AUDIT_UPLOAD_RECORDS_MAX);
        let (record, key) = (self.keyring.record(), self.keyring.key());
        let machine = MachineAuth { machine_id: record.machine_id, key: &key, credential: record.credential.expose() };
        let answer = self.api.upload_audit(&machine, &AuditUpload { records }).await?;
        if answer.acknowledged.is_empty() {
            return Err(ApiError::Malformed);
        }
        let spool = self.spool.clone();
        let forgotten = tokio::task::spawn_blocking(move || spool.acknowledge(&answer.acknowledged)).await;
        match forgotten {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ApiError::Refused(ErrorCode::StateUnusable)),
        }
    }
}

fn backoff(failures: u32) -> Duration {
    RECONNECT_WAIT_MIN.saturating_mul(1 << failures.min(20)).min(CREDENTIAL_RETRY_MAX)
}

#[cfg(test)]
mod tests;
