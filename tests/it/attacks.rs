//! Whoever does not keep to the protocol: against the real relay, the real connector and the real Codex.
//!
//! Attacks that can be made on a cluster too are functions of `flydex_tests::attack`; here each has its test.

mod abuse;
mod content;
mod keys;
mod machine;

use std::sync::Arc;

use flydex_tests::attack::relay::Ground;
use flydex_tests::attack::{all, stand};
use flydex_tests::cluster::{Cluster, RegionSettings, Settings};

async fn is_stopped_on(ground: Ground, name: &str) -> anyhow::Result<()> {
    let attack = all().into_iter().find(|attack| attack.name == name).expect("an attack of that name");
    let tried = attack.on(ground).await?;
    assert!(tried > 0);
    Ok(())
}

/// One process stops it.
async fn is_stopped(name: &str) -> anyhow::Result<()> {
    is_stopped_on(Ground::One, name).await
}

/// A process of each role stops it, together.
async fn is_stopped_by_processes(name: &str) -> anyhow::Result<()> {
    flydex_runtime::tls::install_provider();
    let regions = vec![RegionSettings { name: "one", gateways: 1, nodes: 1 }];
    let cluster = Cluster::start(Settings { regions, controls: 1, ..Settings::default() }).await?;
    is_stopped_on(Ground::Cluster(Arc::new(cluster)), name).await
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

#[tokio::test]
async fn a_link_takes_the_machines_key_and_a_proof_of_here_and_now() -> anyhow::Result<()> {
    is_stopped("links of others").await
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

#[tokio::test(flavor = "multi_thread")]
async fn in_a_strict_account_an_accept_acts_with_controls_receipt_alone() -> anyhow::Result<()> {
    is_stopped_by_processes("accepts without a receipt").await
}

#[tokio::test]
async fn an_accept_of_high_risk_acts_with_the_word_of_the_pinned_passkey_alone() -> anyhow::Result<()> {
    is_stopped("accepts without a passkey").await
}

#[tokio::test]
async fn what_a_device_said_is_said_again_by_others_and_elsewhere_and_does_nothing() -> anyhow::Result<()> {
    is_stopped("replayed frames").await
}

#[tokio::test]
async fn an_accept_that_was_held_back_is_worth_nothing_in_another_life_of_codex() -> anyhow::Result<()> {
    is_stopped("accepts held back").await
}

#[tokio::test]
async fn a_planted_cookie_is_not_the_one_that_is_signed_in() -> anyhow::Result<()> {
    is_stopped("planted cookies").await
}

#[tokio::test]
async fn what_another_site_makes_a_browser_send_changes_nothing() -> anyhow::Result<()> {
    is_stopped("requests of other sites").await
}

#[tokio::test]
async fn a_socket_of_another_site_is_refused_even_with_a_ticket() -> anyhow::Result<()> {
    is_stopped("sockets of other sites").await
}

#[tokio::test]
async fn signing_out_everywhere_leaves_a_thief_nothing() -> anyhow::Result<()> {
    is_stopped("stolen cookies").await
}

#[tokio::test]
async fn recovery_codes_are_not_guessed_by_trying() -> anyhow::Result<()> {
    is_stopped("guessed recovery codes").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_cut_everywhere_within_two_seconds() -> anyhow::Result<()> {
    is_stopped_by_processes("removed members").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_cut_by_a_gateway_that_drains_too() -> anyhow::Result<()> {
    is_stopped("members removed in a drain").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_owner_keeps_no_owners_right_at_the_api_or_the_machine() -> anyhow::Result<()> {
    is_stopped_by_processes("demoted owners").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_account_ends_the_hold_on_the_one_before_within_two_seconds() -> anyhow::Result<()> {
    is_stopped_by_processes("switched accounts").await
}

#[tokio::test]
async fn an_invitation_lets_in_one_and_a_guess_nobody() -> anyhow::Result<()> {
    is_stopped("guessed invitations").await
}

#[tokio::test]
async fn two_owners_who_push_each_other_out_leave_one() -> anyhow::Result<()> {
    is_stopped("owners against owners").await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_plan_but_by_the_providers_word_for_their_own_account() -> anyhow::Result<()> {
    is_stopped("plans that are not paid for").await
}

#[tokio::test]
async fn a_lost_device_is_replaced_and_its_key_is_good_for_nothing() -> anyhow::Result<()> {
    is_stopped("lost devices").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_account_loses_a_machine_that_moves_at_once_and_keeps_trying_in_vain() -> anyhow::Result<()> {
    is_stopped_by_processes("machines that moved away").await
}

#[tokio::test]
async fn a_p256_device_pairs_commands_and_approves_and_its_signatures_have_one_form() -> anyhow::Result<()> {
    is_stopped("second forms of signatures").await
}

#[tokio::test]
async fn keys_of_another_form_curve_or_kind_are_not_taken() -> anyhow::Result<()> {
    is_stopped("keys of another form").await
}

#[tokio::test]
async fn what_a_stolen_signing_key_signs_opens_nothing_once_it_is_withdrawn() -> anyhow::Result<()> {
    is_stopped("stolen signing keys").await
}

#[tokio::test]
async fn a_machine_that_changes_its_key_keeps_its_devices_and_only_its_own_word_leads_there() -> anyhow::Result<()> {
    is_stopped("made-up key changes").await
}

#[tokio::test]
async fn a_copy_of_a_machines_disk_changes_no_key_and_is_found_out() -> anyhow::Result<()> {
    is_stopped("copied machines").await
}

#[tokio::test]
async fn a_machine_restored_from_a_backup_is_told_so_at_its_desk() -> anyhow::Result<()> {
    is_stopped("restored machines").await
}

#[tokio::test]
async fn a_hostile_relay_gets_no_key_account_or_role_of_its_own_through_a_pairing() -> anyhow::Result<()> {
    is_stopped("hostile relay: pairing").await
}

#[tokio::test]
async fn a_hostile_relay_gets_no_command_device_or_content_through() -> anyhow::Result<()> {
    is_stopped("hostile relay: commands").await
}

#[tokio::test]
async fn a_hostile_relay_gets_no_approval_through() -> anyhow::Result<()> {
    is_stopped("hostile relay: approvals").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_removed_while_its_machine_is_away_is_forgotten_there() -> anyhow::Result<()> {
    is_stopped_by_processes("devices lost meanwhile").await
}
