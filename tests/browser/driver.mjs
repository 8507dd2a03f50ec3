// Drives a real Chromium at the word of a test: one JSON request per line on standard input, one JSON answer per
// line on standard output. The flows themselves are written in Rust, where the model's gates, the desk and the
// processes are at hand; see tests/src/browser.rs for what each operation means.

import { createInterface } from 'node:readline';
import AxeBuilder from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const WAIT_MS = Number(process.env.FLYDEX_BROWSER_WAIT_MS ?? 30_000);
const PHONE = { width: 390, height: 844 };

const browser = await chromium.launch({
  executablePath: process.env.FLYDEX_CHROMIUM,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});

const pages = new Map();
const authenticators = new Map();

function locate(page, target) {
  let locator = target.testid ? page.getByTestId(target.testid) : page.locator(target.css);
  if (target.shown) locator = locator.filter({ visible: true });
  if (target.text !== undefined) locator = locator.filter({ hasText: target.text });
  return locator;
}

const operations = {
  async open({ scheme = 'light', width = PHONE.width, height = PHONE.height }) {
    const context = await browser.newContext({
      viewport: { width, height },
      hasTouch: true,
      colorScheme: scheme,
      // The relay of a test makes its certificate itself.
      ignoreHTTPSErrors: true,
    });
    context.setDefaultTimeout(WAIT_MS);
    return this.tab({ context });
  },

  // A further tab of the same profile.
  async tab({ of, context = pages.get(of).page.context() }) {
    const page = await context.newPage();
    const entry = { page, problems: [], requests: [], answers: [] };
    page.on('console', (message) => {
      if (message.type() === 'error') entry.problems.push(message.text());
    });
    page.on('pageerror', (error) => entry.problems.push(String(error)));
    page.on('request', (request) => entry.requests.push(request.url()));
    page.on('response', (response) => {
      if (new URL(response.url()).pathname.startsWith('/api/')) entry.answers.push(answer(response));
    });
    const handle = pages.size;
    pages.set(handle, entry);
    return handle;
  },

  goto: (page, { url }) => page.goto(url),
  reload: (page) => page.reload(),
  url: (page) => page.url(),
  click: (page, { target }) => locate(page, target).click(),
  fill: (page, { target, value }) => locate(page, target).fill(value),
  visible: (page, { target }) => locate(page, target).first().waitFor({ state: 'visible' }),
  gone: (page, { target }) => locate(page, target).first().waitFor({ state: 'detached' }),
  count: (page, { target }) => locate(page, target).count(),
  text: (page, { target }) => locate(page, target).first().innerText(),
  texts: (page, { target }) => locate(page, target).allInnerTexts(),
  evaluate: (page, { script }) => page.evaluate(script),
  offline: (page, { value }) => page.context().setOffline(value),
  screenshot: (page, { path, full_page = false }) => page.screenshot({ path, fullPage: full_page }).then(() => null),
  close: (page) => page.context().close(),
  cookies: (page) => page.context().cookies(),

  // Every address that the tab can go back to, with its fragment.
  async history(page) {
    const session = await page.context().newCDPSession(page);
    const { entries } = await session.send('Page.getNavigationHistory');
    return entries.map(({ url }) => url);
  },

  // An authenticator in software, whose person is there and says yes.
  async authenticator(page) {
    const session = await page.context().newCDPSession(page);
    await session.send('WebAuthn.enable');
    const { authenticatorId } = await session.send('WebAuthn.addVirtualAuthenticator', {
      options: {
        protocol: 'ctap2',
        transport: 'internal',
        hasResidentKey: true,
        hasUserVerification: true,
        isUserVerified: true,
        automaticPresenceSimulation: true,
      },
    });
    const verified = (isUserVerified) => session.send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified });
    authenticators.set(page, verified);
  },

  // Whether the authenticator takes its person to be the right one from now on.
  verified: (page, { value }) => authenticators.get(page)(value).then(() => null),

  async axe(page) {
    const { violations } = await new AxeBuilder({ page }).withTags(['wcag2a', 'wcag2aa']).analyze();
    return violations.map(({ id, help, nodes }) => `${id}: ${help} (${nodes.map((node) => node.target).join(', ')})`);
  },
};

// An answer of the API as it came, to be searched: every header, and the body.
async function answer(response) {
  const headers = await response.headersArray().catch(() => []);
  const body = await response.text().catch(() => '');
  const text = [...headers.map(({ name, value }) => `${name}: ${value}`), '', body].join('\n');
  return { method: response.request().method(), path: new URL(response.url()).pathname, text };
}

async function perform({ operation, page: handle, ...rest }) {
  if (operation === 'open' || operation === 'tab') return operations[operation](rest);
  const entry = pages.get(handle);
  if (!entry) throw new Error(`no page ${handle}`);
  if (operation === 'problems') return entry.problems;
  if (operation === 'requests') return entry.requests;
  if (operation === 'answers') return Promise.all(entry.answers);
  if (!operations[operation]) throw new Error(`no operation ${operation}`);
  const value = await operations[operation](entry.page, rest);
  return operation === 'goto' || operation === 'reload' ? null : (value ?? null);
}

async function explain(error, handle) {
  const page = pages.get(handle)?.page;
  const text = page ? await page.locator('body').innerText({ timeout: 1000 }).catch(() => '') : '';
  const problems = pages.get(handle)?.problems ?? [];
  const shown = text.split('\n').slice(0, 60).join('\n    ');
  return `${error.message}\n  at ${page?.url()}\n  shows:\n    ${shown}\n  console: ${problems.join('; ')}`;
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  // Requests of different pages run side by side; answers carry the id.
  perform(request)
    .then((value) => ({ id: request.id, value }))
    .catch(async (error) => ({ id: request.id, error: await explain(error, request.page) }))
    .then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`));
}
await browser.close();
