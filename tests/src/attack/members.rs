//! Members who lost rights, and people who never had them: what they hold is dead within two seconds, in every process
//! and at the machine.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use flydex_domain::command::CommandKind;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, CommandHash, CommandId, Generation};
use flydex_domain::limits::SIGN_IN_RATE_PER_MINUTE;
use flydex_loadtest::account::{Account, encode, key_json};
use flydex_loadtest::device::Device;
use flydex_proto::v1::session_down;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Attack;
use super::office::{Office, Stopwatch, ends, invitation, remove, set_role, user_id};
use super::stand::{Client, Ground, Relay, api_code};
use super::tally::Tally;
use crate::cluster::{Cluster, RegionSettings, Settings};

/// What is tried.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "removed members",
        tries: "a removed member's session, ticket, cookie and device key",
        stopped_by: &["cut within 2 s", "grant_invalid", "unauthenticated", "device_not_enrolled"],
        run: |ground, tally| Box::pin(removed(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "members removed in a drain",
        tries: "a removed member's session at a gateway that drains, by who does not leave when told to",
        stopped_by: &["cut within 2 s"],
        run: |_, tally| Box::pin(removed_in_a_drain(tally)),
        regions: 1,
    },
    Attack {
        name: "demoted owners",
        tries: "a demoted owner's session, ticket, invitation, and every request of an owner",
        stopped_by: &["cut within 2 s", "grant_invalid", "invitation_invalid", "forbidden", "role_insufficient"],
        run: |ground, tally| Box::pin(demoted(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "switched accounts",
        tries: "the account before a switch: its session, its ticket, its machine",
        stopped_by: &["cut within 2 s", "grant_invalid", "unauthenticated", "not_found"],
        run: |ground, tally| Box::pin(switched(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "guessed invitations",
        tries: "an invitation by two at once, once more, by a member, and by guessing",
        stopped_by: &["invitation_invalid", "already_member", "forbidden", "rate_limited", "bad_request"],
        run: |ground, tally| Box::pin(invited(ground, tally)),
        regions: 1,
    },
    Attack {
        name: "owners against owners",
        tries: "two owners who remove each other at once, and the last one who leaves",
        stopped_by: &["unauthenticated", "last_owner"],
        run: |ground, tally| Box::pin(pushed_out(ground, tally)),
        regions: 1,
    },
];

async fn starts(office: &Office, client: &mut Client, text: &str) -> anyhow::Result<()> {
    let signed = client.sign(CommandKind::StartThread, office.stand.start_thread(text), |_| {});
    client.ask(&signed).await?;
    office.stand.model.request(|request| request.prompt.contains(text)).await.map(drop)
}

/// What the API refuses to an account.
struct Asked<'a>(&'a Account, &'a Tally);

impl Asked<'_> {
    /// Asks, and fails unless it is refused with that code.
    async fn is_refused(&self, method: Method, path: &str, body: Option<Value>, with: &str) -> anyhow::Result<()> {
        let (status, answer) = self.0.call(method.clone(), path, body).await?;
        ensure!(!status.is_success() && api_code(&answer) == with, "{method} {path} was answered {status}: {answer}");
        self.1.stopped(with);
        Ok(())
    }
}

async fn removed(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let office = Office::open(&ground, &tally).await?;
    let ana = office.second_owner().await?;
    let mut owner = office.attached(&office.owner).await?;
    let mut client = office.attached(&ana).await?;
    starts(&office, &mut client, "ana begins").await?;
    let unused = office.ticket(&ana).await?;

    let stopwatch = Stopwatch::start();
    let (status, answer) = remove(&office.owner.account, &ana.user_id).await?;
    ensure!(status.is_success(), "{answer}");
    let ended = ends(&mut client).await;
    stopwatch.within("removed member's session at the gateway", &tally)?;
    office.machine_says(&ana.device, None).await?;
    stopwatch.within("removed member's device on the machine's list", &tally)?;
    ensure!(ended.ends_with("grant_invalid") || ended.ends_with("device_revoked"), "{ended}");

    // What was got before opens nothing, and nothing new is to be had.
    let refusal = office.session_by(unused, &ana.device).await.err().context("a session")?;
    tally.is_about(&refusal, ErrorCode::GrantInvalid)?;
    let body = json!({ "device_key": key_json(&ana.device.public_key()), "region": office.stand.relay.regions()[0] });
    Asked(&ana.account, &tally).is_refused(Method::POST, "/api/tickets", Some(body), "unauthenticated").await?;
    Asked(&ana.account, &tally).is_refused(Method::GET, "/api/machines", None, "unauthenticated").await?;
    // Somebody else's session with the same account brings the key no further: the machine does not know it any more.
    let mut forged = office.opened(&office.owner, ana.device.clone()).await?;
    let signed = forged.sign(CommandKind::StartThread, office.stand.start_thread("ana goes on"), |_| {});
    forged.is_turned_away(&signed, ErrorCode::DeviceNotEnrolled).await?;
    starts(&office, &mut owner, "the owner goes on").await?;
    ensure!(office.stand.effects("ana goes on") == 0, "a removed member's prompt came through");
    Ok(())
}

async fn removed_in_a_drain(tally: Tally) -> anyhow::Result<()> {
    let regions = vec![RegionSettings { name: "one", gateways: 1, nodes: 1 }];
    let cluster = Arc::new(Cluster::start(Settings { regions, controls: 1, ..Settings::default() }).await?);
    let office = Office::open(&Ground::Cluster(cluster.clone()), &tally).await?;
    let ana = office.second_owner().await?;
    let mut client = office.attached(&ana).await?;
    cluster.region().gateways[0].drain()?;
    while !matches!(client.session.next().await?, session_down::Kind::GoAway(_)) {}
    let stopwatch = Stopwatch::start();
    let (status, answer) = remove(&office.owner.account, &ana.user_id).await?;
    ensure!(status.is_success(), "{answer}");
    let ended = ends(&mut client).await;
    stopwatch.within("removed member's session at a gateway that drains", &tally)?;
    ensure!(ended.ends_with("grant_invalid") || ended.ends_with("device_revoked"), "{ended}");
    Ok(())
}

async fn demoted(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let office = Office::open(&ground, &tally).await?;
    let ana = office.second_owner().await?;
    let mut client = office.attached(&ana).await?;
    let unused = office.ticket(&ana).await?;
    let invited = invitation(&ana.account, "owner").await?;

    let stopwatch = Stopwatch::start();
    let (status, answer) = set_role(&office.owner.account, &ana.user_id, "viewer").await?;
    ensure!(status.is_success(), "{answer}");
    ends(&mut client).await;
    stopwatch.within("demoted owner's session at the gateway", &tally)?;
    office.machine_says(&ana.device, Some("viewer")).await?;
    stopwatch.within("demoted owner's device on the machine's list", &tally)?;

    let refusal = office.session_by(unused, &ana.device).await.err().context("a session")?;
    tally.is_about(&refusal, ErrorCode::GrantInvalid)?;
    let refusal = office.stand.relay.join(&invited).await.err().context("joined")?;
    ensure!(format!("{refusal:#}").contains("invitation_invalid"), "{refusal:#}");
    tally.stopped("invitation_invalid");
    owners_requests_are_refused(&office, &ana.account, &tally).await?;

    // A viewer looks, and neither writes nor answers.
    let mut viewer = office.attached(&ana).await?;
    let signed = viewer.sign(CommandKind::StartThread, office.stand.start_thread("ana writes"), |_| {});
    viewer.is_turned_away(&signed, ErrorCode::Forbidden).await?;

    // Owner again by the account, and by no word of the relay at the machine.
    let (status, answer) = set_role(&office.owner.account, &ana.user_id, "owner").await?;
    ensure!(status.is_success(), "{answer}");
    ends(&mut viewer).await;
    let mut again = office.attached(&ana).await?;
    let signed = again.sign(CommandKind::StartThread, office.stand.start_thread("ana writes"), |_| {});
    again.is_refused(&signed, ErrorCode::RoleInsufficient).await?;
    ensure!(office.role_at_machine(&ana.device).as_deref() == Some("viewer"), "the relay gave a role back");
    ensure!(office.stand.effects("ana writes") == 0, "a viewer's prompt came through");
    Ok(())
}

/// Everything that is an owner's to ask.
async fn owners_requests_are_refused(office: &Office, account: &Account, tally: &Tally) -> anyhow::Result<()> {
    let machine = format!("/api/machines/{}", office.stand.paired.machine_id);
    let device = format!("/api/devices/{}", office.owner.device.device_id());
    let member = format!("/api/members/{}", office.owner.user_id);
    let intent = json!({
        "machine_id": office.stand.paired.machine_id,
        "device_id": office.owner.device.device_id(),
        "approval_id": ApprovalId::from_bytes([1; 32]),
        "generation": Generation::from_bytes([2; 32]),
        "decision": "accept",
        "command_id": CommandId::from_uuid(Uuid::now_v7()),
        "command_hash": CommandHash::from_bytes([3; 32]),
    });
    for (method, path, body) in [
        (Method::PATCH, machine.as_str(), Some(json!({ "label": "mine" }))),
        (Method::DELETE, &machine, None),
        (Method::PUT, &format!("{machine}/region-pin"), Some(json!({ "region": office.stand.relay.regions()[0] }))),
        (Method::DELETE, &device, None),
        (Method::PATCH, &member, Some(json!({ "role": "viewer" }))),
        (Method::DELETE, &member, None),
        (Method::GET, "/api/invitations", None),
        (Method::POST, "/api/invitations", Some(json!({ "role": "owner", "label": "me" }))),
        (Method::POST, "/api/sign-in-links", Some(json!({}))),
        (Method::GET, "/api/audit", None),
        (Method::PUT, "/api/audit/policy", Some(json!({ "strict": false }))),
        (Method::POST, "/api/audit/intents", Some(intent)),
    ] {
        Asked(account, tally).is_refused(method, path, body, "forbidden").await?;
    }
    // A computer that is new to the account, and one more device at the one that is there.
    let adding = office.stand.machine.start(&["devices", "add"])?;
    let url = adding.pair_url().await?;
    let error = account.redeem(&url, &Device::new(), "mine").await.err().context("redeemed")?;
    ensure!(format!("{error:#}").contains("forbidden"), "{error:#}");
    adding.kill().await.map(drop)
}

async fn switched(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let office = Office::open(&ground, &tally).await?;
    let elsewhere = office.stand.relay.another_account().await?;
    let link = office.invitation("owner").await?;
    let (_, token) = link.split_once('#').context("a token")?;
    let body = json!({ "token": token });
    let (status, joined) = elsewhere.call(Method::POST, "/api/invitations/accept", Some(body)).await?;
    ensure!(status.is_success() && joined["signed_in"] == json!(false), "{joined}");
    let other = elsewhere.account_id;
    let here = elsewhere.switch(office.owner.account.account_id).await?;
    let bo = office.enrolled(here).await?;
    let mut client = office.attached(&bo).await?;
    let unused = office.ticket(&bo).await?;

    let stopwatch = Stopwatch::start();
    let back = bo.account.switch(other).await?;
    ends(&mut client).await;
    stopwatch.within("session of the account before a switch", &tally)?;
    let refusal = office.session_by(unused, &bo.device).await.err().context("a session")?;
    tally.is_about(&refusal, ErrorCode::GrantInvalid)?;
    Asked(&bo.account, &tally).is_refused(Method::GET, "/api/machines", None, "unauthenticated").await?;
    // The session in the other account speaks for that alone: it sees nothing of the one before.
    let (_, machines) = back.call(Method::GET, "/api/machines", None).await?;
    ensure!(machines["machines"] == json!([]), "{machines}");
    let path = format!("/api/machines/{}", office.stand.paired.machine_id);
    Asked(&back, &tally).is_refused(Method::DELETE, &path, None, "not_found").await?;
    Ok(())
}

async fn invited(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let link = invitation(&relay.account, "viewer").await?;
    // Two open it in the same moment.
    let tries = [relay.join(&link), relay.join(&link)];
    let outcomes = futures_util::future::join_all(tries).await;
    let (joined, refusals): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    ensure!((joined.len(), refusals.len()) == (1, 1), "{} joined", joined.len());
    let viewer = joined.into_iter().next().context("a member")??;
    let refusal = refusals.into_iter().next().and_then(Result::err).context("a refusal")?;
    ensure!(format!("{refusal:#}").contains("invitation_invalid"), "{refusal:#}");
    // Once more, by somebody who is signed in.
    let token = link.split_once('#').context("a token")?.1;
    let accept = "/api/invitations/accept";
    let again = Some(json!({ "token": token }));
    Asked(&relay.account, &tally).is_refused(Method::POST, accept, again, "invitation_invalid").await?;

    // Whoever is in already, or has none, gets nothing more out of one; it stays for whom it is meant.
    let meant = invitation(&relay.account, "owner").await?;
    let token = meant.split_once('#').context("a token")?.1;
    Asked(&viewer, &tally).is_refused(Method::POST, accept, Some(json!({ "token": token })), "already_member").await?;
    Asked(&viewer, &tally).is_refused(Method::GET, "/api/invitations", None, "forbidden").await?;
    relay.join(&meant).await?;
    let mine = set_role(&viewer, &user_id(&viewer).await?, "owner").await?;
    ensure!(api_code(&mine.1) == "forbidden", "{}", mine.1);

    let mut guesses = 0;
    loop {
        let guess = encode(&sha256(Uuid::new_v4().as_bytes()));
        let (_, answer) = viewer.call(Method::POST, accept, Some(json!({ "token": guess }))).await?;
        let code = api_code(&answer);
        tally.stopped(code);
        if code == "rate_limited" {
            break;
        }
        ensure!(code == "invitation_invalid", "{answer}");
        guesses += 1;
        ensure!(guesses <= SIGN_IN_RATE_PER_MINUTE, "guessing is not slowed down");
    }
    for nonsense in [json!({}), json!({ "token": "" }), json!({ "token": token, "role": "owner" })] {
        Asked(&viewer, &tally).is_refused(Method::POST, accept, Some(nonsense), "bad_request").await?;
    }
    Ok(())
}

async fn pushed_out(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let relay = Relay::on(&ground, &tally).await?;
    let first = &relay.account;
    let second = relay.join(&invitation(first, "owner").await?).await?;
    let (first_id, second_id) = (user_id(first).await?, user_id(&second).await?);
    let (ours, theirs) = tokio::try_join!(remove(first, &second_id), remove(&second, &first_id))?;
    ensure!(ours.0.is_success() != theirs.0.is_success(), "{ours:?} {theirs:?}");
    let (left, refusal) = if ours.0.is_success() { (first, &theirs.1) } else { (&second, &ours.1) };
    tally.stopped(api_code(refusal));
    for (method, path, body) in [
        (Method::POST, "/api/members/leave".to_owned(), Some(json!({}))),
        (Method::PATCH, format!("/api/members/{}", user_id(left).await?), Some(json!({ "role": "operator" }))),
    ] {
        Asked(left, &tally).is_refused(method, &path, body, "last_owner").await?;
    }
    Ok(())
}
