//! `flydex`, the command line: parses, does one thing, and says in one place what went wrong and what to do.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use flydex_runtime::clock::Clock;
use flydex_runtime::memory;
use flydex_runtime::telemetry::{Telemetry, TelemetryConfig};
use flydex_runtime::tls;

use crate::codex::CodexConfig;
use crate::doctor;
use crate::paired::Entropy;
use crate::state::StateDir;

pub mod args;
mod connect;
mod desk_side;
mod keys;
mod parts;
mod problem;
mod run;
mod said;
pub mod screen;
mod settings;

use args::{Arguments, Command};
pub(crate) use connect::read_certificate;
pub(crate) use desk_side::running_status;
pub(crate) use parts::codex_config;
pub use problem::Problem;
use screen::Screen;

/// What every command works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// The CLI's own output.
    pub screen: Screen,
    /// The state folder.
    pub state: StateDir,
    /// The clock.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// Where Codex is; what the desk allows is added from the settings.
    pub codex: CodexConfig,
}

/// The whole program: from arguments to exit code.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help is an answer and goes to standard output; a wrong argument goes to standard error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    tls::install_provider();
    let private = memory::keep_private();
    let telemetry = Telemetry::install("flydex", &telemetry_config(&arguments));
    if let Err(error) = private {
        tracing::warn!(error = %error, "memory not kept private");
    }
    let ended = start(arguments);
    if let Ok(telemetry) = telemetry {
        telemetry.shutdown();
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            problem.show(&mut std::io::stderr());
            ExitCode::from(problem.exit_code())
        }
    }
}

fn telemetry_config(arguments: &Arguments) -> TelemetryConfig {
    TelemetryConfig {
        log_filter: arguments.log.clone(),
        otlp_endpoint: arguments.otlp.clone(),
        ..TelemetryConfig::default()
    }
}

fn start(arguments: Arguments) -> Result<(), Problem> {
    let path = match &arguments.home {
        Some(path) => path.clone(),
        None => StateDir::default_path(|name| std::env::var_os(name))?,
    };
    let context = Context {
        screen: Screen::stdout(),
        state: StateDir::open(&path)?,
        clock: Clock::system(),
        entropy: Entropy::system(),
        codex: CodexConfig::from_environment(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Problem::system)?;
    let ended = runtime.block_on(Box::pin(perform(context, arguments.command)));
    // A read of standard input may still be blocked; nothing waits for it.
    runtime.shutdown_background();
    ended
}

async fn perform(context: Context, command: Command) -> Result<(), Problem> {
    match command {
        Command::Connect(arguments) => Box::pin(connect::connect(context, arguments)).await,
        Command::Run(arguments) => Box::pin(run::run(context, arguments)).await,
        Command::Status(arguments) => desk_side::status(&context, arguments.json).await,
        Command::Devices(arguments) => Box::pin(desk_side::devices(context, arguments)).await,
        Command::Directories(arguments) => desk_side::directories(&context, arguments).await,
        Command::Settings(arguments) => settings::settings(&context, arguments).await,
        Command::Keys(arguments) => keys::keys(&context, arguments).await,
        Command::Pause => desk_side::pause(&context, true).await,
        Command::Resume => desk_side::pause(&context, false).await,
        Command::Doctor(arguments) => doctor::doctor(&context, arguments).await,
        Command::Unpair => desk_side::unpair(&context).await,
    }
}

#[cfg(test)]
mod tests;
