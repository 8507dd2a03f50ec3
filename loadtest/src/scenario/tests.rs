use super::*;

const LEAST: &str = "name = \"least\"\n[fleet]\naccounts = 1\nmachines = 1\nsessions_per_machine = 1\n\
    [[phase]]\nname = \"a\"\nkind = \"steady\"\nseconds = 1\n";

#[test]
fn every_scenario_that_is_shipped_is_one() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::parse(&std::fs::read_to_string(&path).unwrap());
        names.push(scenario.unwrap_or_else(|error| panic!("{}: {error}", path.display())).name);
    }
    assert!(names.contains(&"small".to_owned()), "{names:?}");
}

#[test]
fn what_is_left_out_has_a_default() {
    let scenario = Scenario::parse(LEAST).unwrap();
    assert_eq!((scenario.seed, scenario.fleet.threads_per_machine, scenario.sessions()), (1, 1, 1));
    assert_eq!(scenario.phases[0].arrivals, Arrivals::Poisson);
    assert_eq!(scenario.phases[0].mix.total(), 3);
}

#[test]
fn a_field_that_is_wrong_is_named() {
    for (field, lines) in [
        ("fleet.accounts", "[fleet]\naccounts = 0"),
        ("fleet.machines", "[fleet]\nmachines = 0"),
        ("fleet.sessions_per_machine", "[fleet]\nsessions_per_machine = 65"),
        ("fleet.quic_share", "[fleet]\nquic_share = nan"),
        ("stub.answer_ms[0]", "[stub]\nanswer_ms = [3, 2]"),
        ("stub.approval_seconds", "[stub]\napproval_seconds = 0"),
        ("phase[0].approvals_per_second", "[phase]\napprovals_per_second = -1"),
        ("stub.event_bytes", "[stub]\nevent_bytes = 100000"),
        ("phase[0].seconds", "[phase]\nseconds = -1"),
        ("phase[0].commands_per_second", "[phase]\ncommands_per_second = inf"),
        ("phase[0].cut_links", "[phase]\ncut_links = 0.5"),
        ("phase[0].fault", "[phase]\nfault = \"kill-owner\""),
        ("phase[0].mix", "[phase]\nmix = {}"),
        ("phase[0].must.\"event\".p99_ms", "[phase]\nmust = { event = { p99_ms = -1 } }"),
        ("phase[0].must.\"event\"", "[phase]\nmust = { event = {} }"),
        ("p98_ms", "[phase]\nmust = { event = { p98_ms = 1 } }"),
        ("fleet.session_round_trip_ms", "[fleet]\nsession_round_trip_ms = 5000"),
        ("phase[0].slow_sessions", "[phase]\nslow_sessions = 0.5"),
        ("sesions", "[fleet]\nsesions = 3"),
        ("kind", "[phase]\nkind = \"steep\""),
    ] {
        let error = Scenario::parse(&with(lines)).unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
}

/// The least scenario with one field of one table set.
fn with(lines: &str) -> String {
    let (table, line) = lines.split_once('\n').unwrap();
    let (key, _) = line.split_once(" = ").unwrap();
    let mut section = String::new();
    let mut out: Vec<String> = Vec::new();
    for old in LEAST.lines() {
        if old.starts_with('[') {
            section = old.replace("[[", "[").replace("]]", "]");
            out.push(old.to_owned());
            if section == table {
                out.push(line.to_owned());
            }
        } else if !(section == table && old.starts_with(&format!("{key} ="))) {
            out.push(old.to_owned());
        }
    }
    if !out.contains(&line.to_owned()) {
        out.insert(5, lines.to_owned());
    }
    out.join("\n")
}
