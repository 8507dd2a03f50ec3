use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_domain::command::command_transcript;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, GrantId, Incarnation, MachineId, NodeId, UserId};
use flydex_domain::key::{PublicKey, sign};
use flydex_domain::limits::{CREDENTIAL_LIFETIME, GRANT_LIFETIME};
use flydex_domain::placement::OwnerRecord;
use flydex_domain::scope::{MachineKey, Principal, Role};
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, Grant, MachineCredential, TokenSigner, TokenVerifier};
use flydex_proto::v1;
use flydex_proto::v1::gateway_frame::Kind as ToNode;
use flydex_proto::v1::machine_host_client::MachineHostClient;
use flydex_proto::v1::machine_message::Kind as Said;
use flydex_proto::v1::node_frame::Kind as FromNode;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use flydex_store::directory::Directory;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Server};
use uuid::Uuid;

use super::directory::TestDirectory;
use crate::{Config, Handle, Service};

pub(super) const ACCOUNT: u128 = 1;
pub(super) const MACHINE: u128 = 2;
pub(super) const OTHER_NODE: Incarnation = Incarnation::from_bytes([9; 16]);
pub(super) const THIRD_NODE: Incarnation = Incarnation::from_bytes([10; 16]);
pub(super) const INCARNATION: Incarnation = Incarnation::from_bytes([5; 16]);
/// Long enough for a loaded computer, short enough for a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node, its clock and the control plane's key.
pub(super) struct Node {
    pub(super) handle: Handle,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
    pub(super) directory: Arc<TestDirectory>,
    signer: TokenSigner,
    channel: Channel,
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::join(INCARNATION, Arc::new(TestDirectory::default())).await
    }

    /// A node of a cluster.
    pub(super) async fn join(incarnation: Incarnation, directory: Arc<TestDirectory>) -> Self {
        let signer = TokenSigner::from_seed("k1", &SecretKey::new([1; 32]));
        let clock = Clock::manual(1_800_000_000_000);
        let shutdown = Shutdown::new();
        let config = Config {
            node_id: NodeId::try_from("node-1".to_owned()).unwrap(),
            incarnation,
            address: "memory://node-1".to_owned(),
            region: "home".to_owned(),
        };
        let verifier = Arc::new(TokenVerifier::new([signer.public()]));
        let service = Service::new(
            config,
            Arc::clone(&directory) as Arc<dyn Directory>,
            verifier,
            clock.clone(),
            shutdown.clone(),
        );
        let handle = service.handle();
        let (near, far) = tokio::io::duplex(1 << 20);
        let server = Server::builder().add_service(service.into_grpc());
        tokio::spawn(server.serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(far))));
        let mut near = Some(near);
        let connector = tower::service_fn(move |_| {
            let near = near.take();
            async move { near.map(TokioIo::new).ok_or_else(|| std::io::Error::other("one connection only")) }
        });
        let endpoint = Endpoint::from_static("http://node.invalid");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        Self { handle, clock, shutdown, directory, signer, channel }
    }

    /// The owner on record.
    pub(super) async fn owner(&self) -> Option<OwnerRecord> {
        self.directory.find(machine_key()).await.ok().flatten()
    }

    pub(super) fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }

    pub(super) fn grant(&self, account: u128, device: u8, role: Role) -> String {
        self.signer.sign(&self.grant_claims(account, device, role))
    }

    pub(super) fn grant_claims(&self, account: u128, device: u8, role: Role) -> Grant {
        Grant {
            grant_id: GrantId::from_uuid(Uuid::now_v7()),
            account_id: account_id(account),
            user_id: user_id(device),
            role,
            device_key: EncodedKey(PublicKey::of(&device_key(device))),
            expires_at: self.now().plus(GRANT_LIFETIME),
        }
    }

    pub(super) fn sign(&self, grant: &Grant) -> String {
        self.signer.sign(grant)
    }

    pub(super) fn credential(&self, account: u128, machine: u128) -> String {
        self.pinned_credential(account, machine, None)
    }

    pub(super) fn pinned_credential(&self, account: u128, machine: u128, region: Option<&str>) -> String {
        self.signer.sign(&MachineCredential {
            account_id: account_id(account),
            machine_id: machine_id(machine),
            machine_key: EncodedKey(PublicKey::of(&device_key(250))),
            serial: 1,
            region_pin: region.map(str::to_owned),
            strict_audit: false,
            issued_at: self.now(),
            expires_at: self.now().plus(CREDENTIAL_LIFETIME),
        })
    }

    /// A gateway with a stream of its own.
    pub(super) async fn gateway(&self) -> Gateway {
        let gateway = self.stranger().await;
        gateway.greet("gateway-1", "home").await;
        gateway
    }

    /// A stream on which nobody has said who it is.
    pub(super) async fn stranger(&self) -> Gateway {
        let (frames, outgoing) = mpsc::channel(64);
        let mut client = MachineHostClient::new(self.channel.clone());
        let incoming = client.exchange(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Gateway { frames, incoming, seen: VecDeque::new() }
    }
}

/// One stream of a scripted gateway.
pub(super) struct Gateway {
    frames: mpsc::Sender<v1::GatewayFrame>,
    incoming: Streaming<v1::NodeFrame>,
    seen: VecDeque<v1::NodeFrame>,
}

impl Gateway {
    pub(super) async fn send(&self, account: u128, machine: u128, kind: ToNode) {
        let frame = v1::GatewayFrame {
            account_id: copy(account_id(account).as_bytes()),
            machine_id: copy(machine_id(machine).as_bytes()),
            deadline_ms: 0,
            kind: Some(kind),
        };
        self.frames.send(frame).await.unwrap();
    }

    /// Waits until the node has ended the stream.
    pub(super) async fn ended(&mut self) {
        let ended = async { while let Ok(Some(_)) = self.incoming.message().await {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("the stream ends");
    }

    /// The first frame, seen before or yet to come, of which `pick` makes something; it is taken out.
    pub(super) async fn find<T>(&mut self, mut pick: impl FnMut(&FromNode) -> Option<T>) -> T {
        let known = self.seen.iter().enumerate().find_map(|(index, frame)| Some((index, pick(frame.kind.as_ref()?)?)));
        if let Some((index, found)) = known {
            self.seen.remove(index);
            return found;
        }
        loop {
            let frame = self.next().await.expect("the stream goes on");
            if let Some(found) = frame.kind.as_ref().and_then(&mut pick) {
                return found;
            }
            self.seen.push_back(frame);
        }
    }

    /// The next frame of the stream; none when it has ended.
    pub(super) async fn next(&mut self) -> Option<v1::NodeFrame> {
        let frame = tokio::time::timeout(PATIENCE, self.incoming.message()).await.expect("a frame in time");
        frame.ok().flatten()
    }

    /// Whether a frame that was read while looking for others fits.
    pub(super) fn has_seen(&self, fits: impl Fn(&FromNode) -> bool) -> bool {
        self.seen.iter().filter_map(|frame| frame.kind.as_ref()).any(fits)
    }

    pub(super) async fn greet(&self, gateway_id: &str, region: &str) {
        let hello = v1::GatewayHello { gateway_id: gateway_id.to_owned(), region: region.to_owned() };
        self.send(ACCOUNT, MACHINE, ToNode::Hello(hello)).await;
    }

    /// Waits until a session or link is sent to another node.
    pub(super) async fn not_owner(&mut self, subject: Bytes) -> Option<Incarnation> {
        self.find(|kind| {
            let FromNode::NotOwner(not_owner) = kind else { return None };
            (not_owner.subject_id == subject).then(|| Incarnation::try_from(not_owner.owner.as_ref()).ok())
        })
        .await
    }

    // === Sessions ===

    pub(super) async fn open(&mut self, account: u128, machine: u128, session: u128, grant: String) {
        self.send(
            account,
            machine,
            ToNode::OpenSession(v1::OpenSession { session_id: id(session), grant, replacing: Bytes::new() }),
        )
        .await;
    }

    /// Opens a session and waits for it.
    pub(super) async fn opened(&mut self, node: &Node, session: u128, device: u8, role: Role) {
        self.open(ACCOUNT, MACHINE, session, node.grant(ACCOUNT, device, role)).await;
        self.find(|kind| {
            let FromNode::SessionOpened(opened) = kind else { return None };
            (opened.session_id == id(session)).then_some(())
        })
        .await;
    }

    pub(super) async fn session(&self, session: u128, kind: v1::device_message::Kind) {
        self.session_traced(session, None, kind).await;
    }

    pub(super) async fn session_traced(
        &self,
        session: u128,
        trace: Option<v1::TraceContext>,
        kind: v1::device_message::Kind,
    ) {
        let message = Some(v1::DeviceMessage { trace, kind: Some(kind) });
        let message = v1::SessionMessage { session_id: id(session), message };
        self.send(ACCOUNT, MACHINE, ToNode::SessionMessage(message)).await;
    }

    pub(super) async fn ask(&self, session: u128, command: &v1::Command) {
        self.session(session, v1::device_message::Kind::Command(command.clone())).await;
    }

    pub(super) async fn said<T>(&mut self, session: u128, mut pick: impl FnMut(&Said) -> Option<T>) -> T {
        self.find(|kind| {
            let FromNode::ToSession(to) = kind else { return None };
            if to.session_id != id(session) {
                return None;
            }
            pick(to.message.as_ref()?.kind.as_ref()?)
        })
        .await
    }

    pub(super) async fn status(&mut self, session: u128) -> v1::MachineStatus {
        self.said(session, |said| if let Said::Status(status) = said { Some(status.clone()) } else { None }).await
    }

    /// Waits until the session is told of a state.
    pub(super) async fn state(&mut self, session: u128, state: v1::MachineState) -> v1::MachineStatus {
        loop {
            let status = self.status(session).await;
            if status.state() == state {
                return status;
            }
        }
    }

    pub(super) async fn failure(&mut self, session: u128) -> ErrorCode {
        self.said(session, |said| if let Said::Failure(failure) = said { code(failure.code) } else { None }).await
    }

    /// Waits until a command of the session is as far as this.
    pub(super) async fn progress(&mut self, session: u128, state: v1::ProgressState) {
        let of_state = |said: &Said| matches!(said, Said::Progress(progress) if progress.state() == state);
        self.said(session, |said| of_state(said).then_some(())).await;
    }

    pub(super) async fn receipt(&mut self, session: u128) -> v1::SignedReceipt {
        self.said(session, |said| if let Said::Receipt(receipt) = said { Some(receipt.clone()) } else { None }).await
    }

    pub(super) async fn event(&mut self, session: u128) -> u64 {
        self.said(session, |said| if let Said::Event(event) = said { Some(event.seq) } else { None }).await
    }

    pub(super) async fn session_end(&mut self, session: u128) -> ErrorCode {
        self.find(|kind| {
            let FromNode::EndSession(end) = kind else { return None };
            if end.session_id == id(session) { code(end.code) } else { None }
        })
        .await
    }

    // === Links ===

    pub(super) async fn open_link(&self, link: u128, counter: u64, boot: u8, credential: String) {
        let open = v1::OpenLink {
            link_id: id(link),
            credential,
            link_counter: counter,
            boot_id: copy(&[boot; 16]),
            transport: v1::Transport::Websocket.into(),
            connector_version: "1.0.0".to_owned(),
            channel_bound: true,
            replacing: Bytes::new(),
        };
        self.send(ACCOUNT, MACHINE, ToNode::OpenLink(open)).await;
    }

    /// Opens a link, attaches and reports that Codex is ready; returns the epoch.
    pub(super) async fn linked(&mut self, node: &Node, link: u128, counter: u64, boot: u8) -> v1::Epoch {
        self.open_link(link, counter, boot, node.credential(ACCOUNT, MACHINE)).await;
        let (epoch, kind) = self.owner(link).await;
        assert!(matches!(kind, v1::owner_frame::Kind::Attach(_)));
        let attached = v1::connector_frame::Kind::Attached(v1::Attached { highest: Some(epoch.clone()) });
        self.link_frame(link, None, attached).await;
        let report = v1::MachineReport {
            state: v1::MachineState::CodexReady.into(),
            code: 0,
            codex_version: "0.169.0".to_owned(),
            read_only: false,
            paused: false,
        };
        self.connector(link, &epoch, v1::connector_frame::Kind::Report(report)).await;
        epoch
    }

    pub(super) async fn connector(&self, link: u128, epoch: &v1::Epoch, kind: v1::connector_frame::Kind) {
        self.link_frame(link, Some(epoch.clone()), kind).await;
    }

    pub(super) async fn link_frame(&self, link: u128, epoch: Option<v1::Epoch>, kind: v1::connector_frame::Kind) {
        let frame = Some(v1::ConnectorFrame { epoch, kind: Some(kind) });
        self.send(ACCOUNT, MACHINE, ToNode::LinkMessage(v1::LinkMessage { link_id: id(link), frame })).await;
    }

    /// The next frame of the owner to a link.
    pub(super) async fn owner(&mut self, link: u128) -> (v1::Epoch, v1::owner_frame::Kind) {
        self.find(|kind| {
            let FromNode::ToLink(to) = kind else { return None };
            let frame = to.frame.clone().filter(|_| to.link_id == id(link))?;
            Some((frame.epoch?, frame.kind?))
        })
        .await
    }

    /// Waits until a link is asked to attach, and attaches, or has ended with a code.
    pub(super) async fn attached_or_ended(&mut self, link: u128) -> Option<ErrorCode> {
        let (epoch, ended) = self
            .find(|kind| {
                if let FromNode::EndLink(end) = kind {
                    return (end.link_id == id(link)).then(|| (None, code(end.code)));
                }
                let FromNode::ToLink(to) = kind else { return None };
                Some((to.frame.clone().filter(|_| to.link_id == id(link))?.epoch, None))
            })
            .await;
        if epoch.is_some() {
            let attached = v1::connector_frame::Kind::Attached(v1::Attached { highest: epoch });
            self.link_frame(link, None, attached).await;
        }
        ended
    }

    pub(super) async fn link_end(&mut self, link: u128) -> ErrorCode {
        self.find(|kind| {
            let FromNode::EndLink(end) = kind else { return None };
            if end.link_id == id(link) { code(end.code) } else { None }
        })
        .await
    }

    /// Waits until a link is superseded; returns the counter that it is told.
    pub(super) async fn superseded(&mut self, link: u128) -> u64 {
        self.find(|kind| {
            let FromNode::EndLink(end) = kind else { return None };
            let superseded = code(end.code) == Some(ErrorCode::LinkSuperseded);
            (superseded && end.link_id == id(link)).then_some(end.link_counter)
        })
        .await
    }

    /// Waits for a command at the connector.
    pub(super) async fn forwarded(&mut self, link: u128) -> v1::FromSession {
        loop {
            if let (_, v1::owner_frame::Kind::FromSession(from)) = self.owner(link).await {
                return from;
            }
        }
    }

    pub(super) async fn answer(&self, link: u128, epoch: &v1::Epoch, session: u128, kind: Said) {
        let message = Some(v1::MachineMessage { trace: None, kind: Some(kind) });
        let to = v1::ToSession { session_id: id(session), message };
        self.connector(link, epoch, v1::connector_frame::Kind::ToSession(to)).await;
    }

    /// The connector admits a session to a stream.
    pub(super) async fn admit(&self, link: u128, epoch: &v1::Epoch, boot: u8, session: u128, device: u8) {
        let verdict = v1::StreamVerdict {
            command_id: id(9),
            stream_id: 0,
            boot_id: copy(&[boot; 16]),
            verdict: Some(v1::stream_verdict::Verdict::ResumedFrom(0)),
        };
        let subscribed = v1::Subscribed {
            session_id: id(session),
            device_id: copy(PublicKey::of(&device_key(device)).device_id().as_bytes()),
            verdict: Some(verdict),
        };
        self.connector(link, epoch, v1::connector_frame::Kind::Subscribed(subscribed)).await;
    }

    pub(super) async fn share(&self, link: u128, epoch: &v1::Epoch, seq: u64, bytes: usize) {
        let event = v1::Event { stream_id: 0, seq, body: Bytes::from(vec![0; bytes]) };
        self.connector(link, epoch, v1::connector_frame::Kind::SharedEvent(event)).await;
    }
}

pub(super) fn account_id(number: u128) -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn machine_id(number: u128) -> MachineId {
    MachineId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn user_id(device: u8) -> UserId {
    UserId::from_uuid(Uuid::from_u128(u128::from(device)))
}

pub(super) fn machine_key() -> MachineKey {
    machine_key_of(MACHINE)
}

pub(super) fn machine_key_of(machine: u128) -> MachineKey {
    let machine_id = machine_id(machine);
    MachineKey::new(Principal::Machine { account_id: account_id(ACCOUNT), machine_id }.scope(), machine_id)
}

pub(super) fn device_key(device: u8) -> SigningKey {
    SigningKey::from_bytes(&[device; 32])
}

pub(super) fn id(number: u128) -> Bytes {
    copy(&number.to_be_bytes())
}

pub(super) fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(super) fn code(number: u32) -> Option<ErrorCode> {
    ErrorCode::from_number(number)
}

/// A signed command that starts a turn.
pub(super) fn start_turn(device: u8, number: u128, body: &str) -> v1::Command {
    let device_id = PublicKey::of(&device_key(device)).device_id();
    let header = v1::CommandHeader {
        command_id: id(number),
        account_id: id(ACCOUNT),
        machine_id: id(MACHINE),
        device_id: copy(device_id.as_bytes()),
        boot_id: copy(&[1; 16]),
        issued_at_ms: 1,
        lifetime_ms: 1000,
        kind: v1::CommandKind::StartTurn.into(),
        body_sha256: copy(&sha256(body.as_bytes())),
        session_id: Bytes::new(),
        answer: None,
    };
    let header = Bytes::from(header.encode_to_vec());
    let signature = copy(&sign(&device_key(device), command_transcript(&header)));
    v1::Command { header, body: copy(body.as_bytes()), signature, audit_receipt: String::new(), assertion: None }
}

/// The machine's word that a command was executed.
pub(super) fn executed(command: &v1::Command) -> v1::SignedReceipt {
    let header = v1::CommandHeader::decode(command.header.clone()).unwrap();
    let receipt = v1::Receipt {
        account_id: header.account_id,
        machine_id: header.machine_id,
        device_id: header.device_id,
        command_id: header.command_id,
        command_hash: copy(&command_transcript(&command.header).sha256()),
        outcome: v1::Outcome::Executed.into(),
        code: 0,
        boot_id: header.boot_id,
        generation: Bytes::new(),
        at_ms: 1,
        as_of: None,
        result: Bytes::from_static(b"opaque"),
        bulk: None,
    };
    v1::SignedReceipt { receipt: Bytes::from(receipt.encode_to_vec()), signature: copy(&[7; 64]) }
}

/// Waits for a condition that no frame announces.
pub(super) async fn until(condition: impl AsyncFn() -> bool) {
    let mut interval = tokio::time::interval(Duration::from_millis(10));
    let wait = async {
        while !condition().await {
            interval.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the condition holds in time");
}
