/** What the built app survives in real Chromium: reloads, a second tab, a start without a network. */
import { fromBinary } from "@bufbuild/protobuf";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";

import { CommandHeaderSchema, Outcome } from "../gen/flydex/v1/command_pb";
import { Stage, at } from "./browser";
import { MACHINE_ID, fakeThread } from "./fake";

const REDEEM = /^POST \/api\/claims\/[^/]+\/redeem$/;
let stage: Stage;

beforeAll(async () => {
  stage = await Stage.open();
  stage.machine.threads.push(fakeThread("t1", "Nightly job fails since Tuesday"));
});

afterEach(async () => {
  const problems = stage.problems.splice(0);
  for (const context of stage.browser.contexts()) await context.close();
  stage.machine.handlers.clear();
  stage.asked.length = 0;
  stage.deskSaysYes = false;
  stage.relayDown = false;
  stage.quarantined = false;
  stage.otherRegion = undefined;
  expect(problems).toEqual([]);
});

afterAll(() => stage.close());

test("a pairing goes on after a reload, and after the phone dropped the page, and leaves nothing behind", async () => {
  stage.signedIn = true;
  const page = await stage.page();
  await page.goto(stage.pairUrl());
  const code = await page.textContent(at("pair-code"));
  expect(code).toBe(await stage.code());
  const kept = await begun(page);
  expect(kept).toEqual({
    fields: ["deviceMac", "giveUpAtMs", "localConnectId", "machineLabel", "machineMacKey", "terms"],
    extractable: false,
    usages: ["verify"],
  });

  await page.reload();
  expect(await page.textContent(at("pair-code"))).toBe(code);

  const context = page.context();
  await page.close();
  const again = await stage.tab(context);
  await again.goto(stage.origin);
  expect(await again.textContent(at("pair-code"))).toBe(code);
  expect(await again.getAttribute(at("pair-status"), "data-state")).toBe("comparing");
  stage.deskSaysYes = true;
  await again.waitForSelector(`${at("pair-status")}[data-state=done]`);
  expect(stage.asked.filter((one) => REDEEM.test(one)).length).toBe(1);
  expect(await begun(again)).toBeUndefined();
  await again.reload();
  await again.waitForSelector(`${at("machine-status")}[data-state=live]`);
});

test("a pairing that a person ends is not gone on with", async () => {
  stage.signedIn = true;
  const page = await stage.page();
  await page.goto(stage.pairUrl());
  await page.waitForSelector(at("pair-code"));
  await page.click(at("pair-cancel"));
  await page.waitForSelector(at("open-account"));
  expect(await begun(page)).toBeUndefined();
  await page.reload();
  await page.waitForSelector(at("open-account"));
});

test("a message survives a reload, and travels again as the same bytes", async () => {
  const page = await stage.paired();
  stage.machine.handlers.set("startTurn", () => ({ silent: true }));
  await page.click(at("thread-row"));
  await page.fill(at("composer-text"), "Does the build still pass?");
  await page.click(at("composer-send"));
  await page.waitForSelector(`${at("outbox-state")}[data-state=delivered]`);
  const before = effects();
  stage.machine.handlers.clear();
  await page.reload();
  await page.waitForSelector(`${at("outbox-state")}[data-state=executed]`);
  const after = effects();
  expect(before.length).toBeGreaterThan(0);
  expect(after.length).toBeGreaterThan(before.length);
  for (const command of after) {
    expect(command.header).toEqual(before[0]?.header);
    expect(command.body).toEqual(before[0]?.body);
    expect(command.signature).toEqual(before[0]?.signature);
  }
});

test("a page that a newer version has overtaken says so, and gives back what it cannot keep", async () => {
  const page = await stage.paired();
  await page.click(at("thread-row"));
  await page.waitForSelector(at("composer-text"));
  await page.evaluate(
    () =>
      new Promise<void>((resolve, reject) => {
        const request = indexedDB.open("flydex", 99);
        request.onsuccess = () => resolve(request.result.close());
        request.onblocked = () => reject(new Error("the page holds on to its database"));
      }),
  );
  await page.fill(at("composer-text"), "Is anybody there?");
  await page.click(at("composer-send"));
  await page.waitForSelector("text=This page shows an older state. Reload the page.");
  expect(await page.inputValue(at("composer-text"))).toBe("Is anybody there?");
  expect(await page.locator(at("outbox-message")).count()).toBe(0);
});

test("a browser whose disk has an older layout gets the new one", async () => {
  stage.signedIn = true;
  stage.machineListed = true;
  const page = await stage.page();
  await page.addInitScript(() => {
    const request = indexedDB.open("flydex", 1);
    request.onupgradeneeded = () => {
      for (const name of ["keys", "machines", "outbox"]) request.result.createObjectStore(name);
    };
    request.onsuccess = () => request.result.close();
  });
  await page.goto(stage.origin);
  await page.waitForSelector(at("machine-card"));
  const tables = await page.evaluate(
    () =>
      new Promise<string[]>((resolve) => {
        const request = indexedDB.open("flydex");
        request.onsuccess = () => {
          resolve([...request.result.objectStoreNames]);
          request.result.close();
        };
      }),
  );
  expect(tables).toEqual(["keys", "machines", "outbox", "pairings"]);
});

test("a question whose answer was refused can be answered again", async () => {
  const page = await stage.paired();
  await page.click(at("thread-row"));
  await page.waitForSelector(at("composer-text"));
  stage.machine.handlers.set("answerQuestion", () => ({ outcome: Outcome.REFUSED, code: 6004 }));
  const part = { id: "p1", text: "Which branch?", options: [{ label: "main", description: "" }] };
  const questionId = new Uint8Array(32).fill(5);
  stage.machine.emit("", "questionOpened", { questionId, threadId: "t1", turnId: "u1", parts: [part] });
  await page.getByLabel("main").check();
  await page.click(at("question-send"));
  await page.waitForSelector(`${at("outbox-note")}[data-state=refused]`);
  await page.waitForSelector(`${at("question-send")}:enabled`);
  stage.machine.handlers.delete("answerQuestion");
  await page.click(at("question-send"));
  await page.waitForSelector("text=Your answer is on its way");
});

test("one tab holds the connection; another takes it over, and gets it when the first is closed", async () => {
  const first = await stage.paired();
  const second = await stage.tab(first.context());
  await second.goto(stage.origin);
  await second.waitForSelector(at("take-over"));
  expect(stage.sessions.length).toBe(1);

  await second.click(at("take-over"));
  await second.waitForSelector(`${at("machine-status")}[data-state=live]`);
  await first.waitForSelector(at("take-over"));
  await expect.poll(() => stage.sessions.length).toBe(1);

  await second.close();
  await first.waitForSelector(`${at("connection-state")}[data-state=live]`);
  await expect.poll(() => stage.sessions.length).toBe(1);
});

test("a tab that signs in while another holds the connection opens none of its own", async () => {
  const first = await stage.paired();
  const second = await stage.tab(first.context());
  await second.goto(`${stage.origin}/sign-in#AAAAAAAAAAAAAAAA`);
  await second.click(at("sign-in"));
  await second.waitForSelector(at("take-over"));
  expect(stage.sessions.length).toBe(1);
  await first.waitForSelector(`${at("connection-state")}[data-state=live]`);
});

test("a list of computers that could not be read is read when the relay is back", async () => {
  const page = await stage.paired();
  stage.failing.add("GET /api/machines");
  await page.goto(`${stage.origin}/#/`);
  await page.reload();
  await page.waitForSelector("[data-code='1011']");
  expect(stage.sessions.length, "nobody knows yet where to look").toBe(0);
  stage.failing.clear();
  await page.waitForSelector(`${at("machine-status")}[data-state=live]`);
});

test("a computer whose key two computers hold is locked, and the way out is said", async () => {
  stage.quarantined = true;
  const page = await stage.paired();
  await page.goto(`${stage.origin}/#/`);
  await page.reload();
  expect(await page.textContent(at("machine-quarantined"))).toContain("flydex connect");
  expect(await page.locator(at("machine-status")).count()).toBe(0);
});

test("an owner keeps a computer in a region, and lets it go", async () => {
  const page = await stage.paired();
  await page.goto(`${stage.origin}/#/m/${MACHINE_ID}/about`);
  expect(await page.textContent(at("machine-region"))).toBe("local");
  expect(await page.locator(at("machine-region-pin")).count(), "with one region there is nothing to choose").toBe(0);
  stage.otherRegion = "far";
  await page.reload();
  for (const [choice, said] of [
    ["far", "local, kept in far"],
    ["", "local"],
  ] as const) {
    await page.selectOption(at("machine-region-pin"), choice);
    await page.getByRole("button", { name: "Keep" }).click();
    await expect.poll(() => page.textContent(at("machine-region"))).toBe(said);
    expect(stage.regionPin ?? "").toBe(choice);
  }
});

test("a tab that hangs loses the connection to the one that a person uses", async () => {
  const first = await stage.paired();
  const second = await stage.tab(first.context());
  await second.goto(stage.origin);
  await second.waitForSelector(at("take-over"));
  let hangs = true;
  const hung = first
    .evaluate(() => {
      const until = Date.now() + 8_000;
      while (Date.now() < until);
    })
    .then(() => (hangs = false));
  await second.click(at("take-over"));
  await second.waitForSelector(`${at("machine-status")}[data-state=live]`);
  expect(hangs).toBe(true);
  await hung;
  await first.waitForSelector(at("take-over"));
  // It waits in the queue once, like any other.
  const waiting = await first.evaluate(async () => (await navigator.locks.query()).pending?.length);
  expect(waiting).toBe(1);
});

test("a keyboard finds its way: each view takes the focus, and a sheet gives it back", async () => {
  const page = await stage.paired({ wide: true });
  const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim());
  await page.focus(at("thread-row"));
  await page.keyboard.press("Enter");
  await page.waitForSelector(at("composer-text"));
  await expect.poll(focused).toBe("Nightly job fails since Tuesday");
  const more = page.getByRole("button", { name: "More about this thread" });
  await more.focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await page.getByRole("button", { name: "Close" }).press("Enter");
  await page.waitForSelector("dialog", { state: "detached" });
  expect(await more.evaluate((button) => button === document.activeElement)).toBe(true);
  await page.goto(`${stage.origin}/#/account`);
  await expect.poll(focused).toBe("Account");
});

test("what is asked is read out wherever a person is in the app", async () => {
  const page = await stage.paired();
  await page.goto(`${stage.origin}/#/account`);
  await stage.machine.ask({ threadId: "t1", turnId: "u1", itemId: "i1", command: "id -u" });
  await expect.poll(() => page.textContent(at("alerts"))).toBe("Codex asks to run a command.");
  stage.machine.approvals.clear();
});

test("without a network the app starts from its own files, and no answer of the API is ever kept", async () => {
  const page = await stage.paired({ worker: true });
  await page.evaluate(async () => (await navigator.serviceWorker.ready).active?.state);
  stage.relayDown = true;
  await page.reload();
  await page.waitForSelector("text=FlyDex cannot start");
  await page.waitForSelector("text=The relay cannot be reached.");

  const fromWorker = new Map<string, boolean>();
  page.on("response", (response) => fromWorker.set(new URL(response.url()).pathname, response.fromServiceWorker()));
  stage.relayDown = false;
  await page.waitForSelector(`${at("connection-state")}[data-state=live]`);
  expect(fromWorker.get("/api/session")).toBe(false);
  expect(fromWorker.get("/api/machines")).toBe(false);

  const kept = await page.evaluate(async () => {
    const paths: string[] = [];
    for (const name of await caches.keys()) {
      for (const { url } of await (await caches.open(name)).keys()) paths.push(new URL(url).pathname);
    }
    return paths;
  });
  expect(kept).toContain("/");
  expect(kept.filter((path) => path !== "/" && !/^\/(assets|icons)\/|^\/manifest\.webmanifest$/.test(path))).toEqual([]);
});

/** What is on disk of a pairing that was begun; read as any script of this origin could. */
function begun(page: Page) {
  return page.evaluate(async () => {
    const done = <T>(request: IDBRequest<T>) =>
      new Promise<T>((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const database = await done(indexedDB.open("flydex"));
    const [kept] = await done(database.transaction("pairings").objectStore("pairings").getAll());
    database.close();
    if (kept === undefined) return undefined;
    const { extractable, usages } = kept.machineMacKey as CryptoKey;
    return { fields: Object.keys(kept).sort(), extractable, usages };
  });
}

/** The effects that reached the machine; reads name their session. */
function effects() {
  return stage.machine.commands.filter((one) => fromBinary(CommandHeaderSchema, one.header).sessionId.length === 0);
}
