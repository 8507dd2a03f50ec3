//! From a command line to a running role: the configuration, the async runtime, and the exit status.

use std::future::Future;
use std::path::Path;

use anyhow::Context as _;
use flydex_runtime::config::{self, EXIT_BAD_CONFIG};
use flydex_runtime::telemetry::log::chain;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::audit::{self, AuditConfig, Broken, EXIT_AUDIT_BROKEN};
use crate::cli::{AuditCommand, Cli, Role, RoleFlags};
use crate::cluster::BadField;
use crate::config::AllConfig;
use crate::control::ControlConfig;
use crate::gateway::GatewayConfig;
use crate::machines::MachinesConfig;
use crate::migrate::MigrateConfig;
use crate::web::WebConfig;
use crate::{all, control, drain_region, gateway, machines, migrate, token_key, web};

/// Talks to whoever started the process.
pub trait Voice {
    /// Prints a line.
    fn say(&self, line: &str);
    /// Prints what is wrong.
    fn complain(&self, line: &str);
}

/// Runs a role to its end; the process's exit status. 64 is for a configuration that cannot be used.
pub fn run(cli: Cli, environment: impl IntoIterator<Item = (String, String)>, voice: &impl Voice) -> i32 {
    let say = |line: &str| voice.say(line);
    match cli.role {
        Role::All(flags) => {
            let start = Start { file: flags.config.as_deref(), layer: flags.layer(), dump: flags.dump_config };
            start.run(environment, voice, |config: AllConfig| all::run(config, flags.owner_link, say))
        }
        Role::Gateway(flags) => {
            Start::of(&flags).run(environment, voice, |config: GatewayConfig| gateway::run(config, say))
        }
        Role::Machines(flags) => {
            Start::of(&flags).run(environment, voice, |config: MachinesConfig| machines::run(config, say))
        }
        Role::Control(flags) => Start::of(&flags.role)
            .run(environment, voice, |config: ControlConfig| control::run(config, flags.owner_link, say)),
        Role::Web(flags) => Start::of(&flags).run(environment, voice, |config: WebConfig| web::run(config, say)),
        Role::Migrate(flags) => {
            Start::of(&flags).run(environment, voice, |config: MigrateConfig| migrate::run(config, say))
        }
        Role::Audit(AuditCommand::Verify(flags)) => {
            let start = Start { file: flags.config.as_deref(), layer: flags.layer(), dump: false };
            start.run(environment, voice, |config: AuditConfig| audit::verify(config, &flags, say))
        }
        Role::DrainRegion(flags) => Start::of(&flags.role)
            .run(environment, voice, |config| drain_region::run(config, &flags.region, flags.end, say)),
        Role::RotateTokenKey(flags) => {
            let change = token_key::change(flags.signs_in, flags.compromised);
            Start::of(&flags.role).run(environment, voice, |config| token_key::run(config, change, say))
        }
    }
}

/// How a role is configured.
struct Start<'a> {
    file: Option<&'a Path>,
    layer: Table,
    dump: bool,
}

impl<'a> Start<'a> {
    fn of(flags: &'a RoleFlags) -> Self {
        Self { file: flags.config.as_deref(), layer: Table::new(), dump: flags.dump_config }
    }

    fn run<T, F>(
        self,
        environment: impl IntoIterator<Item = (String, String)>,
        voice: &impl Voice,
        role: impl FnOnce(T) -> F,
    ) -> i32
    where
        T: DeserializeOwned + Serialize,
        F: Future<Output = anyhow::Result<()>>,
    {
        let config: T = match config::load(self.file, environment, self.layer) {
            Ok(config) => config,
            Err(error) => {
                voice.complain(&chain(&error));
                return EXIT_BAD_CONFIG;
            }
        };
        if self.dump {
            voice.say(toml::to_string_pretty(&config).unwrap_or_default().trim_end());
            return 0;
        }
        if let Err(error) = flydex_runtime::memory::keep_private() {
            voice.complain(&format!("keep the memory private: {error}"));
        }
        if let Err(error) = flydex_runtime::files::raise_limit() {
            voice.complain(&format!("raise the number of open files: {error}"));
        }
        flydex_runtime::tls::install_provider();
        let outcome = tokio::runtime::Runtime::new()
            .context("start the async runtime")
            .and_then(|runtime| runtime.block_on(role(config)));
        let Err(error) = outcome else { return 0 };
        voice.complain(&format!("{error:#}"));
        if error.is::<Broken>() {
            EXIT_AUDIT_BROKEN
        } else if error.chain().any(|cause| cause.is::<BadField>()) {
            EXIT_BAD_CONFIG
        } else {
            1
        }
    }
}

#[cfg(test)]
mod tests;
