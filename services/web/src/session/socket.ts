/**
 * This browser's way to the relay of one region: one open session at a time, opened again whenever it breaks.
 *
 * It knows nothing of machines but their ids. Whatever waits for an answer when the session breaks is told so by
 * `onClose`, and asked again by its owner after the next `onOpen`. A relay that restarts says so before: then the
 * next session is opened beside this one, and takes its place by an `onOpen` without an `onClose`.
 */
import type { Api, RegionJson, TicketJson } from "../api/client";
import { keyJson } from "../api/client";
import { LOCAL, Problem } from "../api/problem";
import type { MachineMessage } from "../gen/flydex/v1/relay_pb";
import type { SessionUp } from "../gen/flydex/v1/session_pb";
import { backoffMs } from "./backoff";
import { Timers } from "./timers";
import { type Welcome, Wire, type WireDeps } from "./wire";

export type SocketPhase = "idle" | "connecting" | "open" | "waiting" | "signed_out" | "refused";

/** What is known of the way to the relay, for people. */
export interface SocketState {
  readonly phase: SocketPhase;
  readonly sinceMs: number;
  readonly retryAtMs?: number;
  readonly problem?: Problem;
}

export interface SocketDeps extends WireDeps {
  readonly api: Pick<Api, "regions" | "ticket">;
  readonly region: string;
  readonly random: () => number;
}

export interface SocketEvents {
  onState(state: SocketState): void;
  onOpen(welcome: Welcome): void;
  onClose(): void;
  onMachine(machineId: string, message: MachineMessage): void;
  onMachineClosed(machineId: string, problem: Problem): void;
}

/** A connection that lived this long starts its next reconnect from the shortest wait. */
const STABLE_AFTER_MS = 10_000;

/** Codes after which connecting again cannot help. */
const FINAL_CODES = new Set([1004, 2001, 2002, 2011]);
const UNAUTHENTICATED = 2000;

export class Socket {
  readonly #deps: SocketDeps;
  readonly #events: SocketEvents;
  readonly #timers = new Timers();
  #state: SocketState;
  /** The session in use, or the one that is opened while none is. */
  #wire: Wire | undefined;
  /** The one that is opened beside it, to take its place. */
  #next: Wire | undefined;
  #leaving = false;
  /** Until when the relay that sends this session away keeps it. */
  #leaveUntilMs = 0;
  #attempt = 0;
  /** Grows with every attempt, so that a ticket that comes late is not used. */
  #round = 0;

  constructor(deps: SocketDeps, events: SocketEvents) {
    this.#deps = deps;
    this.#events = events;
    this.#state = { phase: "idle", sinceMs: deps.now() };
  }

  get state(): SocketState {
    return this.#state;
  }

  /** The open session; undefined while there is none. */
  get welcome(): Welcome | undefined {
    return this.#state.phase === "open" ? this.#wire?.welcome : undefined;
  }

  start(): void {
    if (this.#state.phase === "idle") void this.#connect();
  }

  stop(): void {
    this.#drop();
    this.#set({ phase: "idle", sinceMs: this.#deps.now() });
  }

  /** Tries at once instead of waiting: the network came back, or a person asked. */
  retryNow(): void {
    if (this.#state.phase === "waiting" || this.#state.phase === "refused") void this.#connect();
  }

  /** Makes sure that an open socket still answers, soon after the page woke up. */
  check(): void {
    if (this.#state.phase === "open") this.#wire?.ping();
  }

  /** Sends a frame; false when the session is not open. */
  send(lane: number, kind: SessionUp["kind"]): boolean {
    return this.#state.phase === "open" && this.#wire !== undefined && this.#wire.send(lane, kind);
  }

  async #connect(): Promise<void> {
    this.#drop();
    const round = this.#round;
    this.#set({ phase: "connecting", sinceMs: this.#deps.now(), problem: this.#state.problem });
    try {
      const pass = await this.#pass();
      if (round === this.#round) this.#wire = this.#open(pass);
    } catch (reason) {
      if (round === this.#round) this.#failed(Problem.from(reason));
    }
  }

  /** Where to connect, and the ticket for it. */
  async #pass(): Promise<{ region: RegionJson; ticket: TicketJson }> {
    const { api, key } = this.#deps;
    const { regions } = await api.regions();
    const region = regions.find((one) => one.region === this.#deps.region);
    if (region === undefined) throw new Problem(LOCAL.unreachable);
    return { region, ticket: await api.ticket(keyJson(key.publicKey), region.region) };
  }

  #open({ region, ticket }: { region: RegionJson; ticket: TicketJson }): Wire {
    const wire: Wire = new Wire(
      this.#deps,
      {
        onWelcome: (welcome) => this.#opened(wire, welcome),
        onEnd: (problem) => (wire === this.#next ? this.#leaveLater(problem) : this.#failed(problem)),
        onGoAway: (reconnectInMs, tryForMs) => this.#leaveIn(reconnectInMs, tryForMs),
        onMachine: (machineId, message) => this.#events.onMachine(machineId, message),
        onMachineClosed: (machineId, problem) => this.#events.onMachineClosed(machineId, problem),
      },
      region,
      ticket,
    );
    return wire;
  }

  #opened(wire: Wire, welcome: Welcome): void {
    const before = wire === this.#next ? this.#wire : undefined;
    this.#wire = wire;
    this.#next = undefined;
    this.#leaving = false;
    this.#set({ phase: "open", sinceMs: this.#deps.now() });
    this.#events.onOpen(welcome);
    before?.close();
  }

  // === Going elsewhere, while the session still serves ===

  /** The relay spreads those whom it sends away, and says to each how long to wait and for how long to try. */
  #leaveIn(waitMs: number, tryForMs: number): void {
    if (this.#leaving) return;
    this.#leaving = true;
    this.#attempt = 0;
    this.#leaveUntilMs = this.#deps.now() + tryForMs;
    // A wait that would use up the time is cut, so that there is time to try again.
    this.#timers.later(Math.min(waitMs, tryForMs / 2), () => void this.#leave());
  }

  async #leave(): Promise<void> {
    const round = this.#round;
    try {
      const pass = await this.#pass();
      if (round === this.#round) this.#next = this.#open(pass);
    } catch (reason) {
      if (round === this.#round) this.#leaveLater(Problem.from(reason));
    }
  }

  /** It did not work this time; past the time to try, the session in use goes on until it ends by itself. */
  #leaveLater(problem: Problem): void {
    this.#next = undefined;
    const waitMs = this.#waitMs(problem);
    this.#leaving = this.#deps.now() + waitMs < this.#leaveUntilMs;
    if (this.#leaving) this.#timers.later(waitMs, () => void this.#leave());
  }

  // === Ends ===

  #failed(problem: Problem): void {
    const now = this.#deps.now();
    const wasOpen = this.#state.phase === "open";
    if (this.#next !== undefined) {
      // The one that takes its place is on its way already.
      this.#wire = this.#next;
      this.#next = undefined;
      this.#set({ phase: "connecting", sinceMs: now });
      this.#events.onClose();
      return;
    }
    if (this.#wire !== undefined && this.#wire.ageMs > STABLE_AFTER_MS) this.#attempt = 0;
    this.#drop();
    if (problem.code === UNAUTHENTICATED) {
      this.#set({ phase: "signed_out", sinceMs: now, problem });
    } else if (FINAL_CODES.has(problem.code)) {
      this.#set({ phase: "refused", sinceMs: now, problem });
    } else {
      const waitMs = this.#waitMs(problem);
      this.#set({ phase: "waiting", sinceMs: now, retryAtMs: now + waitMs, problem });
      this.#timers.later(waitMs, () => void this.#connect());
    }
    if (wasOpen) this.#events.onClose();
  }

  #waitMs(problem: Problem): number {
    const waitMs = Math.max(problem.retryAfterMs, backoffMs(this.#attempt, this.#deps.random));
    this.#attempt += 1;
    return waitMs;
  }

  #drop(): void {
    this.#round += 1;
    this.#leaving = false;
    this.#timers.clear();
    this.#wire?.close();
    this.#next?.close();
    this.#wire = undefined;
    this.#next = undefined;
  }

  #set(state: SocketState): void {
    this.#state = state;
    this.#events.onState(state);
  }
}
