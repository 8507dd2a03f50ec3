use std::sync::atomic::{AtomicUsize, Ordering};

use flydex_domain::id::{AccountId, MachineId};
use flydex_domain::scope::Principal;
use flydex_proto::v1::internal_server::{Internal, InternalServer};
use hyper_util::rt::TokioIo;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status};

use super::*;

fn machine(number: u8) -> MachineKey {
    let account_id = AccountId::try_from([1; 16].as_slice()).unwrap();
    let machine_id = MachineId::try_from([number; 16].as_slice()).unwrap();
    MachineKey::new(Principal::Machine { account_id, machine_id }.scope(), machine_id)
}

fn linked(counter: u64) -> Linked {
    Linked { counter, at: UnixMillis(counter) }
}

fn taken_in(reports: &Reports) -> Vec<(MachineKey, Linked)> {
    std::mem::take(&mut reports.waiting().links).into_iter().collect()
}

#[test]
fn without_anybody_to_tell_nothing_is_kept() {
    let reports = Reports::default();
    reports.note(machine(1), linked(1));
    assert!(taken_in(&reports).is_empty());
}

#[test]
fn of_one_machine_the_newest_link_is_kept() {
    let reports = Reports::default();
    reports.waiting().on = true;
    for counter in [1, 3, 2] {
        reports.note(machine(1), linked(counter));
    }
    assert_eq!(taken_in(&reports), [(machine(1), linked(3))]);
}

#[test]
fn past_the_bound_everything_is_reported_instead() {
    let reports = Reports::with_bound(1);
    reports.waiting().on = true;
    reports.note(machine(1), linked(1));
    assert!(!reports.waiting().all);
    reports.note(machine(1), linked(2));
    assert!(!reports.waiting().all, "a machine that waits already takes no place");
    reports.note(machine(2), linked(1));
    assert!(reports.waiting().all);
    assert_eq!(taken_in(&reports), [(machine(1), linked(2))]);
}

/// A control process in memory that counts what it takes, and the way to it; or one that answers with an error.
fn control(taken: Option<Arc<AtomicUsize>>) -> Channel {
    struct Control(Option<Arc<AtomicUsize>>);

    #[tonic::async_trait]
    impl Internal for Control {
        type FollowStream = tokio_stream::Empty<Result<v1::Followed, Status>>;

        async fn follow(&self, _: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
            Err(Status::unimplemented("not here"))
        }

        async fn report_links(
            &self,
            report: Request<v1::ReportLinksRequest>,
        ) -> Result<Response<v1::ReportLinksResponse>, Status> {
            let taken = self.0.as_ref().ok_or_else(|| Status::unavailable("no database"))?;
            taken.fetch_add(report.get_ref().links.len(), Ordering::Relaxed);
            Ok(Response::new(v1::ReportLinksResponse {}))
        }
    }

    let (near, far) = tokio::io::duplex(1 << 16);
    let server = Server::builder().add_service(InternalServer::new(Control(taken)));
    tokio::spawn(server.serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(far))));
    let mut near = Some(near);
    Endpoint::from_static("http://control.invalid").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let near = near.take();
        async move { near.map(TokioIo::new).ok_or_else(|| std::io::Error::other("one connection only")) }
    }))
}

#[tokio::test]
async fn a_control_process_that_takes_nothing_is_passed_over_and_one_that_does_is_stayed_with() {
    let taken = Arc::new(AtomicUsize::new(0));
    let mut processes = ControlProcesses::new(vec![control(None), control(Some(Arc::clone(&taken)))], 0);
    let report = || v1::ReportLinksRequest { region: "home".to_owned(), links: vec![wire(machine(1), linked(1))] };
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(processes.take(report()).await);
    }
    assert_eq!(answers, [false, true, true]);
    assert_eq!(taken.load(Ordering::Relaxed), 2);
    assert!(!ControlProcesses::new(Vec::new(), 7).take(report()).await, "without any nothing is taken");
}
