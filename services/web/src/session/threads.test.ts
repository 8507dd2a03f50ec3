// @vitest-environment node
import { fromBinary } from "@bufbuild/protobuf";
import { expect, test, vi } from "vitest";

import { CommandBodySchema, ItemState, TurnState } from "../gen/flydex/agent/v1/agent_pb";
import { runningTurn } from "../model/thread";
import type { FakeMachine } from "../test/fake";
import { until } from "../test/websocket";
import { onFakeTime, world } from "../test/world";
import type { Machine } from "./machine";

onFakeTime();

test("a thread streams, and a break in the middle resumes without a hole or a repeat", async () => {
  const one = await world();
  const { machine, fake } = one;
  await until(() => machine.caughtUp);
  machine.watch("t1");
  await until(() => machine.thread?.loaded === true);
  const item = { id: "i1", state: ItemState.RUNNING, kind: { case: "agentMessage", value: { text: "" } } };
  fake.emit("t1", "turnStarted", { turnId: "u1" });
  fake.emit("t1", "itemStarted", { turnId: "u1", item });
  fake.emit("t1", "itemDelta", { turnId: "u1", itemId: "i1", field: 1, text: "Hello" });
  await until(() => text(machine) === "Hello");
  one.sockets[0]?.break();
  expect(machine.caughtUp).toBe(false);
  fake.emit("t1", "itemDelta", { turnId: "u1", itemId: "i1", field: 1, text: ", world" });
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => one.sockets.length === 2 && text(machine) === "Hello, world");
  expect(one.tickets).toBe(2);
  fake.emit("t1", "turnEnded", { turnId: "u1", state: TurnState.COMPLETED });
  await until(() => machine.thread !== undefined && runningTurn(machine.thread) === undefined);
});

test("a stream resumes also when the receipt overtakes its verdict", async () => {
  const one = await world();
  const { machine, fake } = one;
  await until(() => machine.caughtUp);
  machine.watch("t1");
  await until(() => machine.thread?.loaded === true);
  fake.emit("t1", "turnStarted", { turnId: "u1" });
  await until(() => machine.thread?.turns.length === 1);
  one.sockets[0]?.break();
  fake.receiptsFirst = true;
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => one.sockets.length === 2 && machine.caughtUp);
  fake.receiptsFirst = false;
  fake.emit("t1", "turnEnded", { turnId: "u1", state: TurnState.COMPLETED });
  await until(() => machine.thread !== undefined && runningTurn(machine.thread) === undefined);
});

test("what the machine cannot replay comes as a snapshot", async () => {
  const one = await world();
  const { machine, fake } = one;
  await until(() => machine.caughtUp);
  machine.watch("t1");
  await until(() => machine.thread?.loaded === true);
  fake.emit("t1", "turnStarted", { turnId: "u1" });
  await until(() => machine.thread?.turns.length === 1);
  one.sockets[0]?.break();
  fake.emit("t1", "turnStarted", { turnId: "lost" });
  fake.forgetRing("t1");
  fake.turns.set("t1", [{ $typeName: "flydex.agent.v1.Turn", id: "u2", state: TurnState.COMPLETED, items: [], error: "", startedAtMs: 0n, completedAtMs: 0n }]);
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => machine.thread?.turns[0]?.id === "u2");
});

test("a thread that is left is not watched, and coming back goes on where it was", async () => {
  const one = await world();
  const { machine, fake } = one;
  await until(() => machine.caughtUp);
  machine.watch("t1");
  await until(() => machine.thread?.loaded === true);
  fake.emit("t1", "turnStarted", { turnId: "u1" });
  await until(() => machine.thread?.turns.length === 1);
  machine.watch("t2");
  await until(() => kinds(fake).includes("unwatchThread") && machine.caughtUp);
  expect(machine.thread?.turns).toEqual([]);
  // What comes for it meanwhile is for nobody.
  fake.emit("t1", "turnEnded", { turnId: "u1", state: TurnState.COMPLETED });
  await until(() => machine.caughtUp);
  fake.commands.length = 0;
  machine.watch("t1");
  expect(machine.thread?.turns.length).toBe(1);
  await until(() => machine.caughtUp);
  expect(kinds(fake)).toEqual(["unwatchThread", "watchThread"]);
  expect(cursorOf(fake)?.seq).toBe(1n);
  expect(machine.thread !== undefined && runningTurn(machine.thread)).toBeUndefined();
});

test("leaving and coming back at once asks no more than once, and misses nothing", async () => {
  const one = await world();
  const { machine, fake } = one;
  await until(() => machine.caughtUp);
  machine.watch("t1");
  await until(() => machine.thread?.loaded === true);
  fake.emit("t1", "turnStarted", { turnId: "u1" });
  await until(() => machine.thread?.turns.length === 1);
  fake.commands.length = 0;
  machine.watch(undefined);
  machine.watch("t1");
  // Sent for the watch before, while the new one is asked for.
  fake.emit("t1", "turnStarted", { turnId: "u2" });
  fake.emit("t1", "turnStarted", { turnId: "u3" });
  await until(() => machine.caughtUp);
  expect(machine.thread?.turns.map((turn) => turn.id)).toEqual(["u1", "u2", "u3"]);
  await vi.advanceTimersByTimeAsync(3_000);
  expect(kinds(fake)).toEqual(["unwatchThread", "watchThread"]);
});

test("a thread is read anew when its place in the history is not known any more", async () => {
  const one = await world();
  const { machine, fake } = one;
  await until(() => machine.caughtUp);
  machine.watch("t1");
  await until(() => machine.thread?.loaded === true);
  fake.commands.length = 0;
  machine.reread();
  await until(() => machine.caughtUp);
  expect(kinds(fake)).toEqual(["watchThread"]);
  expect(cursorOf(fake)).toBeUndefined();
});

function kinds(fake: FakeMachine): (string | undefined)[] {
  return fake.commands.map((command) => fromBinary(CommandBodySchema, command.body).kind.case);
}

/** The place that the newest watch named. */
function cursorOf(fake: FakeMachine) {
  const bodies = fake.commands.map((command) => fromBinary(CommandBodySchema, command.body).kind);
  const watch = bodies.findLast((kind) => kind.case === "watchThread");
  return watch?.case === "watchThread" ? watch.value.cursor : undefined;
}

function text(machine: Machine): string | undefined {
  const item = machine.thread?.turns.at(-1)?.items.at(-1);
  return item?.kind.case === "agentMessage" ? item.kind.value.text : undefined;
}
