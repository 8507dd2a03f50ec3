//! Everything that FlyDex is made of, as processes, with everything logged; and where to look in it.

use anyhow::{Context as _, ensure};
use flydex_tests::browser::Browser;
use flydex_tests::canary::{self, mark, places};
use flydex_tests::cluster::{Cluster, RegionSettings, Settings, Store, suite};
use flydex_tests::codex::{CodexHome, Daemon, Desk};
use flydex_tests::connector::{Connector, Machine};
use flydex_tests::model::Model;
use flydex_tests::otlp::Sink;
use flydex_tests::phone::Phone;
use flydex_tests::redis::Monitor;
use flydex_tests::server;
use flydex_tests::wait;
use flydex_tests::world::digits;
use serde_json::Value;

/// The whole of FlyDex around one machine and one phone.
pub(super) struct Stage {
    // In this order they end: who sends before who is sent to.
    pub(super) phone: Phone,
    browser: Browser,
    connector: Option<Connector>,
    pub(super) cluster: Cluster,
    pub(super) machine: Machine,
    monitors: Vec<Monitor>,
    pub(super) model: Model,
    pub(super) codex: CodexHome,
    daemon: Daemon,
    sink: Sink,
}

impl Stage {
    pub(super) async fn build() -> anyhow::Result<Self> {
        flydex_runtime::tls::install_provider();
        let sink = Sink::start()?;
        let (otlp_endpoint, log_filter) = (Some(sink.endpoint()), Some("trace".to_owned()));
        let settings = Settings {
            regions: vec![RegionSettings { name: "one", gateways: 2, nodes: 2 }],
            controls: 1,
            otlp_endpoint: otlp_endpoint.clone(),
            log_filter: log_filter.clone(),
            ..Settings::default()
        };
        let model = Model::start().await?;
        let codex = CodexHome::create(&model)?;
        let (daemon, mut cluster) = tokio::try_join!(codex.start_daemon(), Cluster::start(settings))?;
        for (text, why) in suite::EXPECTED {
            cluster.may_log(text, why);
        }
        cluster.may_log("database is not available", "PostgreSQL is away when somebody signs in");
        places::plant_controls_keys(&cluster.postgres).await?;
        places::plant_certificate_keys(cluster.folder())?;
        let telling = server::Settings { otlp_endpoint, log_filter, ..server::Settings::default() };
        let machine = Machine::new(cluster.origin(), &codex)?.telling(&telling);
        let monitors = vec![places::only_redis(&cluster.region().store)?.monitor().await?];
        let browser = Browser::start()?;
        let phone = Phone::new(browser.phone().await?);
        Ok(Self { phone, browser, connector: None, cluster, machine, monitors, model, codex, daemon, sink })
    }

    /// Signs the phone in and pairs it. Every secret of that is looked for from then on.
    pub(super) async fn pair(&mut self) -> anyhow::Result<()> {
        let workspace = self.machine.workspace().to_string_lossy().into_owned();
        self.machine.command(&["directories", "add", &workspace]).await?;
        let link = self.cluster.account().await?;
        canary::plant_token("sign-in token", link.split_once('#').context("no token in the link")?.1);
        self.phone.sign_in(&link).await?;
        let mut connector = self.machine.connect()?;
        let shown = self.phone.scan(&connector.pair_url().await?).await?;
        connector.question().await?;
        for code in [digits(&shown), shown] {
            canary::plant_code("short code", &code);
        }
        connector.answer(true).await?;
        self.phone.open_paired().await.with_context(|| connector.process().story())?;
        self.machine.plant_secrets()?;
        self.connector = Some(connector);
        self.plant_the_phones().await
    }

    pub(super) async fn desk(&self) -> anyhow::Result<Desk> {
        Desk::connect(self.daemon.socket()).await
    }

    /// Redis is killed and starts again with nothing.
    pub(super) async fn redis_is_replaced(&mut self) -> anyhow::Result<()> {
        let Store::Alone(redis) = &mut self.cluster.region_mut().store else { anyhow::bail!("there is a sentinel") };
        redis.kill().await?;
        redis.run_empty().await?;
        let monitor = redis.monitor().await?;
        let told = wait::until("nodes to tell the new Redis", async || (monitor.heard().len() > 1000).then_some(()));
        told.await?;
        self.monitors.push(monitor);
        Ok(())
    }

    /// The cookie, and each ticket and grant that the app was given.
    async fn plant_the_phones(&self) -> anyhow::Result<()> {
        let page = self.phone.page();
        canary::plant_token("cookie", &page.cookie("__Host-flydex").await?);
        let answers = page.answers().await?;
        let tickets = answers.iter().filter(|answer| answer.path == "/api/tickets");
        for answer in tickets {
            let body = answer.text.split_once("\n\n").context("no body")?.1;
            let body: Value = serde_json::from_str(body).context("read the body of a ticket")?;
            for what in ["ticket", "grant"] {
                canary::plant_signed(what, body[what].as_str().with_context(|| format!("no {what}"))?);
            }
        }
        Ok(())
    }

    /// What stands where it may not, while everything runs.
    pub(super) async fn found(&self) -> anyhow::Result<Vec<String>> {
        self.plant_the_phones().await?;
        let mut problems = places::cluster(&self.cluster).await?;
        for monitor in &self.monitors {
            problems.extend(places::redis(places::only_redis(&self.cluster.region().store)?, monitor).await?);
        }
        problems.extend(places::postgres(&self.cluster.postgres).await?);
        let connector = self.connector.as_ref().context("no connector")?.process();
        problems.extend(places::process(connector.pid())?);
        problems.extend(places::answers(&self.phone.page().answers().await?));
        Ok(problems)
    }

    /// What the phone keeps beside what it is meant to: a key that cannot be taken out, and a draft until it is sent or
    /// the browser is signed out.
    pub(super) async fn found_at_the_phone(&mut self) -> anyhow::Result<Vec<String>> {
        let page = self.phone.page();
        self.connector.take().context("no connector")?.stop().await?;
        self.phone.shows_connection("machine_offline").await?;
        self.phone.send(&mark("queued")).await?;
        page.sees("outbox-state").await?;
        page.fill("composer-text", &mark("draft")).await?;
        let mut kept = places::browser(page).await?;
        // What was asked for stays there until the machine's word on it has come, and a moment longer.
        let outbox = kept.tables["flydex.outbox"].take();
        let waiting = canary::found_in(outbox.to_string().as_bytes());
        ensure!(waiting.contains(&"queued"), "the outbox holds {waiting:?}: {outbox}");
        let drafts = canary::found_in(kept.local.to_string().as_bytes());
        ensure!(drafts == ["draft"], "localStorage holds {drafts:?}: {}", kept.local);
        let key = &kept.tables["flydex.keys"][0];
        ensure!(key.to_string().contains("\"extractable\":false"), "the device key: {key}");
        ensure!(!kept.tables.to_string().contains("\"extractable\":true"), "a key can be taken out: {}", kept.tables);
        let mut problems = places::named("IndexedDB", kept.tables.to_string().as_bytes());
        problems.extend(places::named("the rest of the browser", kept.rest.as_bytes()));

        page.goto(&format!("{}/", self.cluster.origin())).await?;
        page.click("open-account").await?;
        page.click("sign-out").await?;
        page.sees("sign-in-link").await?;
        let kept = places::browser(page).await?;
        problems.extend(places::named("the browser, signed out,", format!("{kept:?}").as_bytes()));
        Ok(problems)
    }

    /// Stops everything, so that it says its last words and sends the rest of its spans.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        let Self { phone, browser, connector: _, cluster, machine, monitors, model, codex, daemon, sink } = self;
        phone.page().goto("about:blank").await?;
        cluster.stop().await?;
        let services: Vec<_> = sink.spans().into_iter().map(|exported| exported.service).collect();
        ensure!(["flydex", "flydex-server"].iter().all(|name| services.iter().any(|one| one == name)), "{services:?}");
        ensure!(machine.state().join("journal").exists(), "no state to search");
        drop((browser, machine, monitors, model, codex, daemon));
        Ok(())
    }
}
