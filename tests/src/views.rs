//! What the phone's views cost with much to show: 5,000 threads, and a thread with 20 MB of history.
//!
//! A stub stands in place of Codex, so that what is measured is FlyDex and the browser. The floor is the page
//! itself: loading the app, without anything of a machine in it.

use anyhow::Context as _;
use flydex_tests::browser::{Browser, Page};
use flydex_tests::connector::Machine;
use flydex_tests::phone::Phone;
use flydex_tests::process;
use flydex_tests::server::Server;
use flydex_tests::world::pair;

/// Times that each view is opened.
const ROUNDS: usize = 10;
/// The first page must be there within this, in milliseconds of the page's clock.
const FIRST_PAGE_MS_MAX: f64 = 1_000.0;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let machine = Machine::with_stub(server.origin(), process::binary("flydex-loadtest")?)?;
    let browser = Browser::start()?;
    let phone = Phone::new(browser.phone().await?);
    phone.sign_in(server.owner_link()).await?;
    let mut connector = machine.connect()?;
    pair(&phone, &mut connector).await?;

    let page = phone.page();
    let list = page.url().await?;
    let (mut floor, mut rows, mut history) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        page.goto("about:blank").await?;
        page.goto(&list).await?;
        floor.push(since_navigation(page, "main").await?);
        rows.push(since_navigation(page, "[data-testid=thread-row]").await?);
        history.push(since_click(page, "[data-testid=thread-row]", "[data-testid=item-agent]").await?);
    }
    let longest = longest_task(page, &list).await?;
    report("app shell, cold", &mut floor);
    let rows = report("first rows of 5,000 threads, cold", &mut rows);
    let history = report("first page of 20 MB of history, from the tap", &mut history);
    say(&format!("{:<52} {longest:>4.0} ms", "longest task over 50 ms while the list is scrolled"));
    anyhow::ensure!(rows.max(history) < FIRST_PAGE_MS_MAX, "a first page took over {FIRST_PAGE_MS_MAX} ms");
    Ok(())
}

/// Milliseconds from the navigation until the selector is there.
async fn since_navigation(page: &Page, selector: &str) -> anyhow::Result<f64> {
    milliseconds(page, &format!("({APPEARS})('{selector}')")).await
}

/// Milliseconds from a click until the selector is there.
async fn since_click(page: &Page, clicked: &str, selector: &str) -> anyhow::Result<f64> {
    let script = format!(
        "(async () => {{ const start = performance.now(); document.querySelector('{clicked}').click(); \
         return await ({APPEARS})('{selector}') - start; }})()"
    );
    milliseconds(page, &script).await
}

/// The longest task, in milliseconds, while the list is scrolled through several pages.
async fn longest_task(page: &Page, list: &str) -> anyhow::Result<f64> {
    page.goto("about:blank").await?;
    page.goto(list).await?;
    since_navigation(page, "[data-testid=thread-row]").await?;
    milliseconds(page, SCROLLS).await
}

async fn milliseconds(page: &Page, script: &str) -> anyhow::Result<f64> {
    page.evaluate(script).await?.as_f64().context("no number came back")
}

/// Prints one line and returns the median.
fn report(name: &str, times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(f64::MAX);
    let worst = times.last().copied().unwrap_or(f64::MAX);
    say(&format!("{name:<48} {median:>8.0} ms median, {worst:>6.0} ms worst of {}", times.len()));
    median
}

#[expect(clippy::print_stdout, reason = "the program's own output")]
fn say(line: &str) {
    println!("{line}");
}

/// Waits until a selector is there, and tells the page's clock.
const APPEARS: &str = "async (selector) => { while (!document.querySelector(selector)) { \
    await new Promise((frame) => requestAnimationFrame(frame)); } return performance.now(); }";

/// Scrolls to the end of what is loaded, again and again, and tells the longest task meanwhile.
const SCROLLS: &str = "(async () => { let longest = 0; \
    new PerformanceObserver((list) => { for (const task of list.getEntries()) longest = Math.max(longest, task.duration); }) \
        .observe({ type: 'longtask' }); \
    let tall; \
    for (let frame = 0; frame < 300; frame += 1) { \
        tall = [...document.querySelectorAll('*'), document.scrollingElement] \
            .filter((one) => one.scrollHeight > one.clientHeight + 200).pop(); \
        if (tall) tall.scrollBy(0, 400); \
        await new Promise((next) => requestAnimationFrame(next)); } \
    if (!tall || tall.scrollTop < 20000) throw new Error('the list did not scroll'); \
    return longest; })()";
