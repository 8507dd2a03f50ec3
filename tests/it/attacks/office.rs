//! A cluster of three processes (a gateway, a node, a control), a machine with the real Codex, and the people of one
//! account.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use flydex_loadtest::account::{Account, PairedMachine};
use flydex_loadtest::device::Device;
use flydex_loadtest::session::Session;
use flydex_runtime::clock::Clock;
use flydex_tests::cluster::{Cluster, RegionSettings, Settings};
use flydex_tests::codex::{CodexHome, Daemon};
use flydex_tests::connector::{Connector, Machine};
use flydex_tests::model::Model;
use flydex_tests::wait;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::stand::{Client, pair};

/// The time within which what was taken must be gone, in every process and on the machine.
pub(super) const CUT_WITHIN: Duration = Duration::from_secs(2);

/// The region of the cluster.
const REGION: &str = "one";

/// A member with a device that is paired with the machine.
pub(super) struct Member {
    pub(super) account: Account,
    pub(super) user_id: String,
    pub(super) device: Device,
}

/// The account, its machine and where they live.
pub(super) struct Office {
    // First, so that it ends before what it would miss.
    _connector: Connector,
    pub(super) cluster: Cluster,
    pub(super) owner: Member,
    pub(super) paired: PairedMachine,
    pub(super) machine: Machine,
    pub(super) model: Model,
    _daemon: Daemon,
    _codex: CodexHome,
}

impl Office {
    pub(super) async fn open() -> anyhow::Result<Self> {
        flydex_runtime::tls::install_provider();
        let regions = vec![RegionSettings { name: REGION, gateways: 1, nodes: 1 }];
        let cluster = Cluster::start(Settings { regions, controls: 1, ..Settings::default() }).await?;
        let model = Model::start().await?;
        let codex = CodexHome::create(&model)?;
        let daemon = codex.start_daemon().await?;
        let machine = Machine::new(cluster.origin(), &codex)?;
        let workspace = machine.workspace().to_string_lossy().into_owned();
        let (allowed, lines) = machine.command(&["directories", "add", &workspace]).await?;
        ensure!(allowed, "{lines:?}");
        let account = Account::sign_in_trusting(&cluster.account().await?, Some(cluster.certificate_pem())).await?;
        let device = Device::new();
        let mut connector = machine.connect()?;
        let paired = pair(&account, &device, "owner's phone", &mut connector).await?;
        let owner = Member { user_id: user_id(&account).await?, account, device };
        Ok(Self { _connector: connector, cluster, owner, paired, machine, model, _daemon: daemon, _codex: codex })
    }

    /// A link that invites somebody as that.
    pub(super) async fn invitation(&self, role: &str) -> anyhow::Result<String> {
        invitation(&self.owner.account, role).await
    }

    /// Somebody who was invited as an owner and paired a device at the desk.
    pub(super) async fn second_owner(&self) -> anyhow::Result<Member> {
        let link = self.invitation("owner").await?;
        let account = Account::join(&link, Some(self.cluster.certificate_pem())).await?;
        self.enrolled(account).await
    }

    /// That person with a device that is paired at the desk.
    pub(super) async fn enrolled(&self, account: Account) -> anyhow::Result<Member> {
        let device = Device::new();
        let mut adding = self.machine.start(&["devices", "add"])?;
        pair(&account, &device, "another phone", &mut adding).await?;
        Ok(Member { user_id: user_id(&account).await?, account, device })
    }

    pub(super) fn session_url(&self) -> String {
        format!("wss://localhost:{}/v1/session", self.cluster.region().balancer.port())
    }

    /// Ticket and grant, which open one session within a minute.
    pub(super) async fn ticket(&self, member: &Member) -> anyhow::Result<(String, String)> {
        member.account.ticket(&member.device, REGION).await
    }

    /// Opens a session by a ticket.
    pub(super) async fn session_by(
        &self,
        (ticket, grant): (String, String),
        device: &Device,
    ) -> anyhow::Result<Session> {
        let (origin, pem) = (self.cluster.origin(), self.cluster.certificate_pem());
        let session = Session::connect_trusting(&self.session_url(), origin, Some(pem)).await?;
        session.prove(ticket, grant, device, origin).await
    }

    /// A session that has the machine open, and is admitted.
    pub(super) async fn attached(&self, member: &Member) -> anyhow::Result<Client> {
        let session = self.session_by(self.ticket(member).await?, &member.device).await?;
        let device = member.device.clone();
        let mut client = Client::opened(session, &self.paired, device).await?;
        client.attach().await?;
        Ok(client)
    }

    /// The machine's own word on a device: its role, or none.
    pub(super) fn role_at_machine(&self, device: &Device) -> Option<String> {
        let list = std::fs::read(self.machine.state().join("devices.json")).ok()?;
        let list: Value = serde_json::from_slice(&list).ok()?;
        let key = flydex_loadtest::account::key_json(&device.public_key());
        let devices = list["devices"].as_array()?;
        let device = devices.iter().find(|listed| listed["key"] == key)?;
        Some(device["role"].as_str()?.to_owned())
    }

    /// Waits until the machine's list says that of a device.
    pub(super) async fn machine_says(&self, device: &Device, role: Option<&str>) -> anyhow::Result<()> {
        wait::until(&format!("the machine's list to say {role:?}"), async || {
            (self.role_at_machine(device).as_deref() == role).then_some(())
        })
        .await
    }
}

/// Waits until a session has ended, however much it is told before.
pub(super) async fn ends(client: &mut Client) -> String {
    loop {
        if let Err(error) = client.session.next().await {
            return format!("{error:#}");
        }
    }
}

/// A clock that measures how long something took to be cut.
pub(super) struct Stopwatch(Clock, Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        let clock = Clock::system();
        let now = clock.instant();
        Self(clock, now)
    }

    #[expect(clippy::print_stderr, reason = "the measured time is what the test is about")]
    pub(super) fn within(&self, what: &str) -> anyhow::Result<()> {
        let took = self.0.instant().saturating_duration_since(self.1);
        eprintln!("{what}: {} ms", took.as_millis());
        ensure!(took <= CUT_WITHIN, "{what} took {took:?}");
        Ok(())
    }
}

pub(super) async fn user_id(account: &Account) -> anyhow::Result<String> {
    let (_, session) = account.call(Method::GET, "/api/session", None).await?;
    Ok(session["user_id"].as_str().with_context(|| format!("no user but {session}"))?.to_owned())
}

pub(super) async fn invitation(owner: &Account, role: &str) -> anyhow::Result<String> {
    let body = json!({ "role": role, "label": "Ana" });
    let (status, made) = owner.call(Method::POST, "/api/invitations", Some(body)).await?;
    ensure!(status.is_success(), "no invitation but {made}");
    Ok(made["url"].as_str().context("a link")?.to_owned())
}

pub(super) async fn set_role(asker: &Account, user_id: &str, role: &str) -> anyhow::Result<(StatusCode, Value)> {
    asker.call(Method::PATCH, &format!("/api/members/{user_id}"), Some(json!({ "role": role }))).await
}

pub(super) async fn remove(asker: &Account, user_id: &str) -> anyhow::Result<(StatusCode, Value)> {
    asker.call(Method::DELETE, &format!("/api/members/{user_id}"), None).await
}
