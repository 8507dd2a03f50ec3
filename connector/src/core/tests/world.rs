//! One connector between a scripted owner and a scripted Codex. Disks outlive a restart.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{
    ApprovalAnswer, CommandClass, CommandHeader, CommandKind, Decision, Outcome, Receipt, command_transcript,
    receipt_transcript,
};
use flydex_domain::device::DeviceList;
use flydex_domain::encoding::sha256;
use flydex_domain::epoch::Epoch;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{AccountId, BootId, CommandId, DeviceId, Generation, Incarnation, MachineId, SessionId};
use flydex_domain::key::{PublicKey, sign};
use flydex_domain::scope::Role;
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{EncodedKey, MachineCredential, TokenSigner, TokenVerifier};
use flydex_proto::codec::{decode_body, split_message};
use flydex_proto::v1;
use flydex_runtime::clock::Clock;
use flydex_runtime::lifecycle::Shutdown;
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc, watch};
use uuid::Uuid;

use crate::api::SecretText;
use crate::codex::{AnswerOutcome, CodexEvent, CodexStatus, Refused, RequestKey, ThreadId, TurnId, WatchId};
use crate::core::port::CodexPort;
use crate::core::{CoreConfig, LinkEvent, run_with_links};
use crate::epoch::Fence;
use crate::outbox::{Framing, Outbox};
use crate::paired::{Channel, CoreStatus, DeskPolicy, DeskRequest, Entropy, PairedState, Transport};
use crate::spool::Spool;
use crate::storage::Storage as _;
use crate::storage::memory::MemoryStorage;

pub(super) const START: u64 = 1_800_000_000_000;

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(super) fn account() -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(1))
}

pub(super) fn machine() -> MachineId {
    MachineId::from_uuid(Uuid::from_u128(2))
}

/// What control says of the machine.
pub(super) fn credential() -> MachineCredential {
    MachineCredential {
        account_id: account(),
        machine_id: machine(),
        machine_key: EncodedKey(PublicKey::of(&key(100))),
        serial: 1,
        region_pin: None,
        strict_audit: false,
        issued_at: UnixMillis(START),
        expires_at: UnixMillis(START + 86_400_000),
    }
}

pub(super) fn generation() -> Generation {
    Generation::from_bytes([5; 32])
}

pub(super) fn session(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

pub(super) fn epoch(counter: u64) -> Epoch {
    Epoch { counter, incarnation: Incarnation::from_bytes([1; 16]) }
}

pub(super) fn thread() -> ThreadId {
    ThreadId::from_uuid(Uuid::from_u128(0x77))
}

// === Codex ===

#[derive(Clone)]
pub(super) struct FakeCodex(Arc<Mutex<Script>>, mpsc::Sender<CodexEvent>);

pub(super) struct Script {
    pub(super) executed: Vec<CommandId>,
    pub(super) answered: Vec<(RequestKey, Decision)>,
    pub(super) questions: usize,
    pub(super) unwatched: usize,
    pub(super) result: Result<agent::CommandResult, Refused>,
    pub(super) answer: AnswerOutcome,
    pub(super) proof: Option<String>,
    /// Calls wait for a permit.
    pub(super) gate: Arc<Semaphore>,
    pub(super) snapshot: agent::ThreadSnapshot,
}

impl FakeCodex {
    pub(super) fn script<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        change(&mut self.0.lock().unwrap())
    }

    /// Calls wait until the returned semaphore is given permits.
    pub(super) fn hold(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        self.script(|script| script.gate = gate.clone());
        gate
    }

    async fn pass(&self) {
        let gate = self.script(|script| script.gate.clone());
        gate.acquire().await.unwrap().forget();
    }
}

impl CodexPort for FakeCodex {
    fn current(&self) -> CodexStatus {
        CodexStatus::Ready { version: "0.1".to_owned(), generation: generation(), read_only: false }
    }

    async fn execute(&self, command_id: CommandId, _: Body) -> Result<agent::CommandResult, Refused> {
        self.script(|script| script.executed.push(command_id));
        self.pass().await;
        self.script(|script| script.result.clone())
    }

    async fn watch(&self, thread_id: ThreadId, watch_id: WatchId) -> Result<(), Refused> {
        let outcome = Ok(self.script(|script| script.snapshot.clone()));
        let _ = self.1.send(CodexEvent::Watched { watch_id, thread_id, outcome }).await;
        Ok(())
    }

    async fn unwatch(&self, _: ThreadId) {
        self.script(|script| script.unwatched += 1);
    }

    async fn answer_approval(&self, key: RequestKey, decision: Decision) -> AnswerOutcome {
        self.script(|script| script.answered.push((key, decision)));
        self.pass().await;
        self.script(|script| script.answer)
    }

    async fn answer_question(&self, _: RequestKey, _: Vec<agent::QuestionAnswer>) -> AnswerOutcome {
        self.script(|script| {
            script.questions += 1;
            script.answer
        })
    }

    async fn find_client_id(&self, _: ThreadId, _: CommandId) -> Result<Option<TurnId>, Refused> {
        Ok(self.script(|script| script.proof.clone()).map(|turn_id| turn_id.parse().unwrap()))
    }
}

// === World ===

/// What outlives a restart.
#[derive(Clone)]
pub(super) struct Disks {
    pub(super) journal: MemoryStorage,
    pub(super) fence: MemoryStorage,
    pub(super) devices: MemoryStorage,
    pub(super) spool: MemoryStorage,
    pub(super) clock: Clock,
}

impl Disks {
    pub(super) fn new() -> Self {
        let mut list = DeviceList::default();
        list.enrol(PublicKey::of(&key(1)), Role::Owner, "phone", UnixMillis(0)).unwrap();
        list.enrol(PublicKey::of(&key(2)), Role::Owner, "tablet", UnixMillis(0)).unwrap();
        list.enrol(PublicKey::of(&key(3)), Role::Viewer, "screen", UnixMillis(0)).unwrap();
        Self {
            journal: MemoryStorage::default(),
            fence: MemoryStorage::default(),
            devices: MemoryStorage::with(serde_json::to_vec(&list).unwrap()),
            spool: MemoryStorage::default(),
            clock: Clock::manual(START),
        }
    }
}

pub(super) struct World {
    pub(super) disks: Disks,
    pub(super) clock: Clock,
    pub(super) codex: FakeCodex,
    pub(super) events: mpsc::Sender<CodexEvent>,
    pub(super) links: mpsc::Sender<LinkEvent>,
    pub(super) outbox: Outbox,
    pub(super) boot_id: BootId,
    pub(super) epoch: Epoch,
    pub(super) policy: watch::Sender<DeskPolicy>,
    pub(super) credential: watch::Sender<SecretText>,
    pub(super) desk: mpsc::Sender<DeskRequest>,
    pub(super) status: watch::Receiver<Option<CoreStatus>>,
    pub(super) spool: Spool,
    pub(super) paired: PairedState,
    pub(super) fence: Fence,
    pub(super) signer: TokenSigner,
    pub(super) shutdown: Shutdown,
    pub(super) seen: Vec<v1::connector_frame::Kind>,
    numbers: u128,
}

impl World {
    /// A first start, linked and owned.
    pub(super) async fn start() -> Self {
        let mut world = Self::boot(Disks::new(), 9).await;
        world.own(1, 1).await;
        world
    }

    /// A life of the connector on some disks.
    pub(super) async fn boot(disks: Disks, boot: u8) -> Self {
        let (events, events_rx) = mpsc::channel(64);
        let (links, links_rx) = mpsc::channel(64);
        let (desk, desk_rx) = mpsc::channel(8);
        let (status_tx, status) = watch::channel(None);
        let (policy, policy_rx) = watch::channel(DeskPolicy::default());
        let signer = TokenSigner::from_seed("k", &SecretKey::new([8; 32]));
        let verifier = TokenVerifier::new([signer.public()]);
        let (credential, credential_rx) = watch::channel(SecretText::new(signer.sign(&credential())));
        let paired = PairedState {
            origin: "https://relay.example".to_owned(),
            account_id: account(),
            account_name: "X".to_owned(),
            machine_id: machine(),
            machine_label: "desk".to_owned(),
            machine_key: watch::channel(Arc::new(key(100))).1,
            credential: credential_rx,
            verifier: watch::channel(Arc::new(verifier)).1,
            regions: watch::channel(Vec::new()).1,
            policy: policy_rx,
        };
        let script = Script {
            executed: Vec::new(),
            answered: Vec::new(),
            questions: 0,
            unwatched: 0,
            result: Ok(agent::CommandResult::default()),
            answer: AnswerOutcome::Confirmed,
            proof: None,
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            snapshot: agent::ThreadSnapshot::default(),
        };
        let codex = FakeCodex(Arc::new(Mutex::new(script)), events.clone());
        let boot_id = BootId::from_bytes([boot; 16]);
        let spool = Spool::open(Box::new(disks.spool.clone())).unwrap();
        let fence = Fence::open(Box::new(disks.fence.clone())).unwrap();
        let config = CoreConfig {
            paired: paired.clone(),
            boot_id,
            connector_version: "1".to_owned(),
            entropy: Entropy::from_fn(|bytes| bytes.fill(7)),
            journal: Box::new(disks.journal.clone()),
            devices: Box::new(disks.devices.clone()),
            fence: fence.clone(),
            spool: spool.clone(),
            approval_lifetime: flydex_domain::limits::APPROVAL_LIFETIME,
            desk: desk_rx,
            status: status_tx,
            region_report: watch::Sender::default(),
        };
        let (clock, shutdown) = (disks.clock.clone(), Shutdown::new());
        let core = run_with_links(config, codex.clone(), events_rx, links_rx, clock.clone(), shutdown.clone());
        tokio::spawn(async move { core.await.unwrap() });
        let outbox = Outbox::new(Framing::Message);
        Self {
            disks,
            clock,
            codex,
            events,
            links,
            outbox,
            boot_id,
            epoch: epoch(0),
            policy,
            credential,
            desk,
            status,
            spool,
            paired,
            fence,
            signer,
            shutdown,
            seen: Vec::new(),
            numbers: u128::from(boot) << 64,
        }
    }

    /// The process is gone without a word; what is on the disks stays.
    pub(super) async fn crash(self) -> Disks {
        self.shutdown.force();
        let copy = Disks {
            journal: MemoryStorage::with(self.disks.journal.content()),
            fence: MemoryStorage::with(self.disks.fence.content()),
            devices: MemoryStorage::with(self.disks.devices.content()),
            spool: MemoryStorage::with(self.disks.spool.content()),
            clock: self.disks.clock.clone(),
        };
        assert!(self.disks.journal.clone().load().is_ok());
        copy
    }

    // === The owner ===

    /// A new link, over which an owner attaches.
    pub(super) async fn own(&mut self, link: u64, counter: u64) {
        self.outbox = Outbox::new(Framing::Message);
        let outbox = self.outbox.clone();
        let channel = Channel { transport: Transport::WebSocket, bound: true };
        self.links.send(LinkEvent::Up { link, outbox, channel }).await.unwrap();
        self.epoch = epoch(counter);
        self.owner(link, v1::owner_frame::Kind::Attach(v1::AttachOwner {})).await;
        self.until("attached", |kind| matches!(kind, v1::connector_frame::Kind::Attached(_)).then_some(())).await;
    }

    /// Another owner attaches over the same link; gives what the one before was still sent.
    pub(super) async fn taken_over(&mut self, link: u64, counter: u64) -> Vec<v1::ConnectorFrame> {
        self.epoch = epoch(counter);
        self.owner(link, v1::owner_frame::Kind::Attach(v1::AttachOwner {})).await;
        let mut before = Vec::new();
        loop {
            let frame = self.next_frame().await;
            if matches!(frame.kind, Some(v1::connector_frame::Kind::Attached(_))) {
                return before;
            }
            before.push(frame);
        }
    }

    pub(super) async fn owner(&self, link: u64, kind: v1::owner_frame::Kind) {
        let frame = v1::OwnerFrame { epoch: Some(self.epoch.into()), kind: Some(kind) };
        self.links.send(LinkEvent::Frame { link, frame }).await.unwrap();
    }

    pub(super) async fn next(&mut self) -> v1::connector_frame::Kind {
        self.next_frame().await.kind.unwrap()
    }

    pub(super) async fn next_frame(&mut self) -> v1::ConnectorFrame {
        let bytes = tokio::time::timeout(Duration::from_secs(10), self.outbox.next()).await.expect("a frame").unwrap();
        let (_, body) = split_message(bytes).unwrap();
        let up: v1::LinkUp = decode_body(body).unwrap();
        let Some(v1::link_up::Kind::Frame(frame)) = up.kind else { panic!("not a frame") };
        frame
    }

    /// Reads on until a frame is what is wanted; the others are kept in `seen`.
    pub(super) async fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&v1::connector_frame::Kind) -> Option<T>,
    ) -> T {
        for _ in 0..500 {
            let kind = self.next().await;
            if let Some(found) = wanted(&kind) {
                return found;
            }
            self.seen.push(kind);
        }
        panic!("no {what}");
    }

    pub(super) async fn until_message<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&v1::machine_message::Kind) -> Option<T>,
    ) -> T {
        self.until(what, |kind| match kind {
            v1::connector_frame::Kind::ToSession(to) => wanted(to.message.as_ref()?.kind.as_ref()?),
            _ => None,
        })
        .await
    }

    /// The first event of this kind that was not taken yet: there is no order between the lanes, so it may have come
    /// before a receipt that was waited for.
    pub(super) async fn until_event<T>(&mut self, mut wanted: impl FnMut(agent::agent_event::Kind) -> Option<T>) -> T {
        let mut wanted = |kind: &v1::connector_frame::Kind| match kind {
            v1::connector_frame::Kind::SharedEvent(event) => {
                wanted(agent::AgentEvent::decode(event.body.clone()).unwrap().kind?)
            }
            _ => None,
        };
        for index in 0..self.seen.len() {
            if let Some(found) = wanted(&self.seen[index]) {
                self.seen.remove(index);
                return found;
            }
        }
        self.until("event", wanted).await
    }

    // === A device ===

    pub(super) fn header(&mut self, device: u8, via: SessionId, kind: CommandKind, body: &[u8]) -> CommandHeader {
        self.numbers += 1;
        let is_read = kind.class() == CommandClass::Read;
        CommandHeader {
            command_id: CommandId::from_uuid(Uuid::from_u128(self.numbers)),
            account_id: account(),
            machine_id: machine(),
            device_id: PublicKey::of(&key(device)).device_id(),
            boot_id: self.boot_id,
            issued_at: UnixMillis(self.clock.unix_millis()),
            lifetime: Duration::from_secs(60),
            kind,
            body_sha256: sha256(body),
            session_id: is_read.then_some(via),
            answer: None,
        }
    }

    /// Signs and sends a command; gives what was sent.
    pub(super) async fn send(&mut self, device: u8, via: SessionId, kind: CommandKind, body: Body) -> v1::Command {
        let body = agent::CommandBody { kind: Some(body) }.encode_to_vec();
        let header = self.header(device, via, kind, &body);
        let command = signed(device, &header, body);
        self.bring(device, via, Role::Owner, command.clone()).await;
        command
    }

    pub(super) async fn bring(&self, device: u8, via: SessionId, role: Role, command: v1::Command) {
        let message = v1::DeviceMessage { trace: None, kind: Some(v1::device_message::Kind::Command(command)) };
        let from = v1::FromSession {
            session_id: Bytes::copy_from_slice(via.as_bytes()),
            device_id: Bytes::copy_from_slice(PublicKey::of(&key(device)).device_id().as_bytes()),
            role: role.as_str().to_owned(),
            message: Some(message),
        };
        self.owner(1, v1::owner_frame::Kind::FromSession(from)).await;
    }

    /// The next receipt, verified.
    pub(super) async fn receipt(&mut self) -> Receipt {
        let signed = self.until_message("receipt", |kind| match kind {
            v1::machine_message::Kind::Receipt(receipt) => Some(receipt.clone()),
            _ => None,
        });
        let signed = signed.await;
        PublicKey::of(&key(100)).verify(receipt_transcript(&signed.receipt), &signed.signature).unwrap();
        v1::Receipt::decode(signed.receipt).unwrap().try_into().unwrap()
    }

    pub(super) async fn failure(&mut self) -> ErrorCode {
        self.until_message("failure", |kind| match kind {
            v1::machine_message::Kind::Failure(failure) => Some(ErrorCode::from_number(failure.code).unwrap()),
            v1::machine_message::Kind::Receipt(_) => panic!("a receipt where a failure belongs"),
            _ => None,
        })
        .await
    }

    pub(super) async fn attach(&mut self, device: u8, via: SessionId) -> agent::Attached {
        self.send(device, via, CommandKind::Attach, Body::Attach(agent::Attach::default())).await;
        let receipt = self.receipt().await;
        assert_eq!(receipt.outcome, Outcome::Executed);
        let Some(agent::command_result::Kind::Attached(attached)) = result(&receipt).kind else {
            panic!("not attached")
        };
        attached
    }

    pub(super) async fn start_turn(&mut self, device: u8, via: SessionId) -> v1::Command {
        self.send(device, via, CommandKind::StartTurn, Body::StartTurn(turn())).await
    }

    /// Answers an approval as its signed bytes show it; `change` may tamper.
    pub(super) async fn answer(
        &mut self,
        device: u8,
        approval: &agent::Approval,
        decision: Decision,
        digest: [u8; 32],
        audit: impl FnOnce(&CommandHeader, &[u8]) -> String,
    ) -> v1::Command {
        let body = Body::AnswerApproval(agent::AnswerApproval { digest: Bytes::copy_from_slice(&digest) });
        let body = agent::CommandBody { kind: Some(body) }.encode_to_vec();
        let mut header = self.header(device, session(1), CommandKind::AnswerApproval, &body);
        header.answer = Some(ApprovalAnswer {
            approval_id: approval.approval_id.as_ref().try_into().unwrap(),
            generation: approval.generation.as_ref().try_into().unwrap(),
            decision,
        });
        let mut command = signed(device, &header, body);
        command.audit_receipt = audit(&header, &command.header);
        self.bring(device, session(device.into()), Role::Owner, command.clone()).await;
        command
    }
}

pub(super) fn turn() -> agent::StartTurn {
    agent::StartTurn { thread_id: thread().to_string(), text: "secret prompt".to_owned(), ..Default::default() }
}

pub(super) fn signed(device: u8, header: &CommandHeader, body: Vec<u8>) -> v1::Command {
    let header = Bytes::from(v1::CommandHeader::from(header).encode_to_vec());
    let signature = sign(&key(device), command_transcript(&header));
    v1::Command {
        header,
        body: body.into(),
        signature: Bytes::copy_from_slice(&signature),
        audit_receipt: String::new(),
        assertion: None,
    }
}

pub(super) fn result(receipt: &Receipt) -> agent::CommandResult {
    agent::CommandResult::decode(receipt.result.expose().clone()).unwrap()
}

pub(super) fn device_id(device: u8) -> DeviceId {
    PublicKey::of(&key(device)).device_id()
}
