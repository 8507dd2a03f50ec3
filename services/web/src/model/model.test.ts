// @vitest-environment node
import { expect, test } from "vitest";

import { create } from "@bufbuild/protobuf";

import { AgentEventSchema, ItemState, ThreadSnapshotSchema, TurnSchema, TurnState } from "../gen/flydex/agent/v1/agent_pb";
import { explain } from "../api/errors";
import { Problem } from "../api/problem";
import { parseRoute, href } from "../app/route";
import { takeEntry, tokenOf } from "../app/entry";
import { backoffMs } from "../session/backoff";
import { MachineState } from "../gen/flydex/v1/relay_pb";
import { type Facts, connectionOf } from "./connection";
import { diffCount, diffRows } from "./diff";
import { emptyMachine } from "./machine";
import { threadRows } from "./rows";
import { type ThreadModel, applyEvent, applySnapshot, emptyThread, prependPage, runningTurn } from "./thread";
import { plainOutput, spans } from "./visible";
import { Heights, indexAt, rangeOf, totalOf } from "./window";

const event = (kind: string, value: object) => create(AgentEventSchema, { kind: { case: kind, value } as never });
const apply = (model: ThreadModel, ...events: ReturnType<typeof event>[]) => events.reduce(applyEvent, model);

test("a turn is built from its events, and what did not change keeps its identity", () => {
  const first = { id: "a", kind: { case: "agentMessage", value: { text: "one" } } };
  const second = { id: "b", state: ItemState.RUNNING, kind: { case: "agentMessage", value: { text: "" } } };
  const before = apply(
    emptyThread("t"),
    event("turnStarted", { turnId: "u", startedAtMs: 1n }),
    event("itemCompleted", { turnId: "u", item: first }),
    event("itemStarted", { turnId: "u", item: second }),
  );
  const after = apply(before, event("itemDelta", { turnId: "u", itemId: "b", field: 1, text: "two" }));
  expect(after.turns[0]?.items[0]).toBe(before.turns[0]?.items[0]);
  expect(after.turns[0]?.items[1]?.kind.value).toMatchObject({ text: "two" });
  expect(runningTurn(after)?.id).toBe("u");
});

test("items that were open when a turn was stopped do not run for ever", () => {
  const item = { id: "a", state: ItemState.RUNNING, kind: { case: "commandExecution", value: { command: "sleep 9" } } };
  const model = apply(
    emptyThread("t"),
    event("itemStarted", { turnId: "u", item }),
    event("turnEnded", { turnId: "u", state: TurnState.INTERRUPTED }),
  );
  expect(model.turns[0]?.items[0]?.state).toBe(ItemState.FAILED);
  expect(threadRows(model, emptyMachine(), []).at(-1)?.kind).toBe("ended");
});

test("a snapshot keeps older pages only where they join", () => {
  const turn = (id: string) => create(TurnSchema, { id, state: TurnState.COMPLETED });
  const snapshot = (ids: string[], olderCursor: string) =>
    create(ThreadSnapshotSchema, { page: { threadId: "t", turns: ids.map(turn), olderCursor }, writable: true });
  let model = applySnapshot(emptyThread("t"), snapshot(["c", "d"], "older"));
  model = prependPage(model, { $typeName: "flydex.agent.v1.HistoryPage", threadId: "t", turns: [turn("a"), turn("b")], olderCursor: "" });
  expect(model.turns.map((one) => one.id)).toEqual(["a", "b", "c", "d"]);
  expect(applySnapshot(model, snapshot(["c", "d", "e"], "older")).turns.map((one) => one.id)).toEqual(["a", "b", "c", "d", "e"]);
  const apart = applySnapshot(model, snapshot(["x"], "before-x"));
  expect(apart.turns.map((one) => one.id)).toEqual(["x"]);
  expect(apart.olderCursor).toBe("before-x");
});

test("a turn that was split over pages is joined", () => {
  const item = (id: string) => ({ id, kind: { case: "notice" as const, value: { text: id } } });
  const page = (items: ReturnType<typeof item>[]) => create(TurnSchema, { id: "u", items, state: TurnState.COMPLETED });
  let model = applySnapshot(emptyThread("t"), create(ThreadSnapshotSchema, { page: { turns: [page([item("c")])], olderCursor: "x" } }));
  model = prependPage(model, { $typeName: "flydex.agent.v1.HistoryPage", threadId: "t", turns: [page([item("a"), item("b"), item("c")])], olderCursor: "" });
  expect(model.turns[0]?.items.map((one) => one.id)).toEqual(["a", "b", "c"]);
});

test("5,000 rows draw only what is on screen", () => {
  const heights = new Heights(76);
  const keys = Array.from({ length: 5_000 }, (_, index) => `k${index}`);
  const layout = heights.layout(keys);
  expect(totalOf(layout)).toBe(5_000 * 76);
  const { first, end } = rangeOf(layout, 100_000 - 600, 100_000 + 844 + 600);
  expect(end - first).toBeLessThan(40);
  heights.measure("k0", 176);
  expect(indexAt(heights.layout(keys), 176)).toBe(1);
});

test("of 20 MB of history only what is seen is drawn", () => {
  let model = emptyThread("t");
  const text = "x".repeat(4_096);
  const turns = Array.from({ length: 5_000 }, (_, index) =>
    create(TurnSchema, {
      id: `u${index}`,
      state: TurnState.COMPLETED,
      items: [{ id: "a", kind: { case: "agentMessage", value: { text } } }],
    }),
  );
  for (let from = 4_950; from >= 0; from -= 50) {
    const page = { $typeName: "flydex.agent.v1.HistoryPage" as const, threadId: "t", turns: turns.slice(from, from + 50), olderCursor: "x" };
    model = prependPage(model, page);
  }
  const rows = threadRows(model, emptyMachine(), []);
  const layout = new Heights(120).layout(rows.map((row) => row.key));
  const { first, end } = rangeOf(layout, totalOf(layout) - 2_000, totalOf(layout));
  expect(rows.length).toBe(5_001);
  expect(end - first).toBeLessThan(30);
});

test("characters that hide are shown, and escapes never reach the page", () => {
  expect(spans("rm \u202e/oot")).toEqual([
    { text: "rm ", hidden: false },
    { text: "U+202E", hidden: true },
    { text: "/oot", hidden: false },
  ]);
  expect(spans("a\u200bb").map((span) => span.text).join("")).toBe("aU+200Bb");
  expect(plainOutput("\u001b[31mred\u001b[0m\u001b]0;title\u0007 ok\r\n10%\r100%\n")).toBe("red ok\n100%\n");
});

test("a diff is coloured by line and counted", () => {
  const diff = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n same\n-old\n+new\n";
  expect(diffRows(diff).map((row) => row.kind)).toEqual(["meta", "meta", "hunk", "same", "delete", "add"]);
  expect(diffCount(diff)).toEqual({ added: 1, deleted: 1 });
});

test("what is said of a machine follows the facts, nearest failure first", () => {
  const status = { state: MachineState.CODEX_READY, code: 0, paused: false, transport: 2 } as Facts["status"];
  const facts: Facts = {
    socket: { phase: "open", sinceMs: 0 },
    paired: true,
    status,
    closed: undefined,
    admission: { kind: "admitted" },
    caughtUp: true,
    probe: { answeredAtMs: 1_000, roundTripMs: 40 },
    nowMs: 2_000,
  };
  expect(connectionOf(facts).kind).toBe("live");
  expect(connectionOf({ ...facts, caughtUp: false }).kind).toBe("catching_up");
  expect(connectionOf({ ...facts, nowMs: 60_000 }).kind).toBe("silent");
  expect(connectionOf({ ...facts, paired: false }).kind).toBe("not_paired");
  expect(connectionOf({ ...facts, status: { ...status, state: MachineState.OFFLINE } as never }).kind).toBe("machine_offline");
  const unavailable = connectionOf({ ...facts, status: { ...status, state: MachineState.CODEX_UNAVAILABLE, code: 6000 } as never });
  expect(unavailable).toMatchObject({ kind: "codex_unavailable", detail: expect.stringContaining("No Codex") });
  const moved = { ...facts, status: undefined, closed: new Problem(1015, 100) };
  expect(connectionOf(moved).kind, "it is there again in a moment").toBe("catching_up");
  expect(connectionOf({ ...moved, closed: new Problem(2008) }).kind).toBe("refused");
  expect(connectionOf({ ...facts, status: { ...status, state: 99 } as never }).kind, "of a later version").toBe("machine_offline");
  expect(connectionOf({ ...facts, socket: { phase: "waiting", sinceMs: 0, retryAtMs: 9_000 } }).kind).toBe("relay_unreachable");
});

test("an unknown code is shown with its number", () => {
  expect(explain(9876).title).toContain("9876");
});

test("the secrets of an address are taken out of it at once", () => {
  const replaced: string[] = [];
  const history = { replaceState: (_state: unknown, _title: string, url: string) => replaced.push(url) } as unknown as History;
  const secret = "A".repeat(43);
  const claimId = "00000000-0000-7000-8000-000000000001";
  const entry = takeEntry({ pathname: "/pair", hash: `#${claimId}.${secret}` } as Location, history);
  expect(entry.claim?.claimId).toBe(claimId);
  expect(entry.claim?.secret.length).toBe(32);
  expect(takeEntry({ pathname: "/pair", hash: "#half" } as Location, history).claim).toBeUndefined();
  expect(takeEntry({ pathname: "/sign-in", hash: "#token-token" } as Location, history).token).toBe("token-token");
  expect(replaced).toEqual(["/pair", "/pair", "/sign-in"]);
  expect(tokenOf(" https://relay.example/sign-in#abcdefgh ")).toBe("abcdefgh");
});

test("addresses lead back to where they came from", () => {
  for (const route of [
    { view: "machines" },
    { view: "account" },
    { view: "audit" },
    { view: "threads", machineId: "m" },
    { view: "new-thread", machineId: "m" },
    { view: "machine", machineId: "m" },
    { view: "thread", machineId: "m", threadId: "a/b" },
  ] as const) {
    expect(parseRoute(href(route))).toEqual(route);
  }
});

test("waits grow to half a minute and no further", () => {
  expect(backoffMs(0, () => 1)).toBe(250);
  expect(backoffMs(30, () => 1)).toBe(30_000);
  expect(backoffMs(3, () => 0)).toBe(1_000);
});
