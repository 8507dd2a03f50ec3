use flydex_domain::error::ErrorCode;

use super::server::{clock_finding, link_finding};
use super::*;
use crate::control::status::tests::status;
use crate::paired::{Channel, LinkStatus, Transport};

#[test]
fn a_line_shows_mark_part_finding_and_next_step() {
    assert_eq!(Finding::ok("codex", "0.169.0").line(), "ok    codex     0.169.0");
    let failed = Finding::fail("journal", "cannot be written", "free some disk space").line();
    assert_eq!(failed, "fail  journal   cannot be written\n                next: free some disk space");
}

#[test]
fn a_clock_is_judged_by_what_the_server_forgives() {
    let server_ms = 1_700_000_000_000;
    for (here_ms, mark) in [
        (server_ms, Mark::Ok),
        (server_ms + 1_999, Mark::Ok),
        (server_ms - 30_000, Mark::Warn),
        (server_ms + 60_000, Mark::Warn),
        (server_ms + 60_001, Mark::Fail),
        (server_ms - 3_600_000, Mark::Fail),
    ] {
        assert_eq!(clock_finding(here_ms, server_ms).mark, mark, "{here_ms}");
    }
    assert!(clock_finding(server_ms - 90_000, server_ms).found.contains("90 s behind"));
}

#[test]
fn the_link_is_judged_by_what_it_runs_over_and_why_it_is_down() {
    let over = |bound| LinkStatus::Attached(Channel { transport: Transport::WebSocket, bound });
    for (link, origin, mark, next) in [
        (over(true), "https://relay.example", Mark::Ok, None),
        (over(false), "http://localhost:1", Mark::Ok, None),
        (over(false), "https://relay.example", Mark::Warn, Some("pass TLS through")),
        (LinkStatus::Down(Some(ErrorCode::MachineRevoked)), "https://relay.example", Mark::Fail, Some("flydex unpair")),
    ] {
        let finding = link_finding(&status(link, origin));
        assert_eq!(finding.mark, mark, "{finding:?}");
        assert_eq!(finding.next.is_some(), next.is_some(), "{finding:?}");
        assert!(next.is_none_or(|next| finding.next.unwrap().contains(next)));
    }
}
