/** Probes of the whole path: page, relay, connector and back, so that "live" is a measured fact. */
import type { ProbeReply } from "../gen/flydex/v1/relay_pb";
import type { MachineClock } from "./clock";
import type { Later } from "./timers";

export interface Probe {
  readonly answeredAtMs: number;
  readonly roundTripMs: number;
}

export interface HeartbeatDeps {
  readonly now: () => number;
  readonly clock: MachineClock;
  readonly send: (nonce: bigint) => void;
  /** The relay answers and the connector does not: the session may be known to nobody there. */
  readonly silent: () => void;
  readonly later: Later;
}

const INTERVAL_MS = 4_000;
const SILENCE_MAX_MS = 20_000;
/** Probes that may still be answered. */
const UNANSWERED_MAX = 8;

export class Heartbeat {
  /** When the whole path last answered, and how long it took. */
  last: Probe | undefined;
  readonly #deps: HeartbeatDeps;
  readonly #askedAtMs = new Map<bigint, number>();
  #nonce = 0n;

  constructor(deps: HeartbeatDeps) {
    this.#deps = deps;
  }

  beat(): void {
    const now = this.#deps.now();
    if (this.last !== undefined && now - this.last.answeredAtMs > SILENCE_MAX_MS) {
      this.#deps.silent();
      return;
    }
    this.#nonce += 1n;
    this.#askedAtMs.set(this.#nonce, now);
    for (const oldest of this.#askedAtMs.keys()) {
      if (this.#askedAtMs.size <= UNANSWERED_MAX) break;
      this.#askedAtMs.delete(oldest);
    }
    this.#deps.send(this.#nonce);
    this.#deps.later(INTERVAL_MS, () => this.beat());
  }

  answered({ nonce, machineTimeMs }: ProbeReply): void {
    const askedAtMs = this.#askedAtMs.get(nonce);
    if (askedAtMs === undefined) return;
    this.#askedAtMs.delete(nonce);
    const answeredAtMs = this.#deps.now();
    const roundTripMs = answeredAtMs - askedAtMs;
    this.last = { answeredAtMs, roundTripMs };
    this.#deps.clock.learn(Number(machineTimeMs), roundTripMs / 2);
  }

  forget(): void {
    this.last = undefined;
    this.#askedAtMs.clear();
  }
}
