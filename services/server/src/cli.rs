//! The command line: flags become the last layer of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use flydex_runtime::client::Cidr;
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
    /// A node of a cluster: holds machines, and gateways find it through Redis.
    #[command(after_help = "Examples:\n  flydex-server machines --config node-1.toml\n  \
flydex-server machines --config node-1.toml --dump-config\n      What is in force, without secrets.\n\n\
The least that node-1.toml holds:\n  address = \"10.0.0.7:48210\"          # where gateways reach this process\n  \
control = [\"10.0.0.3:48221\"]        # internal addresses of control\n  [redis]\n  \
url_file = \"/run/secrets/redis\"     # redis://:password@host:6379\n  [mutual]\n  \
certificate_file = \"node-1.crt\"     # names spiffe://flydex/<region>/machines/<name>\n  \
key_file = \"node-1.key\"\n  ca_file = \"ca.crt\"\n\n\
SIGTERM hands its machines to other nodes, then it ends; a second one ends it at once. SIGHUP reads the \
certificate again, as a change of its files does within 10 s.")]
    Machines(RoleFlags),
    /// A gateway of a cluster: browsers open sessions there, connectors their links.
    #[command(after_help = "Examples:\n  flydex-server gateway --config gateway-1.toml\n\n\
The least that gateway-1.toml holds:\n  listen = \"0.0.0.0:443\"\n  \
public_origin = \"https://flydex.example.org\"  # the web app's, as control has it\n  \
control = [\"10.0.0.3:48221\"]\n  [tls]\n  certificate_file = \"public.crt\"\n  key_file = \"public.key\"\n  \
[redis]\n  url_file = \"/run/secrets/redis\"\n  [mutual]\n  \
certificate_file = \"gateway-1.crt\"  # names spiffe://flydex/<region>/gateway/<name>\n  \
key_file = \"gateway-1.key\"\n  ca_file = \"ca.crt\"")]
    Gateway(RoleFlags),
    /// A control process of a cluster: the API, the web app, and what gateways and nodes ask of control.
    #[command(
        after_help = "Examples:\n  flydex-server migrate --config control.toml && flydex-server control --config \
control.toml\n  flydex-server control --config control.toml --owner-link\n      Print a new one-time sign-in link for \
the owner.\n\nThe least that control.toml holds:\n  public_origin = \"https://flydex.example.org\"\n  \
[database]\n  url_file = \"/run/secrets/postgres\"  # postgres://user:password@host/database\n  \
[[regions]]\n  region = \"eu\"\n  gateway_url = \"wss://eu.flydex.example.org\"\n  [tls]\n  \
certificate_file = \"public.crt\"\n  key_file = \"public.key\"\n  [mutual]\n  \
certificate_file = \"control-1.crt\"  # names spiffe://flydex/<region>/control/<name>\n  \
key_file = \"control-1.key\"\n  ca_file = \"ca.crt\"\n\nTo bill (docs/BILLING.md; without it there are no \
limits):\n  [billing]\n  webhook_secret_file = \"/run/secrets/billing\"\n  free = { machines = 1, seats = 1 }\n  \
[[billing.plans]]\n  name = \"team\"\n  price = \"price_1\"\n  machines = 20\n  seats = 10\n\n\
Passkeys work at every public_origin that is a name. For an OpenID provider beside them, register \
<public_origin>/sign-in/identity there as the address to come back to, and add:\n  [identity_provider]\n  \
name = \"Example\"                   # on the button\n  issuer = \"https://id.example.org\"\n  \
client_id = \"flydex\"\n  client_secret_file = \"/run/secrets/oidc\"\n\
Who is to sign in there links it under 'Account' first; e-mail addresses link nobody."
    )]
    Control(ControlFlags),
    /// The web app at an origin of its own, apart from everything that holds a secret.
    #[command(after_help = "Examples:\n  flydex-server web --config web.toml\n\n\
The least that web.toml holds:\n  public_origin = \"https://app.flydex.example.org\"\n  \
api_origin = \"https://api.flydex.example.org\"  # control has both as well\n  \
gateways = [\"wss://eu.flydex.example.org\"]\n  [tls]\n  certificate_file = \"public.crt\"\n  \
key_file = \"public.key\"\n\nWhoever serves the web app could misuse the keys that browsers hold for its origin. This \
process holds no secret and reaches no database, and its files are the ones of the build: any static host serves \
them as well.")]
    Web(RoleFlags),
    /// Brings the schema of the database up to date, and ends.
    #[command(after_help = "Examples:\n  flydex-server migrate --config migrate.toml\n  \
FLYDEX__DATABASE__URL_FILE=/run/secrets/postgres flydex-server migrate\n\n\
Run it before the new version of control: the version before goes on with the new schema.")]
    Migrate(RoleFlags),
    /// Makes the next key that control signs tickets, grants and credentials with, and ends. No process is restarted.
    #[command(
        name = "rotate-token-key",
        after_help = "Examples:\n  flydex-server rotate-token-key --config control.toml\n      The next key is told at once, \
signs in 25 hours, and the one before is taken for a day more: nobody is refused.\n  \
flydex-server rotate-token-key --config control.toml --signs-in 10 --compromised\n      Others know the key: in 10 s \
nothing that it signed opens anything any more.\n      Devices and machines come back by themselves; what is open stays \
open until gateways are restarted.\n\nFor one process with every role: \
FLYDEX__DATABASE__SQLITE_FILE=data/flydex.sqlite flydex-server rotate-token-key\n\n\
Control also does this by itself every 90 days."
    )]
    RotateTokenKey(RotateFlags),
    /// Empties a region: its machines go to others while it still serves them; or lets it be used again.
    #[command(
        name = "drain-region",
        after_help = "Examples:\n  flydex-server drain-region --config control.toml eu\n      Within a second every gateway \
of eu tells its machines to go, and they go where they are next best served.\n  \
flydex-server drain-region --config control.toml eu --end\n      Machines may come back.\n\n\
A machine leaves its link when another region has taken it, so nothing that was delivered is lost. One that is pinned to \
the region, or reaches no other, stays and is served: look at flydex_gateway_live before the processes are stopped. \
One that has left looks again after ten minutes and is sent away again."
    )]
    DrainRegion(DrainFlags),
    /// Looks at the audit.
    #[command(
        subcommand,
        after_help = "Examples:\n  flydex-server audit verify --sqlite var/flydex.sqlite\n  \
flydex-server audit verify --help\n      What it finds, what to keep, and what its exit status says."
    )]
    Audit(AuditCommand),
}

/// What can be asked of the audit.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Checks that nobody has changed what was recorded, in a database or in an export of one account.
    #[command(after_help = "Examples:\n  flydex-server audit verify --sqlite var/flydex.sqlite\n      \
Every account in the database of `all`. Nothing in it is changed.\n  \
flydex-server audit verify --config control.toml --head head.json\n      \
Every account in the PostgreSQL of a cluster, and one of them against a head that was kept.\n  \
flydex-server audit verify --export flydex-audit.ndjson --head head.json --keys keys.json\n      \
One account, without the server.\n\nWhat it finds: each record carries the hash of the one before it, so one that was \
edited, deleted, inserted or moved breaks the chain at its number, which is said. Whoever holds the database could \
also cut the chain at its end or write all of it anew with fitting hashes; only a head that was taken before shows \
that. Take one now and then, and keep it elsewhere:\n  GET /api/audit/head     -> head.json, the newest record's number \
and hash, signed; it never ends\n  GET /api/keys           -> keys.json, what it was signed with; keep it too\n  \
GET /api/audit/export   -> flydex-audit.ndjson, every record (all three in the web app: Account, Audit)\n\n\
Exit status: 0 it holds; 3 it does not, and the account and the first record that does not fit are said; 1 it could \
not be looked at, or the head is not one; 64 the configuration cannot be used.")]
    Verify(VerifyFlags),
}

/// Flags of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyFlags {
    /// Configuration file (TOML) with a section `[database]`: control's or migrate's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sqlite", "export"])]
    pub config: Option<PathBuf>,
    /// A file of SQLite, as `all` keeps it in its data folder.
    #[arg(long, value_name = "FILE", conflicts_with = "export")]
    pub sqlite: Option<PathBuf>,
    /// What `/api/audit/export` gave, in place of a database.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// What `/api/audit/head` gave at some time before: the chain must go on from there.
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// What `/api/keys` gave: signed heads must verify with it. May be given several times, as keys change. Without it
    /// the keys in the file of `--head` are taken for that.
    #[arg(long, value_name = "FILE")]
    pub keys: Vec<PathBuf>,
}

impl VerifyFlags {
    /// The flags as a layer of the configuration.
    #[must_use]
    pub fn layer(&self) -> Table {
        let Some(file) = &self.sqlite else { return Table::new() };
        let database = [("sqlite_file".to_owned(), Value::String(file.to_string_lossy().into_owned()))];
        [("database".to_owned(), Value::Table(database.into_iter().collect()))].into_iter().collect()
    }
}

/// Flags of every role of a cluster; all else is in the file.
#[derive(Debug, Args)]
pub struct RoleFlags {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration in force, without secrets, and exit.
    #[arg(long)]
    pub dump_config: bool,
}

/// Flags of `control`.
#[derive(Debug, Args)]
pub struct ControlFlags {
    /// What every role takes.
    #[command(flatten)]
    pub role: RoleFlags,
    /// Print a new one-time sign-in link for the owner and go on.
    #[arg(long)]
    pub owner_link: bool,
}

/// Flags of `rotate-token-key`.
#[derive(Debug, Args)]
pub struct RotateFlags {
    /// What every role takes.
    #[command(flatten)]
    pub role: RoleFlags,
    /// Time until the new key signs. Machines that have not renewed their credential in the meantime do so at once.
    #[arg(long, value_name = "SECONDS")]
    pub signs_in: Option<u64>,
    /// Take no token of the keys before any more once the new one signs.
    #[arg(long)]
    pub compromised: bool,
}

/// Flags of `drain-region`.
#[derive(Debug, Args)]
pub struct DrainFlags {
    /// What every role takes.
    #[command(flatten)]
    pub role: RoleFlags,
    /// The region, as control's configuration names it.
    pub region: String,
    /// Let it be used again.
    #[arg(long)]
    pub end: bool,
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
    /// Address range of proxies that are believed about whom they speak for (X-Forwarded-For); may be given several
    /// times. Without it the address of each connection counts.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub trusted_proxy: Vec<Cidr>,
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
        let proxies: Vec<Value> = self.trusted_proxy.iter().map(|range| text(range)).collect();
        let entries = [
            ("listen", self.listen.as_ref().map(|listen| text(listen))),
            ("public_origin", self.public_origin.as_ref().map(|origin| text(origin))),
            ("data_dir", self.data_dir.as_ref().map(path)),
            ("admin_listen", self.admin_listen.as_ref().map(|listen| text(listen))),
            ("trusted_proxies", (!proxies.is_empty()).then_some(Value::Array(proxies))),
        ];
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use flydex_runtime::config;

    use super::*;
    use crate::config::AllConfig;

    fn loaded(arguments: &[&str], environment: &[(&str, &str)]) -> AllConfig {
        let cli = Cli::try_parse_from(["flydex-server", "all"].iter().chain(arguments)).unwrap();
        let Role::All(flags) = cli.role else { panic!("another role") };
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        config::load(None, environment, flags.layer()).unwrap()
    }

    #[test]
    fn proxies_are_trusted_by_flag_or_variable_and_by_default_none_is() {
        let written = |config: AllConfig| serde_json::to_value(config.trusted_proxies).unwrap();
        assert_eq!(written(loaded(&[], &[])), serde_json::json!([]));
        let variable = [("FLYDEX__TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8")];
        assert_eq!(written(loaded(&[], &variable)), serde_json::json!(["10.0.0.0/8", "fd00::/8"]));
        let flags = ["--trusted-proxy", "192.0.2.1", "--trusted-proxy", "::1"];
        assert_eq!(written(loaded(&flags, &variable)), serde_json::json!(["192.0.2.1/32", "::1/128"]));
    }

    #[test]
    fn what_is_in_force_can_be_printed_and_read_again() {
        let config = loaded(&["--trusted-proxy", "10.0.0.0/8"], &[]);
        let printed = toml::to_string_pretty(&config).unwrap();
        let read: AllConfig = toml::from_str(&printed).unwrap();
        assert_eq!(read.trusted_proxies, config.trusted_proxies);
    }
}
