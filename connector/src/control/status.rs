//! How a running connector stands, as `flydex status` shows it and `--json` prints it.

use flydex_domain::error::{ErrorCode, Retry};
use flydex_domain::id::{AccountId, MachineId};
use serde::{Deserialize, Serialize};

use crate::api::next_step;
use crate::codex::CodexStatus;
use crate::paired::{Channel, CoreStatus, LinkStatus, Transport};

mod region;

pub use region::{Distance, RegionStatus};

/// What does not change while a connector runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningFacts {
    /// This program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The relay.
    pub origin: String,
    /// The account.
    pub account_id: AccountId,
    /// Its name.
    pub account_name: String,
    /// This machine.
    pub machine_id: MachineId,
    /// Its name.
    pub machine_label: String,
    /// The helper's port on loopback; absent when it is not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper_port: Option<u16>,
}

/// How a connector stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where it is.
    #[serde(default, skip_serializing_if = "RegionStatus::is_empty")]
    pub regions: RegionStatus,
    /// What does not change.
    #[serde(flatten)]
    pub facts: RunningFacts,
    /// This life of the connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// `down`, `linked` or `attached`.
    pub link: String,
    /// `websocket` or `quic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// The link's proof covered its TLS connection; absent without a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_bound: Option<bool>,
    /// Why there is no link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_code: Option<String>,
    /// `starting`, `ready`, `read_only` or `unavailable`.
    pub codex: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codex_version: Option<String>,
    /// Why it is not available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codex_code: Option<String>,
    /// Active threads that are not followed: their approvals are answered at the desk.
    #[serde(default)]
    pub threads_unfollowed: usize,
    /// Sessions that are admitted.
    pub sessions: usize,
    /// Devices on the list.
    pub devices: usize,
    /// The journal can be written.
    pub journal_writable: bool,
    /// Remote control is paused.
    pub paused: bool,
}

impl Status {
    /// Puts together what the parts say of themselves; `core` is absent until it has started.
    #[must_use]
    pub fn of(
        facts: &RunningFacts,
        core: Option<CoreStatus>,
        codex: &CodexStatus,
        paused: bool,
        devices: usize,
    ) -> Self {
        let (link, channel, link_code) = link_words(core.map_or(LinkStatus::Down(None), |core| core.link));
        let (codex, codex_version, codex_code) = codex_words(codex);
        Self {
            regions: RegionStatus::default(),
            facts: facts.clone(),
            boot_id: core.map(|core| core.boot_id.to_string()),
            link: link.to_owned(),
            transport: channel.map(|channel| transport_word(channel.transport).to_owned()),
            channel_bound: channel.map(|channel| channel.bound),
            link_code: link_code.map(|code| code.name().to_owned()),
            codex: codex.to_owned(),
            codex_version,
            codex_code: codex_code.map(|code| code.name().to_owned()),
            threads_unfollowed: 0,
            sessions: core.map_or(0, |core| core.sessions),
            devices,
            journal_writable: core.is_none_or(|core| core.journal_writable),
            paused,
        }
    }

    /// The lines for a person.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let facts = &self.facts;
        let mut lines = self.trouble().map_or_else(Vec::new, |code| {
            vec![format!("STOPPED   {} [{code}]", code.message()), format!("          next: {}", next_step(code))]
        });
        let detail = |word: &str, detail: Option<&String>| match detail {
            Some(detail) => format!("{word} ({detail})"),
            None => word.to_owned(),
        };
        lines.extend([
            format!("running   flydex {} as process {}", facts.version, facts.pid),
            format!("account   {} at {}", facts.account_name, facts.origin),
            format!("machine   {} ({})", facts.machine_label, facts.machine_id),
            format!("link      {}", detail(&self.link, self.carrier().as_ref().or(self.link_code.as_ref()))),
        ]);
        lines.extend(self.binding().and_then(Binding::next_step).map(|next| format!("          next: {next}")));
        lines.extend(self.regions.line().map(|said| format!("region    {said}")));
        lines.extend([
            format!("codex     {}", detail(&self.codex, self.codex_version.as_ref().or(self.codex_code.as_ref()))),
            format!("sessions  {}", self.sessions),
            format!("devices   {}", self.devices),
        ]);
        if self.threads_unfollowed > 0 {
            let count = self.threads_unfollowed;
            lines.push(format!("threads   {count} more are active than can be followed: answer their approvals here"));
        }
        if !self.journal_writable {
            lines.push("journal   cannot be written: only stop and decline work; free some disk space".to_owned());
        }
        if self.paused {
            lines.push("paused    nothing acts remotely; flydex resume lets it again".to_owned());
        }
        lines
    }

    /// Why there is no link, when waiting will not bring one: a person has to do something.
    #[must_use]
    pub fn trouble(&self) -> Option<ErrorCode> {
        let code = self.link_code.as_deref().and_then(ErrorCode::from_name)?;
        (code.retry() == Retry::Never).then_some(code)
    }

    /// What the link runs over, and whether its proof covers that.
    #[must_use]
    pub fn carrier(&self) -> Option<String> {
        self.transport.as_deref().map(|transport| carrier(transport, self.binding()))
    }

    /// How far the link's proof reaches; absent without a link.
    #[must_use]
    pub fn binding(&self) -> Option<Binding> {
        self.channel_bound.map(|bound| Binding::of(bound, self.facts.origin.starts_with("http://")))
    }
}

/// How far a link's proof reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// To the gateway: it covers the TLS connection.
    Bound,
    /// Past a proxy that ends TLS.
    Proxied,
    /// There is no TLS: the server is on this computer.
    Plain,
}

impl Binding {
    /// By whether the proof covers the connection, and whether that is plain.
    #[must_use]
    pub const fn of(bound: bool, plain: bool) -> Self {
        match (bound, plain) {
            (true, _) => Self::Bound,
            (false, true) => Self::Plain,
            (false, false) => Self::Proxied,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub const fn next_step(self) -> Option<&'static str> {
        match self {
            Self::Bound | Self::Plain => None,
            Self::Proxied => Some(
                "let the proxy pass TLS through (layer 4); \
                 flydex settings set require_channel_binding on refuses such links",
            ),
        }
    }
}

/// What a link runs over, in a person's words.
#[must_use]
pub fn carrier(transport: &str, binding: Option<Binding>) -> String {
    let binding = match binding {
        Some(Binding::Bound) => "bound to its TLS connection",
        Some(Binding::Plain) => "not encrypted, to a server on this computer",
        Some(Binding::Proxied) => "NOT bound: a proxy on the way ends TLS and can read along",
        None => return transport.to_owned(),
    };
    format!("{transport}, {binding}")
}

const fn link_words(link: LinkStatus) -> (&'static str, Option<Channel>, Option<ErrorCode>) {
    match link {
        LinkStatus::Down(code) => ("down", None, code),
        LinkStatus::Linked(channel) => ("linked", Some(channel), None),
        LinkStatus::Attached(channel) => ("attached", Some(channel), None),
    }
}

/// The word for a transport.
#[must_use]
pub const fn transport_word(transport: Transport) -> &'static str {
    match transport {
        Transport::WebSocket => "websocket",
        Transport::Quic => "quic",
    }
}

fn codex_words(codex: &CodexStatus) -> (&'static str, Option<String>, Option<ErrorCode>) {
    match codex {
        CodexStatus::Starting => ("starting", None, None),
        CodexStatus::Ready { version, read_only: false, .. } => ("ready", Some(version.clone()), None),
        CodexStatus::Ready { version, read_only: true, .. } => ("read_only", Some(version.clone()), None),
        CodexStatus::Unavailable(code) => ("unavailable", None, Some(*code)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
