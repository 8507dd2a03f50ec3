//! What went wrong, for the person at the desk: the code, the causes, and the next step.

use std::error::Error as StdError;
use std::io::{self, Write};

use flydex_domain::error::ErrorCode;

use crate::api::{ApiError, next_step};
use crate::control::ControlError;
use crate::pair::PairError;
use crate::record::EnrolError;
use crate::regions::OriginError;
use crate::state::StateError;

/// A failure that ends a command.
#[derive(Debug)]
pub struct Problem {
    code: ErrorCode,
    causes: Vec<String>,
    next_step: String,
}

impl Problem {
    /// A failure with its own words.
    #[must_use]
    pub fn new(code: ErrorCode, cause: &str, next_step: &str) -> Self {
        Self { code, causes: vec![cause.to_owned()], next_step: next_step.to_owned() }
    }

    /// A failure that its code says everything about.
    #[must_use]
    pub fn of_code(code: ErrorCode) -> Self {
        Self::new(code, code.message(), next_step(code))
    }

    pub(super) fn system(error: io::Error) -> Self {
        let next_step = "check the system's limits, then try again".to_owned();
        Self { code: ErrorCode::Internal, causes: causes(&error), next_step }
    }

    /// The core cannot start: one of its files cannot be used.
    pub(super) fn core(error: &(dyn StdError + 'static)) -> Self {
        let next_step = "run flydex doctor; it names the file".to_owned();
        Self { code: ErrorCode::StateUnusable, causes: causes(error), next_step }
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// What went wrong, from the outside in.
    #[must_use]
    pub fn cause(&self) -> String {
        self.causes.join(": ")
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> &str {
        &self.next_step
    }

    /// 64 for a bad address, 69 for a server out of reach, 75 for what may work later, else 1 (sysexits.h).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        use flydex_domain::error::Retry;
        if self.code == ErrorCode::UntrustedAddress {
            return 64;
        }
        if self.code == ErrorCode::ServerUnreachable {
            return 69;
        }
        match self.code.retry() {
            Retry::Later => 75,
            Retry::Never | Retry::Refreshed => 1,
        }
    }

    /// What went wrong and what to do, in two lines.
    #[must_use]
    pub fn text(&self) -> String {
        format!("flydex: {} [{}]\n  next: {}", self.cause(), self.code, self.next_step)
    }

    /// Writes it.
    pub fn show(&self, out: &mut impl Write) {
        let _ = writeln!(out, "{}", self.text());
    }
}

fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        // Some libraries repeat their source in their own text.
        if !causes.iter().any(|known| known.contains(&cause)) {
            causes.push(cause);
        }
        next = error.source();
    }
    causes
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        Self { code: error.code(), causes: causes(&error), next_step: error.next_step() }
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self { code: error.code(), causes: causes(&error), next_step: error.next_step() }
    }
}

impl From<PairError> for Problem {
    fn from(error: PairError) -> Self {
        Self { code: error.code(), causes: causes(&error), next_step: error.next_step() }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        Self { code: error.code(), causes: causes(&error), next_step: error.next_step().to_owned() }
    }
}

impl From<OriginError> for Problem {
    fn from(error: OriginError) -> Self {
        Self { code: error.code(), causes: causes(&error), next_step: "flydex connect --server https://…".to_owned() }
    }
}

impl From<EnrolError> for Problem {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Refused(code) => Self::of_code(code),
            EnrolError::State(error) => error.into(),
        }
    }
}
