/** What the tab that holds the connection has: the socket, the outbox, and each machine of the account over them. */
import { create } from "@bufbuild/protobuf";

import { type AccountSession, api } from "../api/client";
import { SessionUpSchema, ToMachineSchema } from "../gen/flydex/v1/session_pb";
import { base64url, fromHex } from "../protocol/bytes";
import { LANE } from "../protocol/frames";
import type { DeviceKey } from "../protocol/keys";
import { Machine } from "../session/machine";
import { Outbox } from "../session/outbox";
import { Socket, type SocketState } from "../session/socket";
import type { PinnedMachine, Storage } from "../session/storage";
import { recordAccept } from "./audit";

export interface RelayDeps {
  readonly storage: Storage;
  readonly key: DeviceKey;
  readonly account: AccountSession;
  readonly pinned: (machineId: string) => PinnedMachine | undefined;
  readonly onSocket: (state: SocketState) => void;
  readonly machineChanged: (machineId: string) => void;
  readonly outboxChanged: () => void;
}

/** The shortest wait before a machine that the relay closed is opened again. */
const OPEN_AGAIN_MS = 3_000;

export class Relay {
  readonly outbox: Outbox;
  readonly socket: Socket;
  readonly #deps: RelayDeps;
  readonly #machines = new Map<string, Machine>();
  #stopped = false;

  constructor(deps: RelayDeps) {
    const { storage, key } = deps;
    const deviceId = base64url(key.deviceId);
    this.#deps = deps;
    this.outbox = new Outbox({
      table: storage.outbox,
      key,
      now: Date.now,
      random: Math.random,
      audit: (entry, hash) => recordAccept(deviceId, entry, hash),
      changed: deps.outboxChanged,
    });
    this.socket = new Socket(
      {
        api,
        key,
        origin: location.origin,
        now: Date.now,
        random: Math.random,
        connect: (url, protocol) => new WebSocket(url, protocol),
      },
      {
        onState: deps.onSocket,
        onOpen: (welcome) => {
          for (const [id, machine] of this.#machines) {
            machine.sessionOpened(welcome);
            this.#open(id);
          }
        },
        onClose: () => {
          for (const machine of this.#machines.values()) machine.sessionClosed();
        },
        onMachine: (id, message) => this.#machines.get(id)?.receive(message),
        onMachineClosed: (id, problem) => {
          this.#machines.get(id)?.closedByRelay(problem);
          setTimeout(() => this.#open(id), Math.max(problem.retryAfterMs, OPEN_AGAIN_MS));
        },
      },
    );
  }

  async start(): Promise<void> {
    await this.outbox.load();
    if (!this.#stopped) this.socket.start();
  }

  stop(): void {
    this.#stopped = true;
    this.socket.stop();
    for (const id of this.ids) this.remove(id);
  }

  get ids(): string[] {
    return [...this.#machines.keys()];
  }

  machine(id: string): Machine | undefined {
    return this.#machines.get(id);
  }

  /** Takes a machine of the account in, if it is not there yet. */
  add(id: string): void {
    if (this.#machines.has(id)) return;
    const { account, key, pinned, machineChanged } = this.#deps;
    const pin = pinned(id);
    const ours = pin !== undefined && pin.accountId === account.account_id;
    const machine = new Machine({
      machineId: id,
      accountId: account.account_id,
      machineKey: ours ? { algorithm: "ed25519", bytes: pin.machineKey } : undefined,
      key,
      outbox: this.outbox,
      now: Date.now,
      send: (lane, message) => {
        const value = create(ToMachineSchema, { machineId: idBytes(id), message });
        return this.socket.send(lane, { case: "toMachine", value });
      },
      changed: () => machineChanged(id),
    });
    this.#machines.set(id, machine);
    machineChanged(id);
    const { welcome } = this.socket;
    if (welcome === undefined) return;
    machine.sessionOpened(welcome);
    this.#open(id);
  }

  remove(id: string): void {
    this.#machines.get(id)?.sessionClosed();
    this.#machines.delete(id);
  }

  #open(id: string): void {
    if (!this.#machines.has(id)) return;
    const { kind } = create(SessionUpSchema, { kind: { case: "open", value: { machineId: idBytes(id) } } });
    this.socket.send(LANE.control, kind);
  }
}

function idBytes(id: string): Uint8Array<ArrayBuffer> {
  return fromHex(id.replaceAll("-", ""));
}
