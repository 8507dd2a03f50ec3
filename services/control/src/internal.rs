//! What gateways and nodes ask of the control plane, over mTLS: keys and revocations, and where machines are linked.
//!
//! One task finds the head of the log, and every follower reads on to it by itself from the database: a slow follower
//! holds up nobody, and what it was sent has no hole. A heartbeat says that the follower has all there was at that time;
//! there is none while the database does not answer, so that nobody takes silence for news.

mod follow;
mod head;

use std::sync::Arc;

use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::limits::{FOLLOW_QUEUE_MESSAGES, FOLLOWERS_MAX, LINK_REPORTS_AT_ONCE, LINK_REPORTS_MAX};
use flydex_domain::time::UnixMillis;
use flydex_proto::convert::Malformed;
use flydex_proto::v1;
use flydex_proto::v1::internal_server::Internal;
use flydex_proto::v1::{FollowRequest, Followed, ReportLinksRequest, ReportLinksResponse};
use flydex_runtime::mutual::{PeerIdentity, Role};
use flydex_store::StoreError;
use flydex_store::sql::LinkReport;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

pub(crate) use self::head::Head;
use crate::service::App;

/// The service, as tonic serves it.
pub(crate) struct InternalApi {
    control: App,
    followers: Arc<Semaphore>,
    /// Reports that may be written at once: people's requests need the database too.
    reports: Arc<Semaphore>,
}

impl InternalApi {
    /// Begins to look for the head of the log; once in a process.
    pub(crate) fn start(control: App) -> Self {
        let stopped = control.shutdown.soft();
        let looking = Arc::clone(&control);
        control.shutdown.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = head::follow(&looking) => {}
            }
        });
        let (followers, reports) = (Semaphore::new(FOLLOWERS_MAX), Semaphore::new(LINK_REPORTS_AT_ONCE));
        Self { control, followers: Arc::new(followers), reports: Arc::new(reports) }
    }
}

#[tonic::async_trait]
impl Internal for InternalApi {
    type FollowStream = ReceiverStream<Result<Followed, Status>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let region = caller(&request)?.region;
        let place = Arc::clone(&self.followers).try_acquire_owned().map_err(|_| status(ErrorCode::Overloaded))?;
        let (sender, receiver) = mpsc::channel(FOLLOW_QUEUE_MESSAGES);
        let (control, after) = (Arc::clone(&self.control), request.get_ref().after_number);
        self.control.shutdown.spawn(async move {
            let _place = place;
            let stopped = control.shutdown.soft();
            tokio::select! {
                () = stopped.cancelled() => {}
                () = sender.closed() => {}
                () = follow::run(&control, &region, after, &sender) => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn report_links(
        &self,
        request: Request<ReportLinksRequest>,
    ) -> Result<Response<ReportLinksResponse>, Status> {
        let peer = caller(&request)?;
        let report = request.into_inner();
        // Nodes have links, and each speaks for its own region.
        if peer.role != Role::Machines || report.region != peer.region {
            return Err(status(ErrorCode::Forbidden));
        }
        if report.links.len() > LINK_REPORTS_MAX {
            return Err(status(ErrorCode::BadRequest));
        }
        let links = report.links.iter().map(link).collect::<Result<Vec<_>, _>>();
        let links = links.map_err(|_| status(ErrorCode::BadRequest))?;
        let _place = self.reports.acquire().await.map_err(|_| status(ErrorCode::Overloaded))?;
        self.write(&report.region, links).await.map_err(|error| {
            tracing::warn!(error.code = ErrorCode::StoreUnavailable.name(), error = %error, "link report not taken");
            status(ErrorCode::StoreUnavailable)
        })?;
        Ok(Response::new(ReportLinksResponse {}))
    }
}

impl InternalApi {
    async fn write(&self, region: &str, links: Vec<LinkReport>) -> Result<(), StoreError> {
        let mut tx = self.control.store.write().await?;
        let moved = tx.report_links(region, links, self.control.now()).await?;
        tx.commit().await?;
        self.control.metrics.machines_moved(moved);
        Ok(())
    }
}

fn link(report: &v1::LinkReport) -> Result<LinkReport, Malformed> {
    Ok(LinkReport {
        account_id: AccountId::try_from(report.account_id.as_ref())?,
        machine_id: MachineId::try_from(report.machine_id.as_ref())?,
        link_counter: report.link_counter,
        linked_at: UnixMillis(report.at_ms),
    })
}

/// Who asks; only gateways and nodes may.
fn caller<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    let peer = request.extensions().get::<PeerIdentity>().ok_or_else(|| status(ErrorCode::Unauthenticated))?;
    match peer.role {
        Role::Gateway | Role::Machines => Ok(peer.clone()),
        Role::Control | Role::Admin => Err(status(ErrorCode::Forbidden)),
    }
}

fn status(code: ErrorCode) -> Status {
    Status::new(Code::from_i32(code.grpc_code()), code.name())
}
