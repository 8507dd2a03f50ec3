//! What the doctor looks at towards the server: reach, clock, TLS and QUIC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::{API_TIMEOUT, MACHINE_REQUEST_SKEW_MAX, QUIC_FALLBACK_AFTER, REGIONS_MAX};
use flydex_proto::codec::SUBPROTOCOL;
use flydex_runtime::lifecycle::Shutdown;
use flydex_runtime::tls;
use futures_util::future::join_all;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::api::{Api, ApiError, next_step};
use crate::cli::Context;
use crate::control::Status;
use crate::control::status::{Binding, Distance};
use crate::credential::region_pin;
use crate::link;
use crate::pair::printable;
use crate::paired::{QuicEndpoint, RegionEndpoint};
use crate::record::PairedRecord;
use crate::regions::ServerOrigin;

use super::Finding;

pub(super) async fn look(
    origin: ServerOrigin,
    pem: Option<String>,
    context: &Context,
    running: Option<&Status>,
) -> Vec<Finding> {
    let (api, pem) = match Api::trusting(origin.clone(), pem, context.clock.clone()).await {
        Ok(trusting) => trusting,
        Err(error) => return vec![unreachable(&origin, &error)],
    };
    let regions = match api.regions().await {
        Ok(regions) => regions,
        Err(error) => return vec![unreachable(&origin, &error)],
    };
    let mut findings = vec![Finding::ok("server", format!("{origin} answers"))];
    findings.push(clock(&api, context).await);
    let endpoints = regions.endpoints(&origin, pem.as_deref());
    let pin = running.map_or_else(|| stored_pin(context), |status| status.regions.pin.clone());
    findings.push(region_finding(&endpoints, pin.as_deref(), running).await);
    findings.extend(links(&endpoints, pin.as_deref(), running).await);
    findings
}

fn stored_pin(context: &Context) -> Option<String> {
    let record = PairedRecord::load(&context.state).ok().flatten()?;
    region_pin(&record)
}

/// Where the machine is and where else it could be; without a running connector each region is measured once.
async fn region_finding(endpoints: &[RegionEndpoint], pin: Option<&str>, running: Option<&Status>) -> Finding {
    if let Some(pin) = pin.filter(|pin| endpoints.iter().all(|endpoint| endpoint.region != *pin)) {
        let text = format!("the account pins this computer to {}, which the server does not list", printable(pin));
        return Finding::fail("region", text, "ask whoever runs the server; no other region may serve this computer");
    }
    if let Some(said) = running.and_then(|status| status.regions.line()) {
        return Finding::ok("region", said);
    }
    let shutdown = Shutdown::new();
    let allowed = endpoints.iter().filter(|endpoint| pin.is_none_or(|pin| pin == endpoint.region)).take(REGIONS_MAX);
    let measured = join_all(allowed.map(|endpoint| async {
        let handshake = link::measure(endpoint, &shutdown).await;
        (Distance::new(&endpoint.region, handshake).words(), handshake.is_some())
    }));
    let measured = measured.await;
    shutdown.force();
    let said: Vec<_> = measured
        .iter()
        .map(|(words, reached)| format!("{words}{}", if *reached { "" } else { ": no answer" }))
        .collect();
    let pinned = pin.map(|pin| format!("; pinned to {}", printable(pin))).unwrap_or_default();
    let said = format!("{}{pinned}", said.join("; "));
    if measured.iter().any(|(_, reached)| *reached) {
        Finding::ok("region", said)
    } else {
        Finding::fail("region", said, "look at what stands between this computer and the server")
    }
}

fn unreachable(origin: &ServerOrigin, error: &ApiError) -> Finding {
    Finding::fail("server", format!("{origin}: {error} [{}]", error.code()), error.next_step())
}

async fn clock(api: &Api, context: &Context) -> Finding {
    match api.server_time_ms().await {
        Ok(server_ms) => clock_finding(context.clock.unix_millis(), server_ms),
        Err(error) => Finding::warn("clock", format!("the server does not tell its time: {error}"), error.next_step()),
    }
}

pub(super) fn clock_finding(here_ms: u64, server_ms: u64) -> Finding {
    let skew = Duration::from_millis(here_ms.abs_diff(server_ms));
    // The header carries whole seconds, so a second of difference says nothing.
    if skew <= Duration::from_secs(2) {
        return Finding::ok("clock", "agrees with the server's");
    }
    let side = if here_ms > server_ms { "ahead of" } else { "behind" };
    let text = format!("{} s {side} the server's", skew.as_secs());
    let next = "set this computer's clock, best by NTP";
    if skew > MACHINE_REQUEST_SKEW_MAX {
        Finding::fail("clock", text, next)
    } else {
        Finding::warn("clock", text, next)
    }
}

/// Looks at the entrance of the link's own region, of the pinned one, or of the first.
async fn links(endpoints: &[RegionEndpoint], pin: Option<&str>, running: Option<&Status>) -> Vec<Finding> {
    let linked = running.and_then(|status| status.regions.link.as_ref()).map(|link| link.region.as_str());
    let named = |name: &str| endpoints.iter().find(|endpoint| endpoint.region == name);
    let Some(endpoint) = linked.or(pin).and_then(named).or_else(|| endpoints.first()) else {
        let next = "check the server's own address in its configuration";
        return vec![Finding::fail("link", "the server names no entrance that may be dialled", next)];
    };
    let mut findings = vec![tls_finding(endpoint).await];
    if let Some(status) = running {
        findings.push(link_finding(status));
    }
    findings.push(match &endpoint.quic {
        Some(quic) => quic_finding(quic, endpoint.certificate_pem.as_deref()).await,
        None => Finding::ok("quic", "the server offers none; the link goes over WebSocket"),
    });
    findings
}

/// Whether the link that runs covers its TLS connection, and why there is none.
pub(super) fn link_finding(status: &Status) -> Finding {
    let over = status.carrier().unwrap_or_default();
    let code = status.link_code.as_deref().and_then(ErrorCode::from_name);
    match (status.link.as_str(), code) {
        ("attached", _) => match status.binding().and_then(Binding::next_step) {
            Some(next) => Finding::warn("link", format!("attached over {over}"), next),
            None => Finding::ok("link", format!("attached over {over}")),
        },
        ("linked", _) => Finding::warn("link", format!("up over {over}, and no owner yet"), "wait some seconds"),
        (_, Some(code)) => Finding::fail("link", format!("down: {} [{code}]", code.message()), next_step(code)),
        (_, None) => Finding::warn("link", "down", "wait some seconds"),
    }
}

/// A handshake as a link makes it: TLS 1.3, with the certificate checked, and an exporter to bind the link to.
async fn tls_finding(endpoint: &RegionEndpoint) -> Finding {
    if endpoint.link_url.starts_with("ws://") {
        return Finding::ok("tls", "not used: the server is on this computer");
    }
    let made = tokio::time::timeout(API_TIMEOUT, handshake(endpoint)).await;
    match made.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
        Ok(said) => Finding::ok("tls", said),
        Err(why) => {
            let next = "links need TLS 1.3 to the gateway itself: let the proxy on the way pass it through (layer 4)";
            Finding::fail("tls", why, next)
        }
    }
}

async fn handshake(endpoint: &RegionEndpoint) -> Result<String, String> {
    let url = Url::parse(&endpoint.link_url).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("the entrance has no host")?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let config =
        tls::client_config(endpoint.certificate_pem.as_deref(), &[b"http/1.1"]).map_err(|error| error.to_string())?;
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| error.to_string())?;
    let (_, session) = tls.get_ref();
    session
        .export_keying_material([0_u8; 32], tls::EXPORTER_LABEL, Some(b""))
        .map_err(|_| "no exporter to bind the link to".to_owned())?;
    let group = session.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
    let group = group.unwrap_or_else(|| "an unnamed key exchange".to_owned());
    Ok(format!("TLS 1.3 with {group}; a link binds itself to its connection"))
}

/// Tries QUIC as the link does. Blocked UDP is no failure: the link falls back to WebSocket.
async fn quic_finding(quic: &QuicEndpoint, pem: Option<&str>) -> Finding {
    let tried = tokio::time::timeout(QUIC_FALLBACK_AFTER, quic_handshake(quic, pem)).await;
    match tried {
        Ok(Ok(())) => Finding::ok("quic", format!("UDP reaches {}", quic.address)),
        Ok(Err(why)) => Finding::warn("quic", why, "the link goes over WebSocket; let UDP out for the faster way"),
        Err(_) => {
            let text = format!("UDP does not reach {} within {} s", quic.address, QUIC_FALLBACK_AFTER.as_secs());
            Finding::warn("quic", text, "the link goes over WebSocket; let UDP out for the faster way")
        }
    }
}

async fn quic_handshake(quic: &QuicEndpoint, pem: Option<&str>) -> Result<(), String> {
    let address = resolve(&quic.address).await?;
    let tls = tls::client_config(pem, &[SUBPROTOCOL.as_bytes()]).map_err(|error| error.to_string())?;
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let local: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let mut endpoint = quinn::Endpoint::client(local).map_err(|error| error.to_string())?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let connecting = endpoint.connect(address, &quic.server_name).map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    connection.close(0_u32.into(), b"");
    Ok(())
}

async fn resolve(address: &str) -> Result<SocketAddr, String> {
    let mut addresses = tokio::net::lookup_host(address).await.map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| format!("{address} has no address"))
}
