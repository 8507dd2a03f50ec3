//! The first frames of a link: nobody stands in for a machine with less than its key and a fresh proof.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_connector::api::verifier;
use flydex_connector::record::PairedRecord;
use flydex_connector::state::StateDir;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::BootId;
use flydex_domain::key::sign;
use flydex_domain::proof::{LinkProof, host_of};
use flydex_domain::secret::SecretKey;
use flydex_domain::time::UnixMillis;
use flydex_domain::token::{MachineCredential, TokenSigner};
use flydex_loadtest::dial::{self, Socket};
use flydex_proto::codec::{VERSION, VERSION_MIN, decode_body, encode_message, split_message};
use flydex_proto::lanes::OnLane as _;
use flydex_proto::v1::link_down::Kind as Down;
use flydex_proto::v1::link_up::Kind as Up;
use flydex_proto::v1::{self, connector_frame};
use flydex_runtime::tls::client_config;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use super::Attack;
use super::stand::{Ground, Stand};
use super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[Attack {
    name: "links of others",
    tries: "a machine's credential without its key, a proof again, a proof of anything else, credentials that are none, and \
            other frames first",
    stopped_by: &["proof_invalid", "credential_invalid", "unexpected_frame"],
    run: |ground, tally| Box::pin(links_of_others(ground, tally)),
    regions: 1,
}];

const BOOT: BootId = BootId::from_bytes([0xb0; 16]);
/// Above what the machine's own connector has counted.
const COUNTER: u64 = 1_000;

/// What a thief may have of a machine that runs no more.
struct Stolen {
    stand: Stand,
    record: PairedRecord,
    key: SigningKey,
    region: String,
    link_url: String,
}

impl Stolen {
    async fn from(mut stand: Stand) -> anyhow::Result<Self> {
        stand.connector.take().context("a connector")?.stop().await?;
        let state = StateDir::open(&stand.machine.state())?;
        let record = PairedRecord::load(&state)?.context("a pairing")?;
        let key = state.existing_machine_key()?.context("a key")?;
        let first = record.regions.regions.first().context("a region")?.clone();
        Ok(Self { stand, record, key, region: first.region, link_url: first.link_url })
    }

    /// What the credential says.
    fn claims(&self) -> anyhow::Result<MachineCredential> {
        // Whatever its age: at the beginning of time nothing has expired.
        Ok(verifier(&self.record.token_keys).verify(self.record.credential.expose(), UnixMillis(0))?)
    }

    fn hello(&self, credential: &str, link_counter: u64) -> Up {
        Up::Hello(v1::LinkHello {
            version: VERSION,
            version_min: VERSION_MIN,
            capabilities: Vec::new(),
            credential: credential.to_owned(),
            link_counter,
            boot_id: Bytes::copy_from_slice(BOOT.as_bytes()),
            connector_version: "1".to_owned(),
        })
    }

    async fn dial(&self) -> anyhow::Result<Link> {
        let tls = Arc::new(client_config(self.stand.relay.server.certificate_pem(), &[b"http/1.1"])?);
        Ok(Link(dial::link(&self.link_url, &tls).await?))
    }

    /// Says hello with the machine's own credential and whatever proof, up to the welcome; the proof.
    async fn enter(&self, link_counter: u64, prove: impl FnOnce(&v1::LinkChallenge) -> Up) -> anyhow::Result<Up> {
        let mut link = self.dial().await?;
        link.send(self.hello(self.record.credential.expose(), link_counter)).await?;
        let Down::Challenge(challenge) = link.next().await? else { bail!("no challenge") };
        let proof = prove(&challenge);
        link.send(proof.clone()).await?;
        let Down::Welcome(_) = link.next().await? else { bail!("no welcome") };
        Ok(proof)
    }

    /// The proof that it takes, but for what `change` does to it before `key` signs it.
    fn proof(
        &self,
        challenge: &v1::LinkChallenge,
        link_counter: u64,
        key: &SigningKey,
        change: impl FnOnce(&mut LinkProof<'_>),
    ) -> Up {
        let host = host_of(&self.link_url);
        let nonce = challenge.nonce.as_ref().try_into().unwrap_or(&[0; 32]);
        let gateway_id = &challenge.gateway_id;
        let mut proof = LinkProof { nonce, host: &host, gateway_id, boot_id: BOOT, link_counter, exporter: None };
        change(&mut proof);
        let channel_bound = proof.exporter.is_some();
        let signature = Bytes::copy_from_slice(&sign(key, proof.transcript()));
        Up::Proof(v1::LinkProof { signature, channel_bound })
    }
}

/// A link's socket.
struct Link(Socket);

impl Link {
    async fn send(&mut self, kind: Up) -> anyhow::Result<()> {
        let message = v1::LinkUp { kind: Some(kind) };
        Ok(self.0.send(Message::Binary(encode_message(message.lane(), &message)?)).await?)
    }

    /// The next message; an error that ends with the code when there is none any more.
    async fn next(&mut self) -> anyhow::Result<Down> {
        loop {
            let Message::Binary(bytes) = self.0.next().await.context("closed without a word")?? else { continue };
            let kind = decode_body::<v1::LinkDown>(split_message(bytes)?.1)?.kind.context("an empty message")?;
            if let Down::End(end) = &kind {
                bail!("ended with {}", ErrorCode::from_number(end.code).map_or("an unknown code", ErrorCode::name));
            }
            return Ok(kind);
        }
    }
}

async fn links_of_others(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let stranger = Stolen::from(Stand::on(&ground, &Tally::default()).await?).await?;
    let stolen = Stolen::from(Stand::on(&ground, &tally).await?).await?;
    // Whoever has the key is the machine: this is right when it is said, and recorded.
    let recorded = stolen.enter(COUNTER, |challenge| stolen.proof(challenge, COUNTER, &stolen.key, |_| {})).await?;
    proofs_that_do_not_hold(&stolen, &stranger.key, recorded, &tally).await?;
    credentials_that_are_none(&stolen, &tally).await?;
    other_frames_first(&stolen, &tally).await?;
    let counter = COUNTER + 1;
    stolen.enter(counter, |challenge| stolen.proof(challenge, counter, &stolen.key, |_| {})).await.map(drop)
}

async fn proofs_that_do_not_hold(
    stolen: &Stolen,
    stranger: &SigningKey,
    recorded: Up,
    tally: &Tally,
) -> anyhow::Result<()> {
    let counter = COUNTER + 1;
    type Change = fn(&mut LinkProof<'_>);
    let changes: [(&str, Change); 6] = [
        ("of another challenge", |proof| proof.nonce = &[7; 32]),
        ("for another relay", |proof| proof.host = "elsewhere.example"),
        ("at another gateway", |proof| proof.gateway_id = "another"),
        ("of another life", |proof| proof.boot_id = BootId::from_bytes([0xb1; 16])),
        ("of another link", |proof| proof.link_counter = COUNTER),
        ("over another connection", |proof| proof.exporter = Some(&[1; 32])),
    ];
    for (what, change) in changes {
        let refused = stolen.enter(counter, |challenge| stolen.proof(challenge, counter, &stolen.key, change)).await;
        tally.is_about(&refused.err().context(what)?, ErrorCode::ProofInvalid).context(what)?;
    }
    let refused = stolen.enter(counter, |challenge| stolen.proof(challenge, counter, stranger, |_| {})).await;
    tally.is_about(&refused.err().context("without the key")?, ErrorCode::ProofInvalid).context("without the key")?;
    let again = stolen.enter(COUNTER, |_| recorded.clone()).await;
    tally.is_about(&again.err().context("said again")?, ErrorCode::ProofInvalid).context("said again")
}

async fn credentials_that_are_none(stolen: &Stolen, tally: &Tally) -> anyhow::Result<()> {
    let own = stolen.record.credential.expose();
    let mut bent = own.to_owned();
    bent.insert(own.len() / 2, 'A');
    let (ticket, grant) = stolen.stand.relay.account.ticket(&stolen.stand.device, &stolen.region).await?;
    let key_id = &stolen.record.token_keys.first().context("a key of control")?.key_id;
    let forged = TokenSigner::from_seed(key_id, &SecretKey::new([0xcc; 32])).sign(&stolen.claims()?);
    for (what, credential) in
        [("none", ""), ("bent", &bent), ("a ticket", &ticket), ("a grant", &grant), ("forged", &forged)]
    {
        let mut link = stolen.dial().await?;
        link.send(stolen.hello(credential, COUNTER + 1)).await?;
        tally.is_about(&link.next().await.err().context(what)?, ErrorCode::CredentialInvalid).context(what)?;
    }
    Ok(())
}

async fn other_frames_first(stolen: &Stolen, tally: &Tally) -> anyhow::Result<()> {
    let event = v1::Event { stream_id: 1, seq: 1, body: Bytes::from_static(b"event") };
    let frame = v1::ConnectorFrame { epoch: None, kind: Some(connector_frame::Kind::SharedEvent(event)) };
    let proof = v1::LinkProof { signature: Bytes::from_static(&[1; 64]), channel_bound: false };
    for (what, first) in [
        ("an event", Up::Frame(frame)),
        ("a proof", Up::Proof(proof)),
        ("a ping", Up::Ping(v1::Ping { nonce: 1 })),
        ("a pong", Up::Pong(v1::Pong { nonce: 1, server_time_ms: 0 })),
    ] {
        let mut link = stolen.dial().await?;
        link.send(first).await?;
        tally.is_about(&link.next().await.err().context(what)?, ErrorCode::UnexpectedFrame).context(what)?;
    }
    Ok(())
}
