//! Whoever does not keep to the protocol: against the real relay, the real connector and the real Codex.
//!
//! Attacks that can be made on a cluster too are functions of `flydex_tests::attack`; here each has its test.

mod billing;
mod content;
mod keys;
mod machine;
mod members;
mod office;
mod relay;
mod sign_in;

use flydex_tests::attack::relay::Ground;
use flydex_tests::attack::{all, approvals, stand};

/// One process stops it.
async fn is_stopped(name: &str) -> anyhow::Result<()> {
    let attack = all().into_iter().find(|attack| attack.name == name).expect("an attack of that name");
    let tried = attack.on(Ground::One).await?;
    assert!(tried > 0);
    Ok(())
}

#[tokio::test]
async fn a_ticket_opens_one_session_for_its_own_key_at_its_own_relay() -> anyhow::Result<()> {
    is_stopped("stolen tickets").await
}

#[tokio::test]
async fn a_frame_that_is_not_one_ends_the_session_with_its_own_code() -> anyhow::Result<()> {
    is_stopped("first frames that are none").await
}

#[tokio::test]
async fn an_open_session_ends_at_its_first_frame_that_is_none() -> anyhow::Result<()> {
    is_stopped("later frames that are none").await
}

/// The relay looks under the account of the ticket and nowhere else, so a machine that another account has and one that
/// nobody has are the same question.
#[tokio::test]
async fn a_machine_that_is_not_the_accounts_is_offline_and_takes_nothing() -> anyhow::Result<()> {
    is_stopped("machines of nobody").await
}

#[tokio::test]
async fn a_claim_that_is_guessed_at_five_times_is_gone_even_for_who_knows_it() -> anyhow::Result<()> {
    is_stopped("guessed claims").await
}

#[tokio::test]
async fn a_claim_belongs_to_the_browser_that_redeemed_it() -> anyhow::Result<()> {
    is_stopped("taken claims").await
}

#[tokio::test]
async fn a_command_that_is_not_the_devices_word_for_now_and_here_does_nothing() -> anyhow::Result<()> {
    is_stopped("forged commands").await
}

#[tokio::test]
async fn a_command_that_is_repeated_acts_once_and_is_answered_alike() -> anyhow::Result<()> {
    is_stopped("repeated commands").await
}

#[tokio::test]
async fn a_session_that_is_not_admitted_gets_nothing_while_another_streams() -> anyhow::Result<()> {
    is_stopped("sessions without admission").await
}

#[tokio::test]
async fn an_answer_to_something_else_lets_nothing_happen_and_the_first_right_one_counts() -> anyhow::Result<()> {
    is_stopped("wrong answers to approvals").await
}

#[tokio::test]
async fn what_a_device_said_is_said_again_by_others_and_elsewhere_and_does_nothing() -> anyhow::Result<()> {
    is_stopped("replayed frames").await
}

#[tokio::test]
async fn an_accept_that_was_held_back_is_worth_nothing_in_another_life_of_codex() -> anyhow::Result<()> {
    is_stopped("accepts held back").await
}
