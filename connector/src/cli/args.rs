//! The arguments of `flydex`, and the help that teaches them.

use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Parser, Subcommand, ValueEnum};
use flydex_domain::id::DeviceId;
use flydex_domain::key::{KeyError, PublicKey};
use flydex_domain::limits::HELPER_PORT;
use flydex_domain::scope::Role;

const EXAMPLES: &str = "\
Examples:
  flydex connect --server https://relay.example   pair this computer, then keep it connected
  flydex run                                      connect again later, without pairing
  flydex status                                   is it connected, is Codex ready, who is watching
  flydex directories add ~/src/shop               let threads be started in a folder
  flydex devices add                              pair a further phone
  flydex settings                                 what this computer allows
  flydex pause                                    let nothing act remotely until flydex resume
  flydex doctor                                   look for what is wrong, with the next step

State is kept in $FLYDEX_HOME, else $XDG_STATE_HOME/flydex, else ~/.local/state/flydex.";

const SETTINGS_HELP: &str = "\
Without a command: shows each setting, and what it means. All are off until they are
switched on here; nothing that comes over the network can change them. A running
connector follows at once.

Examples:
  flydex settings
  flydex settings set require_channel_binding on
  flydex settings set allow_unguarded off";

const KEYS_HELP: &str = "\
This computer proves itself by a key of its own. It changes the key by itself every 90 days; change it now
when somebody may have read the disk or a backup of it. Devices stay paired: they follow to the new key by
the signature of the old one. A copy of the old key is found out and opens no link after a day.

Examples:
  flydex keys show
  flydex keys rotate";

/// Control the Codex on this computer from your phone or browser.
#[derive(Debug, Parser)]
#[command(name = "flydex", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// Folder for keys and state
    #[arg(long, global = true, env = "FLYDEX_HOME", value_name = "FOLDER")]
    pub home: Option<PathBuf>,
    /// What to log to standard error, such as `debug` or `flydex_connector=trace`
    #[arg(long, global = true, env = "FLYDEX_LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,
    /// Where to send traces (OTLP over gRPC), such as `http://127.0.0.1:4317`
    #[arg(long, global = true, env = "FLYDEX_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pair this computer with an account, then keep it connected
    #[command(after_help = "\
Shows a QR code. Scan it with a phone that is signed in, or open the address in a signed-in browser. Both
screens then show the same six digits, and this computer asks whether it may be paired. Nothing happens
without that yes. A code is good for two minutes; when nobody used it, a fresh one is drawn, five at most.

Examples:
  flydex connect --server https://relay.example
  flydex connect --server https://relay.example --role operator --label workstation
  flydex connect --server http://localhost:7420")]
    Connect(ConnectArguments),
    /// Keep a paired computer connected, in the foreground
    #[command(after_help = "Example:\n  flydex run")]
    Run(RunArguments),
    /// Say how the connector stands
    #[command(after_help = "Examples:\n  flydex status\n  flydex status --json")]
    Status(StatusArguments),
    /// List, remove or add the devices that this computer obeys
    Devices(DevicesArguments),
    /// List, add or remove the folders in which threads may be started remotely
    Directories(DirectoriesArguments),
    /// Show or change what this computer allows
    #[command(after_help = SETTINGS_HELP)]
    Settings(SettingsArguments),
    /// Show or change the key of this computer
    #[command(after_help = KEYS_HELP)]
    Keys(KeysArguments),
    /// Let nothing act remotely; reading goes on
    Pause,
    /// Let things act remotely again
    Resume,
    /// Look for what is wrong, and say the next step
    Doctor(DoctorArguments),
    /// Forget the account, every device and the machine key
    #[command(after_help = "\
The account is told, and has this computer no more. Without a network it is told at the next start; until then
it lists this computer, which obeys none of its devices.")]
    Unpair,
}

/// `flydex connect`.
#[derive(Debug, Args)]
pub struct ConnectArguments {
    /// Address of the server: https, or http on this computer; the paired one when it is left out
    #[arg(long, env = "FLYDEX_ORIGIN", value_name = "URL")]
    pub server: Option<String>,
    /// What the device may do at most: `viewer` reads, `operator` acts, `owner` also enrols devices
    #[arg(long, default_value = "owner")]
    pub role: Role,
    /// This computer's name in the app; its host name when it is left out
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// A certificate to trust besides the system's, in PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// What it does afterwards
    #[command(flatten)]
    pub run: RunArguments,
}

/// `flydex run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Port of the loopback helper; 0 takes any free one
    #[arg(long, default_value_t = HELPER_PORT)]
    pub port: u16,
}

/// `flydex status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `flydex devices`.
#[derive(Debug, Args)]
pub struct DevicesArguments {
    /// What to do with them
    #[command(subcommand)]
    pub command: DevicesCommand,
}

/// What to do with devices.
#[derive(Debug, Subcommand)]
pub enum DevicesCommand {
    /// Show them: id, role, name
    List,
    /// Stop obeying a device, at once
    #[command(after_help = "Example:\n  flydex devices remove AbC123…   (the id from flydex devices list)")]
    Remove {
        /// Its id, from `flydex devices list`
        device: DeviceId,
    },
    /// Trust the key of a program of yours, which is not a browser: nothing but your word vouches for it
    #[command(after_help = "Example:\n  flydex devices trust ed25519:KEY --label script --role operator")]
    Trust {
        /// Its public key, as `ed25519:` and the key in base64url
        key: TrustedKey,
        /// What it may do at most
        #[arg(long, default_value = "viewer")]
        role: Role,
        /// Its name
        #[arg(long, value_name = "NAME")]
        label: String,
    },
    /// Pair a further device: draws a fresh code
    #[command(after_help = "Example:\n  flydex devices add --role viewer")]
    Add {
        /// What the device may do at most
        #[arg(long, default_value = "owner")]
        role: Role,
    },
}

/// A public key as a person types it: `algorithm:base64url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedKey(pub PublicKey);

impl FromStr for TrustedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (algorithm, key) = text.split_once(':').ok_or(KeyError::MalformedKey)?;
        let key = URL_SAFE_NO_PAD.decode(key).map_err(|_| KeyError::MalformedKey)?;
        PublicKey::parse(algorithm, &key).map(Self)
    }
}

/// `flydex keys`.
#[derive(Debug, Args)]
pub struct KeysArguments {
    /// What to do with it
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with the machine key.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Show its fingerprint, and how often it was changed
    Show,
    /// Change it now
    #[command(after_help = KEYS_HELP)]
    Rotate,
}

/// `flydex directories`.
#[derive(Debug, Args)]
pub struct DirectoriesArguments {
    /// What to do with them
    #[command(subcommand)]
    pub command: DirectoriesCommand,
}

/// What to do with folders.
#[derive(Debug, Subcommand)]
pub enum DirectoriesCommand {
    /// Show them
    List,
    /// Let threads be started in a folder
    #[command(after_help = "Example:\n  flydex directories add ~/src/shop --label Shop")]
    Add {
        /// The folder
        path: PathBuf,
        /// Its name in the app; the folder's own name when it is left out
        #[arg(long)]
        label: Option<String>,
    },
    /// Take a folder off the list
    Remove {
        /// The folder
        path: PathBuf,
    },
}

/// `flydex settings`.
#[derive(Debug, Args)]
pub struct SettingsArguments {
    /// What to do with them; shows them when it is left out
    #[command(subcommand)]
    pub command: Option<SettingsCommand>,
}

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Switch one on or off
    #[command(after_help = SETTINGS_HELP)]
    Set {
        /// Which
        name: Setting,
        /// To what
        value: Switch,
    },
}

/// What the desk can switch on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Setting {
    /// A device may answer an approval for the rest of the session, not only once
    SessionAcceptance,
    /// Prompts may go to threads that run without approvals and with full access
    AllowUnguarded,
    /// Nothing is accepted remotely while the server's audit cannot be reached
    StrictAudit,
    /// Only links that are bound to their TLS connection are taken: no proxy on the way may end TLS
    RequireChannelBinding,
    /// New devices are enrolled here only, by code and a yes; an owner's phone cannot endorse another
    EnrolAtDeskOnly,
    /// No browser is obeyed, shown anything or paired, phones included; only keys typed in with devices trust count
    RefuseBrowserKeys,
    /// A high-risk accept needs the passkey that the device pinned within ten minutes of your yes here
    PasskeyForHighRisk,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// `flydex doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Address of the server, when this computer is not paired yet
    #[arg(long, env = "FLYDEX_ORIGIN", value_name = "URL")]
    pub server: Option<String>,
    /// A certificate to trust besides the system's, in PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Port of the loopback helper
    #[arg(long, default_value_t = HELPER_PORT)]
    pub port: u16,
}
