/** The state of the page: account, connection, machines, and what the views ask of them. */
import { toBinary, create } from "@bufbuild/protobuf";

import { type AccountSession, type MachineJson, api } from "../api/client";
import { LOCAL, Problem } from "../api/problem";
import { type CommandBody, CommandBodySchema } from "../gen/flydex/agent/v1/agent_pb";
import { ToMachineSchema, SessionUpSchema } from "../gen/flydex/v1/session_pb";
import { type Connection, connectionOf } from "../model/connection";
import type { MachineModel } from "../model/machine";
import type { ThreadModel } from "../model/thread";
import { base64url, fromHex } from "../protocol/bytes";
import { type ApprovalAnswer, kindOf } from "../protocol/command";
import { LANE } from "../protocol/frames";
import { type DeviceKey, KeysUnsupported, generateKey, openKey } from "../protocol/keys";
import type { AdmissionState } from "../session/admission";
import { Machine } from "../session/machine";
import { Outbox, type OutboxEntry, auditIds } from "../session/outbox";
import { Socket, type SocketState } from "../session/socket";
import { type PinnedMachine, type Storage, openStorage, persist } from "../session/storage";
import { Tabs } from "../session/tabs";
import type { MachineStatus } from "../gen/flydex/v1/relay_pb";
import { decisionName } from "../model/decision";
import { forgetDrafts } from "../model/drafts";
import { type Route, href, parseRoute } from "./route";

export type Phase = "starting" | "signed_out" | "ready" | "guest" | "broken";

/** A machine as the views see it: a copy, made once per frame. */
export interface MachineView {
  readonly id: string;
  readonly paired: boolean;
  readonly status: MachineStatus | undefined;
  readonly closed: Problem | undefined;
  readonly admission: AdmissionState;
  readonly model: MachineModel;
  readonly thread: ThreadModel | undefined;
  readonly threadProblem: Problem | undefined;
  readonly probe: { readonly answeredAtMs: number; readonly roundTripMs: number } | undefined;
  readonly caughtUp: boolean;
  /** What to add to this device's clock to get the machine's. */
  readonly clockOffsetMs: number;
}

const AUDIT_WAIT_MS = 1_000;
const KEY_NAME = "device";
const START_AGAIN_MS = 5_000;
/** How long a message that Codex took is shown here, should the thread not show it by then. */
const MESSAGE_KEPT_MS = 5_000;
const EFFECT_KEPT_MS = 60_000;

export class App {
  phase: Phase = $state("starting");
  problem: Problem | undefined = $state.raw();
  account: AccountSession | undefined = $state.raw();
  route: Route = $state.raw(parseRoute(location.hash));
  socket: SocketState = $state.raw({ phase: "idle", sinceMs: 0 });
  machines: readonly MachineJson[] | undefined = $state.raw();
  machinesProblem: Problem | undefined = $state.raw();
  pinned: ReadonlyMap<string, PinnedMachine> = $state.raw(new Map());
  views: ReadonlyMap<string, MachineView> = $state.raw(new Map());
  outbox: readonly OutboxEntry[] = $state.raw([]);
  /** This device's clock, once a second; countdowns and ages follow it. */
  nowMs = $state(Date.now());
  persisted: boolean | undefined = $state();

  #storage: Storage | undefined;
  #key: DeviceKey | undefined;
  #socket: Socket | undefined;
  #outbox: Outbox | undefined;
  #tabs: Tabs | undefined;
  readonly #links = new Map<string, Machine>();
  readonly #dirty = new Set<string>();
  #framePending = false;
  #outboxDirty = false;
  #checkedAtMs = Date.now();

  // === Life ===

  async start(): Promise<void> {
    setInterval(() => this.#tick(), 1_000);
    addEventListener("hashchange", () => this.#routed());
    addEventListener("online", () => this.#socket?.retryNow());
    document.addEventListener("visibilitychange", () => this.#woke());
    try {
      this.#storage = await openStorage();
      this.#key = await this.#openKey(this.#storage);
      await this.#readPinned();
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
    this.account = await api.signIn(token);
    await this.#begin();
  }

  async signOut(): Promise<void> {
    await api.signOut();
    forgetDrafts();
    this.#end();
    this.account = undefined;
    this.phase = "signed_out";
    location.hash = "";
  }

  takeOver(): void {
    void this.#tabs?.takeOver();
  }

  retryNow(): void {
    if (this.phase === "broken") void this.checkSession();
    this.#socket?.retryNow();
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
    await this.#readPinned();
    this.persisted = await persist();
    this.#drop(machine.machineId);
    await this.loadMachines();
  }

  // === Machines ===

  async loadMachines(): Promise<void> {
    try {
      const { machines } = await api.machines();
      this.machines = machines;
      this.machinesProblem = undefined;
      for (const machine of machines) this.#link(machine.machine_id);
      for (const id of this.#links.keys()) {
        if (!machines.some((machine) => machine.machine_id === id)) this.#drop(id);
      }
    } catch (reason) {
      const problem = Problem.from(reason);
      if (problem.code === 2000) this.#signedOut();
      else this.machinesProblem = problem;
    }
  }

  connection(machineId: string): Connection {
    const view = this.views.get(machineId);
    return connectionOf({
      socket: this.socket,
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

  link(machineId: string): Machine | undefined {
    return this.#links.get(machineId);
  }

  // === Effects ===

  /** Puts an effect into the outbox; answers its id. */
  async send(machineId: string, body: CommandBody, about: About = {}): Promise<string> {
    if (this.#outbox === undefined || this.account === undefined) throw new Problem(2000);
    return this.#outbox.add({
      machineId,
      accountId: this.account.account_id,
      kind: kindOf(body),
      body: toBinary(CommandBodySchema, body),
      ...about,
    });
  }

  async dismiss(id: string): Promise<void> {
    await this.#outbox?.dismiss(id);
  }

  // === Inside ===

  async #begin(): Promise<void> {
    this.phase = "ready";
    if (this.#tabs === undefined) {
      this.#tabs = new Tabs({ onOwner: () => void this.#own(), onGuest: () => this.#guest() });
      await this.#tabs.start();
    } else {
      await this.#own();
    }
  }

  async #own(): Promise<void> {
    if (this.#storage === undefined || this.#key === undefined || this.account === undefined) return;
    this.phase = "ready";
    this.#outbox = new Outbox({
      table: this.#storage.outbox,
      key: this.#key,
      now: Date.now,
      random: Math.random,
      audit: (entry, hash) => this.#audit(entry, hash),
      changed: () => this.#touchOutbox(),
    });
    this.#socket = new Socket(
      {
        api,
        key: this.#key,
        origin: location.origin,
        now: Date.now,
        random: Math.random,
        connect: (url, protocol) => new WebSocket(url, protocol),
      },
      {
        onState: (state) => this.#onSocket(state),
        onOpen: (welcome) => {
          for (const [id, link] of this.#links) {
            link.sessionOpened(welcome);
            this.#open(id);
          }
        },
        onClose: () => {
          for (const link of this.#links.values()) link.sessionClosed();
        },
        onMachine: (id, message) => this.#links.get(id)?.receive(message),
        onMachineClosed: (id, problem) => {
          this.#links.get(id)?.closedByRelay(problem);
          setTimeout(() => this.#open(id), Math.max(problem.retryAfterMs, 3_000));
        },
      },
    );
    await this.#outbox.load();
    this.#socket.start();
    await this.loadMachines();
    this.#routed();
  }

  #guest(): void {
    this.#end();
    this.phase = "guest";
  }

  #end(): void {
    this.#socket?.stop();
    this.#socket = undefined;
    for (const id of [...this.#links.keys()]) this.#drop(id);
    this.#outbox = undefined;
    this.machines = undefined;
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

  async #openKey(storage: Storage): Promise<DeviceKey> {
    const stored = await storage.keys.get(KEY_NAME);
    if (stored !== undefined) return openKey(stored);
    const made = await generateKey();
    await storage.keys.put(KEY_NAME, made);
    return openKey(made);
  }

  async #readPinned(): Promise<void> {
    const rows = (await this.#storage?.machines.all()) ?? [];
    this.pinned = new Map(rows.map((row) => [row.machineId, row]));
  }

  #link(machineId: string): Machine | undefined {
    const existing = this.#links.get(machineId);
    if (existing !== undefined) return existing;
    if (this.#key === undefined || this.#outbox === undefined || this.account === undefined) return undefined;
    const pin = this.pinned.get(machineId);
    const ours = pin !== undefined && pin.accountId === this.account.account_id;
    const machine = new Machine({
      machineId,
      accountId: this.account.account_id,
      machineKey: ours ? { algorithm: "ed25519", bytes: pin.machineKey } : undefined,
      key: this.#key,
      outbox: this.#outbox,
      now: Date.now,
      send: (lane, message) => {
        const machineBytes = fromHex(machineId.replaceAll("-", ""));
        const value = create(ToMachineSchema, { machineId: machineBytes, message });
        return this.#socket?.send(lane, { case: "toMachine", value }) ?? false;
      },
      changed: () => this.#touch(machineId),
    });
    this.#links.set(machineId, machine);
    this.#touch(machineId);
    const welcome = this.#socket?.welcome;
    if (welcome !== undefined) {
      machine.sessionOpened(welcome);
      this.#open(machineId);
    }
    return machine;
  }

  #open(machineId: string): void {
    if (!this.#links.has(machineId)) return;
    const up = create(SessionUpSchema, {
      kind: { case: "open", value: { machineId: fromHex(machineId.replaceAll("-", "")) } },
    });
    this.#socket?.send(LANE.control, up.kind);
  }

  #drop(machineId: string): void {
    this.#links.get(machineId)?.sessionClosed();
    this.#links.delete(machineId);
    const views = new Map(this.views);
    views.delete(machineId);
    this.views = views;
  }

  #onSocket(state: SocketState): void {
    this.socket = state;
    if (state.phase === "signed_out") this.#signedOut();
  }

  #routed(): void {
    this.route = parseRoute(location.hash);
    const { route } = this;
    for (const [id, link] of this.#links) {
      link.watch(route.view === "thread" && route.machineId === id ? route.threadId : undefined);
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
    this.#socket?.retryNow();
    this.#socket?.check();
  }

  /** Records an accept at control; an empty word when it does not answer within a second. */
  async #audit(entry: OutboxEntry, hash: Uint8Array): Promise<string> {
    const { answer } = entry;
    const decision = answer === undefined ? undefined : decisionName(answer.decision);
    if (answer === undefined || (decision !== "accept" && decision !== "accept_for_session")) return "";
    try {
      const { audit_receipt } = await api.auditIntent(
        {
          machine_id: entry.machineId,
          device_id: this.deviceId,
          ...auditIds(answer),
          decision,
          command_id: entry.id,
          command_hash: base64url(hash),
        },
        AbortSignal.timeout(AUDIT_WAIT_MS),
      );
      return audit_receipt;
    } catch {
      return "";
    }
  }

  #touch(machineId: string): void {
    this.#dirty.add(machineId);
    this.#schedule();
  }

  #touchOutbox(): void {
    this.#outboxDirty = true;
    this.#schedule();
  }

  /** Many messages, one drawing: views are copied once per frame; a hidden page gets no frames but timers. */
  #schedule(): void {
    if (this.#framePending) return;
    this.#framePending = true;
    if (document.visibilityState === "visible") requestAnimationFrame(() => this.#frame());
    else setTimeout(() => this.#frame(), 250);
  }

  #frame(): void {
    if (!this.#framePending) return;
    this.#framePending = false;
    if (this.#outboxDirty) this.outbox = this.#outbox?.all() ?? [];
    this.#outboxDirty = false;
    if (this.#dirty.size === 0) return;
    const views = new Map(this.views);
    for (const id of this.#dirty) {
      const link = this.#links.get(id);
      if (link !== undefined) views.set(id, viewOf(link));
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

function viewOf(link: Machine): MachineView {
  return {
    id: link.id,
    paired: link.paired,
    status: link.status,
    closed: link.closed,
    admission: link.admission,
    model: link.model,
    thread: link.thread,
    threadProblem: link.threadProblem,
    probe: link.probe,
    caughtUp: link.caughtUp,
    clockOffsetMs: link.clock.now() - Date.now(),
  };
}

export const app = new App();
