/**
 * The one WebSocket of this browser: hello, challenge, proof, welcome; heartbeat; reconnect.
 *
 * It knows nothing of machines but their ids. Whatever waits for an answer when the socket breaks is told so by
 * `onClose`, and asked again by its owner after the next `onOpen`.
 */
import { create } from "@bufbuild/protobuf";

import type { Api, RegionJson, TicketJson } from "../api/client";
import { keyJson } from "../api/client";
import { LOCAL, Problem } from "../api/problem";
import { KeyAlgorithm } from "../gen/flydex/v1/command_pb";
import type { MachineMessage } from "../gen/flydex/v1/relay_pb";
import { Capability, type SessionDown, type SessionUp, SessionUpSchema } from "../gen/flydex/v1/session_pb";
import { sha256, utf8, uuidText } from "../protocol/bytes";
import { LABEL, Transcript } from "../protocol/encoding";
import { CLIENT, LANE, SUBPROTOCOL, VERSION, decodeFrame, encodeFrame } from "../protocol/frames";
import type { DeviceKey } from "../protocol/keys";
import { backoffMs } from "./backoff";

export type SocketPhase = "idle" | "connecting" | "open" | "waiting" | "signed_out" | "refused";

/** What is known of the way to the relay, for people. */
export interface SocketState {
  readonly phase: SocketPhase;
  readonly sinceMs: number;
  readonly retryAtMs?: number;
  readonly problem?: Problem;
}

export interface Welcome {
  readonly sessionId: Uint8Array;
  readonly eventWindowBytes: number;
  readonly bulkWindowBytes: number;
  readonly serverTimeMs: number;
}

/** The part of WebSocket that is used; tests give a fake. */
export interface WebSocketLike {
  binaryType: string;
  readonly readyState: number;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number): void;
  onopen: ((event: Event) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  onerror: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
}

export interface SocketDeps {
  readonly api: Pick<Api, "regions" | "ticket">;
  readonly key: DeviceKey;
  readonly origin: string;
  readonly now: () => number;
  readonly random: () => number;
  readonly connect: (url: string, protocol: string) => WebSocketLike;
}

export interface SocketEvents {
  onState(state: SocketState): void;
  onOpen(welcome: Welcome): void;
  onClose(): void;
  onMachine(machineId: string, message: MachineMessage): void;
  onMachineClosed(machineId: string, problem: Problem): void;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;
const DEFAULT_PING_INTERVAL_MS = 4_000;
const DEFAULT_SILENCE_MAX_MS = 8_000;
/** A connection that lived this long starts its next reconnect from the shortest wait. */
const STABLE_AFTER_MS = 10_000;

/** Codes after which connecting again cannot help. */
const FINAL_CODES = new Set([1004, 2001, 2002, 2011]);

type Timer = ReturnType<typeof setTimeout>;

export class Socket {
  readonly #deps: SocketDeps;
  readonly #events: SocketEvents;
  #state: SocketState;
  #webSocket: WebSocketLike | undefined;
  #attempt = 0;
  /** Grows with every attempt, so that what an old one still says is not heard. */
  #round = 0;
  #openedAtMs = 0;
  #lastHeardMs = 0;
  #pingIntervalMs = DEFAULT_PING_INTERVAL_MS;
  #silenceMaxMs = DEFAULT_SILENCE_MAX_MS;
  #serverTimeMs = 0;
  #nonce = 0n;
  #timers: Timer[] = [];
  #ticket: TicketJson | undefined;
  #welcome: Welcome | undefined;

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
    return this.#state.phase === "open" ? this.#welcome : undefined;
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
    if (this.#state.phase === "open") this.#ping();
  }

  /** Sends a frame; false when the session is not open. */
  send(lane: number, kind: SessionUp["kind"]): boolean {
    if (this.#state.phase !== "open") return false;
    return this.#write(lane, kind);
  }

  async #connect(): Promise<void> {
    this.#drop();
    const round = this.#round;
    this.#set({ phase: "connecting", sinceMs: this.#deps.now(), problem: this.#state.problem });
    try {
      const { regions } = await this.#deps.api.regions();
      const region = regions[0];
      if (region === undefined) throw new Problem(LOCAL.unreachable);
      const ticket = await this.#deps.api.ticket(keyJson(this.#deps.key.publicKey), region.region);
      if (round === this.#round) this.#open(region, ticket);
    } catch (reason) {
      if (round === this.#round) this.#failed(Problem.from(reason));
    }
  }

  #open(region: RegionJson, ticket: TicketJson): void {
    this.#ticket = ticket;
    const webSocket = this.#deps.connect(region.session_url, SUBPROTOCOL);
    webSocket.binaryType = "arraybuffer";
    this.#webSocket = webSocket;
    const round = this.#round;
    const current = () => round === this.#round;
    webSocket.onopen = () => current() && this.#hello(ticket);
    webSocket.onclose = () => current() && this.#failed(new Problem(LOCAL.unreachable));
    webSocket.onerror = () => undefined;
    webSocket.onmessage = (event) => {
      if (!current()) return;
      this.#lastHeardMs = this.#deps.now();
      const message = event.data instanceof ArrayBuffer ? decodeFrame(new Uint8Array(event.data)) : undefined;
      if (message === undefined) this.#failed(new Problem(1005));
      else this.#heard(message);
    };
    this.#after(HANDSHAKE_TIMEOUT_MS, () => {
      if (this.#state.phase === "connecting") this.#failed(new Problem(LOCAL.unreachable));
    });
  }

  #hello(ticket: TicketJson): void {
    const deviceKey = { algorithm: KeyAlgorithm.ED25519, key: this.#deps.key.publicKey.bytes };
    const up = create(SessionUpSchema, {
      kind: {
        case: "hello",
        value: {
          version: VERSION,
          versionMin: VERSION,
          capabilities: [Capability.BULK_CREDIT],
          ticket: ticket.ticket,
          grant: ticket.grant,
          deviceKey,
          client: CLIENT,
        },
      },
    });
    this.#write(LANE.control, up.kind);
  }

  #heard(message: SessionDown): void {
    const { kind } = message;
    switch (kind.case) {
      case "challenge":
        this.#serverTimeMs = Number(kind.value.serverTimeMs);
        void this.#prove(kind.value.nonce, kind.value.gatewayId);
        break;
      case "welcome":
        this.#welcome = {
          sessionId: kind.value.sessionId,
          eventWindowBytes: kind.value.eventWindowBytes,
          bulkWindowBytes: kind.value.bulkWindowBytes,
          serverTimeMs: this.#serverTimeMs,
        };
        this.#welcomed(kind.value.pingIntervalMs, kind.value.silenceMaxMs);
        this.#events.onOpen(this.#welcome);
        break;
      case "fromMachine":
        if (kind.value.message !== undefined) {
          this.#events.onMachine(uuidText(kind.value.machineId), kind.value.message);
        }
        break;
      case "machineClosed":
        this.#events.onMachineClosed(
          uuidText(kind.value.machineId),
          new Problem(kind.value.code, kind.value.retryAfterMs),
        );
        break;
      case "goAway":
        this.#after(kind.value.reconnectInMs, () => void this.#connectAgain());
        break;
      case "end":
        this.#failed(new Problem(kind.value.code, kind.value.retryAfterMs));
        break;
      case "pong":
      case undefined:
        break;
    }
  }

  async #prove(nonce: Uint8Array, gatewayId: string): Promise<void> {
    const round = this.#round;
    const ticketHash = await sha256(utf8(this.#ticket?.ticket ?? ""));
    const transcript = new Transcript(LABEL.sessionProof)
      .bytes(nonce)
      .bytes(ticketHash)
      .text(gatewayId)
      .text(this.#deps.origin);
    const signature = await this.#deps.key.sign(transcript);
    if (round !== this.#round) return;
    const up = create(SessionUpSchema, { kind: { case: "proof", value: { signature } } });
    this.#write(LANE.control, up.kind);
  }

  #welcomed(pingIntervalMs: number, silenceMaxMs: number): void {
    this.#pingIntervalMs = pingIntervalMs || DEFAULT_PING_INTERVAL_MS;
    this.#silenceMaxMs = silenceMaxMs || DEFAULT_SILENCE_MAX_MS;
    this.#openedAtMs = this.#deps.now();
    this.#lastHeardMs = this.#openedAtMs;
    this.#set({ phase: "open", sinceMs: this.#openedAtMs });
    this.#beat();
  }

  #beat(): void {
    this.#after(this.#pingIntervalMs, () => {
      if (this.#deps.now() - this.#lastHeardMs > this.#silenceMaxMs + this.#pingIntervalMs) {
        this.#failed(new Problem(1013));
        return;
      }
      this.#ping();
      this.#beat();
    });
  }

  #ping(): void {
    this.#nonce += 1n;
    const up = create(SessionUpSchema, { kind: { case: "ping", value: { nonce: this.#nonce } } });
    this.#write(LANE.control, up.kind);
    const askedAtMs = this.#deps.now();
    this.#after(this.#silenceMaxMs, () => {
      if (this.#lastHeardMs < askedAtMs) this.#failed(new Problem(1013));
    });
  }

  #connectAgain(): Promise<void> {
    this.#attempt = 0;
    const wasOpen = this.#state.phase === "open";
    if (wasOpen) this.#events.onClose();
    return this.#connect();
  }

  #failed(problem: Problem): void {
    const now = this.#deps.now();
    const wasOpen = this.#state.phase === "open";
    if (wasOpen && now - this.#openedAtMs > STABLE_AFTER_MS) this.#attempt = 0;
    this.#drop();
    if (problem.code === 2000) {
      this.#set({ phase: "signed_out", sinceMs: now, problem });
    } else if (FINAL_CODES.has(problem.code)) {
      this.#set({ phase: "refused", sinceMs: now, problem });
    } else {
      const waitMs = Math.max(problem.retryAfterMs, backoffMs(this.#attempt, this.#deps.random));
      this.#attempt += 1;
      this.#set({ phase: "waiting", sinceMs: now, retryAtMs: now + waitMs, problem });
      this.#after(waitMs, () => void this.#connect());
    }
    if (wasOpen) this.#events.onClose();
  }

  #drop(): void {
    this.#round += 1;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = [];
    const webSocket = this.#webSocket;
    this.#webSocket = undefined;
    if (webSocket !== undefined) webSocket.close();
  }

  #write(lane: number, kind: SessionUp["kind"]): boolean {
    if (this.#webSocket === undefined || this.#webSocket.readyState !== 1) return false;
    const message = create(SessionUpSchema);
    message.kind = kind;
    this.#webSocket.send(encodeFrame(lane, message));
    return true;
  }

  #after(waitMs: number, action: () => void): void {
    const timer = setTimeout(() => {
      this.#timers = this.#timers.filter((other) => other !== timer);
      action();
    }, waitMs);
    this.#timers.push(timer);
  }

  #set(state: SocketState): void {
    this.#state = state;
    this.#events.onState(state);
  }
}
