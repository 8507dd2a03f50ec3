mod regions;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flydex_domain::device::Holder;
use flydex_domain::error::ErrorCode;
use flydex_domain::scope::Role;
use flydex_runtime::lifecycle::Shutdown;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::args::{
    DevicesArguments, DevicesCommand, DirectoriesArguments, DirectoriesCommand, RunArguments, TrustedKey,
};
use super::*;
use crate::control::{self, Answer, Request};
use crate::pair::tests::Shown;
use crate::pair::tests::relay::{Relay, Script};
use crate::paired::empty_desk;
use crate::record::{PairedRecord, Settings, load_devices};

struct Machine {
    _root: tempfile::TempDir,
    context: Context,
}

impl Machine {
    fn new() -> Self {
        tls::install_provider();
        let root = tempfile::tempdir().unwrap();
        let context = Context {
            screen: Screen::of(Shown::default()),
            state: StateDir::open(&root.path().join("flydex")).unwrap(),
            clock: Clock::manual(1_700_000_000_000),
            entropy: Entropy::system(),
            codex: CodexConfig { program: Some("/there/is/no/codex".into()), ..CodexConfig::default() },
        };
        Self { _root: root, context }
    }

    /// The same machine, seen through another terminal.
    fn terminal(&self) -> (Context, Shown) {
        let shown = Shown::default();
        (Context { screen: Screen::of(shown.clone()), ..self.context.clone() }, shown)
    }

    /// Runs `flydex connect` against `relay`, with a phone that scans and a desk that says yes on the page.
    async fn connect(&self, relay: &Relay) -> (JoinHandle<Result<(), Problem>>, Shown) {
        let (context, shown) = self.terminal();
        let connecting = tokio::spawn(Box::pin(connect::connect(context, connect_arguments(relay.origin()))));
        relay.phone_scans(&shown.line("pair at ").await);
        shown.line("pair with account ").await;
        answer_on_page(&shown.line("page ").await, "yes").await;
        shown.line("connecting").await;
        (connecting, shown)
    }

    async fn stop(&self, running: JoinHandle<Result<(), Problem>>) {
        control::ask(&self.context.state, &Request::Stop).await.unwrap();
        running.await.unwrap().unwrap();
    }
}

fn connect_arguments(origin: &str) -> args::ConnectArguments {
    args::ConnectArguments {
        server: Some(origin.to_owned()),
        role: Role::Owner,
        label: Some("desk".to_owned()),
        ca: None,
        run: RunArguments { port: 0 },
    }
}

async fn answer_on_page(page: &str, answer: &str) {
    answer_on_page_to(1, page, answer).await;
}

async fn answer_on_page_to(question: u64, page: &str, answer: &str) {
    let url = url::Url::parse(page).unwrap();
    let origin = url.origin().ascii_serialization();
    let (_, token) = url.query_pairs().next().unwrap();
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let form = format!("t={token}&question={question}&answer={answer}");
    let answered = http.post(format!("{origin}/answer")).header("origin", &origin).body(form).send().await.unwrap();
    assert_eq!(answered.status(), 303);
}

#[tokio::test]
async fn connect_pairs_keeps_what_it_got_and_runs() {
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    let (running, shown) = machine.connect(&relay).await;

    let record = PairedRecord::load(&machine.context.state).unwrap().unwrap();
    assert_eq!((record.account_id, record.account_name.as_str()), (relay.account_id(), "Ada & Co"));
    let devices = load_devices(&machine.context.state).unwrap();
    assert_eq!(devices.devices().map(|device| device.key.0).collect::<Vec<_>>(), [relay.device_key()]);
    machine.context.state.check_files().unwrap();
    assert!(shown.text().contains("is on this computer and not encrypted"));

    let (context, status) = machine.terminal();
    desk_side::status(&context, true).await.unwrap();
    let status: Value = serde_json::from_str(&status.text()).unwrap();
    assert_eq!((&status["running"], &status["paired"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(status["connector"]["account_name"], "Ada & Co");
    assert!(!status.to_string().contains("v4.public"));

    let second = run::run(machine.terminal().0, RunArguments { port: 0 }).await.unwrap_err();
    assert_eq!(second.code(), ErrorCode::AlreadyRunning);
    relay.reported("failed").await;
    machine.stop(running).await;
}

#[tokio::test]
async fn run_needs_a_pairing() {
    let error = run::run(Machine::new().context, RunArguments { port: 0 }).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotPaired);
    assert!(error.text().contains("flydex connect"));
}

#[tokio::test]
async fn pairing_again_with_another_account_clears_every_device_key() {
    let machine = Machine::new();
    let first = Relay::start(Script::default()).await;
    machine.stop(machine.connect(&first).await.0).await;
    let another = PublicKeyOf::seed(77);
    crate::record::enrol(&machine.context.state, another, Role::Owner, "old", Default::default()).unwrap();

    let second = Relay::start(Script { account: 11, ..Script::default() }).await;
    machine.stop(machine.connect(&second).await.0).await;
    let devices = load_devices(&machine.context.state).unwrap();
    assert_eq!(devices.devices().map(|device| device.key.0).collect::<Vec<_>>(), [second.device_key()]);
}

struct PublicKeyOf;

impl PublicKeyOf {
    fn seed(seed: u8) -> flydex_domain::key::PublicKey {
        flydex_domain::key::PublicKey::of(&ed25519_dalek::SigningKey::from_bytes(&[seed; 32]))
    }
}

#[tokio::test]
async fn a_no_on_the_page_ends_connect_and_keeps_nothing() {
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    let (context, shown) = machine.terminal();
    let connecting = tokio::spawn(Box::pin(connect::connect(context, connect_arguments(relay.origin()))));
    relay.phone_scans(&shown.line("pair at ").await);
    shown.line("pair with account ").await;
    answer_on_page(&shown.line("page ").await, "no").await;
    let error = connecting.await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::PairingRefused);
    assert!(PairedRecord::load(&machine.context.state).unwrap().is_none());
    assert_eq!(load_devices(&machine.context.state).unwrap().devices().count(), 0);
}

#[tokio::test]
async fn an_untrusted_address_is_refused_before_anything_is_sent() {
    for address in ["http://relay.example", "http://10.0.0.1:80", "ftp://relay.example"] {
        let error = connect::connect(Machine::new().context, connect_arguments(address)).await.unwrap_err();
        assert_eq!((error.code(), error.exit_code()), (ErrorCode::UntrustedAddress, 64), "{address}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said() {
    let free = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let arguments = connect_arguments(&format!("http://{free}"));
    let error = Box::pin(connect::connect(Machine::new().context, arguments)).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (ErrorCode::ServerUnreachable, 69));
}

#[tokio::test]
async fn a_pause_outlives_the_connector() {
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    let (running, _) = machine.connect(&relay).await;
    desk_side::pause(&machine.context, true).await.unwrap();
    let Answer::Status(status) = control::ask(&machine.context.state, &Request::Status).await.unwrap() else {
        unreachable!("a status was asked for")
    };
    assert!(status.paused);
    machine.stop(running).await;
    assert!(Settings::load(&machine.context.state).unwrap().paused);
    desk_side::pause(&machine.context, false).await.unwrap();
    assert!(!Settings::load(&machine.context.state).unwrap().paused);
}

#[tokio::test]
async fn unpair_stops_the_connector_and_forgets_every_key() {
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    let (running, _) = machine.connect(&relay).await;
    desk_side::unpair(&machine.context).await.unwrap();
    running.await.unwrap().unwrap();
    assert!(PairedRecord::load(&machine.context.state).unwrap().is_none());
    assert!(machine.context.state.existing_machine_key().unwrap().is_none());
    assert_eq!(load_devices(&machine.context.state).unwrap().devices().count(), 0);
    assert_eq!(relay.released(), 1, "the account is told");
}

#[tokio::test]
async fn a_running_connector_changes_its_key_and_a_stopped_one_too() {
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    let rotate = || args::KeysArguments { command: args::KeysCommand::Rotate };
    let (running, _) = machine.connect(&relay).await;
    Box::pin(keys::keys(&machine.context, rotate())).await.unwrap();
    machine.stop(running).await;
    Box::pin(keys::keys(&machine.context, rotate())).await.unwrap();
    assert_eq!(relay.rotations(), 2);
    let (context, shown) = machine.terminal();
    Box::pin(keys::keys(&context, args::KeysArguments { command: args::KeysCommand::Show })).await.unwrap();
    assert!(shown.text().contains("number 3 of this machine"), "{}", shown.text());
}

#[tokio::test]
async fn devices_are_listed_and_removed_without_a_connector() {
    let machine = Machine::new();
    let key = PublicKeyOf::seed(8);
    crate::record::enrol(&machine.context.state, key, Role::Viewer, "phone\u{1b}[2J", Default::default()).unwrap();
    let (context, shown) = machine.terminal();
    let command = DevicesCommand::List;
    Box::pin(desk_side::devices(context.clone(), DevicesArguments { command })).await.unwrap();
    assert_eq!(shown.text(), format!("{}\tviewer\tphone[2J\tpaired here\nlist version 1\n", key.device_id()));
    let remove = || DevicesArguments { command: DevicesCommand::Remove { device: key.device_id() } };
    Box::pin(desk_side::devices(context.clone(), remove())).await.unwrap();
    let error = Box::pin(desk_side::devices(context, remove())).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound);
    assert!(load_devices(&machine.context.state).unwrap().is_removed(&key.device_id()));
    let (context, shown) = machine.terminal();
    let command = DevicesCommand::List;
    Box::pin(desk_side::devices(context, DevicesArguments { command })).await.unwrap();
    let removed = format!("{}\tremoved: only this computer can enrol it again\nlist version 2\n", key.device_id());
    assert!(shown.text().ends_with(&removed), "{}", shown.text());
}

#[tokio::test]
async fn a_desk_that_obeys_no_browser_pairs_none_and_trusts_a_key_that_is_typed_in() {
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    machine.stop(machine.connect(&relay).await.0).await;
    let state = &machine.context.state;
    Settings { refuse_browser_keys: true, ..Settings::load(state).unwrap() }.store(state).unwrap();
    let add = DevicesArguments { command: DevicesCommand::Add { role: Role::Viewer } };
    let error = Box::pin(desk_side::devices(machine.context.clone(), add)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::BrowserKeysRefused);
    let key = PublicKeyOf::seed(9);
    let typed = format!("ed25519:{}", URL_SAFE_NO_PAD.encode(key.as_bytes()));
    let trust = DevicesCommand::Trust { key: typed.parse().unwrap(), role: Role::Operator, label: "bot".to_owned() };
    Box::pin(desk_side::devices(machine.context.clone(), DevicesArguments { command: trust })).await.unwrap();
    let devices = load_devices(state).unwrap();
    let device = devices.get(&key.device_id()).unwrap();
    assert_eq!((device.holder, device.role), (Holder::Program, Role::Operator));
    for wrong in ["", "ed25519", "ed25519:", "rsa:AAAA", "ed25519:AAAA", "ed25519:!"] {
        assert!(wrong.parse::<TrustedKey>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn only_existing_folders_are_listed() {
    let machine = Machine::new();
    let folder = tempfile::tempdir().unwrap();
    let add = |path: &std::path::Path| DirectoriesArguments {
        command: DirectoriesCommand::Add { path: path.to_owned(), label: None },
    };
    let missing = folder.path().join("missing");
    let error = desk_side::directories(&machine.context, add(&missing)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DirectoryNotAllowed);
    desk_side::directories(&machine.context, add(folder.path())).await.unwrap();
    desk_side::directories(&machine.context, add(folder.path())).await.unwrap();
    assert_eq!(Settings::load(&machine.context.state).unwrap().directories.len(), 1);
    let remove = DirectoriesCommand::Remove { path: folder.path().to_owned() };
    desk_side::directories(&machine.context, DirectoriesArguments { command: remove }).await.unwrap();
    assert!(Settings::load(&machine.context.state).unwrap().directories.is_empty());
}

#[tokio::test]
async fn a_credential_is_renewed_stored_and_published_and_an_older_one_is_not() {
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    machine.stop(machine.connect(&relay).await.0).await;
    let state = &machine.context.state;
    let record = PairedRecord::load(state).unwrap().unwrap();
    let key = Arc::new(state.existing_machine_key().unwrap().unwrap());
    let origin = relay.origin().parse().unwrap();
    let clock = machine.context.clock.clone();
    let keyring = crate::credential::Keyring::new(state.clone(), record.clone(), key, origin, clock);
    let credential = keyring.credential();
    keyring.renew(&relay.api(), &empty_desk()).await.unwrap();
    let renewed = PairedRecord::load(state).unwrap().unwrap().credential;
    assert_ne!(renewed, record.credential);
    assert_eq!(*credential.borrow(), renewed);
    keyring.adopt(record.credential, record.token_keys).unwrap();
    assert_eq!(PairedRecord::load(state).unwrap().unwrap().credential, renewed);
}

#[test]
fn the_help_teaches_with_examples() {
    use clap::CommandFactory as _;
    Arguments::command().debug_assert();
    let help = Arguments::command().render_long_help().to_string();
    for taught in ["flydex connect --server https://", "flydex doctor", "State is kept in $FLYDEX_HOME"] {
        assert!(help.contains(taught), "{taught}");
    }
}

#[tokio::test]
async fn a_malformed_or_endless_request_on_the_control_socket_harms_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    let (running, _) = machine.connect(&relay).await;
    let socket = machine.context.state.file(control::SOCKET_FILE);
    let long = "x".repeat(flydex_domain::limits::CONTROL_LINE_BYTES_MAX + 1);
    for (sent, answered) in [
        ("{}\n", r#"{"refused":1001}"#),
        ("{\"request\":\"remove\"}\n", r#"{"refused":1001}"#),
        ("\n", r#"{"refused":1001}"#),
        (long.as_str(), ""),
    ] {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        // The connector may hang up before it has read everything.
        let _ = stream.write_all(sent.as_bytes()).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert_eq!(answer.trim_end(), answered);
    }
    control::ask(&machine.context.state, &Request::Status).await.unwrap();
    machine.stop(running).await;
}

#[tokio::test]
async fn doctor_names_what_is_missing_and_the_next_step() {
    let machine = Machine::new();
    let (context, shown) = machine.terminal();
    let arguments = args::DoctorArguments { server: Some("http://relay.example".to_owned()), ca: None, port: 0 };
    let error = Box::pin(crate::doctor::doctor(&context, arguments)).await.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = shown.text();
    for expected in [
        "ok    folder",
        "warn  pairing   not paired\n                next: flydex connect",
        "warn  connector does not run",
        "fail  codex     no Codex was found on the computer [codex_not_found]\n                next: install Codex",
        "ok    journal   its disk can be written",
        "fail  server    plain http is taken on this machine only",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}

#[tokio::test]
async fn a_taken_port_is_said_and_pairing_goes_on_in_the_terminal() {
    let taken = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    let (context, shown) = machine.terminal();
    let mut arguments = connect_arguments(relay.origin());
    arguments.run.port = taken.local_addr().unwrap().port();
    let connecting = tokio::spawn(Box::pin(connect::connect(context, arguments)));
    relay.phone_scans(&shown.line("pair at ").await);
    assert!(shown.text().contains("[local_port_taken]; going on in the terminal"), "{}", shown.text());
    // Standard input of a test is closed or silent: either nobody can answer, or nobody does.
    drop(connecting);
}

#[tokio::test]
async fn a_wish_through_the_helper_pairs_a_further_device_after_a_yes_at_the_desk() {
    let (machine, relay) = (Machine::new(), Relay::start(Script::default()).await);
    let (running, shown) = machine.connect(&relay).await;
    let page = shown.line("page ").await;
    let helper = url::Url::parse(&page).unwrap().origin().ascii_serialization();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let wish = http.post(format!("{helper}/v1/connect")).header("origin", relay.origin());
    let wished = wish.header("content-type", "application/json").body("{}").send().await.unwrap();
    assert_eq!(wished.status(), 202);

    shown.line("a page of the server, on this computer, asks to pair").await;
    assert_eq!(shown.text().matches("pair at ").count(), 1, "no code is drawn before the yes");
    relay.forget_phone();
    answer_on_page_to(2, &page, "yes").await;
    relay.phone_scans(&shown.newest("pair at ", 2).await);
    shown.newest("pair with account ", 2).await;
    answer_on_page_to(3, &page, "yes").await;
    shown.newest("paired", 2).await;
    assert_eq!(relay.reports().iter().filter(|report| *report == "confirmed").count(), 2);
    machine.stop(running).await;
}

#[tokio::test]
async fn a_named_certificate_is_trusted_and_an_unreadable_one_is_said() {
    tls::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let identity = tls::Identity::self_made(folder.path(), "localhost").unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, identity.self_made_pem().unwrap()).unwrap();
    let regions = || async { axum::Json(serde_json::json!({ "regions": [] })) };
    let router = axum::Router::new().route("/api/regions", axum::routing::get(regions));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let server = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (config, shutdown) = (identity.server_config(&[b"http/1.1"]).unwrap(), Shutdown::new());
    shutdown.spawn(flydex_runtime::http::serve(listener, Some(Arc::new(config)), router, shutdown.clone()));

    let mut arguments = connect_arguments(&server);
    let (origin, pem) = connect::server(&arguments, None).unwrap();
    let clock = Clock::manual(0);
    let untrusted = crate::api::Api::trusting(origin, pem, clock.clone()).await.unwrap_err();
    assert_eq!(untrusted.code(), ErrorCode::UntrustedAddress);
    assert!(untrusted.next_step().contains("--ca FILE"));

    arguments.ca = Some(file);
    let (origin, pem) = connect::server(&arguments, None).unwrap();
    let (_, trusted) = crate::api::Api::trusting(origin, pem.clone(), clock).await.unwrap();
    assert_eq!(trusted, pem);
    arguments.ca = Some(folder.path().join("missing.pem"));
    let error = connect::server(&arguments, None).unwrap_err();
    let expected = (ErrorCode::UntrustedAddress, "give a file in PEM that you can read");
    assert_eq!((error.code(), error.next_step()), expected);
    shutdown.begin();
}

#[tokio::test]
async fn settings_are_taught_and_a_running_connector_goes_by_a_change_at_once() {
    let machine = Machine::new();
    let (context, shown) = machine.terminal();
    settings::settings(&context, args::SettingsArguments { command: None }).await.unwrap();
    for taught in [
        "session_acceptance      off  A device may answer",
        "allow_unguarded         off  Prompts may go",
        "strict_audit            off  Nothing is accepted",
        "require_channel_binding off  Only links",
    ] {
        assert!(shown.text().contains(taught), "{taught:?} is not in:\n{}", shown.text());
    }

    let relay = Relay::start(Script::default()).await;
    let (running, _) = machine.connect(&relay).await;
    let words = ["flydex", "settings", "set", "require_channel_binding", "on"];
    let Command::Settings(arguments) = Arguments::try_parse_from(words).unwrap().command else { panic!("settings") };
    settings::settings(&context, arguments).await.unwrap();
    assert!(Settings::load(&context.state).unwrap().require_channel_binding);
    assert!(shown.text().ends_with("done; the running connector goes by it from now on\n"));
    machine.stop(running).await;
    assert!(Arguments::try_parse_from(["flydex", "settings", "set", "paused", "on"]).is_err());
    assert!(Arguments::try_parse_from(["flydex", "settings", "set", "strict_audit", "maybe"]).is_err());
}

#[tokio::test]
async fn what_the_desk_allows_reaches_core_and_codex_while_they_run() {
    let settings = tokio::sync::watch::Sender::new(Settings::default());
    let (policy, mut policy_rx) = tokio::sync::watch::channel(Settings::default().policy());
    let shutdown = Shutdown::new();
    let program = Some("/there/is/no/codex".into());
    let (codex, _events) =
        crate::codex::start(CodexConfig { program, ..CodexConfig::default() }, Clock::manual(0), shutdown.clone());
    shutdown.spawn(parts::follow_settings(settings.subscribe(), policy, codex.clone()));
    let directory = crate::record::Directory { path: "/srv/shop".to_owned(), label: "Shop".to_owned() };
    settings.send_replace(Settings { strict_audit: true, directories: vec![directory], ..Settings::default() });
    policy_rx.wait_for(|policy| policy.strict_audit).await.unwrap();
    assert_eq!(policy_rx.borrow().directories, [("/srv/shop".to_owned(), "Shop".to_owned())]);
    assert_eq!(codex.allowed().directories[0].path, std::path::Path::new("/srv/shop"));
    shutdown.begin();
}
