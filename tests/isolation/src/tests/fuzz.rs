//! The fuzzer for some seconds, and that it finds what it is for.

use crate::fuzz::{Fault, Options, Progress, run};

/// What fits in some seconds of a debug build.
const OPERATIONS: u64 = 2_000;

#[tokio::test]
async fn two_accounts_learn_nothing_of_each_other_and_do_nothing_to_each_other() -> anyhow::Result<()> {
    let report = run(Options { seed: 1, operations: OPERATIONS, fault: None }, &Progress::default()).await?;
    assert!(report.findings.is_empty(), "{}\n  again: cargo xtask fuzz isolation --seed 1", report.findings.join("\n"));
    assert!(report.operations >= OPERATIONS);
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_wrong_on_purpose_is_found() -> anyhow::Result<()> {
    for (fault, word) in [
        (Fault::TellsWhatExists, "answers tell what exists"),
        (Fault::ShowsTheOther, "A saw"),
        (Fault::ReachesTheOther, "B got"),
    ] {
        let report =
            run(Options { seed: 1, operations: 4 * OPERATIONS, fault: Some(fault) }, &Progress::default()).await?;
        assert!(report.findings.iter().any(|finding| finding.contains(word)), "{fault:?}: {:?}", report.findings);
    }
    Ok(())
}
