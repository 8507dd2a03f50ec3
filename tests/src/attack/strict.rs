//! An account whose approvals act only with control's receipt.

use anyhow::{Context as _, ensure};
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{ApprovalAnswer, CommandKind, Outcome, command_transcript};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::CommandHash;
use reqwest::Method;
use serde_json::json;

use super::Attack;
use super::approvals::{accept, answer, asked, digest_of};
use super::stand::{Client, Ground, Signed, Stand, result};
use super::tally::Tally;
use crate::codex::CodexHome;
use crate::wait;

/// What is tried.
pub const ATTACKS: &[Attack] = &[Attack {
    name: "accepts without a receipt",
    tries: "in a strict account: no receipt of control, one that it did not sign, and one about another command",
    stopped_by: &["audit_unavailable"],
    run: |ground, tally| Box::pin(without_a_receipt(ground, tally)),
    regions: 1,
}];

async fn without_a_receipt(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let stand = Stand::on(&ground, &tally).await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("ran");
    let prompt = format!("[[esc echo ran >> {}]] [[say over]]", file.display());
    // The account is not strict yet: the machine records the accept itself.
    let mut phone = is_strict(&stand, false).await?;
    let (accept, digest) = begin(&stand, &mut phone, &prompt).await?;
    let signed = answer(&phone, accept, digest);
    assert_eq!(phone.ask(&signed).await?.outcome, Outcome::Executed);
    ran(&file, "ran\n").await?;

    let strict = Some(json!({ "strict": true }));
    let (status, told) = stand.relay.account.call(Method::PUT, "/api/audit/policy", strict).await?;
    ensure!(status.is_success(), "{told}");
    let mut phone = is_strict(&stand, true).await?;
    let (accept, digest) = begin(&stand, &mut phone, &prompt).await?;
    let signed = answer(&phone, accept, digest);
    let about_another = answer(&phone, accept, digest);
    let of_another = receipt(&stand, &about_another).await?;
    for token in [String::new(), "v4.public.made-up".to_owned(), of_another] {
        let (header, mut command) = answer(&phone, accept, digest);
        command.audit_receipt = token;
        phone.is_refused(&(header, command), ErrorCode::AuditUnavailable).await?;
    }
    assert_eq!(std::fs::read_to_string(&file)?, "ran\n", "it ran without a receipt");

    let (header, mut command) = signed.clone();
    command.audit_receipt = receipt(&stand, &signed).await?;
    assert_eq!(phone.ask(&(header, command)).await?.outcome, Outcome::Executed);
    ran(&file, "ran\nran\n").await
}

/// A session at a machine that has heard what the account's policy is.
async fn is_strict(stand: &Stand, strict: bool) -> anyhow::Result<Client> {
    wait::until("the machine to have heard of the policy", async || {
        let mut client = stand.client(&stand.relay.account, stand.device.clone()).await.ok()?;
        let receipt = client.attach().await.ok()?;
        let Ok(ResultKind::Attached(attached)) = result(&receipt) else { return None };
        (attached.snapshot?.strict_audit == strict).then_some(client)
    })
    .await
}

/// Lets Codex ask, and returns the accept of what is shown.
async fn begin(stand: &Stand, phone: &mut Client, prompt: &str) -> anyhow::Result<(ApprovalAnswer, [u8; 32])> {
    let signed = phone.sign(CommandKind::StartThread, stand.start_thread(prompt), |_| {});
    assert_eq!(phone.ask(&signed).await?.outcome, Outcome::Executed);
    let shown = asked(phone).await?;
    Ok((accept(&shown)?, digest_of(&shown)?))
}

/// Control's receipt for an answer.
async fn receipt(stand: &Stand, (header, command): &Signed) -> anyhow::Result<String> {
    let answer = header.answer.context("an answer")?;
    let intent = json!({
        "machine_id": header.machine_id,
        "device_id": header.device_id,
        "approval_id": answer.approval_id,
        "generation": answer.generation,
        "decision": answer.decision.name(),
        "command_id": header.command_id,
        "command_hash": CommandHash::from_bytes(command_transcript(&command.header).sha256()),
    });
    let (status, recorded) = stand.relay.account.call(Method::POST, "/api/audit/intents", Some(intent)).await?;
    ensure!(status.is_success(), "{recorded}");
    Ok(recorded["audit_receipt"].as_str().context("a receipt")?.to_owned())
}

async fn ran(file: &std::path::Path, times: &str) -> anyhow::Result<()> {
    let as_often = async || std::fs::read_to_string(file).is_ok_and(|text| text == times).then_some(());
    wait::until("the command to have run", as_often).await
}
