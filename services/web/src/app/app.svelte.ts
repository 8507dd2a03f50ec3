/** The state of the page: account, connection, machines, and what the views ask of them. */
import { toBinary } from "@bufbuild/protobuf";

import { type AccountSession, type MachineJson, api } from "../api/client";
import { LOCAL, Problem } from "../api/problem";
import { ways } from "../api/ways";
import { type CommandBody, CommandBodySchema } from "../gen/flydex/agent/v1/agent_pb";
import { type Connection, connectionOf } from "../model/connection";
import { forgetDrafts } from "../model/drafts";
import { base64url } from "../protocol/bytes";
import { type ApprovalAnswer, kindOf } from "../protocol/command";
import { type DeviceKey, KeysUnsupported } from "../protocol/keys";
import * as kept from "../session/kept";
import type { Machine } from "../session/machine";
import type { Confirm, OutboxEntry } from "../session/outbox";
import { Search } from "../session/search";
import type { SocketState } from "../session/socket";
import { type PinnedMachine, type Storage, type StoredPairing, openStorage, persist } from "../session/storage";
import { Tabs } from "../session/tabs";
import { Frames } from "./frames";
import { deviceLabel } from "./label";
import { type IntroduceMachine, Relay } from "./relay";
import { type Route, href, parseRoute } from "./route";
import { type MachineView, viewOf } from "./view";

export type Phase = "starting" | "signed_out" | "ready" | "guest" | "broken";

const START_AGAIN_MS = 5_000;
/** How long a message that Codex took is shown here, should the thread not show it by then. */
const MESSAGE_KEPT_MS = 5_000;
const EFFECT_KEPT_MS = 60_000;
/** How often it is asked at most whether a machine has changed its key. */
const DOUBTED_AGAIN_MS = 5_000;
const NOT_OPEN_YET: SocketState = { phase: "connecting", sinceMs: 0 };

export class App {
  phase: Phase = $state("starting");
  problem: Problem | undefined = $state.raw();
  account: AccountSession | undefined = $state.raw();
  route: Route = $state.raw(parseRoute(location.hash));
  /** The ways to the relay, by region. */
  sockets: ReadonlyMap<string, SocketState> = $state.raw(new Map());
  machines: readonly MachineJson[] | undefined = $state.raw();
  machinesProblem: Problem | undefined = $state.raw();
  pinned: ReadonlyMap<string, PinnedMachine> = $state.raw(new Map());
  views: ReadonlyMap<string, MachineView> = $state.raw(new Map());
  outbox: readonly OutboxEntry[] = $state.raw([]);
  /** This device's clock, once a second; countdowns and ages follow it. */
  nowMs = $state(Date.now());
  persisted: boolean | undefined = $state();
  /** A pairing that an earlier life of this page began and did not end. */
  begunPairing: StoredPairing | undefined = $state.raw();

  /** Set while this browser asks to be let in. */
  introduce: IntroduceMachine | undefined;

  #storage: Storage | undefined;
  #key: DeviceKey | undefined;
  /** While this tab holds the connection. */
  #relay: Relay | undefined;
  #tabs: Tabs | undefined;
  readonly #search = new Search({
    now: Date.now,
    random: Math.random,
    ask: () => this.#ask(),
    lost: () => this.machinesProblem !== undefined || this.#relay?.searching === true,
  });
  readonly #frames = new Frames(() => this.#draw());
  readonly #dirty = new Set<string>();
  #outboxDirty = false;
  #checkedAtMs = Date.now();
  #doubtedAtMs = 0;

  // === Life ===

  async start(): Promise<void> {
    setInterval(() => this.#tick(), 1_000);
    addEventListener("hashchange", () => this.#routed());
    addEventListener("online", () => this.#online());
    document.addEventListener("visibilitychange", () => this.#woke());
    try {
      this.#storage = await openStorage();
      this.#key = await kept.deviceKey(this.#storage);
      this.pinned = await kept.pinnedMachines(this.#storage);
      this.begunPairing = await kept.begunPairing(this.#storage, Date.now());
    } catch (reason) {
      this.#broken(reason instanceof KeysUnsupported ? new Problem(LOCAL.keysUnsupported) : Problem.from(reason));
      return;
    }
    await this.checkSession();
  }

  /** Asks who is signed in; called at the start and after signing in. */
  async checkSession(): Promise<void> {
    try {
      this.account = await api.session();
      this.problem = undefined;
      await this.#begin();
    } catch (reason) {
      const problem = Problem.from(reason);
      if (problem.code === 2000) this.phase = "signed_out";
      else this.#broken(problem);
    }
  }

  async signIn(token: string): Promise<void> {
    await this.enter(await api.signIn(token));
  }

  /** Goes on as who has just signed in, by whatever way. */
  async enter(account: AccountSession): Promise<void> {
    this.account = account;
    this.problem = undefined;
    await this.#begin();
  }

  async signOut(): Promise<void> {
    await api.signOut();
    await this.#left();
  }

  /** Ends every session of the user, and so this one. */
  async signOutEverywhere(): Promise<void> {
    await ways.endAllSessions();
    await this.#left();
  }

  async #left(): Promise<void> {
    forgetDrafts();
    await this.#relay?.outbox.forget();
    this.#end();
    this.account = undefined;
    this.phase = "signed_out";
    location.hash = "";
  }

  /** Goes on in another account of this person: what was shown of the one before is gone. */
  async switchAccount(accountId: string): Promise<void> {
    await this.#goOn(await api.switchAccount(accountId));
  }

  /** Leaves the account, and goes on in another one where there is one. */
  async leaveAccount(): Promise<void> {
    const { now } = await api.leave();
    if (now === null) await this.#left();
    else await this.#goOn(now);
  }

  takeOver(): void {
    this.#tabs?.takeOver();
  }

  retryNow(): void {
    if (this.phase === "broken") void this.checkSession();
    this.#online();
  }

  go(route: Route): void {
    location.hash = href(route);
  }

  // === Keys and pins ===

  get deviceKey(): DeviceKey {
    if (this.#key === undefined) throw new Problem(LOCAL.storage);
    return this.#key;
  }

  get deviceId(): string {
    return this.#key === undefined ? "" : base64url(this.#key.deviceId);
  }

  async pin(machine: PinnedMachine): Promise<void> {
    if (this.#storage === undefined) throw new Problem(LOCAL.storage);
    await this.#storage.machines.put(machine.machineId, machine);
    this.pinned = await kept.pinnedMachines(this.#storage);
    this.persisted = await persist();
    this.#drop(machine.machineId);
    await this.loadMachines();
  }

  async keepPairing(pairing: StoredPairing): Promise<void> {
    if (this.#storage !== undefined) await kept.keepPairing(this.#storage, pairing);
  }

  async forgetPairing(): Promise<void> {
    if (this.#storage !== undefined) await kept.forgetPairing(this.#storage);
  }

  // === Machines ===

  async loadMachines(): Promise<void> {
    try {
      const { machines } = await api.machines();
      this.machines = machines;
      this.machinesProblem = undefined;
      await this.#followKeys(machines);
      for (const { machine_id, region } of machines) this.#relay?.place(machine_id, region);
      for (const id of this.#relay?.ids ?? []) {
        if (!machines.some((machine) => machine.machine_id === id)) this.#drop(id);
      }
      this.#watchShown();
    } catch (reason) {
      const problem = Problem.from(reason);
      if (problem.code === 2000) {
        this.#signedOut();
        return;
      }
      this.machinesProblem = problem;
      this.#search.begin();
    }
  }

  connection(machineId: string): Connection {
    const view = this.views.get(machineId);
    return connectionOf({
      socket: (view === undefined ? undefined : this.sockets.get(view.region)) ?? NOT_OPEN_YET,
      paired: this.pinned.has(machineId),
      status: view?.status,
      closed: view?.closed,
      admission: view?.admission ?? { kind: "none" },
      caughtUp: view?.caughtUp ?? false,
      probe: view?.probe,
      nowMs: this.nowMs,
    });
  }

  label(machineId: string): string {
    const listed = this.machines?.find((machine) => machine.machine_id === machineId);
    return listed?.label ?? this.pinned.get(machineId)?.label ?? "Computer";
  }

  /** The machines of the account that do not know this browser. */
  unpaired(): string[] {
    return (this.#relay?.ids ?? []).filter((id) => !this.pinned.has(id));
  }

  link(machineId: string): Machine | undefined {
    return this.#relay?.machine(machineId);
  }

  // === Effects ===

  /** Puts an effect into the outbox, where need be once a person has confirmed it; answers its id. */
  async send(machineId: string, body: CommandBody, about: About = {}, confirm?: Confirm): Promise<string> {
    if (this.#relay === undefined || this.account === undefined) throw new Problem(2000);
    const { outbox } = this.#relay;
    const draft = {
      machineId,
      accountId: this.account.account_id,
      kind: kindOf(body),
      body: toBinary(CommandBodySchema, body),
      ...about,
    };
    return confirm === undefined ? outbox.add(draft) : outbox.addConfirmed(draft, confirm);
  }

  async dismiss(id: string): Promise<void> {
    await this.#relay?.outbox.dismiss(id);
  }

  // === Inside ===

  async #begin(): Promise<void> {
    // A pairing belongs to the account that began it.
    if (this.begunPairing !== undefined && this.begunPairing.terms.accountId !== this.account?.account_id) {
      this.begunPairing = undefined;
      await this.forgetPairing();
    }
    this.phase = "ready";
    if (this.#tabs === undefined) {
      this.#tabs = new Tabs({ onOwner: () => void this.#own(), onGuest: () => this.#guest() });
      this.#tabs.start();
    } else if (this.#tabs.owner) {
      await this.#own();
    } else {
      this.#guest();
    }
  }

  async #own(): Promise<void> {
    if (this.#storage === undefined || this.#key === undefined || this.account === undefined) return;
    this.phase = "ready";
    this.#relay?.stop();
    this.#relay = new Relay({
      api,
      origin: location.origin,
      now: Date.now,
      random: Math.random,
      connect: (url, protocol) => new WebSocket(url, protocol),
      storage: this.#storage,
      key: this.#key,
      account: this.account,
      deviceLabel: deviceLabel(navigator.userAgent),
      pinned: (id) => this.pinned.get(id),
      onSocket: (region, state) => this.#onSocket(region, state),
      machineChanged: (id) => this.#touch(id),
      machineLost: () => this.#search.begin(),
      machineDoubted: () => this.#doubted(),
      outboxChanged: () => this.#touchOutbox(),
      introduce: () => this.introduce,
    });
    await this.#relay.start();
    await this.loadMachines();
  }

  #guest(): void {
    this.#end();
    this.phase = "guest";
  }

  #end(): void {
    this.#search.stop();
    this.#relay?.stop();
    this.#relay = undefined;
    this.sockets = new Map();
    this.views = new Map();
    this.outbox = [];
    this.machines = undefined;
  }

  async #goOn(account: AccountSession): Promise<void> {
    forgetDrafts();
    this.#end();
    this.account = account;
    location.hash = "";
    await this.#begin();
  }

  #signedOut(): void {
    this.#end();
    this.account = undefined;
    this.phase = "signed_out";
  }

  #broken(problem: Problem): void {
    this.problem = problem;
    this.phase = "broken";
  }

  #drop(machineId: string): void {
    this.#relay?.remove(machineId);
    const views = new Map(this.views);
    views.delete(machineId);
    this.views = views;
  }

  #onSocket(region: string, state: SocketState | undefined): void {
    const sockets = new Map(this.sockets);
    if (state === undefined) sockets.delete(region);
    else sockets.set(region, state);
    this.sockets = sockets;
    if (state?.phase === "signed_out") this.#signedOut();
    if (state?.phase === "open" && this.machinesProblem !== undefined) void this.loadMachines();
  }

  /** Asks where machines are; how long the control plane wants to be left alone. */
  async #ask(): Promise<number> {
    await this.loadMachines();
    return this.machinesProblem?.retryAfterMs ?? 0;
  }

  /** A machine that changed its key is opened anew with the one that its own statements lead to. */
  async #followKeys(machines: readonly MachineJson[]): Promise<void> {
    if (this.#storage === undefined) return;
    for (const { machine_id, key_rotations = [] } of machines) {
      const pinned = this.pinned.get(machine_id);
      if (pinned === undefined || !(await kept.followKey(this.#storage, pinned, key_rotations))) continue;
      this.pinned = await kept.pinnedMachines(this.#storage);
      this.#drop(machine_id);
    }
  }

  #doubted(): void {
    if (Date.now() - this.#doubtedAtMs < DOUBTED_AGAIN_MS) return;
    this.#doubtedAtMs = Date.now();
    void this.loadMachines();
  }

  #online(): void {
    this.#relay?.retryNow();
    this.#search.begin();
  }

  #routed(): void {
    this.route = parseRoute(location.hash);
    this.#watchShown();
  }

  /** The thread on screen is followed, and no other. */
  #watchShown(): void {
    const { route } = this;
    for (const id of this.#relay?.ids ?? []) {
      this.link(id)?.watch(route.view === "thread" && route.machineId === id ? route.threadId : undefined);
    }
  }

  #tick(): void {
    this.nowMs = Date.now();
    this.#startAgain();
    // What was carried out is kept in sight a moment and then forgotten: the thread itself shows it.
    for (const entry of this.outbox) {
      if (entry.state !== "executed" || entry.settledAtMs === undefined) continue;
      const offsetMs = this.views.get(entry.machineId)?.clockOffsetMs ?? 0;
      const keepMs = entry.text !== undefined && entry.threadId !== undefined ? MESSAGE_KEPT_MS : EFFECT_KEPT_MS;
      if (this.nowMs + offsetMs - entry.settledAtMs > keepMs) void this.dismiss(entry.id);
    }
  }

  /** A start that found no network is tried again by itself. */
  #startAgain(): void {
    const waiting = this.phase === "broken" && this.problem?.code === LOCAL.unreachable;
    if (!waiting || this.nowMs - this.#checkedAtMs < START_AGAIN_MS) return;
    this.#checkedAtMs = this.nowMs;
    void this.checkSession();
  }

  #woke(): void {
    if (document.visibilityState !== "visible") return;
    this.nowMs = Date.now();
    this.#online();
    this.#relay?.check();
  }

  #touch(machineId: string): void {
    this.#dirty.add(machineId);
    this.#frames.schedule();
  }

  #touchOutbox(): void {
    this.#outboxDirty = true;
    this.#frames.schedule();
  }

  #draw(): void {
    if (this.#outboxDirty) this.outbox = this.#relay?.outbox.all() ?? [];
    this.#outboxDirty = false;
    if (this.#dirty.size === 0) return;
    const views = new Map(this.views);
    for (const id of this.#dirty) {
      const link = this.link(id);
      const region = this.#relay?.region(id);
      if (link !== undefined && region !== undefined) views.set(id, viewOf(link, region));
    }
    this.#dirty.clear();
    this.views = views;
  }
}

export interface About {
  readonly threadId?: string;
  readonly text?: string;
  readonly answer?: ApprovalAnswer;
}

export const app = new App();
