// @vitest-environment node
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";

import { CommandBodySchema, DeviceRole, ItemState, TurnState } from "../gen/flydex/agent/v1/agent_pb";
import { CommandHeaderSchema, CommandKind, Outcome } from "../gen/flydex/v1/command_pb";
import { MachineState } from "../gen/flydex/v1/relay_pb";
import { OpenMachineSchema, ToMachineSchema } from "../gen/flydex/v1/session_pb";
import { runningTurn } from "../model/thread";
import { fromHex, hex } from "../protocol/bytes";
import { type DeviceKey, generateKey, openKey } from "../protocol/keys";
import { ACCOUNT_ID, FakeMachine, MACHINE_ID, fakeThread } from "../test/fake";
import { FakeWebSocket, until } from "../test/websocket";
import { bodyOf } from "../protocol/command";
import { Machine, type MachineDeps } from "./machine";
import { Outbox, type OutboxEntry } from "./outbox";
import { Socket, type SocketPhase } from "./socket";
import { MemoryTable } from "./storage";

interface World {
  fake: FakeMachine;
  machine: Machine;
  socket: Socket;
  outbox: Outbox;
  table: MemoryTable<OutboxEntry>;
  sockets: FakeWebSocket[];
  key: DeviceKey;
  tickets: number;
  /** Every state of the socket, in order. */
  phases: SocketPhase[];
  /** What happens right after a WebSocket was made. */
  connecting: ((made: FakeWebSocket) => void) | undefined;
}

let worlds: World[] = [];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
});

afterEach(() => {
  for (const world of worlds) world.socket.stop();
  worlds = [];
  vi.useRealTimers();
});

async function world(
  fake?: FakeMachine,
  key?: DeviceKey,
  table = new MemoryTable<OutboxEntry>(),
  other: Partial<MachineDeps> = {},
): Promise<World> {
  const machineSide = fake ?? (await FakeMachine.create());
  const own = key ?? (await openKey(await generateKey()));
  const made = { fake: machineSide, table, sockets: [] as FakeWebSocket[], key: own, tickets: 0, phases: [] as SocketPhase[] } as unknown as World;
  const outbox = new Outbox({
    table,
    key: own,
    now: Date.now,
    random: () => 0,
    audit: () => Promise.resolve(""),
    changed: () => undefined,
  });
  await outbox.load();
  const machine = new Machine({
    machineId: MACHINE_ID,
    accountId: ACCOUNT_ID,
    machineKey: machineSide.key.publicKey,
    key: own,
    outbox,
    now: Date.now,
    send: (lane, message) => {
      const value = create(ToMachineSchema, { machineId: fromHex(MACHINE_ID.replaceAll("-", "")), message });
      return made.socket.send(lane, { case: "toMachine", value });
    },
    changed: () => undefined,
    doubted: () => undefined,
    ...other,
  });
  const socket = new Socket(
    {
      api: {
        regions: () => Promise.resolve({ regions: [{ region: "local", session_url: "wss://relay/v1/session" }] }),
        ticket: () => {
          made.tickets += 1;
          return Promise.resolve({ ticket: "t", grant: "g", expires_at_ms: 0 });
        },
      },
      region: "local",
      key: own,
      origin: "https://relay",
      now: Date.now,
      random: () => 0,
      connect: () => {
        const webSocket = new FakeWebSocket(machineSide);
        made.sockets.push(webSocket);
        queueMicrotask(() => made.connecting?.(webSocket));
        return webSocket;
      },
    },
    {
      onState: ({ phase }) => made.phases.push(phase),
      onOpen: (welcome) => {
        machine.sessionOpened(welcome);
        const value = create(OpenMachineSchema, { machineId: fromHex(MACHINE_ID.replaceAll("-", "")) });
        socket.send(0, { case: "open", value });
      },
      onClose: () => machine.sessionClosed(),
      onMachine: (_id, message) => machine.receive(message),
      onMachineClosed: (_id, problem) => machine.closedByRelay(problem),
    },
  );
  Object.assign(made, { outbox, machine, socket });
  worlds.push(made);
  socket.start();
  return made;
}

const turnBody = (text: string) => toBinary(CommandBodySchema, bodyOf("startTurn", { threadId: "t1", text }));
const draft = (text: string) => ({
  machineId: MACHINE_ID,
  accountId: ACCOUNT_ID,
  kind: CommandKind.START_TURN,
  body: turnBody(text),
  threadId: "t1",
  text,
});
const effects = (fake: FakeMachine) =>
  fake.commands.filter((one) => fromBinary(CommandHeaderSchema, one.header).sessionId.length === 0);

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
  const { Problem } = await import("../api/problem");
  await one.outbox.failure(id, new Problem(4000));
  expect(one.outbox.get(id)?.state).toBe("delivered");
  await one.outbox.failure(id, new Problem(1005));
  expect(one.outbox.get(id)?.state).toBe("unknown");
});

test("a large answer is taken from the bulk lane and checked", async () => {
  const one = await world();
  one.fake.threads.push(...Array.from({ length: 50 }, (_, index) => fakeThread(`t${index}`, "x".repeat(2_000))));
  await until(() => one.machine.caughtUp);
  const { receipt, result } = await one.machine.read(bodyOf("listThreads", { limit: 50 }));
  expect(receipt.bulk?.totalBytes).toBeGreaterThan(32 * 1024);
  expect(result?.kind.case === "threadPage" && result.kind.value.threads.length).toBe(50);
});

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
