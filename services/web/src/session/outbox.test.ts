// @vitest-environment node
import { expect, test, vi } from "vitest";

import { Problem } from "../api/problem";
import { Outcome } from "../gen/flydex/v1/command_pb";
import { MachineState } from "../gen/flydex/v1/relay_pb";
import { hex } from "../protocol/bytes";
import { generateKey, openKey } from "../protocol/keys";
import { FakeMachine } from "../test/fake";
import { until } from "../test/websocket";
import { draft, effects, onFakeTime, world } from "../test/world";

onFakeTime();

test("an effect that got no answer is sent again, byte for byte, under the same id", async () => {
  const one = await world();
  one.fake.handlers.set("startTurn", () => ({ silent: true }));
  await until(() => one.machine.caughtUp);
  const id = await one.outbox.add(draft("go"));
  await until(() => effects(one.fake).length === 1);
  expect(one.outbox.get(id)?.state).not.toBe("executed");
  one.fake.handlers.delete("startTurn");
  one.sockets[0]?.break();
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => one.outbox.get(id)?.state === "executed");
  const [first, second] = effects(one.fake);
  expect(second?.header).toEqual(first?.header);
  expect(second?.signature).toEqual(first?.signature);
});

test("every command begins a trace of its own, and sending it again stays in its trace", async () => {
  const one = await world();
  one.fake.handlers.set("startTurn", () => ({ silent: true }));
  await until(() => one.machine.caughtUp);
  await one.outbox.add(draft("go"));
  await until(() => effects(one.fake).length === 1);
  one.sockets[0]?.break();
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => effects(one.fake).length === 2);
  const { traces } = one.fake;
  for (const trace of traces) expect(trace).toMatchObject({ flags: 1 });
  const [first, second] = effects(one.fake).map((command) => traces[one.fake.commands.indexOf(command)]);
  expect(first?.traceId).toHaveLength(16);
  expect(first?.spanId).toHaveLength(8);
  expect(second?.traceId).toEqual(first?.traceId);
  expect(second?.spanId).not.toEqual(first?.spanId);
  const ids = new Set(traces.map((trace) => hex(trace?.traceId ?? new Uint8Array())));
  expect(ids.size).toBe(traces.length - 1);
});

test("the outbox survives a reload and asks again with the same bytes", async () => {
  const before = await world();
  before.fake.handlers.set("startTurn", () => ({ silent: true }));
  await until(() => before.machine.caughtUp);
  const id = await before.outbox.add(draft("go"));
  await until(() => effects(before.fake).length === 1);
  before.socket.stop();
  before.fake.handlers.delete("startTurn");
  const after = await world(before.fake, before.key, before.table);
  await until(() => after.outbox.get(id)?.state === "executed");
  expect(effects(before.fake)[1]?.header).toEqual(effects(before.fake)[0]?.header);
});

test("nothing is signed before the machine's boot is known", async () => {
  const fake = await FakeMachine.create();
  fake.state = MachineState.OFFLINE;
  const one = await world(fake);
  await until(() => one.machine.status !== undefined);
  const id = await one.outbox.add(draft("later"));
  expect(one.outbox.get(id)).toMatchObject({ state: "queued" });
  expect(one.outbox.get(id)?.signed).toBeUndefined();
  fake.state = MachineState.CODEX_READY;
  fake.status();
  await until(() => one.outbox.get(id)?.state === "executed");
});

test("what cannot be written down is neither kept nor sent", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  const put = one.table.put.bind(one.table);
  one.table.put = () => Promise.reject(new Error("disk full"));
  await expect(one.outbox.add(draft("go"))).rejects.toThrow("disk full");
  expect(one.outbox.all()).toEqual([]);
  one.table.put = put;
  one.sockets[0]?.break();
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => one.sockets.length === 2 && one.machine.caughtUp);
  await one.machine.idle();
  expect(effects(one.fake)).toEqual([]);
});

test("a command that could not be written down before it left goes out when it can", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  const put = one.table.put.bind(one.table);
  let full = false;
  one.table.put = (key, entry) => {
    if (full) return Promise.reject(new Error("disk full"));
    full = true;
    return put(key, entry);
  };
  const id = await one.outbox.add(draft("go"));
  await until(() => one.outbox.get(id)?.state === "queued" && full);
  expect(effects(one.fake)).toEqual([]);
  one.table.put = put;
  await vi.advanceTimersByTimeAsync(5_000);
  await until(() => one.outbox.get(id)?.state === "executed");
});

test("a receipt of another key settles nothing", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  const impostor = await openKey(await generateKey());
  const { key } = one.fake;
  Object.assign(one.fake, { key: impostor });
  const id = await one.outbox.add(draft("go"));
  await until(() => effects(one.fake).length === 1);
  await one.machine.idle();
  expect(one.outbox.get(id)?.state).not.toBe("executed");
  Object.assign(one.fake, { key });
});

test("an unknown outcome is shown as unknown, and a refusal with its code", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  one.fake.handlers.set("startTurn", () => ({ outcome: Outcome.UNKNOWN }));
  const unknown = await one.outbox.add(draft("a"));
  await until(() => one.outbox.get(unknown)?.state === "unknown");
  one.fake.handlers.set("startTurn", () => ({ outcome: Outcome.REFUSED, code: 6011 }));
  const refused = await one.outbox.add(draft("b"));
  await until(() => one.outbox.get(refused)?.state === "refused");
  expect(one.outbox.get(refused)?.code).toBe(6011);
});

test("a failure on the way is final only for what cannot have been delivered", async () => {
  const one = await world();
  one.fake.handlers.set("startTurn", () => ({ silent: true }));
  await until(() => one.machine.caughtUp);
  const id = await one.outbox.add(draft("go"));
  await until(() => one.outbox.get(id)?.state === "delivered");
  await one.outbox.failure(id, new Problem(4000));
  expect(one.outbox.get(id)?.state).toBe("delivered");
  await one.outbox.failure(id, new Problem(1005));
  expect(one.outbox.get(id)?.state).toBe("unknown");
});
