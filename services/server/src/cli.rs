//! The command line: flags become the last layer of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use toml::{Table, Value};

/// The FlyDex relay: lets people follow and steer the Codex on their own computers from any browser.
#[derive(Debug, Parser)]
#[command(
    name = "flydex-server",
    version,
    after_help = "Every key of the configuration can be set in the file, by FLYDEX__SECTION__KEY, or by a flag; \
the later wins. `flydex-server all --dump-config` shows what is in force."
)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub role: Role,
}

/// The roles of the one image.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Every role in one process, on SQLite: for one computer or a small team.
    #[command(
        after_help = "Examples:\n  flydex-server all\n      On this computer alone, at http://localhost:48200.\n  \
flydex-server all --listen 0.0.0.0:443 --public-origin https://flydex.example.org --data-dir /var/lib/flydex\n      \
For phones: https with tls.certificate_file and tls.key_file from the configuration file.\n  \
flydex-server all --owner-link\n      Print a new one-time sign-in link for the owner."
    )]
    All(AllFlags),
}

/// Flags of `all`.
#[derive(Debug, Args)]
pub struct AllFlags {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on, TCP and UDP.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// The origin that browsers and connectors use.
    #[arg(long, value_name = "URL")]
    pub public_origin: Option<String>,
    /// Folder of the database and certificates.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Address of the admin port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,
    /// Print a new one-time sign-in link for the owner and go on.
    #[arg(long)]
    pub owner_link: bool,
    /// Print the configuration in force and exit.
    #[arg(long)]
    pub dump_config: bool,
}

impl AllFlags {
    /// The flags as a layer of the configuration.
    #[must_use]
    pub fn layer(&self) -> Table {
        let text = |value: &dyn ToString| Value::String(value.to_string());
        let path = |path: &PathBuf| Value::String(path.to_string_lossy().into_owned());
        let entries = [
            ("listen", self.listen.as_ref().map(|listen| text(listen))),
            ("public_origin", self.public_origin.as_ref().map(|origin| text(origin))),
            ("data_dir", self.data_dir.as_ref().map(path)),
            ("admin_listen", self.admin_listen.as_ref().map(|listen| text(listen))),
        ];
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}
