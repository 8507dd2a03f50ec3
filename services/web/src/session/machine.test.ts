// @vitest-environment node
import { expect, test } from "vitest";

import { DeviceRole } from "../gen/flydex/agent/v1/agent_pb";
import { hex } from "../protocol/bytes";
import { bodyOf } from "../protocol/command";
import { FakeMachine, fakeThread } from "../test/fake";
import { until } from "../test/websocket";
import { onFakeTime, world } from "../test/world";

onFakeTime();

test("a session opens, attaches and reads a page of threads", async () => {
  const { machine, fake } = await world();
  fake.threads.push(fakeThread("t1", "First"));
  await until(() => machine.caughtUp);
  const { result } = await machine.read(bodyOf("listThreads", { limit: 50 }));
  expect(result?.kind.case).toBe("threadPage");
});

test("a machine whose key is not known is asked only while this browser asks in, and believed in nothing else", async () => {
  const fake = await FakeMachine.create();
  const mac = new Uint8Array(32).fill(3);
  const machineKey = fake.key.publicKey.bytes;
  fake.introduction = { machineKeyAlgorithm: "ed25519", machineKey, role: DeviceRole.VIEWER, mac };
  let asking = false;
  const seen: Uint8Array[] = [];
  const introduce = (one: { mac: Uint8Array }) => {
    seen.push(one.mac);
    return Promise.resolve();
  };
  const unknown = { machineKey: undefined, introduce: () => (asking ? introduce : undefined) };
  const { machine, phases } = await world(fake, undefined, undefined, unknown);
  await until(() => phases.includes("open"));
  machine.retry();
  await machine.idle();
  expect(fake.commands).toHaveLength(0);
  asking = true;
  machine.retry();
  await until(() => seen.length === 1);
  expect(hex(seen[0] ?? new Uint8Array())).toBe(hex(mac));
  expect(machine.admission.kind).not.toBe("admitted");
  expect(machine.model.snapshot).toBeUndefined();
});

test("a large answer is taken from the bulk lane and checked", async () => {
  const one = await world();
  one.fake.threads.push(...Array.from({ length: 50 }, (_, index) => fakeThread(`t${index}`, "x".repeat(2_000))));
  await until(() => one.machine.caughtUp);
  const { receipt, result } = await one.machine.read(bodyOf("listThreads", { limit: 50 }));
  expect(receipt.bulk?.totalBytes).toBeGreaterThan(32 * 1024);
  expect(result?.kind.case === "threadPage" && result.kind.value.threads.length).toBe(50);
});

test("an approval opens, and closes wherever it was answered", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  const approvalId = await one.fake.ask({ threadId: "t1", turnId: "u1", itemId: "i1", command: "id -u" });
  await until(() => one.machine.model.approvals.size === 1);
  one.fake.emit("", "approvalClosed", { approvalId, end: 1, deviceLabel: "Tablet", atMs: 5n });
  await until(() => one.machine.model.approvals.size === 0);
  expect([...one.machine.model.closed.values()][0]).toMatchObject({ deviceLabel: "Tablet", end: 1 });
});

test("what the desk tells every session leaves what this one may do", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  one.fake.sessionAcceptance = true;
  one.fake.changed();
  await until(() => one.machine.model.snapshot?.sessionAcceptance === true);
  expect(one.machine.model.snapshot?.ownRole).toBe(DeviceRole.OWNER);
});
