//! Control's own keys: one takes the place of another while everything runs, and one that others know is withdrawn.

use crate::process::{self, Process};
use crate::wait;
use anyhow::{Context as _, ensure};
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_domain::secret::SecretKey;
use flydex_domain::token::{EncodedKey, Grant, Ticket, TokenSigner};
use flydex_loadtest::device::Device;
use flydex_loadtest::session::Session;
use flydex_proto::codec::Lane;
use flydex_proto::v1::{self, session_up};
use flydex_store::sql::Sql;
use reqwest::Method;
use tokio::process::Command;

use super::super::Attack;
use super::super::stand::{Client, REGION, Stand, now};
use super::super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[Attack {
    name: "stolen signing keys",
    tries: "a ticket and a grant by control's own key, and a session that they opened, after it was withdrawn",
    stopped_by: &["ticket_invalid", "grant_invalid"],
    run: |_, tally| Box::pin(stolen(tally)),
    regions: 1,
}];

/// Runs `flydex-server rotate-token-key` on the database of the relay, which goes on meanwhile; the new key's name.
async fn rotate(stand: &Stand, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(process::binary("flydex-server")?);
    command.args(["rotate-token-key", "--signs-in", "3"]).args(arguments);
    command.env("FLYDEX__DATABASE__SQLITE_FILE", stand.relay.server.data().join("flydex.sqlite"));
    let mut rotating = Process::start("flydex-server", &mut command)?;
    let said = rotating.says("key ").await?;
    ensure!(rotating.ended().await?.success(), "{}", rotating.story());
    Ok(said.split(' ').next().context("a name")?.to_owned())
}

/// The names of the keys that anyone is told.
async fn told(stand: &Stand) -> Option<Vec<String>> {
    let (_, keys) = stand.relay.account.call(Method::GET, "/api/keys", None).await.ok()?;
    let keys = keys["token_keys"].as_array()?;
    Some(keys.iter().filter_map(|key| Some(key["key_id"].as_str()?.to_owned())).collect())
}

fn is_signed_by(token: &str, key_id: &str) -> bool {
    use base64::Engine as _;
    let footer = token.rsplit('.').next().unwrap_or_default();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(footer).is_ok_and(|footer| footer == key_id.as_bytes())
}

/// Waits until tickets are signed by that key.
async fn until_signing(stand: &Stand, device: &Device, key_id: &str) -> anyhow::Result<(String, String)> {
    wait::until("the new key to sign", async || {
        let (ticket, grant) = stand.relay.account.ticket(device, REGION).await.ok()?;
        is_signed_by(&ticket, key_id).then_some((ticket, grant))
    })
    .await
}

async fn starts_a_thread(stand: &Stand, client: &mut Client, text: &str) -> anyhow::Result<()> {
    let command = client.sign(CommandKind::StartThread, stand.start_thread(text), |_| {});
    ensure!(client.ask(&command).await?.outcome == Outcome::Executed, "{text} was not done");
    Ok(())
}

async fn open(stand: &Stand, tokens: (String, String), device: &Device) -> anyhow::Result<Session> {
    let (url, origin) = (stand.relay.session_url(), stand.relay.account.origin().to_owned());
    Session::open_by(tokens.0, tokens.1, device, &url, &origin).await
}

/// A new key is told before it signs, and what the old one signed holds until its end. This is no attack: nobody may be
/// refused, and nothing interrupted.
///
/// # Errors
/// When somebody is refused or interrupted.
pub async fn replaced() -> anyhow::Result<()> {
    let mut stand = Stand::start().await?;
    let device = std::mem::take(&mut stand.device);
    let first = told(&stand).await.context("keys")?;
    let second = rotate(&stand, &[]).await?;
    wait::until("the new key to be told", async || (told(&stand).await? == sorted(&first, &second)).then_some(()))
        .await?;
    let of_first = stand.relay.account.ticket(&device, REGION).await?;
    ensure!(is_signed_by(&of_first.0, &first[0]), "a key that has just been told signs already");
    let (other, second_device) = (Device::new(), Device::new());
    let of_first_late = stand.relay.account.ticket(&other, REGION).await?;
    let mut client = stand.client(&stand.relay.account, device).await?;
    client.attach().await?;
    until_signing(&stand, &second_device, &second).await?;
    starts_a_thread(&stand, &mut client, "after the change").await?;
    // What the old key signed opens sessions and links until its end.
    open(&stand, of_first_late, &other).await?;
    stand.connector.take().context("a connector")?.kill().await?;
    let connector = stand.machine.run()?;
    let device = client.device;
    drop(client.session);
    let mut client = stand.client_when_linked(&device).await?;
    starts_a_thread(&stand, &mut client, "by a link of the old credential").await?;
    stand.connector = Some(connector);
    Ok(())
}

fn sorted(known: &[String], made: &str) -> Vec<String> {
    let mut keys = known.to_vec();
    keys.push(made.to_owned());
    keys.sort();
    keys
}

async fn stolen(tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::start().await?;
    let thief = Thief::of(&stand).await?;
    let intruder = Device::new();
    // The key is worth everything at the relay until it is withdrawn; the machine still obeys none of it.
    let mut held = open(&stand, thief.tokens(&intruder), &intruder).await?;
    let second = rotate(&stand, &["--compromised"]).await?;
    let device = std::mem::take(&mut stand.device);
    until_signing(&stand, &device, &second).await?;
    wait::until("the old key to be withdrawn", async || (told(&stand).await? == [second.clone()]).then_some(()))
        .await?;
    let refused = open(&stand, thief.tokens(&intruder), &intruder).await.err().context("a forged ticket was taken")?;
    tally.is_about(&refused, ErrorCode::TicketInvalid)?;

    // What was opened before is not served any more.
    let ended = wait::within("the thief's session to end", async {
        loop {
            let ping = held.send(Lane::Control, session_up::Kind::Ping(v1::Ping::default()));
            if let Err(error) = ping.await {
                break error;
            }
            if let Err(error) = held.next().await {
                break error;
            }
        }
    });
    tally.is_about(&ended.await?, ErrorCode::GrantInvalid)?;

    // A machine whose credential is of that key gets another by itself, and its devices go on.
    stand.connector.take().context("a connector")?.kill().await?;
    let connector = stand.machine.run()?;
    let mut client = stand.client_when_linked(&device).await.with_context(|| connector.process().story())?;
    starts_a_thread(&stand, &mut client, "after the theft").await?;
    stand.connector = Some(connector);
    Ok(())
}

/// Somebody who has read the database.
struct Thief {
    signer: TokenSigner,
    ticket: Ticket,
    grant: Grant,
}

impl Thief {
    async fn of(stand: &Stand) -> anyhow::Result<Self> {
        let sql = Sql::open_sqlite(&stand.relay.server.data().join("flydex.sqlite")).await?;
        let mut tx = sql.read().await?;
        let kept = tx.token_keys().await?.pop().context("a key")?;
        drop(tx);
        sql.close().await;
        let seed = SecretKey::new(*kept.seed.context("a seed")?.expose());
        let signer = TokenSigner::from_seed(&kept.key.key_id, &seed);
        let device = Device::new();
        let (ticket, grant) = stand.relay.account.ticket(&device, REGION).await?;
        let verifier = flydex_domain::token::TokenVerifier::new([signer.public()]);
        Ok(Self { ticket: verifier.verify(&ticket, now())?, grant: verifier.verify(&grant, now())?, signer })
    }

    /// A ticket and a grant for a device of the thief's own.
    fn tokens(&self, device: &Device) -> (String, String) {
        let ticket_id = flydex_domain::id::TicketId::from_uuid(uuid::Uuid::new_v4());
        let expires_at = now().plus(flydex_domain::limits::TICKET_LIFETIME);
        let ticket = Ticket { ticket_id, device_id: device.device_id(), expires_at, ..self.ticket.clone() };
        let grant = Grant { device_key: EncodedKey(device.public_key()), ..self.grant.clone() };
        (self.signer.sign(&ticket), self.signer.sign(&grant))
    }
}
