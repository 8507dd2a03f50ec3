//! Keys that change while everything runs: nobody who may is refused.

mod cluster;

use flydex_tests::attack::keys::{signing, stolen};

#[tokio::test]
async fn a_new_signing_key_refuses_nobody_and_interrupts_nothing() -> anyhow::Result<()> {
    signing::replaced().await
}

#[tokio::test]
async fn a_change_that_was_begun_and_cut_off_is_ended_at_the_next_start() -> anyhow::Result<()> {
    stolen::cut_off().await
}
