//! Answers to an approval that are not what was asked, and two devices that answer at once.

use crate::codex::CodexHome;
use anyhow::{Context as _, ensure};
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::agent_event::Kind as Event;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::approval::approval_transcript;
use flydex_domain::command::{ApprovalAnswer, CommandKind, Decision, Outcome, Receipt};
use flydex_domain::error::ErrorCode;
use flydex_domain::id::{ApprovalId, Generation};
use flydex_loadtest::approval::Shown;
use flydex_loadtest::device::Device;
use prost::Message as _;

use super::Attack;
use super::stand::{Client, Ground, Signed, Stand, now, result};
use super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[Attack {
    name: "wrong answers to approvals",
    tries: "an accept of something else, of another life of Codex, wider, by a stranger, twice, and two at once",
    stopped_by: &[
        "digest_mismatch",
        "generation_mismatch",
        "approval_not_found",
        "decision_not_offered",
        "device_not_enrolled",
        "bad_request",
        "already_answered",
    ],
    run: |ground, tally| Box::pin(wrongly_answered(ground, tally)),
    regions: 1,
}];

/// Waits until an approval is shown, and checks that the machine signed it.
pub async fn asked(client: &mut Client) -> anyhow::Result<agent::Approval> {
    let opened = |event| if let Event::ApprovalOpened(signed) = event { Some(signed) } else { None };
    let signed = client.event(opened).await?;
    client.opened.machine.machine_key.verify(approval_transcript(&signed.approval), &signed.signature)?;
    Ok(agent::Approval::decode(signed.approval)?)
}

/// The digest of what is shown.
pub fn digest_of(shown: &agent::Approval) -> anyhow::Result<[u8; 32]> {
    Ok(Shown::of(shown.clone())?.digest())
}

/// The answer that accepts what is shown.
pub fn accept(shown: &agent::Approval) -> anyhow::Result<ApprovalAnswer> {
    let (approval_id, generation) = (shown.approval_id.as_ref().try_into()?, shown.generation.as_ref().try_into()?);
    Ok(ApprovalAnswer { approval_id, generation, decision: Decision::Accept })
}

/// An answer as a command, whatever it says.
pub fn answer(client: &Client, answer: ApprovalAnswer, digest: [u8; 32]) -> Signed {
    let content = Body::AnswerApproval(agent::AnswerApproval { digest: digest.to_vec().into() });
    client.sign(CommandKind::AnswerApproval, content, |header| header.answer = Some(answer))
}

/// The machine's word on an answer; while another is under way the relay says to come again.
pub async fn word(client: &mut Client, signed: &Signed) -> anyhow::Result<Receipt> {
    loop {
        match client.ask(signed).await {
            Err(error) if format!("{error:#}").ends_with(ErrorCode::MachineBusy.name()) => {}
            told => return told,
        }
    }
}

async fn wrongly_answered(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let mut stand = Stand::on(&ground, &tally).await?;
    let outside = CodexHome::outside()?;
    let file = outside.path().join("ran");
    let second = stand.second_device("second phone").await?;
    let unpaired = stand.relay.another_browser().await?;
    let device = std::mem::take(&mut stand.device);
    let mut first = stand.client(&stand.relay.account, device).await?;
    let mut second = stand.client(&second.0, second.1).await?;
    let mut stranger = stand.client(&unpaired, Device::new()).await?;
    first.attach().await?;
    second.attach().await?;

    let prompt = format!("[[esc echo ran >> {}]] [[say over]]", file.display());
    let begin = first.sign(CommandKind::StartThread, stand.start_thread(&prompt), |_| {});
    assert_eq!(first.ask(&begin).await?.outcome, Outcome::Executed);
    let shown = asked(&mut first).await?;
    let right = digest_of(&shown)?;
    ensure!(asked(&mut second).await?.approval_id == shown.approval_id, "another approval");
    let accept = accept(&shown)?;

    let mut wrong = right;
    wrong[0] ^= 1;
    for (attempt, digest, code) in [
        (accept, wrong, ErrorCode::DigestMismatch),
        (accept, [0; 32], ErrorCode::DigestMismatch),
        (
            ApprovalAnswer { generation: Generation::from_bytes([7; 32]), ..accept },
            right,
            ErrorCode::GenerationMismatch,
        ),
        (ApprovalAnswer { approval_id: ApprovalId::from_bytes([7; 32]), ..accept }, right, ErrorCode::ApprovalNotFound),
        (ApprovalAnswer { decision: Decision::AcceptForSession, ..accept }, right, ErrorCode::DecisionNotOffered),
    ] {
        let signed = answer(&first, attempt, digest);
        first.is_refused(&signed, code).await?;
    }
    let signed = answer(&stranger, accept, right);
    stranger.is_turned_away(&signed, ErrorCode::DeviceNotEnrolled).await?;
    let signed =
        first.sign(CommandKind::AnswerApproval, Body::AnswerApproval(agent::AnswerApproval::default()), |_| {});
    ensure!(first.ask(&signed).await.map_or(true, |receipt| receipt.outcome != Outcome::Executed), "no answer");
    tally.stopped(ErrorCode::BadRequest.name());
    ensure!(!file.exists(), "it ran without a right answer");

    both_accept(&mut first, &mut second, accept, right).await?;
    let signed = answer(&first, accept, right);
    first.is_refused(&signed, ErrorCode::AlreadyAnswered).await?;
    crate::wait::until("the command to run", || async { file.exists().then_some(()) }).await?;
    stand.model.request(|request| !request.outputs.is_empty()).await?;
    assert_eq!(std::fs::read_to_string(&file)?, "ran\n");
    Ok(())
}

/// Both say yes at once: one is executed, the other told who was first and when.
async fn both_accept(
    first: &mut Client,
    second: &mut Client,
    accept: ApprovalAnswer,
    right: [u8; 32],
) -> anyhow::Result<()> {
    let started = now();
    let signed = (answer(first, accept, right), answer(second, accept, right));
    let (by_first, by_second) = tokio::try_join!(word(first, &signed.0), word(second, &signed.1))?;
    let (winner, label, loser, told) = match (by_first.outcome, by_second.outcome) {
        (Outcome::Executed, other) => (&*first, "first phone", other, by_second),
        (other, Outcome::Executed) => (&*second, "second phone", other, by_first),
        neither => anyhow::bail!("nobody was first: {neither:?}"),
    };
    assert_eq!(loser, Outcome::Refused(ErrorCode::AlreadyAnswered));
    first.tally.stopped(ErrorCode::AlreadyAnswered.name());
    let ResultKind::Refusal(refusal) = result(&told)? else { anyhow::bail!("no refusal") };
    let closed = refusal.approval.context("who was first")?;
    assert_eq!(closed.approval_id.as_ref(), accept.approval_id.as_bytes());
    ensure!(closed.end() == agent::ApprovalEnd::Accepted, "the approval ended otherwise");
    assert_eq!(closed.device_id.as_ref(), winner.device.device_id().as_bytes());
    assert_eq!(closed.device_label, label);
    ensure!((started.0..=now().0).contains(&closed.at_ms), "answered at {}", closed.at_ms);
    Ok(())
}
