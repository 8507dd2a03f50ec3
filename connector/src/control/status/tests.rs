use flydex_domain::id::BootId;
use uuid::Uuid;

use super::*;
use crate::paired::{MeasuredRegion, RegionReport};

/// How a connector stands whose link is as given, at a server of that origin.
pub(crate) fn status(link: LinkStatus, origin: &str) -> Status {
    let facts = RunningFacts {
        version: "1".to_owned(),
        pid: 7,
        origin: origin.to_owned(),
        account_id: AccountId::from_uuid(Uuid::from_u128(1)),
        account_name: "Ada".to_owned(),
        machine_id: MachineId::from_uuid(Uuid::from_u128(2)),
        machine_label: "desk".to_owned(),
        helper_port: None,
    };
    let boot_id = BootId::from_bytes([1; 16]);
    let core = CoreStatus { boot_id, link, codex: Ok(()), sessions: 0, journal_writable: true };
    Status::of(&facts, Some(core), &CodexStatus::Starting, false, 1)
}

fn attached(transport: Transport, bound: bool) -> LinkStatus {
    LinkStatus::Attached(Channel { transport, bound })
}

#[test]
fn a_revoked_machine_is_said_first_and_with_the_next_step() {
    let lines = status(LinkStatus::Down(Some(ErrorCode::MachineRevoked)), "https://relay.example").lines();
    assert_eq!(lines[0], "STOPPED   this machine was removed from its account; pair it again [machine_revoked]");
    assert_eq!(lines[1], "          next: run flydex unpair, then flydex connect");
    let lines = status(LinkStatus::Down(Some(ErrorCode::PeerTimeout)), "https://relay.example").lines();
    assert!(lines[0].starts_with("running"), "what comes back by itself is no trouble: {lines:?}");
}

#[test]
fn what_the_link_runs_over_is_said() {
    for (link, origin, said) in [
        (attached(Transport::Quic, true), "https://relay.example", "attached (quic, bound to its TLS connection)"),
        (attached(Transport::WebSocket, false), "https://relay.example", "attached (websocket, NOT bound: a proxy"),
        (attached(Transport::WebSocket, false), "http://localhost:1", "attached (websocket, not encrypted"),
        (LinkStatus::Down(Some(ErrorCode::Moving)), "https://relay.example", "down (moving)"),
    ] {
        let status = status(link, origin);
        let expected = format!("link      {said}");
        assert!(status.lines().iter().any(|line| line.starts_with(&expected)), "{:?}", status.lines());
    }
    let proxied = status(attached(Transport::WebSocket, false), "https://relay.example").lines();
    let link = proxied.iter().position(|line| line.starts_with("link")).unwrap();
    assert!(proxied[link + 1].starts_with("          next: let the proxy pass TLS through"), "{proxied:?}");
    let value = serde_json::to_value(status(attached(Transport::Quic, true), "https://relay.example")).unwrap();
    assert_eq!((&value["transport"], &value["channel_bound"]), (&"quic".into(), &true.into()));
}

#[test]
fn the_region_is_said_with_its_distance_and_the_accounts_pin() {
    let measured = |region: &str, ms: Option<u64>| MeasuredRegion {
        region: region.to_owned(),
        handshake: ms.map(std::time::Duration::from_millis),
    };
    for (link, second, pin, said) in [
        (Some(("eu", Some(12))), Some(("us", Some(84))), None, Some("eu, 12 ms; second us, 84 ms")),
        (Some(("eu", Some(12))), None, Some("eu"), Some("eu, 12 ms; pinned to eu")),
        (Some(("eu", Some(0))), Some(("us", None)), None, Some("eu, under 1 ms; second us")),
        (None, None, Some("eu"), Some("pinned to eu; which the server does not list")),
        (None, None, None, None),
    ] {
        let report = RegionReport {
            link: link.map(|(region, ms)| measured(region, ms)),
            second: second.map(|(region, ms)| measured(region, ms)),
            pin: pin.map(str::to_owned),
            stuck: false,
        };
        let regions = RegionStatus::of(&report);
        let status = Status { regions, ..status(LinkStatus::Down(None), "https://relay.example") };
        let line = status.lines().into_iter().find(|line| line.starts_with("region"));
        assert_eq!(line.as_deref().map(|line| &line[10..]), said);
    }
    let eu = RegionReport { link: Some(measured("eu", Some(12))), ..RegionReport::default() };
    let status = Status { regions: RegionStatus::of(&eu), ..status(LinkStatus::Down(None), "https://relay.example") };
    let value = serde_json::to_value(&status).unwrap();
    assert_eq!(value["regions"], serde_json::json!({ "link": { "region": "eu", "handshake_ms": 12 } }));
    assert_eq!(serde_json::from_value::<Status>(value).unwrap(), status);
}

#[test]
fn threads_without_room_are_said() {
    let status = Status { threads_unfollowed: 3, ..status(LinkStatus::Down(None), "https://relay.example") };
    assert!(status.lines().iter().any(|line| line.starts_with("threads   3 more are active")));
}
