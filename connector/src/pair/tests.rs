use std::io;

use flydex_domain::limits::LABEL_CHARS_MAX;
use tokio::sync::watch;

use super::desk::{Desk, DeskAnswer, DeskPort, Stage};
use super::*;
use crate::cli::screen::Screen;
use relay::{Relay, Script};

pub(crate) mod relay;

/// What a test's terminal shows.
#[derive(Clone)]
pub(crate) struct Shown(watch::Sender<String>);

impl Default for Shown {
    fn default() -> Self {
        Self(watch::Sender::new(String::new()))
    }
}

impl io::Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|text| text.push_str(std::str::from_utf8(bytes).unwrap()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shown {
    pub(crate) fn text(&self) -> String {
        self.0.borrow().clone()
    }

    /// Waits until so many lines begin so, and gives the rest of the newest.
    pub(crate) async fn newest(&self, start: &str, count: usize) -> String {
        let found =
            |text: &str| text.lines().filter_map(|line| line.strip_prefix(start).map(str::to_owned)).nth(count - 1);
        let mut text = self.0.subscribe();
        let text = text.wait_for(|text| found(text).is_some()).await.unwrap();
        found(&text).unwrap()
    }

    /// Waits for a line that begins so, and gives the rest of it.
    pub(crate) async fn line(&self, start: &str) -> String {
        let found = |text: &str| text.lines().find_map(|line| line.strip_prefix(start).map(str::to_owned));
        let mut text = self.0.subscribe();
        let text = text.wait_for(|text| found(text).is_some()).await.unwrap();
        found(&text).unwrap()
    }
}

struct Scene {
    relay: Relay,
    shown: Shown,
    desk: Desk,
    port: DeskPort,
}

impl Scene {
    async fn new(script: Script) -> Self {
        let relay = Relay::start(script).await;
        let shown = Shown::default();
        let (desk, port) = Desk::new(Screen::of(shown.clone()));
        Self { relay, shown, desk, port }
    }

    /// Pairs while a phone scans the code and the desk says `yes` or no to the question.
    async fn play(&mut self, yes: bool) -> Result<(Proposal, Enrolment), PairError> {
        let pairing = self.relay.start_pairing(None).await?;
        let (relay, port) = (self.relay.clone(), self.port.clone());
        let outside = async move {
            let mut stage = port.stage.clone();
            let offered = stage.wait_for(|stage| matches!(stage, Stage::Offered(_))).await.unwrap().clone();
            let Stage::Offered(url) = offered else { unreachable!("the stage is offered") };
            relay.phone_scans(url.expose());
            drop(url);
            if stage.wait_for(|stage| matches!(stage, Stage::Asked(_))).await.is_ok() {
                port.answers.send(DeskAnswer { yes, question: None }).await.unwrap();
            }
            // The phone and the keyboard stay until the pairing is over.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            paired = self.desk.pair(&pairing) => paired,
            () = outside => unreachable!("the outside never ends"),
        }
    }
}

#[tokio::test]
async fn a_pairing_goes_through_after_the_yes_at_the_desk() {
    let mut scene = Scene::new(Script::default()).await;
    let (proposal, enrolment) = scene.play(true).await.unwrap();
    assert_eq!(proposal.device_key(), scene.relay.device_key());
    assert_eq!(enrolment.account_id, proposal.account_id());
    assert!(scene.relay.machine_mac_holds());
    assert_eq!(scene.relay.reports(), ["confirmed"]);
    assert!(matches!(*scene.port.stage.borrow(), Stage::Paired));
}

#[tokio::test]
async fn the_desk_sees_account_role_and_the_phones_code_before_it_is_asked() {
    let mut scene = Scene::new(Script::default()).await;
    scene.play(true).await.unwrap();
    let text = scene.shown.text();
    let code = format!("code {}\n", scene.relay.phone_code());
    assert!(text.contains(&code), "{text}");
    assert!(text.contains("pair with account \"Ada & Co\" as owner? [y/N]"), "{text}");
    assert!(text.find(&code) < text.find("[y/N]"));
    assert!(text.lines().any(|line| line.starts_with(&format!("pair at {}/pair#", scene.relay.origin()))));
}

#[tokio::test]
async fn a_no_at_the_desk_pairs_nothing_and_is_told() {
    let mut scene = Scene::new(Script::default()).await;
    let error = scene.play(false).await.unwrap_err();
    assert!(matches!(error, PairError::Refused), "{error}");
    assert_eq!(scene.relay.reports(), ["refused"]);
    assert!(!scene.relay.machine_mac_holds());
}

#[tokio::test]
async fn a_wrong_mac_never_reaches_the_desk() {
    let mut scene = Scene::new(Script { wrong_mac: true, ..Script::default() }).await;
    let error = scene.play(true).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PairingTampered);
    assert_eq!(scene.relay.reports(), ["failed"]);
    assert!(!scene.shown.text().contains("[y/N]"));
}

#[tokio::test]
async fn a_swapped_account_device_or_role_breaks_the_mac() {
    for script in [
        Script { swap_account: true, ..Script::default() },
        Script { swap_device: true, ..Script::default() },
        Script { phone_role: Role::Viewer, ..Script::default() },
    ] {
        let mut scene = Scene::new(script).await;
        assert_eq!(scene.play(true).await.unwrap_err().code(), ErrorCode::PairingTampered);
    }
}

#[tokio::test]
async fn an_expired_claim_says_so_and_what_to_do() {
    let mut scene = Scene::new(Script { expires: true, ..Script::default() }).await;
    let error = scene.play(true).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ClaimExpired);
    assert!(error.next_step().contains("flydex connect again"));
}

#[tokio::test]
async fn a_code_that_nobody_used_in_time_gives_way_to_a_fresh_one() {
    let mut scene = Scene::new(Script { expired_codes: 1, ..Script::default() }).await;
    let (relay, port, shown) = (scene.relay.clone(), scene.port.clone(), scene.shown.clone());
    let outside = async move {
        shown.line("nobody used that code in time; here is a fresh one (3 more may follow)").await;
        relay.phone_scans(&shown.newest("pair at ", 2).await);
        let mut stage = port.stage.clone();
        stage.wait_for(|stage| matches!(stage, Stage::Asked(_))).await.unwrap();
        port.answers.send(DeskAnswer { yes: true, question: None }).await.unwrap();
        std::future::pending::<()>().await;
    };
    let relay = scene.relay.clone();
    let paired = tokio::select! {
        paired = scene.desk.pair_afresh(|| relay.start_pairing(None)) => paired.unwrap(),
        () = outside => unreachable!("the outside never ends"),
    };
    assert_eq!(paired.proposal.device_key(), scene.relay.device_key());
}

#[tokio::test]
async fn fresh_codes_come_to_an_end() {
    let mut scene = Scene::new(Script { expires: true, ..Script::default() }).await;
    let relay = scene.relay.clone();
    let error = scene.desk.pair_afresh(|| relay.start_pairing(None)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ClaimExpired);
    let codes = scene.shown.text().matches("pair at ").count();
    assert_eq!(codes, usize::try_from(flydex_domain::limits::PAIRING_CODES_MAX).unwrap());
}

#[tokio::test]
async fn a_cancel_by_the_phone_ends_the_question() {
    let mut scene = Scene::new(Script { cancels_while_asked: true, ..Script::default() }).await;
    // The desk never answers.
    let pairing = scene.relay.start_pairing(None).await.unwrap();
    scene.relay.phone_scans(pairing.url().expose());
    let error = scene.desk.pair(&pairing).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PairingEnded);
}

#[tokio::test]
async fn a_credential_for_another_machine_is_not_taken() {
    let mut scene = Scene::new(Script { foreign_credential: true, ..Script::default() }).await;
    let error = scene.play(true).await.unwrap_err();
    assert!(matches!(error, PairError::AnswerForged), "{error}");
}

#[tokio::test]
async fn a_server_of_another_name_is_named() {
    let scene = Scene::new(Script { other_origin: true, ..Script::default() }).await;
    let error = scene.relay.start_pairing(None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UntrustedAddress);
    assert!(error.next_step().contains("--server https://relay.example"), "{}", error.next_step());
}

#[tokio::test]
async fn a_refusal_of_the_server_keeps_its_code() {
    let scene = Scene::new(Script { refuses: Some(ErrorCode::RateLimited), ..Script::default() }).await;
    let error = scene.relay.start_pairing(None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RateLimited);
}

#[tokio::test]
async fn an_answer_typed_before_the_question_does_not_count() {
    let mut scene = Scene::new(Script::default()).await;
    scene.port.answers.send(DeskAnswer { yes: true, question: None }).await.unwrap();
    let error = scene.play(false).await.unwrap_err();
    assert!(matches!(error, PairError::Refused), "{error}");
}

#[tokio::test]
async fn without_anybody_to_ask_nothing_is_paired() {
    let relay = Relay::start(Script::default()).await;
    let (mut desk, port) = Desk::new(Screen::of(Shown::default()));
    drop(port);
    let pairing = relay.start_pairing(None).await.unwrap();
    relay.phone_scans(pairing.url().expose());
    let error = desk.pair(&pairing).await.unwrap_err();
    assert!(matches!(error, PairError::NobodyToAsk), "{error}");
    assert_eq!(relay.reports(), ["refused"]);
}

#[tokio::test]
async fn the_secret_is_in_the_address_and_nowhere_else() {
    let relay = Relay::start(Script::default()).await;
    let pairing = relay.start_pairing(None).await.unwrap();
    let url = pairing.url();
    let secret = url.expose().rsplit_once('.').unwrap().1.to_owned();
    assert!(!format!("{pairing:?} {url:?}").contains(&secret));
    assert!(!relay.everything_received().contains(&secret));
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    assert_eq!(printable("A\u{1b}[2Jda\u{202e}\n\u{7}"), "A[2Jda");
    assert_eq!(printable(&"x".repeat(500)).len(), LABEL_CHARS_MAX);
}
