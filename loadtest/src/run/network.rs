//! The networks between users and the relay, where a scenario wants them to be more than loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use flydex_connector::paired::RegionEndpoint;
use reqwest::Url;
use tokio::net::lookup_host;

use crate::account::Account;
use crate::line::Line;
use crate::scenario::Scenario;

/// A line for one session.
pub(super) fn session_line(scenario: &Scenario) -> Option<Arc<Line>> {
    let fleet = scenario.fleet;
    let silenced = scenario.phases.iter().any(|phase| phase.silence_sessions > 0.0);
    let wanted = fleet.session_round_trip_ms > 0 || silenced;
    wanted.then(|| Line::new(Duration::from_millis(fleet.session_round_trip_ms)))
}

/// A line for the link of one machine, and the regions as it reaches them.
///
/// # Errors
/// When the relay is on another computer: the certificate would not fit where the line listens.
pub(super) async fn link_line(
    scenario: &Scenario,
    regions: &[RegionEndpoint],
) -> anyhow::Result<(Option<Arc<Line>>, Vec<RegionEndpoint>)> {
    let fleet = scenario.fleet;
    let silenced = scenario.phases.iter().any(|phase| phase.silence_links > 0.0);
    if fleet.link_round_trip_ms == 0 && !silenced {
        return Ok((None, regions.to_vec()));
    }
    let line = Line::new(Duration::from_millis(fleet.link_round_trip_ms));
    let mut reached = Vec::new();
    for region in regions {
        let link_url = by(&line, &region.link_url).await?;
        reached.push(RegionEndpoint { link_url, ..region.clone() });
    }
    Ok((Some(line), reached))
}

/// An account whose calls take a session's round trip too.
///
/// # Errors
/// When the relay is on another computer.
pub(super) async fn far_account(scenario: &Scenario, account: &Account) -> anyhow::Result<Account> {
    let round_trip_ms = scenario.fleet.session_round_trip_ms;
    if round_trip_ms == 0 {
        return Ok(account.clone());
    }
    let line = Line::new(Duration::from_millis(round_trip_ms));
    Ok(account.reached_by(by(&line, account.base()).await?))
}

/// The same address with the port at which a line listens.
async fn by(line: &Arc<Line>, url: &str) -> anyhow::Result<String> {
    let mut url: Url = url.parse().context("read an address of the relay")?;
    let host = url.host_str().context("an address without a host")?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().context("an address without a port")?;
    let far: SocketAddr = lookup_host((host, port)).await?.next().context("a host without an address")?;
    ensure!(far.ip().is_loopback(), "a scenario with round trips needs a relay on this computer");
    let listens = line.listen(far).await?;
    url.set_port(Some(listens.port())).ok().context("an address that takes no port")?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}
