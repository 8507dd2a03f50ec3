//! `flydex doctor`: looks at every part that a working connector needs, and says for each what it found and,
//! where it is not well, the next step. Looking changes nothing.

use flydex_domain::error::ErrorCode;

use crate::cli::args::DoctorArguments;
use crate::cli::{Context, Problem, read_certificate, running_status};
use crate::control::Status;
use crate::record::{PairedRecord, Settings};
use crate::regions::ServerOrigin;

mod local;
mod server;

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// As it should be.
    Ok,
    /// Works, with a drawback.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    mark: Mark,
    part: &'static str,
    found: String,
    next: Option<String>,
}

impl Finding {
    fn ok(part: &'static str, found: impl Into<String>) -> Self {
        Self { mark: Mark::Ok, part, found: found.into(), next: None }
    }

    fn warn(part: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { mark: Mark::Warn, part, found: found.into(), next: Some(next.into()) }
    }

    fn fail(part: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { mark: Mark::Fail, part, found: found.into(), next: Some(next.into()) }
    }

    fn line(&self) -> String {
        let mark = match self.mark {
            Mark::Ok => "ok  ",
            Mark::Warn => "warn",
            Mark::Fail => "fail",
        };
        let next = self.next.as_ref().map(|next| format!("\n                next: {next}"));
        format!("{mark}  {:<9} {}{}", self.part, self.found, next.unwrap_or_default())
    }
}

/// Looks at everything and prints what it found, as it finds it.
pub(crate) async fn doctor(context: &Context, arguments: DoctorArguments) -> Result<(), Problem> {
    let mut worst = Mark::Ok;
    let mut say = |findings: Vec<Finding>| {
        for finding in findings {
            context.screen.line(&finding.line());
            worst = worst.max(finding.mark);
        }
    };
    let running = running_status(context).await;
    say(local::state(&context.state));
    say(vec![connector(&running)]);
    let running = running.ok().flatten();
    let settings = Settings::load(&context.state).unwrap_or_default();
    say(local::codex(context, &settings).await);
    say(local::journal(&context.state, running.as_ref()));
    say(vec![local::port(arguments.port, running.as_ref()).await]);
    let record = PairedRecord::load(&context.state).ok().flatten();
    match target(&arguments, record.as_ref()) {
        Ok(Some((origin, pem))) => say(Box::pin(server::look(origin, pem, context, running.as_ref())).await),
        Ok(None) => say(vec![Finding::warn("server", "none is named", "flydex doctor --server https://…")]),
        Err(problem) => say(vec![Finding::fail("server", problem.cause(), problem.next_step())]),
    }
    if worst == Mark::Fail {
        let next = "take the steps above, then run flydex doctor again";
        return Err(Problem::new(ErrorCode::Conflict, "something does not work", next));
    }
    Ok(())
}

fn connector(running: &Result<Option<Status>, Problem>) -> Finding {
    match running {
        Ok(Some(status)) => Finding::ok("connector", format!("runs as process {}", status.facts.pid)),
        Ok(None) => Finding::warn("connector", "does not run", "flydex run (or flydex connect, to pair first)"),
        Err(problem) => Finding::fail("connector", problem.cause(), problem.next_step()),
    }
}

type Target = (ServerOrigin, Option<String>);

fn target(arguments: &DoctorArguments, record: Option<&PairedRecord>) -> Result<Option<Target>, Problem> {
    let Some(text) = arguments.server.clone().or_else(|| record.map(|record| record.origin.clone())) else {
        return Ok(None);
    };
    let origin: ServerOrigin = text.parse()?;
    let named = arguments.ca.as_deref().map(read_certificate).transpose()?;
    let kept = record.filter(|record| record.origin == origin.as_str()).and_then(|record| record.trusted_pem.clone());
    Ok(Some((origin, named.or(kept))))
}

#[cfg(test)]
mod tests;
