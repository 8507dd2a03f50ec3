//! A desk that demands a passkey for what is of high risk.

use anyhow::ensure;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_domain::command::{CommandKind, Outcome};
use flydex_domain::error::ErrorCode;
use flydex_loadtest::passkey::{PRESENT, Passkey, VERIFIED};
use flydex_proto::v1;

use super::Attack;
use super::approvals::{accept, answer, asked, digest_of};
use super::stand::{Ground, Stand};
use super::tally::Tally;

/// What is tried.
pub const ATTACKS: &[Attack] = &[Attack {
    name: "accepts without a passkey",
    tries: "of high risk: without a passkey, without its word, with that of another and with one about another command",
    stopped_by: &["passkey_missing", "passkey_invalid", "passkey_not_pinnable"],
    run: |ground, tally| Box::pin(without_a_passkey(ground, tally)),
    regions: 1,
}];

async fn without_a_passkey(ground: Ground, tally: Tally) -> anyhow::Result<()> {
    let stand = Stand::on(&ground, &tally).await?;
    let (set, lines) = stand.machine.command(&["settings", "set", "passkey_for_high_risk", "on"]).await?;
    ensure!(set, "{lines:?}");
    let passkey = Passkey::new();
    let forged = passkey.forged();
    let second = stand.second_device("second phone").await?;
    let mut first = stand.client(&stand.relay.account, stand.device.clone()).await?;
    let mut second = stand.client(&second.0, second.1).await?;
    first.attach().await?;
    second.attach().await?;
    let pin = first.sign(CommandKind::PinPasskey, Body::PinPasskey(passkey.pin()), |_| {});
    assert_eq!(first.ask(&pin).await?.outcome, Outcome::Executed);
    let again = first.sign(CommandKind::PinPasskey, Body::PinPasskey(forged.pin()), |_| {});
    first.is_refused(&again, ErrorCode::PasskeyNotPinnable).await?;

    let begin = first.sign(CommandKind::StartThread, stand.start_thread("[[network]] [[say granted]]"), |_| {});
    assert_eq!(first.ask(&begin).await?.outcome, Outcome::Executed);
    let shown = asked(&mut first).await?;
    ensure!(shown.passkey_required, "the machine wants no passkey");
    let (yes, digest) = (accept(&shown)?, digest_of(&shown)?);
    let unasked = answer(&second, yes, digest);
    second.is_refused(&unasked, ErrorCode::PasskeyMissing).await?;

    let origin = stand.relay.account.origin().to_owned();
    let (_, about_another) = answer(&first, yes, digest);
    let tries = {
        let with = |word: &dyn Fn(&v1::Command) -> Option<v1::PasskeyAssertion>| {
            let (header, mut command) = answer(&first, yes, digest);
            command.assertion = word(&command);
            (header, command)
        };
        [
            with(&|_| None),
            with(&|command| Some(forged.assertion(command, &origin, VERIFIED))),
            with(&|command| Some(passkey.assertion(command, &origin, PRESENT))),
            with(&|command| Some(passkey.assertion(command, "https://elsewhere.example", VERIFIED))),
            with(&|_| Some(passkey.assertion(&about_another, &origin, VERIFIED))),
        ]
    };
    for signed in &tries {
        first.is_refused(signed, ErrorCode::PasskeyInvalid).await?;
    }
    let granted = || stand.model.requests().iter().any(|request| !request.outputs.is_empty());
    ensure!(!granted(), "it was granted without the passkey");

    let (header, mut command) = answer(&first, yes, digest);
    command.assertion = Some(passkey.assertion(&command, &origin, VERIFIED));
    assert_eq!(first.ask(&(header, command)).await?.outcome, Outcome::Executed);
    stand.model.request(|request| !request.outputs.is_empty()).await.map(drop)
}
