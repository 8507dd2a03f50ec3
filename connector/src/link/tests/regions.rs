//! Which region is dialled, measured with a scripted relay in each: its distance is a delay before it answers TLS.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flydex_domain::limits::{LINK_INCOMING_MAX, REGION_HEAD_START, REGION_PROBE_INTERVAL, REGION_STAY_MIN};
use flydex_domain::region::DRAIN_HINT;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, MachineCredential, TokenSigner};
use rustls::HandshakeKind;
use tokio_rustls::server::TlsStream;

use super::*;

type TlsPeer = WebSocketPeer<TlsStream<TcpStream>>;

const NEAR: Duration = Duration::ZERO;
const FAR: Duration = Duration::from_millis(600);

/// A region: what asks for a link is handed to the test, what goes after its handshake was a probe.
struct Relay {
    endpoint: RegionEndpoint,
    links: mpsc::Receiver<TlsPeer>,
    accepted: Arc<AtomicUsize>,
    probes: Arc<AtomicUsize>,
    dead: Arc<AtomicBool>,
    delay: watch::Sender<Duration>,
    _folder: tempfile::TempDir,
}

impl Relay {
    async fn start(region: &str, delay: Duration) -> Self {
        let (listener, address) = listen().await;
        let (folder, identity) = identity();
        let endpoint =
            RegionEndpoint { region: region.to_owned(), ..endpoint(address, "wss", identity.self_made_pem(), None) };
        let (tx, links) = mpsc::channel(4);
        let (accepted, probes, dead) = (Arc::default(), Arc::default(), Arc::default());
        let relay = Self { endpoint, links, accepted, probes, dead, delay: watch::Sender::new(delay), _folder: folder };
        let (seen, counted, is_dead) = (relay.accepted.clone(), relay.probes.clone(), relay.dead.clone());
        let (acceptor, delay) = (acceptor(&identity), relay.delay.subscribe());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.fetch_add(1, Ordering::Relaxed);
                if is_dead.load(Ordering::Relaxed) {
                    continue;
                }
                let (tx, counted, acceptor, delay) =
                    (tx.clone(), Arc::clone(&counted), acceptor.clone(), *delay.borrow());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    match upgrade_if_asked(stream).await {
                        Some(peer) => tx.send(peer).await.unwrap(),
                        None => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    }
                });
            }
        });
        relay
    }

    /// The next link, before its hello.
    async fn dialled(&mut self) -> TlsPeer {
        tokio::time::timeout(Duration::from_secs(20), self.links.recv()).await.expect("a link").unwrap()
    }

    /// The next link, welcomed, over which an owner speaks.
    async fn linked(&mut self) -> (TlsPeer, v1::LinkHello) {
        let (mut peer, hello) = self.welcomed().await;
        peer.send(Down::Frame(v1::OwnerFrame::default())).await;
        (peer, hello)
    }

    async fn welcomed(&mut self) -> (TlsPeer, v1::LinkHello) {
        let mut peer = self.dialled().await;
        let exporter = peer.exporter();
        let (hello, holds) = welcome(&mut peer, Some(exporter)).await;
        assert!(holds);
        (peer, hello)
    }

    /// From here on it takes connections and drops them.
    fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    fn nobody_links(&mut self) {
        assert!(self.links.try_recv().is_err(), "{} was dialled", self.endpoint.region);
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    fn probes(&self) -> usize {
        self.probes.load(Ordering::Relaxed)
    }
}

impl TlsPeer {
    fn exporter(&self) -> [u8; 32] {
        self.0.get_ref().get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).unwrap()
    }
}

impl World {
    async fn reports(&mut self, what: &str, is: impl FnMut(&RegionReport) -> bool) -> RegionReport {
        let reported = tokio::time::timeout(Duration::from_secs(20), self.report.wait_for(is)).await;
        reported.unwrap_or_else(|_| panic!("no report: {what}")).unwrap().clone()
    }

    async fn reports_link_in(&mut self, region: &str) -> RegionReport {
        let is = |report: &RegionReport| report.link.as_ref().is_some_and(|link| link.region == region);
        self.reports(region, is).await
    }

    /// Lets time go by on a link that is kept alive, and shows that it carries frames.
    async fn pass(&mut self, peer: &mut TlsPeer, time: Duration) {
        for _ in 0..time.as_secs() {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::time::resume();
            self.carries(peer).await;
        }
    }

    /// Lets time go by until the machine may move, and makes it look again.
    async fn pass_until_it_may_move(&mut self, peer: &mut TlsPeer) {
        self.pass(peer, REGION_STAY_MIN).await;
        self.regions.send_modify(|_| ());
    }

    async fn carries(&mut self, peer: &mut TlsPeer) {
        peer.send(Down::Frame(v1::OwnerFrame::default())).await;
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await;
            match event.expect("an event").unwrap() {
                LinkEvent::Frame { .. } => return,
                LinkEvent::Up { .. } => {}
                LinkEvent::Down { link, code } => assert_ne!(link, 1, "the link went down: {code:?}"),
            }
        }
    }

    /// Frames come over the first link, and it is plain that nothing else is under way.
    async fn goes_on(&mut self, peer: &mut TlsPeer) {
        for _ in 0..200 {
            self.carries(peer).await;
        }
    }
}

fn both(one: &Relay, other: &Relay) -> Vec<RegionEndpoint> {
    vec![one.endpoint.clone(), other.endpoint.clone()]
}

fn measured(region: Option<&MeasuredRegion>) -> Option<&str> {
    region.filter(|region| region.handshake.is_some()).map(|region| region.region.as_str())
}

fn signer() -> TokenSigner {
    TokenSigner::from_seed("k", &SecretKey::new([8; 32]))
}

fn pinned_to(region: Option<&str>) -> SecretText {
    SecretText::new(signer().sign(&MachineCredential {
        account_id: AccountId::from_uuid(Uuid::from_u128(1)),
        machine_id: MachineId::from_uuid(Uuid::from_u128(2)),
        machine_key: EncodedKey(PublicKey::of(&key())),
        serial: 1,
        region_pin: region.map(str::to_owned),
        strict_audit: false,
        issued_at: UnixMillis(0),
        expires_at: UnixMillis(1_000_000),
    }))
}

#[tokio::test]
async fn the_nearest_region_is_linked_and_the_next_is_kept_warm() {
    let (mut far, mut near) = (Relay::start("far", FAR).await, Relay::start("near", NEAR).await);
    let mut world = connect_to(both(&far, &near), Given::default());
    let (mut peer, _) = near.linked().await;
    let report = world.reports("both are measured", |report| report.second.is_some()).await;
    assert_eq!(report.link.as_ref().map(|link| link.region.as_str()), Some("near"));
    let report = world.reports("far is measured", |report| measured(report.second.as_ref()) == Some("far")).await;
    assert!(report.second.unwrap().handshake.unwrap() >= FAR);
    assert_eq!(report.pin, None);
    world.carries(&mut peer).await;
    far.nobody_links();
}

#[tokio::test]
async fn a_single_region_is_never_probed() {
    let mut only = Relay::start("only", NEAR).await;
    let mut world = connect(only.endpoint.clone());
    let (mut peer, _) = only.linked().await;
    world.reports("its link measures it", |report| measured(report.link.as_ref()) == Some("only")).await;
    world.pass(&mut peer, 2 * REGION_PROBE_INTERVAL).await;
    assert_eq!(only.probes(), 0);
}

#[tokio::test]
async fn a_region_that_is_hardly_nearer_is_no_reason_to_move() {
    let (mut here, there) = (Relay::start("here", FAR).await, Relay::start("there", FAR * 9 / 10).await);
    let mut world = connect(here.endpoint.clone());
    let (mut peer, _) = here.linked().await;
    world.regions.send_replace(both(&here, &there));
    world.reports("there is measured", |report| measured(report.second.as_ref()) == Some("there")).await;
    let accepted = (here.accepted(), there.accepted());
    world.pass_until_it_may_move(&mut peer).await;
    world.goes_on(&mut peer).await;
    assert_eq!((here.accepted(), there.accepted()), accepted);
}

#[tokio::test]
async fn a_nearer_region_of_a_newer_list_takes_over_once_an_owner_is_there() {
    let (mut far, mut near) = (Relay::start("far", FAR).await, Relay::start("near", NEAR).await);
    let mut world = connect(far.endpoint.clone());
    let (mut old, first) = far.linked().await;
    let (before, _) = world.up().await;
    world.regions.send_replace(both(&far, &near));
    world.reports("near is measured", |report| measured(report.second.as_ref()) == Some("near")).await;
    near.nobody_links();
    world.pass_until_it_may_move(&mut old).await;

    let (mut new, second) = near.welcomed().await;
    assert!(second.link_counter > first.link_counter);
    world.goes_on(&mut old).await;
    assert_eq!(world.report.borrow().link.as_ref().map(|link| link.region.as_str()), Some("far"));
    new.send(Down::Frame(v1::OwnerFrame::default())).await;
    world.reports_link_in("near").await;
    assert_eq!(before.closed(), None, "the core ends the old one");
    far.nobody_links();
}

#[tokio::test]
async fn a_nearer_region_whose_link_no_owner_takes_is_left_alone() {
    let (mut far, mut near) = (Relay::start("far", FAR).await, Relay::start("near", NEAR).await);
    let mut world = connect(far.endpoint.clone());
    let (mut old, _) = far.linked().await;
    world.regions.send_replace(both(&far, &near));
    world.reports("near is measured", |report| measured(report.second.as_ref()) == Some("near")).await;
    world.pass_until_it_may_move(&mut old).await;
    let (mut new, _) = near.welcomed().await;
    let accepted = far.accepted();
    new.send(end(ErrorCode::Moving, 0)).await;
    world.reports("near is held off", |report| report.second.is_none()).await;
    world.goes_on(&mut old).await;
    let report = world.report.borrow().clone();
    assert_eq!(report.link.map(|link| link.region).as_deref(), Some("far"));
    assert_eq!(far.accepted(), accepted);
    near.nobody_links();
}

#[tokio::test]
async fn a_region_that_says_that_it_drains_is_left_before_its_link_ends() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR).await);
    let mut world = connect_to(both(&near, &far), Given::default());
    let (mut old, _) = near.linked().await;
    let (before, _) = world.up().await;
    old.send(Down::GoAway(v1::GoAway { reconnect_in_ms: 1, try_for_ms: 1000, hint: DRAIN_HINT.to_owned() })).await;
    far.linked().await;
    assert_eq!(before.closed(), None);
    world.carries(&mut old).await;
    world.reports_link_in("far").await;
    near.nobody_links();
}

#[tokio::test]
async fn a_gateway_that_goes_is_replaced_in_its_own_region() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR).await);
    let _world = connect_to(both(&near, &far), Given::default());
    let (mut old, _) = near.linked().await;
    old.send(Down::GoAway(v1::GoAway { reconnect_in_ms: 1, try_for_ms: 1000, hint: String::new() })).await;
    near.linked().await;
    far.nobody_links();
}

#[tokio::test]
async fn a_region_that_is_slow_while_its_gateways_restart_is_not_left() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR).await);
    let mut world = connect_to(both(&near, &far), Given::default());
    let (mut old, _) = near.linked().await;
    world.reports("far is measured", |report| measured(report.second.as_ref()) == Some("far")).await;
    let accepted = far.accepted();
    near.delay.send_replace(REGION_HEAD_START * 3 / 2);
    old.send(Down::GoAway(v1::GoAway { reconnect_in_ms: 1, try_for_ms: 1000, hint: String::new() })).await;
    near.linked().await;
    assert_eq!(far.accepted(), accepted);
    far.nobody_links();
}

#[tokio::test]
async fn a_dead_region_is_left_for_the_second() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR).await);
    let mut world = connect_to(both(&near, &far), Given::default());
    let (peer, first) = near.linked().await;
    world.up().await;
    near.die();
    drop(peer);
    let (_, second) = far.linked().await;
    assert!(second.link_counter > first.link_counter);
    world.reports_link_in("far").await;
    near.nobody_links();
}

#[tokio::test]
async fn a_region_that_does_not_answer_is_passed_by() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR).await);
    let mut world = connect_to(both(&near, &far), Given::default());
    let mut hung = near.dialled().await;
    let Some(Up::Hello(first)) = hung.receive().await else { panic!("no hello") };
    let (_, second) = far.linked().await;
    assert!(second.link_counter > first.link_counter);
    while hung.receive().await.is_some() {}
    world.reports_link_in("far").await;
}

#[tokio::test]
async fn of_two_regions_that_are_dialled_only_one_is_greeted_at_a_time() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR / 2).await);
    let mut world = connect_to(both(&near, &far), Given::default());
    let mut slow = near.dialled().await;
    let mut waiting = far.dialled().await;
    // It is connected and alive, and waits its turn; its reader takes no more than this.
    for _ in 0..LINK_INCOMING_MAX / 2 {
        waiting.0.send(Message::Ping(Bytes::new())).await.unwrap();
        assert!(matches!(waiting.0.next().await, Some(Ok(Message::Pong(_)))), "both are greeted");
    }
    let exporter = slow.exporter();
    welcome(&mut slow, Some(exporter)).await;
    assert!(waiting.receive().await.is_none(), "nothing is said to the one that came second");
    world.reports_link_in("near").await;
}

#[tokio::test]
async fn where_no_owner_takes_the_link_the_next_region_is_tried() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR).await);
    let _world = connect_to(both(&near, &far), Given::default());
    let (mut peer, _) = near.welcomed().await;
    peer.send(end(ErrorCode::Moving, 0)).await;
    far.linked().await;
    near.nobody_links();
}

#[tokio::test]
async fn a_refusal_that_another_region_would_repeat_moves_nobody() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR).await);
    let mut world = connect_to(both(&near, &far), Given::default());
    let mut peer = near.dialled().await;
    peer.receive().await.unwrap();
    peer.send(end(ErrorCode::CredentialInvalid, 0)).await;
    assert_eq!(world.down().await, Some(ErrorCode::CredentialInvalid));
    near.linked().await;
    far.nobody_links();
}

#[tokio::test]
async fn a_pinned_machine_knows_its_region_only_and_follows_its_pin() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR).await);
    let verifier = TokenVerifier::new([signer().public()]);
    let given = Given { credential: pinned_to(Some("far")), verifier, ..Given::default() };
    let mut world = connect_to(both(&near, &far), given);
    let (mut peer, _) = far.linked().await;
    let report = world.reports_link_in("far").await;
    assert_eq!((report.pin.as_deref(), report.second), (Some("far"), None));
    world.carries(&mut peer).await;
    assert_eq!((near.probes(), far.probes()), (0, 0));
    near.nobody_links();

    world.credential.send_replace(pinned_to(Some("near")));
    near.linked().await;
    let report = world.reports_link_in("near").await;
    assert_eq!((report.pin.as_deref(), report.second), (Some("near"), None));
}

#[tokio::test]
async fn a_machine_pinned_to_a_region_that_is_not_listed_waits_for_a_newer_list() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", NEAR).await);
    let verifier = TokenVerifier::new([signer().public()]);
    let given = Given { credential: pinned_to(Some("far")), verifier, ..Given::default() };
    let mut world = connect_to(vec![near.endpoint.clone()], given);
    world.reports("it is stuck", |report| report.stuck && report.link.is_none()).await;
    world.regions.send_replace(both(&near, &far));
    far.linked().await;
    world.reports("it is not stuck", |report| !report.stuck).await;
    near.nobody_links();
    assert_eq!(near.probes(), 0);
}

#[tokio::test]
async fn a_machine_that_may_not_stay_where_it_is_does_not() {
    let (mut near, far) = (Relay::start("near", NEAR).await, Relay::start("far", NEAR).await);
    far.die();
    let verifier = TokenVerifier::new([signer().public()]);
    let given = Given { credential: pinned_to(None), verifier, ..Given::default() };
    let mut world = connect_to(vec![near.endpoint.clone()], given);
    let (mut peer, _) = near.linked().await;
    world.up().await;
    world.regions.send_replace(both(&near, &far));
    world.credential.send_replace(pinned_to(Some("far")));
    while peer.receive().await.is_some() {}
    assert_eq!(world.down().await, Some(ErrorCode::GoingAway), "it ended for the silence of the gateway");
    world.reports("it cannot be reached", |report| report.stuck).await;
    near.nobody_links();
}

#[tokio::test]
async fn a_region_that_is_listed_no_more_is_left() {
    let (mut old, mut new) = (Relay::start("old", NEAR).await, Relay::start("new", FAR).await);
    let mut world = connect(old.endpoint.clone());
    let (mut peer, _) = old.linked().await;
    world.up().await;
    world.regions.send_replace(vec![new.endpoint.clone()]);
    new.linked().await;
    world.reports_link_in("new").await;
    world.carries(&mut peer).await;
}

#[tokio::test]
async fn a_link_resumes_the_session_of_the_probe_before_it() {
    let (mut near, mut far) = (Relay::start("near", NEAR).await, Relay::start("far", FAR).await);
    let mut world = connect_to(both(&near, &far), Given::default());
    let (mut peer, _) = near.linked().await;
    world.reports("far is measured", |report| measured(report.second.as_ref()) == Some("far")).await;
    while far.probes() == 0 {
        world.carries(&mut peer).await;
    }
    near.die();
    drop(peer);
    let peer = far.dialled().await;
    assert_eq!(peer.0.get_ref().get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn a_region_is_measured_over_quic_and_over_tcp_where_udp_is_blocked() {
    let relay = Relay::start("near", NEAR).await;
    let (_folder, identity) = identity();
    let server = quic::quic_server(&identity);
    let over = |at: SocketAddr| QuicEndpoint { address: at.to_string(), server_name: "localhost".to_owned() };
    let shutdown = Shutdown::new();
    let quic = RegionEndpoint {
        quic: Some(over(server.local_addr().unwrap())),
        certificate_pem: identity.self_made_pem().map(str::to_owned),
        ..relay.endpoint.clone()
    };
    let (measured, connected) = tokio::join!(measure(&quic, &shutdown), async { server.accept().await.unwrap().await });
    let connection = connected.unwrap();
    assert!(measured.is_some());
    assert_eq!(relay.accepted(), 0);
    assert!(connection.accept_bi().await.is_err(), "nothing is said");

    // A socket that swallows every packet.
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let blocked = RegionEndpoint { quic: Some(over(silent.local_addr().unwrap())), ..relay.endpoint.clone() };
    assert!(measure(&blocked, &shutdown).await.is_some());
    assert_eq!(relay.accepted(), 1);

    let untrusted = RegionEndpoint { certificate_pem: None, ..relay.endpoint.clone() };
    assert_eq!(measure(&untrusted, &shutdown).await, None);
    shutdown.force();
}
