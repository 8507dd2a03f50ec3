import { mkdirSync } from "node:fs";

import { AxeBuilder } from "@axe-core/playwright";
import { create, fromBinary } from "@bufbuild/protobuf";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";

import {
  CommandExecutionSchema,
  ItemSchema,
  ItemState,
  PlanStepState,
  ThreadState,
  TurnSchema,
  TurnState,
} from "../gen/flydex/agent/v1/agent_pb";
import { CommandHeaderSchema } from "../gen/flydex/v1/command_pb";
import { MachineState } from "../gen/flydex/v1/relay_pb";
import { uuidText } from "../protocol/bytes";
import { Stage, at } from "./browser";
import { MACHINE_ID, fakeThread } from "./fake";

const SHOTS = process.env["FLYDEX_SHOTS"] ?? new URL("../../../../target/web-shots/", import.meta.url).pathname;
let stage: Stage;

afterEach(() => {
  stage.machine.state = MachineState.CODEX_READY;
  stage.machine.approvals.clear();
});

beforeAll(async () => {
  mkdirSync(SHOTS, { recursive: true });
  stage = await Stage.open();
  furnish();
});

afterAll(() => stage.close());

const shot = (page: Page, name: string) => page.screenshot({ path: `${SHOTS}/${name}.png` });

test("a phone signs in, pairs, reads, writes, watches, approves, and sees what became of it", async () => {
  const page = await stage.page();
  await page.goto(stage.origin);
  await page.waitForSelector("text=Codex, from your phone");
  await shot(page, "01-first-run");
  await page.goto(`${stage.origin}/sign-in#AAAAAAAAAAAAAAAA`);
  expect(await page.evaluate(() => location.hash)).toBe("");
  await shot(page, "02-sign-in");
  await page.click(at("sign-in"));
  await page.waitForSelector("text=Pair your first computer");
  await shot(page, "03-no-computer");

  await page.goto(stage.pairUrl());
  const code = await page.textContent(at("pair-code"));
  expect(code).toBe(await stage.code());
  expect(await page.evaluate(() => location.href + JSON.stringify(history.state))).not.toContain("#");
  await shot(page, "04-pair");
  stage.deskSaysYes = true;
  await page.waitForSelector(`${at("pair-status")}[data-state=done]`);
  await shot(page, "05-paired");
  await page.click(at("pair-open"));

  await page.waitForSelector(at("thread-row"));
  await page.waitForSelector(`${at("connection-state")}[data-state=live]`);
  await shot(page, "06-threads");
  await axe(page);
  await page.click(`${at("thread-row")}[data-thread=t1]`);
  await page.waitForSelector(at("composer-text"));
  await page.waitForSelector(at("item-command"));
  await shot(page, "07-thread");
  await axe(page);

  await page.fill(at("composer-text"), "Does the build still pass?");
  await page.click(at("composer-send"));
  await page.waitForSelector(`${at("outbox-state")}[data-state=executed], ${at("outbox-state")}[data-state=delivered]`);
  await stream(page);
  await shot(page, "08-streaming");

  await stage.machine.ask({
    threadId: "t1",
    turnId: "new",
    itemId: "run",
    command: "cargo build --release --target x86_64-unknown-linux-musl && sudo systemctl restart atlas",
    cwd: "/home/mira/atlas",
    reason: "The service must be restarted outside the sandbox to pick up the new binary.",
  });
  await page.waitForSelector(at("approval-card"));
  await page.waitForTimeout(100);
  await shot(page, "09-approval");
  await axe(page);
  await page.click(at("approval-accept"));
  await page.waitForSelector(`${at("approval-outcome")}[data-end=accepted]`);
  expect(stage.intents.length).toBe(1);
  const answer = stage.machine.commands.at(-1);
  expect(answer?.auditReceipt).toBe("v4.public.receipt");
  await shot(page, "10-approved");
  expect(stage.problems).toEqual([]);
});

test("the same in the dark, with diffs, an approval of a long change, and each way to be away", async () => {
  const page = await stage.paired({ dark: true });
  await page.goto(`${stage.origin}/#/`);
  await page.waitForSelector(`${at("machine-status")}[data-state=live]`);
  await shot(page, "11-computers-dark");
  await axe(page);
  await page.click(at("machine-card"));
  await page.waitForSelector(at("thread-row"));
  await shot(page, "12-threads-dark");
  await axe(page);
  await page.click(`${at("thread-row")}[data-thread=t2]`);
  await page.waitForSelector(at("item-edit"));
  await shot(page, "13-diff-dark");
  await axe(page);
  const lines = Array.from({ length: 80 }, (_, index) => `+  line ${index} of the new file`).join("\n");
  await stage.machine.ask({
    threadId: "t2",
    turnId: "u2",
    itemId: "edit",
    changes: [{ path: "src/report.ts", kind: "add", diff: `@@ -0,0 +1,80 @@\n${lines}\n` }],
    reason: "",
  });
  await page.waitForSelector(at("approval-card"));
  await page.waitForTimeout(300);
  await shot(page, "14-approval-diff-dark");
  // A long change opens at its beginning, and its buttons stay in reach once its end was seen.
  expect(await page.locator("text=line 0 of the new file").isVisible()).toBe(true);
  const inView = () => page.locator(at("approval-accept")).evaluate((one) => one.getBoundingClientRect().bottom < innerHeight);
  expect(await inView()).toBe(false);
  await page.evaluate(() => document.querySelector(".main .list")?.scrollBy(0, 100_000));
  await page.waitForSelector("footer.held");
  await page.evaluate(() => document.querySelector(".main .list")?.scrollBy(0, -900));
  await page.waitForTimeout(100);
  expect(await inView()).toBe(true);
  await shot(page, "15-approval-diff-middle-dark");
  await axe(page);
  await page.click(at("approval-decline"));
  await page.waitForSelector(`${at("approval-outcome")}[data-end=declined]`);
  stage.machine.approvals.clear();

  stage.machine.state = MachineState.OFFLINE;
  stage.machine.status();
  await page.waitForSelector(`${at("connection-state")}[data-state=machine_offline]`);
  await page.fill(at("composer-text"), "Are you there?");
  await page.click(at("composer-send"));
  await page.waitForSelector(`${at("outbox-state")}[data-state=queued]`);
  await shot(page, "16-offline-dark");
  await axe(page);
  await page.reload();
  stage.machine.state = MachineState.CODEX_READY;
  stage.machine.status();
  await page.waitForSelector(`${at("connection-state")}[data-state=live]`);
  expect(stage.problems).toEqual([]);
});

test("the audit is searched page after page, downloaded whole, and its signed head kept", async () => {
  const page = await stage.paired({ width: 320 });
  await page.evaluate(() => (location.hash = "#/audit"));
  await page.waitForSelector(at("audit-row"));
  expect(await page.locator(at("audit-row")).count()).toBe(3);
  await page.click("summary");
  await page.selectOption(at("audit-kind"), "approval_answered");
  await page.click(at("audit-search"));
  await page.waitForFunction((row) => document.querySelectorAll(row).length === 1, at("audit-row"));
  expect(await page.getAttribute(at("audit-export"), "href")).toBe("/api/audit/export");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click(at("audit-head"))]);
  expect(download.suggestedFilename()).toBe("flydex-audit-head-3.json");
  expect(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)).toBe(false);
  await shot(page, "21-audit");
  await axe(page);
  expect(stage.problems).toEqual([]);
});

test("a narrow phone has no sideways scroll, and a desk sees list and thread together", async () => {
  const narrow = await stage.paired({ width: 320 });
  for (const route of [`#/m/${MACHINE_ID}`, `#/m/${MACHINE_ID}/t/t1`, `#/m/${MACHINE_ID}/t/t2`, "#/account", `#/m/${MACHINE_ID}/about`, `#/m/${MACHINE_ID}/new`, "#/audit", "#/"]) {
    await narrow.evaluate((hash) => (location.hash = hash), route);
    await narrow.waitForTimeout(300);
    const wide = await narrow.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    expect(wide, route).toBe(false);
    await shot(narrow, `20-narrow-${route.split("/").at(-1) || "home"}`);
    await axe(narrow);
  }
  await narrow.context().close();
  const desk = await stage.paired({ wide: true });
  await desk.goto(`${stage.origin}/#/m/${MACHINE_ID}/t/t1`);
  await desk.waitForSelector(at("item-command"));
  await shot(desk, "30-desk");
  await axe(desk);
  await desk.goto(`${stage.origin}/#/account`);
  await desk.click(at("make-sign-in-link"));
  await desk.waitForSelector(at("sign-in-url"));
  await shot(desk, "31-account");
  expect(stage.problems).toEqual([]);
});

test("5,000 threads and a 20 MB history open and scroll without a pause", async () => {
  const before = stage.machine.threads.length;
  for (let index = 0; index < 5_000; index += 1) {
    const updatedAtMs = BigInt(Date.now() - 10_000_000 - index * 1_000);
    stage.machine.threads.push(fakeThread(`bulk${index}`, `Thread number ${index}`, { updatedAtMs }));
  }
  const words = "The quick brown fox jumps over the lazy dog. ".repeat(90);
  const turns = Array.from({ length: 5_000 }, (_, index) =>
    create(TurnSchema, {
      id: `h${index}`,
      state: TurnState.COMPLETED,
      items: [agent(`m${index}`, `**${index}** ${words}`)],
    }),
  );
  stage.machine.turns.set("bulk0", turns);
  const page = await stage.paired({});
  await page.goto(`${stage.origin}/#/m/${MACHINE_ID}`);
  await page.waitForSelector(at("thread-row"));
  for (let turn = 0; turn < 30; turn += 1) {
    await page.evaluate(() => document.querySelector(".list")?.scrollBy(0, 100_000));
    await page.waitForTimeout(30);
  }
  expect(await page.locator(at("thread-row")).count()).toBeLessThan(60);
  await page.evaluate((hash) => (location.hash = hash), `#/m/${MACHINE_ID}/t/bulk0`);
  await page.waitForSelector(at("item-agent"));
  for (let turn = 0; turn < 40; turn += 1) {
    await page.evaluate(() => document.querySelector(".main .list")?.scrollBy(0, -100_000));
    await page.waitForTimeout(30);
  }
  expect(await page.locator(at("item-agent")).count()).toBeLessThan(40);
  stage.machine.threads.length = before;
  expect(stage.problems).toEqual([]);
});

async function axe(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 140)).join(" | ")}`)).toEqual([]);
}

async function stream(page: Page): Promise<void> {
  const { machine } = stage;
  const sent = machine.commands.findLast((one) => fromBinary(CommandHeaderSchema, one.header).sessionId.length === 0);
  const clientId = sent === undefined ? "" : uuidText(fromBinary(CommandHeaderSchema, sent.header).commandId);
  machine.emit("t1", "turnStarted", { turnId: "new", startedAtMs: BigInt(Date.now()) });
  machine.emit("t1", "itemCompleted", { turnId: "new", item: user("u-new", "Does the build still pass?", clientId) });
  machine.emit("t1", "planUpdated", {
    turnId: "new",
    plan: {
      text: "",
      steps: [
        { text: "Read the failing job", state: PlanStepState.COMPLETED },
        { text: "Build for the server", state: PlanStepState.RUNNING },
        { text: "Restart the service", state: PlanStepState.PENDING },
      ],
    },
  });
  const item = { id: "say", state: ItemState.RUNNING, kind: { case: "agentMessage", value: { text: "" } } };
  machine.emit("t1", "itemStarted", { turnId: "new", item });
  for (const text of ["I'll build it the way the server ", "does, then run the **smoke test** ", "against the new binary."]) {
    machine.emit("t1", "itemDelta", { turnId: "new", itemId: "say", field: 1, text });
  }
  await page.waitForSelector("text=against the new binary");
}

function user(id: string, text: string, clientId = "") {
  const value = { text, clientId };
  return create(ItemSchema, { id, state: ItemState.COMPLETED, kind: { case: "userMessage", value } });
}

function agent(id: string, text: string) {
  return create(ItemSchema, {
    id,
    state: ItemState.COMPLETED,
    completedAtMs: 1n,
    kind: { case: "agentMessage", value: { text } },
  });
}

function furnish(): void {
  const { machine } = stage;
  const ago = (minutes: number) => BigInt(Date.now() - minutes * 60_000);
  machine.threads.push(
    fakeThread("t1", "Nightly job fails since Tuesday", { state: ThreadState.IDLE, updatedAtMs: ago(2) }),
    fakeThread("t2", "Split the report module", { updatedAtMs: ago(40), gitBranch: "reports" }),
    fakeThread("t3", "Upgrade to the new query planner", { state: ThreadState.RUNNING, updatedAtMs: ago(63) }),
    fakeThread("t4", "Why is the index 4 GB?", { updatedAtMs: ago(300), cwd: "/home/mira/work/ledger", gitBranch: "" }),
    fakeThread("t5", "Translate the error pages", { state: ThreadState.OPEN_ELSEWHERE, updatedAtMs: ago(1_600) }),
    fakeThread("t6", "Draft release notes for 2.4", { updatedAtMs: ago(4_000), cwd: "/home/mira/work/site" }),
  );
  const output = Array.from({ length: 24 }, (_, index) => `   Compiling crate-${index} v0.${index}.0`).join("\n");
  machine.turns.set("t1", [
    create(TurnSchema, {
      id: "u1",
      state: TurnState.COMPLETED,
      items: [
        user("a", "The nightly job has failed since Tuesday. Find out why, and do not change anything yet."),
        create(ItemSchema, {
          id: "b",
          state: ItemState.COMPLETED,
          kind: { case: "reasoning", value: { summary: "**Looking at the job's log**\n\nThe failure began with the toolchain bump." } },
        }),
        create(ItemSchema, {
          id: "c",
          state: ItemState.COMPLETED,
          kind: {
            case: "commandExecution",
            value: create(CommandExecutionSchema, {
              command: "cargo test --workspace",
              output: `${output}\n\u001b[31merror[E0432]\u001b[0m: unresolved import \`time::macros\`\n --> src/clock.rs:4:11\n`,
              exitCode: 101,
              hasExitCode: true,
              durationMs: 48_213n,
            }),
          },
        }),
        agent(
          "d",
          "The job fails because **`time` 0.4 dropped its `macros` feature**, and the lock file was updated on Tuesday.\n\nTwo ways out:\n\n1. Pin `time` to `0.3` in `Cargo.toml`.\n2. Replace the three uses of `datetime!` with `OffsetDateTime::from_unix_timestamp`.\n\nI would take the second: it is nine lines, and nothing else needs the feature.",
        ),
      ],
    }),
  ]);
  const diff = "@@ -12,7 +12,9 @@ export function report(rows: Row[]) {\n   const head = columns(rows);\n-  return rows.map((row) => line(row, head)).join(\"\\n\");\n+  const body = rows.map((row) => line(row, head));\n+  if (body.length === 0) return \"\";\n+  return [title(head), ...body].join(\"\\n\");\n }\n";
  machine.turns.set("t2", [
    create(TurnSchema, {
      id: "u2",
      state: TurnState.COMPLETED,
      items: [
        user("a", "Give the report a title line, and no output at all for no rows."),
        create(ItemSchema, {
          id: "e",
          state: ItemState.COMPLETED,
          kind: { case: "fileEdit", value: { changes: [{ path: "src/report/render.ts", kind: "update", diff }] } },
        }),
        agent("f", "Done. `report([])` is now an empty string, and every other report begins with its title."),
      ],
    }),
  ]);
}
