use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Sample {
    listen: String,
    http: Http,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Http {
    port: u16,
    plain: bool,
}

impl Default for Sample {
    fn default() -> Self {
        Self { listen: "default".to_owned(), http: Http::default() }
    }
}

fn env(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn flags_win_over_variables_which_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flydex.toml");
    fs::write(&file, "listen = \"file\"\n[http]\nport = 1\nplain = true\n").unwrap();
    let environment = [env("FLYDEX__HTTP__PORT", "2"), env("FLYDEX__LISTEN", "variable"), env("HOME", "x")];
    let flags = "listen = \"flag\"".parse().unwrap();
    let sample: Sample = load(Some(&file), environment, flags).unwrap();
    assert_eq!(sample, Sample { listen: "flag".to_owned(), http: Http { port: 2, plain: true } });
}

#[test]
fn a_misspelt_key_and_a_wrong_type_are_refused() {
    for (name, value) in [("FLYDEX__HTTP__PROT", "2"), ("FLYDEX__HTTP__PORT", "many"), ("FLYDEX__LISTEN__X", "1")] {
        assert!(load::<Sample>(None, [env(name, value)], Table::new()).is_err(), "{name}={value}");
    }
    assert!(matches!(load::<Sample>(None, [env("FLYDEX__HTTP__", "2")], Table::new()), Err(ConfigError::Variable(_))));
}

#[test]
fn a_missing_file_is_named() {
    let missing = Path::new("/nonexistent/flydex.toml");
    assert!(
        matches!(load::<Sample>(Some(missing), [], Table::new()), Err(ConfigError::Read { path, .. }) if path == missing)
    );
}
