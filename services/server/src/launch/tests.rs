use std::cell::RefCell;

use clap::{CommandFactory as _, Parser as _};
use flydex_runtime::clock::Clock;
use flydex_runtime::mutual::authority::Authority;
use flydex_runtime::mutual::{PeerIdentity, Role as PeerRole};

use super::*;

/// Notes what was said.
#[derive(Default)]
struct Notes {
    said: RefCell<String>,
    complained: RefCell<String>,
}

impl Voice for Notes {
    fn say(&self, line: &str) {
        self.said.borrow_mut().push_str(line);
        self.said.borrow_mut().push('\n');
    }

    fn complain(&self, line: &str) {
        self.complained.borrow_mut().push_str(line);
    }
}

fn started(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, Notes) {
    let cli = Cli::try_parse_from(["flydex-server"].iter().chain(arguments)).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let notes = Notes::default();
    let status = run(cli, environment, &notes);
    (status, notes)
}

const NODE: [(&str, &str); 5] = [
    ("FLYDEX__CONTROL", "10.0.0.3:48221, 10.0.0.4:48221"),
    ("FLYDEX__REDIS__URL", "redis://:hunter2@10.0.0.2:6379"),
    ("FLYDEX__MUTUAL__CERTIFICATE_FILE", "node.crt"),
    ("FLYDEX__MUTUAL__KEY_FILE", "node.key"),
    ("FLYDEX__MUTUAL__CA_FILE", "ca.crt"),
];

const WEB: [(&str, &str); 3] = [
    ("FLYDEX__PUBLIC_ORIGIN", "https://app.example"),
    ("FLYDEX__API_ORIGIN", "https://api.example"),
    ("FLYDEX__GATEWAYS", "wss://eu.example, wss://us.example:444"),
];

#[test]
fn each_key_that_is_missing_or_unknown_is_named_with_status_64() {
    for (arguments, environment, named) in [
        (["machines"], &NODE[1..], "control"),
        (["machines"], &[&NODE[..], &[("FLYDEX__LISTNE", "x")]].concat(), "listne"),
        (["machines"], &[&NODE[..], &[("FLYDEX__REDIS__ULR", "x")]].concat(), "ulr"),
        (["control"], &[][..], "public_origin"),
        (["gateway"], &NODE[..], "public_origin"),
        (["web"], &[][..], "public_origin"),
        (["web"], &WEB[..2], "gateways"),
        (["web"], &[&WEB[1..], &[("FLYDEX__PUBLIC_ORIGIN", "https://api.example")]].concat(), "api_origin"),
        (["web"], &[&WEB[..], &[("FLYDEX__API_ORIGIN", "http://localhost:1")]].concat(), "api_origin"),
        (["web"], &[&WEB[..], &[("FLYDEX__GATEWAYS", "wss://eu.example; script-src *")]].concat(), "gateways"),
        (["migrate"], &[][..], "database"),
        (["migrate"], &[("FLYDEX__DATABASE__URL", "mysql://here")][..], "database.url"),
    ] {
        let (status, notes) = started(&arguments, environment);
        let complained = notes.complained.borrow();
        assert_eq!(status, EXIT_BAD_CONFIG, "{complained}");
        assert!(complained.contains(named), "{complained}");
    }
}

#[test]
fn what_is_in_force_is_shown_without_secrets() {
    let (status, notes) = started(&["machines", "--dump-config"], &NODE);
    let said = notes.said.borrow();
    assert_eq!(status, 0);
    assert!(said.contains("\"10.0.0.4:48221\"") && said.contains("url = \"(secret)\""), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_certificate_of_another_role_does_not_start_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = PeerIdentity { region: "eu".to_owned(), role: PeerRole::Gateway, node_id: "n1".to_owned() };
    let day = std::time::Duration::from_secs(24 * 3600);
    let now = Clock::system().unix_millis();
    let files = Authority::new().unwrap().write(folder.path(), &gateway, now, day).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key, ca) = (text(&files.certificate_file), text(&files.key_file), text(&files.ca_file));
    let environment = [
        NODE[0],
        NODE[1],
        ("FLYDEX__MUTUAL__CERTIFICATE_FILE", &certificate),
        ("FLYDEX__MUTUAL__KEY_FILE", &key),
        ("FLYDEX__MUTUAL__CA_FILE", &ca),
    ];
    let (status, notes) = started(&["machines"], &environment);
    assert_eq!(status, EXIT_BAD_CONFIG);
    assert_eq!(*notes.complained.borrow(), "mutual: the certificate is of the role gateway, and this is machines");
}

#[test]
fn a_fresh_file_of_sqlite_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flydex.sqlite");
    let environment = [("FLYDEX__DATABASE__SQLITE_FILE", file.to_str().unwrap())];
    assert_eq!(started(&["migrate"], &environment).0, 0);
    assert!(file.exists());
}

#[test]
fn the_help_of_every_role_teaches_by_example() {
    fn teaches(command: &mut clap::Command) {
        // What clap adds by itself explains itself.
        for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:") && help.contains("flydex-server"), "{help}");
            teaches(command);
        }
    }
    teaches(&mut Cli::command());
}
