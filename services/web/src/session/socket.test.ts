// @vitest-environment node
import { expect, test, vi } from "vitest";

import { TurnState } from "../gen/flydex/agent/v1/agent_pb";
import { runningTurn } from "../model/thread";
import { until } from "../test/websocket";
import { draft, effects, onFakeTime, world } from "../test/world";

onFakeTime();

test("a session that goes silent is noticed and opened anew", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  for (const { session } of one.sockets) session.answering = false;
  vi.setSystemTime(Date.now() + 1);
  await vi.advanceTimersByTimeAsync(4_000);
  vi.setSystemTime(Date.now() + 9_000);
  await vi.advanceTimersByTimeAsync(9_000);
  await until(() => one.sockets.length === 2 && one.machine.caughtUp);
});

test("a relay that restarts is left only when the next session is open", async () => {
  const one = await world();
  one.fake.handlers.set("startTurn", () => ({ silent: true }));
  await until(() => one.machine.caughtUp);
  one.machine.watch("t1");
  await until(() => one.machine.thread?.loaded === true);
  const id = await one.outbox.add(draft("go"));
  await until(() => effects(one.fake).length === 1);
  one.phases.length = 0;
  one.sockets[0]?.session.goAway(3_000);
  one.fake.emit("t1", "turnStarted", { turnId: "u1" });
  await until(() => one.machine.thread?.turns.length === 1);
  await vi.advanceTimersByTimeAsync(2_900);
  expect(one.sockets.length).toBe(1);
  await vi.advanceTimersByTimeAsync(200);
  await until(() => one.sockets[0]?.readyState === 3);
  expect(one.sockets[1]?.readyState).toBe(1);
  await until(() => one.machine.caughtUp);
  // In between there was never no session, nor a machine that seemed to be away.
  expect(one.phases).toEqual(["open"]);
  one.fake.handlers.delete("startTurn");
  one.fake.emit("t1", "turnEnded", { turnId: "u1", state: TurnState.COMPLETED });
  await until(() => one.machine.thread !== undefined && runningTurn(one.machine.thread) === undefined);
  await vi.advanceTimersByTimeAsync(10_000);
  await until(() => one.outbox.get(id)?.state === "executed");
  const sent = effects(one.fake);
  expect(sent.length).toBeGreaterThan(1);
  for (const again of sent) expect(again.header).toEqual(sent[0]?.header);
});

test("a session that cannot be replaced yet goes on, and is replaced once it can", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  one.connecting = (made) => made.break();
  one.sockets[0]?.session.goAway(0);
  await vi.advanceTimersByTimeAsync(50);
  await until(() => one.sockets.length === 2);
  await until(() => one.sockets[1]?.readyState === 3);
  expect(one.machine.caughtUp).toBe(true);
  expect(one.socket.state.phase).toBe("open");
  one.connecting = undefined;
  await vi.advanceTimersByTimeAsync(2_000);
  await until(() => one.sockets.length === 3 && one.sockets[0]?.readyState === 3 && one.machine.caughtUp);
});

test("a relay that goes away is left in the time that it gives, and not asked past it", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  one.connecting = (made) => made.break();
  one.sockets[0]?.session.goAway(60_000, 1_000);
  await one.machine.idle();
  await vi.advanceTimersByTimeAsync(499);
  expect(one.sockets.length).toBe(1);
  await vi.advanceTimersByTimeAsync(1);
  await until(() => one.sockets.length === 2);
  await vi.advanceTimersByTimeAsync(500);
  const tried = one.sockets.length;
  expect(tried).toBeGreaterThan(2);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(one.sockets.length).toBe(tried);
  expect([one.socket.state.phase, one.machine.caughtUp]).toEqual(["open", true]);
  // A relay that says it again is left then.
  one.connecting = undefined;
  one.sockets[0]?.session.goAway(0, 1_000);
  await vi.advanceTimersByTimeAsync(50);
  await until(() => one.sockets[0]?.readyState === 3 && one.machine.caughtUp);
});

test("a session that breaks while the next is opened is opened as after any break", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  one.sockets[0]?.session.goAway(3_000);
  await one.machine.idle();
  one.sockets[0]?.break();
  expect(one.socket.state.phase).toBe("waiting");
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => one.sockets.length === 2 && one.machine.caughtUp);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(one.sockets.length).toBe(2);
});

test("a session that breaks while the next one is on its way is followed by that one", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  one.phases.length = 0;
  one.connecting = () => one.sockets[0]?.break();
  one.sockets[0]?.session.goAway(0);
  await vi.advanceTimersByTimeAsync(50);
  await until(() => one.phases.at(-1) === "open" && one.machine.caughtUp);
  expect(one.phases).toEqual(["connecting", "open"]);
  expect(one.sockets.length).toBe(2);
});
