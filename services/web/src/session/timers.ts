/** Waits that all end together when what they wait for is over. */

export type Later = (waitMs: number, action: () => void) => void;

export class Timers {
  readonly #running = new Set<ReturnType<typeof setTimeout>>();

  readonly later: Later = (waitMs, action) => {
    const timer = setTimeout(() => {
      this.#running.delete(timer);
      action();
    }, waitMs);
    this.#running.add(timer);
  };

  clear(): void {
    for (const timer of this.#running) clearTimeout(timer);
    this.#running.clear();
  }
}
