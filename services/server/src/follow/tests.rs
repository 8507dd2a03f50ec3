use std::sync::Mutex;

use flydex_domain::id::{AccountId, UserId};
use flydex_domain::revocation::Revocation;
use flydex_domain::time::UnixMillis;
use flydex_proto::follow::wire_token_keys;
use flydex_proto::v1;
use flydex_proto::v1::followed::Kind;
use flydex_proto::v1::internal_server::{Internal, InternalServer};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status};

use super::*;

/// A control process of the test: it hands every stream that is opened to the test.
struct Control {
    opened: mpsc::Sender<Opened>,
}

struct Opened {
    after: u64,
    messages: mpsc::Sender<Result<v1::Followed, Status>>,
}

#[tonic::async_trait]
impl Internal for Control {
    type FollowStream = ReceiverStream<Result<v1::Followed, Status>>;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let (messages, receiver) = mpsc::channel(16);
        let after = request.get_ref().after_number;
        self.opened.send(Opened { after, messages }).await.map_err(|_| Status::unavailable("gone"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn report_links(
        &self,
        _: Request<v1::ReportLinksRequest>,
    ) -> Result<Response<v1::ReportLinksResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// What the follower does, and the control process that it follows.
struct World {
    verifier: Arc<TokenVerifier>,
    applied: Arc<Mutex<Vec<u64>>>,
    drained: Arc<Mutex<Vec<bool>>>,
    opened: mpsc::Receiver<Opened>,
    _shutdown: Shutdown,
}

impl World {
    fn start() -> Self {
        let (opening, opened) = mpsc::channel(16);
        let verifier = Arc::new(TokenVerifier::unknowing());
        let applied = Arc::new(Mutex::new(Vec::new()));
        let shutdown = Shutdown::new();
        let seen = Arc::clone(&applied);
        let drained = Arc::new(Mutex::new(Vec::new()));
        let drains = Arc::clone(&drained);
        let apply = move |news: News| match news {
            News::Revoked(entry) => seen.lock().unwrap().push(entry.number),
            News::RegionDrains(drain) => drains.lock().unwrap().push(drain),
        };
        Follower::start(vec![control(opening)], Arc::clone(&verifier), apply, &shutdown);
        Self { verifier, applied, drained, opened, _shutdown: shutdown }
    }

    async fn stale(&self, stale: bool) {
        until(|| self.verifier.is_stale() == stale).await;
    }

    async fn next(&mut self) -> Opened {
        self.opened.recv().await.expect("the follower asks")
    }
}

/// Lets the others go on until a condition holds; the clock stands still meanwhile.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

/// A control process in memory.
fn control(opened: mpsc::Sender<Opened>) -> Channel {
    let (accept, incoming) = mpsc::channel(16);
    let incoming = tokio_stream::StreamExt::map(ReceiverStream::new(incoming), Ok::<_, std::io::Error>);
    tokio::spawn(Server::builder().add_service(InternalServer::new(Control { opened })).serve_with_incoming(incoming));
    let connector = tower::service_fn(move |_: Uri| {
        let accept = accept.clone();
        async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            accept.send(far).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
            Ok::<_, std::io::Error>(TokioIo::new(near))
        }
    });
    Endpoint::from_static("http://control.invalid").connect_with_connector_lazy(connector)
}

impl Opened {
    async fn send(&self, kind: Kind) {
        self.messages.send(Ok(v1::Followed { kind: Some(kind) })).await.expect("the follower reads");
    }

    async fn keys(&self, key_id: &str) {
        self.send(Kind::Keys(wire_token_keys(&[(key_id.to_owned(), [1; 32])]))).await;
    }

    async fn entry(&self, number: u64) {
        let revocation = Revocation::User {
            account_id: AccountId::try_from([1; 16].as_slice()).unwrap(),
            user_id: UserId::try_from([2; 16].as_slice()).unwrap(),
        };
        let entry = RevocationEntry { number, at: UnixMillis(1), revocation };
        self.send(Kind::Revocation((&entry).into())).await;
    }

    async fn heartbeat(&self, head_number: u64) {
        self.send(Kind::Heartbeat(v1::Heartbeat { head_number, at_ms: 0 })).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_before_keys_and_the_whole_log_are_known() {
    let mut world = World::start();
    let stream = world.next().await;
    assert_eq!(stream.after, 0);
    stream.keys("first").await;
    stream.entry(3).await;
    stream.entry(4).await;
    until(|| world.applied.lock().unwrap().len() == 2).await;
    assert!(world.verifier.is_stale());
    stream.heartbeat(4).await;
    world.stale(false).await;
    assert_eq!(world.verifier.keys()[0].0, "first");
    stream.keys("second").await;
    until(|| world.verifier.keys()[0].0 == "second").await;
}

#[tokio::test(start_paused = true)]
async fn what_a_broken_stream_left_out_is_read_again_in_order() {
    let mut world = World::start();
    let first = world.next().await;
    first.keys("k").await;
    first.entry(1).await;
    first.heartbeat(1).await;
    world.stale(false).await;
    first.entry(3).await;
    let second = world.next().await;
    assert_eq!(second.after, 1);
    for number in [2, 3] {
        second.entry(number).await;
    }
    drop(second);
    let third = world.next().await;
    assert_eq!(third.after, 3);
    assert_eq!(*world.applied.lock().unwrap(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_region_that_drains_and_takes_machines_again_is_told_of_both() {
    let mut world = World::start();
    let stream = world.next().await;
    for drains in [false, true, false] {
        stream.send(Kind::RegionDrain(v1::RegionDrain { drains })).await;
    }
    until(|| *world.drained.lock().unwrap() == [false, true, false]).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_control_is_asked_again() {
    let mut world = World::start();
    let silent = world.next().await;
    silent.keys("k").await;
    let began = Instant::now();
    let again = world.next().await;
    assert!(began.elapsed() < FOLLOW_SILENCE_MAX * 2);
    assert_eq!(again.after, 0);
}

#[tokio::test(start_paused = true)]
async fn too_old_news_let_nobody_in_until_there_are_new_ones() {
    let mut world = World::start();
    let stream = world.next().await;
    stream.keys("k").await;
    stream.heartbeat(7).await;
    world.stale(false).await;
    let heard_at = Instant::now();
    drop(stream);
    // Every stream that is opened meanwhile says nothing.
    let mut kept = Vec::new();
    let stale = loop {
        tokio::select! {
            opened = world.opened.recv() => kept.push(opened.expect("the follower asks")),
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if world.verifier.is_stale() {
                    break heard_at.elapsed();
                }
            }
        }
    };
    assert!(stale >= REVOCATION_STALENESS_MAX - Duration::from_secs(1), "{stale:?}");
    assert!(stale < REVOCATION_STALENESS_MAX + Duration::from_secs(5), "{stale:?}");
    let back = world.next().await;
    back.keys("k").await;
    back.heartbeat(7).await;
    world.stale(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_control_process_that_is_away_is_passed_over() {
    let (opening, mut opened) = mpsc::channel(16);
    let away = tower::service_fn(|_: Uri| async {
        Err::<TokioIo<tokio::io::DuplexStream>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    let away = Endpoint::from_static("http://away.invalid").connect_with_connector_lazy(away);
    let verifier = Arc::new(TokenVerifier::unknowing());
    let shutdown = Shutdown::new();
    Follower::start(vec![away.clone(), away, control(opening)], verifier, |_| (), &shutdown);
    assert_eq!(opened.recv().await.expect("the third is asked").after, 0);
    assert!(shutdown.drain(Duration::from_secs(3600)).await);
}
