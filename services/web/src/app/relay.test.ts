// @vitest-environment node
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";

import { LOCAL, Problem } from "../api/problem";
import { CommandBodySchema } from "../gen/flydex/agent/v1/agent_pb";
import { CommandHeaderSchema, CommandKind } from "../gen/flydex/v1/command_pb";
import { MachineMessageSchema, MachineState, MachineStatusSchema } from "../gen/flydex/v1/relay_pb";
import { connectionOf } from "../model/connection";
import { fromHex } from "../protocol/bytes";
import { bodyOf } from "../protocol/command";
import { generateKey, openKey } from "../protocol/keys";
import { Search } from "../session/search";
import type { SocketState } from "../session/socket";
import { MemoryTable, type PinnedMachine } from "../session/storage";
import { ACCOUNT_ID, FakeMachine, fakeThread } from "../test/fake";
import { FakeWebSocket, until } from "../test/websocket";
import { Relay } from "./relay";

const DESK = "00000000-0000-7000-8000-0000000000b1";
const LAPTOP = "00000000-0000-7000-8000-0000000000b2";
const NAMES = ["eu", "us", "asia"];

/** Two computers, three regions, and one phone. */
class World {
  /** Who answers in each region; a region without a machine cannot be reached. */
  readonly there = new Map<string, FakeMachine>();
  readonly sockets = new Map<string, FakeWebSocket[]>();
  readonly states = new Map<string, SocketState | undefined>();
  /** What the control plane says. */
  readonly listed = new Map<string, string>();
  readonly tickets: string[] = [];
  asked = 0;
  regions = NAMES;
  readonly relay: Relay;
  readonly search: Search;

  private constructor(
    readonly desk: FakeMachine,
    readonly laptop: FakeMachine,
    key: Awaited<ReturnType<typeof openKey>>,
  ) {
    const machines = new Map([desk, laptop].map((machine) => [machine.id, machine]));
    this.relay = new Relay({
      api: {
        regions: () =>
          Promise.resolve({ regions: this.regions.map((region) => ({ region, session_url: `wss://${region}/v1/session` })) }),
        ticket: (_key, region, label) => {
          expect(label).toBe("Firefox on Linux");
          this.tickets.push(region);
          return Promise.resolve({ ticket: "t", grant: "g", expires_at_ms: 0 });
        },
      },
      key,
      origin: "https://relay",
      now: Date.now,
      random: () => 0,
      connect: (url) => this.#connect(new URL(url).host),
      storage: { outbox: new MemoryTable() },
      account: { account_id: ACCOUNT_ID },
      deviceLabel: "Firefox on Linux",
      pinned: (id) => ({ accountId: ACCOUNT_ID, machineKey: machines.get(id)?.key.publicKey.bytes }) as PinnedMachine,
      onSocket: (region, state) => this.states.set(region, state),
      machineChanged: () => undefined,
      machineLost: () => this.search.begin(),
      machineDoubted: () => undefined,
      outboxChanged: () => undefined,
    });
    this.search = new Search({
      now: Date.now,
      random: () => 0,
      ask: () => {
        this.asked += 1;
        this.list();
        return Promise.resolve(0);
      },
      lost: () => this.relay.searching,
    });
  }

  /** The desk in eu, the laptop in asia. */
  static async open(): Promise<World> {
    const [desk, laptop] = [await FakeMachine.create(DESK), await FakeMachine.create(LAPTOP)];
    const world = new World(desk, laptop, await openKey(await generateKey()));
    world.there.set("eu", desk).set("asia", laptop);
    world.listed.set(DESK, "eu").set(LAPTOP, "asia");
    await world.relay.start();
    world.list();
    await until(() => world.caughtUp(DESK) && world.caughtUp(LAPTOP));
    return world;
  }

  list(): void {
    for (const [id, region] of this.listed) this.relay.place(id, region);
  }

  caughtUp(id: string): boolean {
    return this.relay.machine(id)?.caughtUp === true;
  }

  /** What a person is told of a machine. */
  kind(id: string): string {
    const machine = this.relay.machine(id);
    const socket = this.states.get(this.relay.region(id) ?? "") ?? { phase: "connecting" as const, sinceMs: 0 };
    const { status, closed, admission, caughtUp = false, probe } = machine ?? {};
    const facts = { socket, status, closed, admission: admission ?? { kind: "none" as const }, caughtUp, probe };
    return connectionOf({ ...facts, paired: true, nowMs: Date.now() }).kind;
  }

  /** The region is gone with all that is in it. */
  die(region: string): void {
    this.there.delete(region);
    for (const socket of this.sockets.get(region) ?? []) if (socket.readyState === 1) socket.break();
  }

  #connect(region: string): FakeWebSocket {
    const machine = this.there.get(region);
    const socket = new FakeWebSocket(machine ?? this.desk);
    if (machine === undefined) {
      socket.readyState = 0;
      queueMicrotask(() => socket.break());
    }
    this.sockets.set(region, [...(this.sockets.get(region) ?? []), socket]);
    return socket;
  }
}

let world: World;

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
  world = await World.open();
});

afterEach(() => {
  world.search.stop();
  world.relay.stop();
  vi.useRealTimers();
});

const draft = (text: string) => ({
  machineId: DESK,
  accountId: ACCOUNT_ID,
  kind: CommandKind.START_TURN,
  body: toBinary(CommandBodySchema, bodyOf("startTurn", { threadId: "t1", text })),
});
const idOf = (id: string) => fromHex(id.replaceAll("-", ""));
const effects = (fake: FakeMachine) =>
  fake.commands.filter((one) => fromBinary(CommandHeaderSchema, one.header).sessionId.length === 0);

test("there is one socket to each region that is needed, with a ticket for it", () => {
  expect([...world.sockets.keys()].sort()).toEqual(["asia", "eu"]);
  expect(world.tickets.sort()).toEqual(["asia", "eu"]);
});

test("a region that dies takes no other with it, and its machine is followed to where it links next", async () => {
  const { desk, relay } = world;
  desk.threads.push(fakeThread("t1", "First"));
  relay.machine(DESK)?.watch("t1");
  await until(() => relay.machine(DESK)?.thread?.loaded === true);
  desk.emit("t1", "turnStarted", { turnId: "u1" });
  await until(() => relay.machine(DESK)?.thread?.turns.length === 1);
  world.die("eu");
  await until(() => world.kind(DESK) === "relay_unreachable");
  desk.emit("t1", "turnStarted", { turnId: "u2" });
  await vi.advanceTimersByTimeAsync(8_000);
  expect(world.kind(DESK)).toBe("relay_unreachable");
  expect([world.kind(LAPTOP), world.sockets.get("asia")?.length]).toEqual(["live", 1]);
  // It links in another region, and control hears of it.
  world.there.set("us", desk);
  world.listed.set(DESK, "us");
  await vi.advanceTimersByTimeAsync(3_000);
  await until(() => world.caughtUp(DESK));
  expect(relay.machine(DESK)?.thread?.turns.length, "it went on from its cursor").toBe(2);
  expect(world.tickets.at(-1)).toBe("us");
  expect(world.states.get("eu"), "the dead region is not tried any more").toBeUndefined();
  expect(world.sockets.get("asia")?.length).toBe(1);
  const asked = world.asked;
  await vi.advanceTimersByTimeAsync(120_000);
  expect(world.asked, "nothing is lost, so nothing is asked").toBe(asked);
});

test("a command that was on its way when its machine moved arrives as the same bytes", async () => {
  const { desk, relay } = world;
  desk.handlers.set("startTurn", () => ({ silent: true }));
  const id = await relay.outbox.add(draft("go"));
  await until(() => effects(desk).length === 1);
  desk.handlers.delete("startTurn");
  // Its link broke and came up elsewhere; the old region only says that it is gone.
  desk.state = MachineState.OFFLINE;
  desk.status();
  await until(() => world.kind(DESK) === "machine_offline");
  expect(relay.outbox.get(id)?.state).toBe("delivered");
  desk.state = MachineState.CODEX_READY;
  world.there.set("us", desk);
  world.listed.set(DESK, "us");
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => world.caughtUp(DESK));
  await until(() => relay.outbox.get(id)?.state === "executed");
  const sent = effects(desk);
  expect(sent.length).toBeGreaterThan(1);
  for (const again of sent) expect(again).toEqual(sent[0]);
});

test("a machine that is there is not taken away by an old word", async () => {
  world.listed.set(DESK, "us");
  world.list();
  await vi.advanceTimersByTimeAsync(5_000);
  expect([world.relay.region(DESK), world.kind(DESK), world.sockets.has("us")]).toEqual(["eu", "live", false]);
});

test("what the old region still says of a machine that moved is not believed", async () => {
  const { desk, relay } = world;
  // Another computer keeps the socket there open.
  relay.place("00000000-0000-7000-8000-0000000000b3", "eu");
  const old = world.sockets.get("eu")?.at(-1)?.session;
  desk.state = MachineState.OFFLINE;
  desk.status();
  await until(() => world.kind(DESK) === "machine_offline");
  desk.state = MachineState.CODEX_READY;
  world.there.set("us", desk);
  world.listed.set(DESK, "us");
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => world.caughtUp(DESK));
  const status = { case: "status" as const, value: create(MachineStatusSchema, { state: MachineState.OFFLINE }) };
  const message = create(MachineMessageSchema, { kind: status });
  old?.down(0, { case: "fromMachine", value: { machineId: idOf(DESK), message } });
  old?.down(0, { case: "machineClosed", value: { machineId: idOf(DESK), code: 1016, retryAfterMs: 0 } });
  await vi.advanceTimersByTimeAsync(1_000);
  await relay.machine(DESK)?.idle();
  expect([world.kind(DESK), relay.region(DESK)]).toEqual(["live", "us"]);
});

test("a machine that was let go of by its region is looked for, and opened again where it was", async () => {
  const before = world.asked;
  const session = world.sockets.get("eu")?.at(-1)?.session;
  session?.down(0, { case: "machineClosed", value: { machineId: idOf(DESK), code: 1008, retryAfterMs: 0 } });
  await until(() => world.relay.searching);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(world.asked).toBe(before + 1);
  await vi.advanceTimersByTimeAsync(3_000);
  await until(() => world.caughtUp(DESK));
});

test("a machine that moves is opened again when the relay says, and not for ever", async () => {
  const before = world.asked;
  const machineId = Uint8Array.from(Buffer.from(DESK.replaceAll("-", ""), "hex"));
  const session = world.sockets.get("eu")?.at(-1)?.session;
  const move = () => session?.down(0, { case: "machineClosed", value: { machineId, code: 1015, retryAfterMs: 100 } });
  move();
  await until(() => world.kind(DESK) === "catching_up");
  await vi.advanceTimersByTimeAsync(150);
  await until(() => world.caughtUp(DESK));
  await vi.advanceTimersByTimeAsync(5_000);
  expect(world.asked, "it was found where it was").toBe(before);
  for (let closing = 0; closing < 6; closing += 1) move();
  await vi.advanceTimersByTimeAsync(4_000);
  await until(() => world.caughtUp(DESK));
});

test("a computer that is switched off is asked for soon, then seldom, and with one region not at all", async () => {
  world.desk.state = MachineState.OFFLINE;
  world.desk.status();
  await until(() => world.relay.searching);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(world.asked).toBeGreaterThanOrEqual(3);
  await vi.advanceTimersByTimeAsync(600_000);
  expect(world.asked).toBeLessThan(35);
  world.regions = ["eu"];
  // Hears of it with its next connection.
  world.sockets.get("asia")?.[0]?.break();
  await vi.advanceTimersByTimeAsync(60_000);
  const asked = world.asked;
  expect(world.relay.searching).toBe(false);
  await vi.advanceTimersByTimeAsync(600_000);
  expect(world.asked).toBe(asked);
});

test("a region that is left by its last machine is closed", () => {
  world.relay.remove(LAPTOP);
  expect(world.sockets.get("asia")?.[0]?.readyState).toBe(3);
  expect(world.states.get("asia")).toBeUndefined();
  expect(world.caughtUp(DESK)).toBe(true);
});

test("losses that follow one another are one search, and the control plane is left alone when it asks for it", async () => {
  let asked = 0;
  let leaveMs = 0;
  const search = new Search({
    now: Date.now,
    random: () => 1,
    ask: () => {
      asked += 1;
      return Promise.resolve(leaveMs);
    },
    lost: () => true,
  });
  for (let loss = 0; loss < 20; loss += 1) {
    search.begin();
    await vi.advanceTimersByTimeAsync(100);
  }
  expect(asked).toBe(1);
  leaveMs = 60_000;
  await vi.advanceTimersByTimeAsync(4_000);
  expect(asked).toBe(2);
  search.begin();
  await vi.advanceTimersByTimeAsync(57_000);
  expect(asked).toBe(2);
  search.stop();
});

test("what a machine's region says of the way is said of that machine alone", async () => {
  world.die("eu");
  await until(() => world.kind(DESK) === "relay_unreachable");
  expect(world.kind(LAPTOP)).toBe("live");
  expect(world.states.get("eu")?.problem).toEqual(new Problem(LOCAL.unreachable));
});
