/** The machine's time, estimated: deadlines and lifetimes are judged by its clock, not by the phone's. */

export class MachineClock {
  readonly #now: () => number;
  #offsetMs = 0;
  #known = false;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** A first guess from the server's clock, until the machine has spoken. */
  hint(serverTimeMs: number): void {
    if (!this.#known && serverTimeMs > 0) this.#offsetMs = serverTimeMs - this.#now();
  }

  /** The machine's time as it was some `ageMs` ago. */
  learn(machineTimeMs: number, ageMs: number): void {
    if (machineTimeMs <= 0) return;
    this.#known = true;
    this.#offsetMs = machineTimeMs + ageMs - this.#now();
  }

  now(): number {
    return this.#now() + this.#offsetMs;
  }
}
