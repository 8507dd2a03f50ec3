/** A device and a machine with a fake relay in between, on a clock that the test moves. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { afterEach, beforeEach, vi } from "vitest";

import { CommandBodySchema } from "../gen/flydex/agent/v1/agent_pb";
import { CommandHeaderSchema, CommandKind } from "../gen/flydex/v1/command_pb";
import { OpenMachineSchema, ToMachineSchema } from "../gen/flydex/v1/session_pb";
import { fromHex } from "../protocol/bytes";
import { bodyOf } from "../protocol/command";
import { type DeviceKey, generateKey, openKey } from "../protocol/keys";
import { Machine, type MachineDeps } from "../session/machine";
import { Outbox, type OutboxEntry } from "../session/outbox";
import { Socket, type SocketPhase } from "../session/socket";
import { MemoryTable } from "../session/storage";
import { ACCOUNT_ID, FakeMachine, MACHINE_ID } from "./fake";
import { FakeWebSocket } from "./websocket";

export interface World {
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

/** The clock stands still but for what a test moves it; every session ends with its test. */
export function onFakeTime(): void {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
  });
  afterEach(() => {
    for (const world of worlds) world.socket.stop();
    worlds = [];
    vi.useRealTimers();
  });
}

/** A session that is opened by itself. */
export async function world(
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
/** A prompt as the outbox takes it. */
export const draft = (text: string) => ({
  machineId: MACHINE_ID,
  accountId: ACCOUNT_ID,
  kind: CommandKind.START_TURN,
  body: turnBody(text),
  threadId: "t1",
  text,
});
/** The effects that arrived, in order. */
export const effects = (fake: FakeMachine) =>
  fake.commands.filter((one) => fromBinary(CommandHeaderSchema, one.header).sessionId.length === 0);
