/**
 * What the tab that holds the connection has: the sockets, the outbox, and each machine of the account over the socket to
 * its region.
 *
 * A machine is lost when it is not at the region where it is looked for: it is offline there, or the region cannot be
 * reached. Where it is, is the control plane's word (`place`); one that is there is not taken away by a word that may be old.
 */
import { create } from "@bufbuild/protobuf";

import type { AccountSession, KeyJson } from "../api/client";
import type { Problem } from "../api/problem";
import type { Introduction } from "../gen/flydex/agent/v1/agent_pb";
import { type MachineMessage, MachineState } from "../gen/flydex/v1/relay_pb";
import { type SessionUp, SessionUpSchema, ToMachineSchema } from "../gen/flydex/v1/session_pb";
import { base64url, fromHex } from "../protocol/bytes";
import { LANE } from "../protocol/frames";
import { Machine } from "../session/machine";
import { Outbox } from "../session/outbox";
import { Regions } from "../session/regions";
import type { SocketDeps, SocketState } from "../session/socket";
import type { PinnedMachine, Storage } from "../session/storage";
import type { Welcome } from "../session/wire";
import { recordAccept } from "./audit";

export interface RelayDeps extends Omit<SocketDeps, "region"> {
  readonly storage: Pick<Storage, "outbox">;
  readonly account: Pick<AccountSession, "account_id">;
  /** What this browser is called in lists of devices. */
  readonly deviceLabel: string;
  readonly pinned: (machineId: string) => PinnedMachine | undefined;
  /** What became of the way to a region; undefined when it is needed no more. */
  readonly onSocket: (region: string, state: SocketState | undefined) => void;
  readonly machineChanged: (machineId: string) => void;
  /** A machine is not where it was looked for. */
  readonly machineLost: (machineId: string) => void;
  /** What came as a machine's word is not signed by the key that is pinned for it. */
  readonly machineDoubted: (machineId: string) => void;
  readonly outboxChanged: () => void;
  /** While this browser asks to be let in. */
  readonly introduce?: () => IntroduceMachine | undefined;
}

export type IntroduceMachine = (machineId: string, introduction: Introduction) => Promise<void>;

interface Place {
  readonly machine: Machine;
  region: string;
  lost: boolean;
  /** How often in a row the relay closed it. */
  closings: number;
}

/** The wait before a machine that the relay closed is opened again, when it gives no advice or gave it in vain. */
const OPEN_AGAIN_MS = 3_000;
/** How often in a row its advice is followed: a machine that moves is there in a moment, or something is wrong. */
const ADVICES_MAX = 4;

export class Relay {
  readonly outbox: Outbox;
  readonly #deps: RelayDeps;
  readonly #regions: Regions;
  readonly #places = new Map<string, Place>();
  /** How many regions there are, as far as is known. */
  #regionCount = 0;
  #stopped = false;

  constructor(deps: RelayDeps) {
    const { storage, key, api, now, random } = deps;
    const deviceId = base64url(key.deviceId);
    this.#deps = deps;
    this.outbox = new Outbox({
      table: storage.outbox,
      key,
      now,
      random,
      audit: (entry, hash) => recordAccept(deviceId, entry, hash),
      changed: deps.outboxChanged,
    });
    const regions = async () => {
      const answer = await api.regions();
      this.#regionCount = answer.regions.length;
      return answer;
    };
    const ticket = (deviceKey: KeyJson, region: string) =>
      api.ticket(deviceKey, region, deps.deviceLabel);
    this.#regions = new Regions(
      { ...deps, api: { regions, ticket } },
      {
        onState: (region, state) => this.#onState(region, state),
        onGone: (region) => deps.onSocket(region, undefined),
        onOpen: (region, welcome) => this.#each(region, (id, place) => this.#opened(id, place, welcome)),
        onClose: (region) => this.#each(region, (_, { machine }) => machine.sessionClosed()),
        onMachine: (region, id, message) => this.#onMachine(region, id, message),
        onMachineClosed: (region, id, problem) => this.#onMachineClosed(region, id, problem),
      },
    );
  }

  async start(): Promise<void> {
    await this.outbox.load();
  }

  stop(): void {
    this.#stopped = true;
    for (const id of this.ids) this.remove(id);
  }

  get ids(): string[] {
    return [...this.#places.keys()];
  }

  /** Whether it makes sense to ask where machines are: one is lost, and there is more than one place to be. */
  get searching(): boolean {
    return this.#regionCount !== 1 && [...this.#places.values()].some(({ lost }) => lost);
  }

  machine(id: string): Machine | undefined {
    return this.#places.get(id)?.machine;
  }

  region(id: string): string | undefined {
    return this.#places.get(id)?.region;
  }

  /** Takes a machine of the account in, or goes where it is now. */
  place(id: string, region: string): void {
    if (this.#stopped) return;
    const known = this.#places.get(id);
    if (known === undefined) {
      const place = { machine: this.#machine(id), region, lost: false, closings: 0 };
      this.#places.set(id, place);
      this.#deps.machineChanged(id);
      this.#join(id, place);
    } else if (known.region !== region && !this.#isThere(known)) {
      this.#send(known.region, id, "close");
      known.machine.sessionClosed();
      known.region = region;
      this.#join(id, known);
      this.#leaveUnneeded();
      this.#changed(id);
    }
  }

  remove(id: string): void {
    this.#places.get(id)?.machine.sessionClosed();
    this.#places.delete(id);
    this.#leaveUnneeded();
  }

  /** Tries at once instead of waiting: the network came back, or a person asked. */
  retryNow(): void {
    this.#regions.retryNow();
  }

  /** Makes sure that open sockets still answer, soon after the page woke up. */
  check(): void {
    this.#regions.check();
  }

  #machine(id: string): Machine {
    const { account, key, pinned, now } = this.#deps;
    const pin = pinned(id);
    const ours = pin !== undefined && pin.accountId === account.account_id;
    return new Machine({
      machineId: id,
      accountId: account.account_id,
      machineKey: ours ? { algorithm: "ed25519", bytes: pin.machineKey } : undefined,
      key,
      outbox: this.outbox,
      now,
      send: (lane, message) => {
        const value = create(ToMachineSchema, { machineId: idBytes(id), message });
        return this.#socketOf(id)?.send(lane, { case: "toMachine", value }) ?? false;
      },
      changed: () => this.#changed(id),
      doubted: () => this.#deps.machineDoubted(id),
      introduce: () => {
        const introduce = this.#deps.introduce?.();
        return introduce && ((introduction) => introduce(id, introduction));
      },
    });
  }

  #socketOf(id: string) {
    const region = this.region(id);
    return region === undefined ? undefined : this.#regions.get(region);
  }

  #join(id: string, place: Place): void {
    const { welcome } = this.#regions.to(place.region);
    if (welcome !== undefined) this.#opened(id, place, welcome);
  }

  #opened(id: string, { machine, region }: Place, welcome: Welcome): void {
    machine.sessionOpened(welcome);
    this.#send(region, id, "open");
  }

  #send(region: string, id: string, what: "open" | "close"): void {
    const kind = { case: what, value: { machineId: idBytes(id) } } as SessionUp["kind"];
    this.#regions.get(region)?.send(LANE.control, create(SessionUpSchema, { kind }).kind);
  }

  // === What the sockets tell ===

  #onState(region: string, state: SocketState): void {
    this.#deps.onSocket(region, state);
    this.#each(region, (id) => this.#changed(id));
  }

  #onMachine(region: string, id: string, message: MachineMessage): void {
    const place = this.#places.get(id);
    // What a region still says of a machine that is looked for elsewhere now is old.
    if (place?.region !== region) return;
    place.closings = 0;
    place.machine.receive(message);
  }

  #onMachineClosed(region: string, id: string, problem: Problem): void {
    const place = this.#places.get(id);
    if (place?.region !== region) return;
    place.machine.closedByRelay(problem);
    const openAgain = () => {
      const isHere = this.#places.get(id) === place && place.region === region;
      if (isHere && place.machine.closed !== undefined) this.#send(region, id, "open");
    };
    place.closings += 1;
    const isAdvised = problem.retryAfterMs > 0 && place.closings <= ADVICES_MAX;
    setTimeout(openAgain, isAdvised ? problem.retryAfterMs : Math.max(problem.retryAfterMs, OPEN_AGAIN_MS));
  }

  #each(region: string, action: (id: string, place: Place) => void): void {
    for (const [id, place] of this.#places) if (place.region === region) action(id, place);
  }

  #changed(id: string): void {
    const place = this.#places.get(id);
    if (place !== undefined) {
      const before = place.lost;
      place.lost = this.#isLost(place);
      if (place.lost && !before) this.#deps.machineLost(id);
    }
    this.#deps.machineChanged(id);
  }

  #isThere({ machine, region }: Place): boolean {
    const state = machine.status?.state ?? MachineState.OFFLINE;
    return this.#regions.get(region)?.welcome !== undefined && state !== MachineState.OFFLINE;
  }

  #isLost(place: Place): boolean {
    const state = this.#regions.get(place.region)?.state;
    if (state === undefined || state.phase === "signed_out") return false;
    if (state.phase !== "open") return state.problem !== undefined;
    return place.machine.closed !== undefined || place.machine.status?.state === MachineState.OFFLINE;
  }

  #leaveUnneeded(): void {
    const needed = new Set([...this.#places.values()].map(({ region }) => region));
    this.#regions.keep(needed);
  }
}

function idBytes(id: string): Uint8Array<ArrayBuffer> {
  return fromHex(id.replaceAll("-", ""));
}
