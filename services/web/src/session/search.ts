/**
 * Asks the control plane where machines are for as long as one of them is lost: soon after the loss, then ever more
 * seldom, and never all phones at the same moment.
 */
import { Timers } from "./timers";

export interface SearchDeps {
  readonly now: () => number;
  readonly random: () => number;
  /** Asks; how long the control plane wants to be left alone, when it says so. */
  readonly ask: () => Promise<number>;
  /** Whether a machine is still not where it was looked for. */
  readonly lost: () => boolean;
}

/** A link takes a moment to be known: the first question comes this long after the loss. */
const FIRST_WAIT_MS = 600;
/** Two questions are never closer than this. */
const WAIT_MIN_MS = 2_000;
/** A computer that is just switched off is looked for this seldom in the end. */
const WAIT_MAX_MS = 30_000;

export class Search {
  readonly #deps: SearchDeps;
  readonly #timers = new Timers();
  #sinceMs = 0;
  /** No question comes before this. */
  #quietUntilMs = 0;
  /** When the next question comes; undefined while none does. */
  #nextAtMs: number | undefined;

  constructor(deps: SearchDeps) {
    this.#deps = deps;
  }

  /** A machine was lost just now, or a person came back to the page. */
  begin(): void {
    const now = this.#deps.now();
    this.#sinceMs = now;
    const waitMs = this.#spread(Math.max(this.#quietUntilMs - now, FIRST_WAIT_MS));
    if (this.#nextAtMs === undefined || this.#nextAtMs > now + waitMs) this.#askIn(waitMs);
  }

  stop(): void {
    this.#timers.clear();
    this.#nextAtMs = undefined;
  }

  #askIn(waitMs: number): void {
    this.#timers.clear();
    this.#nextAtMs = this.#deps.now() + waitMs;
    this.#timers.later(waitMs, () => void this.#ask());
  }

  async #ask(): Promise<void> {
    // Kept while the answer is awaited: what is lost meanwhile is in it, or asked for again after it.
    if (!this.#deps.lost()) {
      this.#nextAtMs = undefined;
      return;
    }
    this.#quietUntilMs = this.#deps.now() + WAIT_MIN_MS;
    const leaveMs = await this.#deps.ask();
    const now = this.#deps.now();
    this.#quietUntilMs = Math.max(this.#quietUntilMs, now + leaveMs);
    if (this.#nextAtMs === undefined) return;
    const lostForMs = now - this.#sinceMs;
    this.#askIn(Math.max(leaveMs, this.#spread(Math.min(Math.max(lostForMs / 4, WAIT_MIN_MS), WAIT_MAX_MS))));
  }

  /** Up to half as long again. */
  #spread(waitMs: number): number {
    return waitMs * (1 + this.#deps.random() / 2);
  }
}
