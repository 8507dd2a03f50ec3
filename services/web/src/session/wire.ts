/** One WebSocket to the relay, from the hello to its end: challenge, proof, welcome, heartbeat. */
import { create } from "@bufbuild/protobuf";

import type { RegionJson, TicketJson } from "../api/client";
import { LOCAL, Problem } from "../api/problem";
import { KeyAlgorithm } from "../gen/flydex/v1/command_pb";
import type { MachineMessage } from "../gen/flydex/v1/relay_pb";
import { Capability, type SessionDown, type SessionUp, SessionUpSchema } from "../gen/flydex/v1/session_pb";
import { sha256, utf8, uuidText } from "../protocol/bytes";
import { LABEL, Transcript } from "../protocol/encoding";
import { CLIENT, LANE, SUBPROTOCOL, VERSION, decodeFrame, encodeFrame } from "../protocol/frames";
import type { DeviceKey } from "../protocol/keys";
import { Timers } from "./timers";

const ALGORITHMS = { ed25519: KeyAlgorithm.ED25519, p256: KeyAlgorithm.P256 } as const;

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

export interface WireDeps {
  readonly key: DeviceKey;
  readonly origin: string;
  readonly now: () => number;
  readonly connect: (url: string, protocol: string) => WebSocketLike;
}

/** What a wire tells; nothing any more once it was closed or has ended. */
export interface WireEvents {
  onWelcome(welcome: Welcome): void;
  onMachine(machineId: string, message: MachineMessage): void;
  onMachineClosed(machineId: string, problem: Problem): void;
  /** The relay wants this session to go on elsewhere, after a wait and before a time is over; until then it serves here. */
  onGoAway(reconnectInMs: number, tryForMs: number): void;
  onEnd(problem: Problem): void;
}

type Kind = SessionUp["kind"];

const OPEN = 1;
const HANDSHAKE_TIMEOUT_MS = 10_000;
const DEFAULT_PING_INTERVAL_MS = 4_000;
const DEFAULT_SILENCE_MAX_MS = 8_000;

export class Wire {
  readonly #deps: WireDeps;
  readonly #events: WireEvents;
  readonly #ticket: TicketJson;
  readonly #webSocket: WebSocketLike;
  readonly #timers = new Timers();
  #over = false;
  #openedAtMs = 0;
  #lastHeardMs = 0;
  #serverTimeMs = 0;
  #pingIntervalMs = DEFAULT_PING_INTERVAL_MS;
  #silenceMaxMs = DEFAULT_SILENCE_MAX_MS;
  #nonce = 0n;
  #welcome: Welcome | undefined;

  constructor(deps: WireDeps, events: WireEvents, region: RegionJson, ticket: TicketJson) {
    this.#deps = deps;
    this.#events = events;
    this.#ticket = ticket;
    this.#webSocket = deps.connect(region.session_url, SUBPROTOCOL);
    this.#listen(this.#webSocket);
    this.#timers.later(HANDSHAKE_TIMEOUT_MS, () => {
      if (this.#welcome === undefined) this.#end(new Problem(LOCAL.unreachable));
    });
  }

  /** The session; undefined until the relay welcomed it. */
  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /** How long the session has been open. */
  get ageMs(): number {
    return this.#welcome === undefined ? 0 : this.#deps.now() - this.#openedAtMs;
  }

  /** Sends a frame; false when it cannot leave. */
  send(lane: number, kind: Kind): boolean {
    if (this.#over || this.#webSocket.readyState !== OPEN) return false;
    const message = create(SessionUpSchema);
    message.kind = kind;
    this.#webSocket.send(encodeFrame(lane, message));
    return true;
  }

  /** Asks for a sign of life; without one the wire ends. */
  ping(): void {
    this.#nonce += 1n;
    this.#sendControl({ case: "ping", value: { nonce: this.#nonce } });
    const askedAtMs = this.#deps.now();
    this.#timers.later(this.#silenceMaxMs, () => {
      if (this.#lastHeardMs < askedAtMs) this.#end(new Problem(1013));
    });
  }

  close(): void {
    this.#over = true;
    this.#timers.clear();
    this.#webSocket.close();
  }

  #listen(webSocket: WebSocketLike): void {
    webSocket.binaryType = "arraybuffer";
    webSocket.onopen = () => this.#over || this.#hello();
    webSocket.onclose = () => this.#end(new Problem(LOCAL.unreachable));
    webSocket.onerror = () => undefined;
    webSocket.onmessage = ({ data }) => {
      if (this.#over) return;
      this.#lastHeardMs = this.#deps.now();
      const message = data instanceof ArrayBuffer ? decodeFrame(new Uint8Array(data)) : undefined;
      if (message === undefined) this.#end(new Problem(1005));
      else this.#heard(message);
    };
  }

  #hello(): void {
    const { ticket, grant } = this.#ticket;
    const { publicKey } = this.#deps.key;
    this.#sendControl({
      case: "hello",
      value: {
        version: VERSION,
        versionMin: VERSION,
        capabilities: [Capability.BULK_CREDIT],
        ticket,
        grant,
        deviceKey: { algorithm: ALGORITHMS[publicKey.algorithm], key: publicKey.bytes },
        client: CLIENT,
      },
    });
  }

  #heard({ kind }: SessionDown): void {
    switch (kind.case) {
      case "challenge":
        this.#serverTimeMs = Number(kind.value.serverTimeMs);
        void this.#prove(kind.value.nonce, kind.value.gatewayId);
        break;
      case "welcome":
        this.#pingIntervalMs = kind.value.pingIntervalMs || DEFAULT_PING_INTERVAL_MS;
        this.#silenceMaxMs = kind.value.silenceMaxMs || DEFAULT_SILENCE_MAX_MS;
        this.#welcomed({ ...kind.value, serverTimeMs: this.#serverTimeMs });
        break;
      case "fromMachine":
        if (kind.value.message !== undefined) {
          this.#events.onMachine(uuidText(kind.value.machineId), kind.value.message);
        }
        break;
      case "machineClosed": {
        const { machineId, code, retryAfterMs } = kind.value;
        this.#events.onMachineClosed(uuidText(machineId), new Problem(code, retryAfterMs));
        break;
      }
      case "goAway":
        this.#events.onGoAway(kind.value.reconnectInMs, kind.value.tryForMs);
        break;
      case "end":
        this.#end(new Problem(kind.value.code, kind.value.retryAfterMs));
        break;
      case "pong":
      case undefined:
        break;
    }
  }

  async #prove(nonce: Uint8Array, gatewayId: string): Promise<void> {
    const { key, origin } = this.#deps;
    const ticketHash = await sha256(utf8(this.#ticket.ticket));
    const transcript = new Transcript(LABEL.sessionProof).bytes(nonce).bytes(ticketHash).text(gatewayId).text(origin);
    this.#sendControl({ case: "proof", value: { signature: await key.sign(transcript) } });
  }

  #welcomed({ sessionId, eventWindowBytes, bulkWindowBytes, serverTimeMs }: Welcome): void {
    this.#welcome = { sessionId, eventWindowBytes, bulkWindowBytes, serverTimeMs };
    this.#openedAtMs = this.#deps.now();
    this.#beat();
    this.#events.onWelcome(this.#welcome);
  }

  #beat(): void {
    this.#timers.later(this.#pingIntervalMs, () => {
      if (this.#deps.now() - this.#lastHeardMs > this.#silenceMaxMs + this.#pingIntervalMs) {
        this.#end(new Problem(1013));
        return;
      }
      this.ping();
      this.#beat();
    });
  }

  #end(problem: Problem): void {
    if (this.#over) return;
    this.close();
    this.#events.onEnd(problem);
  }

  #sendControl(kind: { readonly case: string; readonly value: object }): void {
    this.send(LANE.control, create(SessionUpSchema, { kind: kind as never }).kind);
  }
}
