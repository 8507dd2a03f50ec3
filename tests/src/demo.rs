//! The demo: everything on this computer, for a person at a browser, or with `--check` for a browser alone.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use flydex_tests::browser::Target;
use flydex_tests::canary;
use flydex_tests::codex::CodexHome;
use flydex_tests::connector::Machine;
use flydex_tests::model::Model;
use flydex_tests::phone::{Answer, Phone};
use flydex_tests::server::{Server, Settings};
use flydex_tests::world::{Paired, World};
use tokio::signal::unix::{SignalKind, signal};

/// Starts FlyDex on this computer; `cargo xtask demo` builds what it needs and runs it.
#[derive(Parser)]
#[command(name = "flydex-demo")]
struct Arguments {
    /// Port of the relay; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Use the codex on the PATH with its own home instead of the pinned one with the scripted model.
    #[arg(long)]
    own_codex: bool,
    /// Do what a person would, in a real Chromium, and count.
    #[arg(long)]
    check: bool,
    /// Write pictures of the phone's views, light and dark, into this folder.
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(folder) = &arguments.pictures {
        return pictures(folder).await;
    }
    if !arguments.check {
        return for_a_person(&arguments).await;
    }
    let mut count = Count::default();
    let outcome = check(&mut count).await;
    if let Err(error) = &outcome {
        say(&format!("FAILED: {error:#}"));
    }
    say(&format!("{} passed, {} failed", count.0, u32::from(outcome.is_err())));
    std::process::exit(i32::from(outcome.is_err()));
}

#[expect(clippy::print_stdout, reason = "the program's own output")]
fn say(line: &str) {
    println!("{line}");
}

// === For a person ===

/// Time that the connector has to end by itself, as the relay and Codex do with it.
const STOP_GRACE: Duration = Duration::from_secs(5);

async fn for_a_person(arguments: &Arguments) -> anyhow::Result<()> {
    canary::off();
    let mut stop = signal(SignalKind::terminate())?;
    let server = Server::start_with(Settings { port: arguments.port, ..Settings::default() }).await?;
    let model = Model::start().await?;
    let scripted = if arguments.own_codex { None } else { Some(CodexHome::create(&model)?) };
    let _daemon = match &scripted {
        Some(home) => Some(home.start_daemon().await?),
        None => None,
    };
    let machine = match &scripted {
        Some(home) => Machine::new(server.origin(), home)?,
        None => Machine::with_own_codex(server.origin())?,
    };
    let workspace = machine.workspace().to_string_lossy().into_owned();
    machine.command(&["directories", "add", &workspace]).await?;

    say(&format!("1. Sign in:  {}", server.owner_link()));
    match &scripted {
        Some(_) => say(
            "   Codex is the pinned one; the model is scripted. Try: [[stream 40]], [[esc uname -a]], [[patch notes.txt]]",
        ),
        None => say("   Codex is your own, with your own threads and model."),
    }
    say("2. Pair: open the address below in that browser, compare the digits, and answer here.\n");
    let mut connector = machine.connect_at_terminal()?;
    tokio::select! {
        ended = connector.wait() => say(&format!("the connector has ended: {}", ended.context("run the connector")?)),
        // At a terminal the connector hears Ctrl-C too; what still runs afterwards is killed.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            let _ = tokio::time::timeout(STOP_GRACE, connector.wait()).await;
        }
        _ = stop.recv() => connector.kill().await?,
    }
    server.stop().await?;
    say("everything has ended");
    Ok(())
}

// === Without a person ===

#[derive(Default)]
struct Count(u32);

impl Count {
    fn passed(&mut self, what: &str) {
        self.0 += 1;
        say(&format!("ok {}: {what}", self.0));
    }
}

async fn check(count: &mut Count) -> anyhow::Result<()> {
    let paired = World::paired().await.context("sign in and pair")?;
    count.passed("Chromium signed in by the owner link and paired by the code; both screens showed the same digits");
    walk(&paired, count).await.with_context(|| paired.story())
}

async fn walk(paired: &Paired, count: &mut Count) -> anyhow::Result<()> {
    let phone = &paired.phone;
    paired.open_new_thread("a thread of the desk").await.context("list and read a thread")?;
    count.passed("a thread that was begun at the desk is listed and read");

    phone.send("[[stream 8]] [[gate demo]] [[stream 8]]").await?;
    paired.world.model.reached("demo").await?;
    phone.reads("tick 7").await.context("see the turn stream")?;
    paired.world.model.open("demo");
    phone.reads("tick 15").await?;
    phone.idle().await?;
    count.passed("a turn of the real Codex was started and seen to stream");

    phone.send("[[esc echo approved from a phone]]").await?;
    let command = phone.asked().await.context("see the approval")?;
    anyhow::ensure!(command.contains("echo approved from a phone"), "the card shows {command}");
    phone.answer(Answer::Accept).await?;
    phone.reads_output("approved from a phone").await.context("see the command run")?;
    phone.idle().await?;
    count.passed("a command was approved on the phone and seen to run");

    phone.is_clean(paired.origin()).await?;
    count.passed("no script threw, no content policy was hit, nothing was asked of another host");
    Ok(())
}

// === Pictures for the documents ===

const PLAN: &str = "## Where it goes\n\nThe uploader gives up after **one** try. Three changes:\n\n\
1. `upload.rs`: try again after 1, 2 and 4 seconds\n2. stop at once when the answer is final\n3. a test for both\n\n\
```rust\nfor pause in pauses {\n    match send(&batch).await {\n        Err(error) if error.is_passing() => pause.await,\n        \
settled => return settled,\n    }\n}\n```";

async fn pictures(folder: &std::path::Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let world = World::start().await?;
    world.allow_workspace().await?;
    let light = world.phone().await?;
    light.sign_in(world.server.owner_link()).await?;
    let dark = world.dark_phone().await?;
    dark.sign_in(&light.sign_in_link().await?).await?;
    let mut connector = world.machine.connect()?;
    let url = connector.pair_url().await?;
    light.scan(&url).await?;
    connector.question().await?;
    light.page().screenshot(&folder.join("pair-light.png")).await?;
    connector.answer(true).await?;
    light.open_paired().await?;
    let mut adding = world.machine.start(&["devices", "add"])?;
    dark.scan(&adding.pair_url().await?).await?;
    adding.question().await?;
    dark.page().screenshot(&folder.join("pair-dark.png")).await?;
    adding.answer(true).await?;
    dark.open_paired().await?;
    world.model.answer("Add a retry to the uploader", &format!("[[say {PLAN}]]"));
    world.model.answer("Rename the gateway's metrics", "[[say Done: three names changed.]]");
    world.model.answer("Now run all the tests", "[[esc cargo test --workspace --locked]] [[say As you wish.]]");
    world.thread("Add a retry to the uploader").await?;
    world.thread("Rename the gateway's metrics").await?;
    light.page().sees(Target::from("thread-row").with_text("Rename the gateway")).await?;
    dark.page().sees(Target::from("thread-row").with_text("Rename the gateway")).await?;
    shoot(folder, "threads", &light, &dark).await?;
    for phone in [&light, &dark] {
        phone.open_thread("Add a retry").await?;
        phone.reads("Where it goes").await?;
    }
    shoot(folder, "thread", &light, &dark).await?;
    light.send("Now run all the tests").await?;
    for phone in [&light, &dark] {
        phone.asked().await?;
        phone.page().sees(Target::css("[data-testid=approval-accept]:enabled")).await?;
    }
    shoot(folder, "approval", &light, &dark).await?;
    light.answer(Answer::Decline).await?;
    light.idle().await
}

async fn shoot(folder: &std::path::Path, view: &str, light: &Phone, dark: &Phone) -> anyhow::Result<()> {
    light.page().screenshot(&folder.join(format!("{view}-light.png"))).await?;
    dark.page().screenshot(&folder.join(format!("{view}-dark.png"))).await
}
