//! Members who lost rights, and people who never had them: what they hold is dead within two seconds, in every process
//! and at the machine.

use anyhow::{Context as _, ensure};
use flydex_domain::command::CommandKind;
use flydex_domain::encoding::sha256;
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, CommandHash, CommandId, Generation};
use flydex_domain::limits::SIGN_IN_RATE_PER_MINUTE;
use flydex_loadtest::account::{Account, encode, key_json};
use flydex_loadtest::device::Device;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::office::{Office, Stopwatch, ends, invitation, remove, set_role, user_id};
use super::stand::{Client, Relay, api_code, is_about};
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;

fn start_thread(office: &Office, text: &str) -> Body {
    let directory = office.machine.workspace().to_string_lossy().into_owned();
    Body::StartThread(agent::StartThread { directory, text: text.to_owned(), model: String::new() })
}

async fn starts(office: &Office, client: &mut Client, text: &str) -> anyhow::Result<()> {
    let signed = client.sign(CommandKind::StartThread, start_thread(office, text), |_| {});
    client.ask(&signed).await?;
    office.model.request(|request| request.prompt.contains(text)).await.map(drop)
}

/// The code of a refusal of the API.
async fn refused(account: &Account, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<String> {
    let (status, answer) = account.call(method, path, body).await?;
    ensure!(!status.is_success(), "{path} was answered {status}");
    Ok(api_code(&answer).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_cut_everywhere_within_two_seconds() -> anyhow::Result<()> {
    let office = Office::open().await?;
    let ana = office.second_owner().await?;
    let mut owner = office.attached(&office.owner).await?;
    let mut client = office.attached(&ana).await?;
    starts(&office, &mut client, "ana begins").await?;
    let unused = office.ticket(&ana).await?;

    let stopwatch = Stopwatch::start();
    let (status, answer) = remove(&office.owner.account, &ana.user_id).await?;
    ensure!(status.is_success(), "{answer}");
    let ended = ends(&mut client).await;
    stopwatch.within("removed member's session at the gateway")?;
    office.machine_says(&ana.device, None).await?;
    stopwatch.within("removed member's device on the machine's list")?;
    ensure!(ended.ends_with("grant_invalid") || ended.ends_with("device_revoked"), "{ended}");

    // What was got before opens nothing, and nothing new is to be had.
    is_about(&office.session_by(unused, &ana.device).await.err().context("a session")?, ErrorCode::GrantInvalid)?;
    let body = json!({ "device_key": key_json(&ana.device.public_key()), "region": "one" });
    assert_eq!(refused(&ana.account, Method::POST, "/api/tickets", Some(body)).await?, "unauthenticated");
    assert_eq!(refused(&ana.account, Method::GET, "/api/machines", None).await?, "unauthenticated");
    // Somebody else's session with the same account brings the key no further: the machine does not know it any more.
    let session = office.session_by(office.ticket(&office.owner).await?, &office.owner.device).await?;
    let mut forged = Client::opened(session, &office.paired, ana.device.clone()).await?;
    let signed = forged.sign(CommandKind::StartThread, start_thread(&office, "ana goes on"), |_| {});
    is_about(&forged.ask(&signed).await.err().context("a receipt")?, ErrorCode::DeviceNotEnrolled)?;
    starts(&office, &mut owner, "the owner goes on").await?;
    let effects = office.model.requests().iter().filter(|request| request.prompt.contains("ana goes on")).count();
    assert_eq!(effects, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_owner_keeps_no_owners_right_at_the_api_or_the_machine() -> anyhow::Result<()> {
    let office = Office::open().await?;
    let ana = office.second_owner().await?;
    let mut client = office.attached(&ana).await?;
    let unused = office.ticket(&ana).await?;
    let invited = invitation(&ana.account, "owner").await?;

    let stopwatch = Stopwatch::start();
    let (status, answer) = set_role(&office.owner.account, &ana.user_id, "viewer").await?;
    ensure!(status.is_success(), "{answer}");
    ends(&mut client).await;
    stopwatch.within("demoted owner's session at the gateway")?;
    office.machine_says(&ana.device, Some("viewer")).await?;
    stopwatch.within("demoted owner's device on the machine's list")?;

    is_about(&office.session_by(unused, &ana.device).await.err().context("a session")?, ErrorCode::GrantInvalid)?;
    let joined = Account::join(&invited, Some(office.cluster.certificate_pem())).await.err().context("joined")?;
    ensure!(format!("{joined:#}").contains("invitation_invalid"), "{joined:#}");
    owners_requests_are_refused(&office, &ana.account).await?;

    // A viewer looks, and neither writes nor answers.
    let mut viewer = office.attached(&ana).await?;
    let signed = viewer.sign(CommandKind::StartThread, start_thread(&office, "ana writes"), |_| {});
    is_about(&viewer.ask(&signed).await.err().context("a receipt")?, ErrorCode::Forbidden)?;

    // Owner again by the account, and by no word of the relay at the machine.
    let (status, answer) = set_role(&office.owner.account, &ana.user_id, "owner").await?;
    ensure!(status.is_success(), "{answer}");
    ends(&mut viewer).await;
    let mut again = office.attached(&ana).await?;
    let signed = again.sign(CommandKind::StartThread, start_thread(&office, "ana writes"), |_| {});
    again.is_refused(&signed, ErrorCode::RoleInsufficient).await?;
    assert_eq!(office.role_at_machine(&ana.device).as_deref(), Some("viewer"));
    assert!(office.model.requests().iter().all(|request| !request.prompt.contains("ana writes")));
    Ok(())
}

/// Everything that is an owner's to ask.
async fn owners_requests_are_refused(office: &Office, account: &Account) -> anyhow::Result<()> {
    let machine = format!("/api/machines/{}", office.paired.machine_id);
    let device = format!("/api/devices/{}", office.owner.device.device_id());
    let member = format!("/api/members/{}", office.owner.user_id);
    let intent = json!({
        "machine_id": office.paired.machine_id,
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
        (Method::PUT, &format!("{machine}/region-pin"), Some(json!({ "region": "one" }))),
        (Method::DELETE, &device, None),
        (Method::PATCH, &member, Some(json!({ "role": "viewer" }))),
        (Method::DELETE, &member, None),
        (Method::GET, "/api/invitations", None),
        (Method::POST, "/api/invitations", Some(json!({ "role": "owner", "label": "me" }))),
        (Method::POST, "/api/sign-in-links", Some(json!({}))),
        (Method::GET, "/api/audit", None),
        (Method::POST, "/api/audit/intents", Some(intent)),
    ] {
        let code = refused(account, method.clone(), path, body).await?;
        assert_eq!(code, "forbidden", "{method} {path}");
    }
    // A computer that is new to the account, and one more device at the one that is there.
    let adding = office.machine.start(&["devices", "add"])?;
    let url = adding.pair_url().await?;
    let error = account.redeem(&url, &Device::new(), "mine").await.err().context("redeemed")?;
    ensure!(format!("{error:#}").contains("forbidden"), "{error:#}");
    adding.kill().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_account_ends_the_hold_on_the_one_before_within_two_seconds() -> anyhow::Result<()> {
    let office = Office::open().await?;
    let pem = Some(office.cluster.certificate_pem());
    let elsewhere = Account::sign_in_trusting(&office.cluster.account().await?, pem).await?;
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
    stopwatch.within("session of the account before a switch")?;
    is_about(&office.session_by(unused, &bo.device).await.err().context("a session")?, ErrorCode::GrantInvalid)?;
    assert_eq!(refused(&bo.account, Method::GET, "/api/machines", None).await?, "unauthenticated");
    // The session in the other account speaks for that alone: it sees nothing of the one before.
    let (_, machines) = back.call(Method::GET, "/api/machines", None).await?;
    assert_eq!(machines["machines"], json!([]));
    let path = format!("/api/machines/{}", office.paired.machine_id);
    assert_eq!(refused(&back, Method::DELETE, &path, None).await?, "not_found");
    Ok(())
}

#[tokio::test]
async fn an_invitation_lets_in_one_and_a_guess_nobody() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let link = invitation(&relay.account, "viewer").await?;
    // Two open it in the same moment.
    let tries = [Account::join(&link, None), Account::join(&link, None)];
    let outcomes = futures_util::future::join_all(tries).await;
    let (joined, refusals): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((joined.len(), refusals.len()), (1, 1));
    let viewer = joined.into_iter().next().context("a member")??;
    let refusal = refusals.into_iter().next().and_then(Result::err).context("a refusal")?;
    ensure!(format!("{refusal:#}").contains("invitation_invalid"), "{refusal:#}");
    // Once more, by somebody who is signed in.
    let token = link.split_once('#').context("a token")?.1;
    let accept = "/api/invitations/accept";
    let used = refused(&relay.account, Method::POST, accept, Some(json!({ "token": token }))).await?;
    assert_eq!(used, "invitation_invalid");

    // Whoever is in already, or has none, gets nothing more out of one; it stays for whom it is meant.
    let meant = invitation(&relay.account, "owner").await?;
    let token = meant.split_once('#').context("a token")?.1;
    assert_eq!(refused(&viewer, Method::POST, accept, Some(json!({ "token": token }))).await?, "already_member");
    assert_eq!(refused(&viewer, Method::GET, "/api/invitations", None).await?, "forbidden");
    Account::join(&meant, None).await?;
    let mine = set_role(&viewer, &user_id(&viewer).await?, "owner").await?;
    assert_eq!(api_code(&mine.1), "forbidden");

    let mut guesses = 0;
    loop {
        let guess = encode(&sha256(Uuid::new_v4().as_bytes()));
        let code = refused(&viewer, Method::POST, accept, Some(json!({ "token": guess }))).await?;
        if code == "rate_limited" {
            break;
        }
        assert_eq!(code, "invitation_invalid");
        guesses += 1;
        ensure!(guesses <= SIGN_IN_RATE_PER_MINUTE, "guessing is not slowed down");
    }
    for nonsense in [json!({}), json!({ "token": "" }), json!({ "token": token, "role": "owner" })] {
        assert_eq!(refused(&viewer, Method::POST, accept, Some(nonsense)).await?, "bad_request");
    }
    Ok(())
}

#[tokio::test]
async fn two_owners_who_push_each_other_out_leave_one() -> anyhow::Result<()> {
    let relay = Relay::start().await?;
    let first = &relay.account;
    let second = Account::join(&invitation(first, "owner").await?, None).await?;
    let (first_id, second_id) = (user_id(first).await?, user_id(&second).await?);
    let (ours, theirs) = tokio::try_join!(remove(first, &second_id), remove(&second, &first_id))?;
    let done = [&ours, &theirs].into_iter().filter(|(status, _)| status.is_success()).count();
    assert_eq!(done, 1, "{ours:?} {theirs:?}");
    let left = if ours.0.is_success() { first } else { &second };
    for (method, path, body) in [
        (Method::POST, "/api/members/leave".to_owned(), Some(json!({}))),
        (Method::PATCH, format!("/api/members/{}", user_id(left).await?), Some(json!({ "role": "operator" }))),
    ] {
        assert_eq!(refused(left, method, &path, body).await?, "last_owner");
    }
    Ok(())
}
