//! The people of one account, and its machine with the real Codex.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use flydex_loadtest::account::Account;
use flydex_loadtest::device::Device;
use flydex_loadtest::session::Session;
use flydex_runtime::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::stand::{Client, Ground, Stand, pair};
use super::tally::Tally;
use crate::wait;

/// The time within which what was taken must be gone, in every process and on the machine.
pub(super) const CUT_WITHIN: Duration = Duration::from_secs(2);

/// A member with a device that is paired with the machine.
pub(super) struct Member {
    pub(super) account: Account,
    pub(super) user_id: String,
    pub(super) device: Device,
}

/// The account's machine and its owner.
pub(super) struct Office {
    pub(super) stand: Stand,
    pub(super) owner: Member,
}

impl Office {
    pub(super) async fn open(ground: &Ground, tally: &Tally) -> anyhow::Result<Self> {
        let mut stand = Stand::on(ground, tally).await?;
        let (account, device) = (stand.relay.account.clone(), std::mem::take(&mut stand.device));
        let owner = Member { user_id: user_id(&account).await?, account, device };
        Ok(Self { stand, owner })
    }

    /// A link that invites somebody as that.
    pub(super) async fn invitation(&self, role: &str) -> anyhow::Result<String> {
        invitation(&self.owner.account, role).await
    }

    /// Somebody who was invited as an owner and paired a device at the desk.
    pub(super) async fn second_owner(&self) -> anyhow::Result<Member> {
        self.enrolled(self.stand.relay.join(&self.invitation("owner").await?).await?).await
    }

    /// That person with a device that is paired at the desk.
    pub(super) async fn enrolled(&self, account: Account) -> anyhow::Result<Member> {
        let device = Device::new();
        let mut adding = self.stand.machine.start(&["devices", "add"])?;
        pair(&account, &device, "another phone", &mut adding).await?;
        Ok(Member { user_id: user_id(&account).await?, account, device })
    }

    /// Ticket and grant, which open one session within a minute.
    pub(super) async fn ticket(&self, member: &Member) -> anyhow::Result<(String, String)> {
        member.account.ticket(&member.device, &self.stand.relay.regions()[0]).await
    }

    /// Opens a session by a ticket.
    pub(super) async fn session_by(
        &self,
        (ticket, grant): (String, String),
        device: &Device,
    ) -> anyhow::Result<Session> {
        let origin = self.stand.relay.server.origin();
        self.stand.relay.socket().await?.prove(ticket, grant, device, origin).await
    }

    /// A session that has the machine open, not attached.
    pub(super) async fn opened(&self, member: &Member, device: Device) -> anyhow::Result<Client> {
        let session = self.session_by(self.ticket(member).await?, &member.device).await?;
        self.stand.client_of(session, &self.stand.paired, device).await
    }

    /// A session that has the machine open, and is admitted.
    pub(super) async fn attached(&self, member: &Member) -> anyhow::Result<Client> {
        let mut client = self.opened(member, member.device.clone()).await?;
        client.attach().await?;
        Ok(client)
    }

    /// The machine's own word on a device: its role, or none.
    pub(super) fn role_at_machine(&self, device: &Device) -> Option<String> {
        let list = std::fs::read(self.stand.machine.state().join("devices.json")).ok()?;
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

    pub(super) fn within(&self, what: &str, tally: &Tally) -> anyhow::Result<()> {
        let took = self.0.instant().saturating_duration_since(self.1);
        ensure!(took <= CUT_WITHIN, "{what} took {took:?}");
        tally.stopped("cut within 2 s");
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
