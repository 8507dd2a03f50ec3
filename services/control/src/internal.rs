//! What gateways and nodes ask of the control plane, over mTLS: keys and revocations, and where machines are linked.
//!
//! One task finds the head of the log, and every follower reads on to it by itself from the database: a slow follower
//! holds up nobody, and what it was sent has no hole. A heartbeat says that the follower has all there was at that time;
//! there is none while the database does not answer, so that nobody takes silence for news.

mod follow;
mod head;
mod links;

use std::sync::Arc;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{FOLLOW_QUEUE_MESSAGES, FOLLOWERS_MAX, LINK_REPORTS_MAX};
use flydex_proto::v1::internal_server::Internal;
use flydex_proto::v1::{FollowRequest, Followed, ReportLinksRequest, ReportLinksResponse};
use flydex_runtime::mutual::{PeerIdentity, Role};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

pub(crate) use self::head::Head;
pub(crate) use self::links::Links;
use crate::service::App;

/// The service, as tonic serves it.
pub(crate) struct InternalApi {
    control: App,
    followers: Arc<Semaphore>,
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
        Self { control, followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)) }
    }
}

#[tonic::async_trait]
impl Internal for InternalApi {
    type FollowStream = ReceiverStream<Result<Followed, Status>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        caller(&request)?;
        let place = Arc::clone(&self.followers).try_acquire_owned().map_err(|_| status(ErrorCode::Overloaded))?;
        let (sender, receiver) = mpsc::channel(FOLLOW_QUEUE_MESSAGES);
        let (control, after) = (Arc::clone(&self.control), request.get_ref().after_number);
        self.control.shutdown.spawn(async move {
            let _place = place;
            let stopped = control.shutdown.soft();
            tokio::select! {
                () = stopped.cancelled() => {}
                () = sender.closed() => {}
                () = follow::run(&control, after, &sender) => {}
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
        if report.region != peer.region {
            return Err(status(ErrorCode::Forbidden));
        }
        if report.links.len() > LINK_REPORTS_MAX {
            return Err(status(ErrorCode::BadRequest));
        }
        let lines = report.links.iter().map(links::Line::try_from).collect::<Result<Vec<_>, _>>();
        let lines = lines.map_err(|_| status(ErrorCode::BadRequest))?;
        self.control.links.report(&report.region, lines).map_err(status)?;
        Ok(Response::new(ReportLinksResponse {}))
    }
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
