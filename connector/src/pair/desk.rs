//! The person at the desk: what they are shown, in the terminal and on the page, and what they answer.

use std::sync::Arc;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{DESK_ANSWERS_MAX, LOCAL_CONNECT_LIFETIME, PAIRING_CODES_MAX};
use flydex_domain::scope::Role;
use tokio::sync::{mpsc, watch};

use super::{Enrolment, PairError, Pairing, PairingUrl, Proposal};
use crate::cli::screen::Screen;
use crate::qr;

/// What the desk sees of a pairing; the page follows it.
#[derive(Clone, Debug, Default)]
pub enum Stage {
    /// No pairing is going on.
    #[default]
    Idle,
    /// A page of the relay on this computer asks for a code to be drawn; the number names the question.
    Staged(u64),
    /// The code waits to be scanned.
    Offered(Arc<PairingUrl>),
    /// A device proved itself; the desk is asked.
    Asked(Question),
    /// Paired.
    Paired,
    /// It came to nothing.
    Failed(ErrorCode),
}

/// What the desk is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Names the question, so that an answer to an earlier one does not count.
    pub number: u64,
    /// The account's name.
    pub account_name: String,
    /// The device's name.
    pub device_label: String,
    /// What the device may do.
    pub role: Role,
    /// The six digits.
    pub short_code: String,
}

/// A pairing that came about.
#[derive(Debug)]
pub struct Paired {
    /// The pairing, to report on.
    pub pairing: Pairing,
    /// Who was paired.
    pub proposal: Proposal,
    /// What it gave.
    pub enrolment: Enrolment,
}

/// What the desk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeskAnswer {
    /// Yes; everything else is no.
    pub yes: bool,
    /// The question that the page showed; the terminal answers the one that is open.
    pub question: Option<u64>,
}

/// Both screens of the desk, and the way back from them.
#[derive(Debug)]
pub struct Desk {
    screen: Screen,
    stage: watch::Sender<Stage>,
    answers: mpsc::Receiver<DeskAnswer>,
    questions: u64,
}

/// What a screen needs: where to look, and where to answer.
#[derive(Clone, Debug)]
pub struct DeskPort {
    /// What is to be shown.
    pub stage: watch::Receiver<Stage>,
    /// Takes the desk's answers.
    pub answers: mpsc::Sender<DeskAnswer>,
}

impl Desk {
    /// A desk that prints on `screen`; the port is for its page and its keyboard.
    #[must_use]
    pub fn new(screen: Screen) -> (Self, DeskPort) {
        let (stage, stage_rx) = watch::channel(Stage::Idle);
        let (answers_tx, answers) = mpsc::channel(DESK_ANSWERS_MAX);
        (Self { screen, stage, answers, questions: 0 }, DeskPort { stage: stage_rx, answers: answers_tx })
    }

    /// The terminal.
    #[must_use]
    pub const fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Pairs with whoever scans a code. One that nobody used in time gives way to a fresh one, a bounded number of
    /// times; what the desk was asked is not asked again.
    ///
    /// # Errors
    /// Each [`PairError`]; both screens show it.
    pub async fn pair_afresh<S>(&mut self, start: impl Fn() -> S) -> Result<Paired, PairError>
    where
        S: Future<Output = Result<Pairing, PairError>>,
    {
        let mut left = PAIRING_CODES_MAX;
        loop {
            left -= 1;
            let asked_before = self.questions;
            let pairing = start().await?;
            match self.pair(&pairing).await {
                Ok((proposal, enrolment)) => return Ok(Paired { pairing, proposal, enrolment }),
                Err(PairError::Expired) if left > 0 && self.questions == asked_before => {
                    let after =
                        if left == 1 { "the last one".to_owned() } else { format!("{} more may follow", left - 1) };
                    self.screen.line(&format!("nobody used that code in time; here is a fresh one ({after})"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Leads one pairing to its end: draws the code, checks, asks, confirms.
    ///
    /// # Errors
    /// Each [`PairError`]; both screens show it.
    pub async fn pair(&mut self, pairing: &Pairing) -> Result<(Proposal, Enrolment), PairError> {
        let paired = self.lead(pairing).await;
        self.stage.send_replace(match &paired {
            Ok(_) => Stage::Paired,
            Err(error) => Stage::Failed(error.code()),
        });
        paired
    }

    async fn lead(&mut self, pairing: &Pairing) -> Result<(Proposal, Enrolment), PairError> {
        self.offer(pairing.url());
        let proposal = pairing.proposal().await?;
        let yes = tokio::select! {
            biased; // an answer that is there counts before the news that time is over
            yes = self.ask(&proposal) => yes,
            error = pairing.ended() => Err(error),
        };
        match yes {
            Ok(true) => {}
            Ok(false) => {
                pairing.refuse().await;
                return Err(PairError::Refused);
            }
            Err(error) => {
                pairing.refuse().await;
                return Err(error);
            }
        }
        let enrolment = pairing.confirm(&proposal).await?;
        Ok((proposal, enrolment))
    }

    /// Asks whether a code may be drawn, when a page of the relay on this computer wishes so.
    pub async fn may_draw(&mut self) -> bool {
        while self.answers.try_recv().is_ok() {}
        self.questions += 1;
        self.screen.prompt("a page of the server, on this computer, asks to pair a device: draw a code? [y/N]");
        self.stage.send_replace(Stage::Staged(self.questions));
        let answer = tokio::time::timeout(LOCAL_CONNECT_LIFETIME, self.answer()).await;
        let yes = answer.ok().flatten().unwrap_or(false);
        if !yes {
            self.stage.send_replace(Stage::Idle);
        }
        yes
    }

    fn offer(&self, url: PairingUrl) {
        if let Ok(drawn) = qr::terminal(url.expose(), self.screen.is_terminal()) {
            self.screen.line(&drawn);
        }
        self.screen.line(&format!("pair at {}", url.expose()));
        self.screen.line("scan it, or open it in a browser that is signed in; it is good for two minutes");
        self.stage.send_replace(Stage::Offered(Arc::new(url)));
    }

    /// Asks on both screens. Lines typed before the question was there do not answer it.
    async fn ask(&mut self, proposal: &Proposal) -> Result<bool, PairError> {
        while self.answers.try_recv().is_ok() {}
        self.questions += 1;
        let question = Question {
            number: self.questions,
            account_name: proposal.account_name.clone(),
            device_label: proposal.device_label.clone(),
            role: proposal.role(),
            short_code: proposal.short_code.clone(),
        };
        self.screen.line(&format!("device \"{}\" wants in", question.device_label));
        self.screen.line(&format!("code {}", question.short_code));
        self.screen.line("go on only if the device shows the same code");
        self.screen.prompt(&format!("pair with account \"{}\" as {}? [y/N]", question.account_name, question.role));
        self.stage.send_replace(Stage::Asked(question));
        self.answer().await.ok_or(PairError::NobodyToAsk)
    }

    #[cfg(test)]
    pub(crate) fn show(&mut self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    #[cfg(test)]
    pub(crate) fn answered(&mut self) -> Option<DeskAnswer> {
        self.answers.try_recv().ok()
    }

    async fn answer(&mut self) -> Option<bool> {
        loop {
            let answer = self.answers.recv().await?;
            if answer.question.is_none_or(|number| number == self.questions) {
                return Some(answer.yes);
            }
        }
    }
}
