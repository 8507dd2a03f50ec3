/** One tab of a browser holds the connection; another takes it over when a person asks there. */

const LOCK = "flydex-session";
const CHANNEL = "flydex-tabs";

export interface TabEvents {
  /** This tab holds the connection now. */
  onOwner(): void;
  /** Another tab holds it. */
  onGuest(): void;
}

export class Tabs {
  readonly #events: TabEvents;
  readonly #channel: BroadcastChannel | undefined;
  #release: (() => void) | undefined;
  #owner = false;

  constructor(events: TabEvents) {
    this.#events = events;
    this.#channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(CHANNEL) : undefined;
    this.#channel?.addEventListener("message", (event) => {
      if (event.data === "take-over" && this.#owner) this.#give();
    });
  }

  /** Becomes the owner if no tab is. */
  async start(): Promise<void> {
    if (navigator.locks === undefined) {
      this.#own();
      return;
    }
    const free = await this.#request({ ifAvailable: true });
    if (!free) this.#events.onGuest();
  }

  /** Asks the owner to give way, and waits for it. */
  async takeOver(): Promise<void> {
    this.#channel?.postMessage("take-over");
    await this.#request({});
  }

  #request(options: LockOptions): Promise<boolean> {
    return new Promise((resolve) => {
      void navigator.locks.request(LOCK, options, (lock) => {
        resolve(lock !== null);
        if (lock === null) return undefined;
        this.#own();
        // Held until it is given away or the tab goes.
        return new Promise<void>((release) => {
          this.#release = release;
        });
      });
    });
  }

  #own(): void {
    this.#owner = true;
    this.#events.onOwner();
  }

  #give(): void {
    this.#owner = false;
    this.#events.onGuest();
    this.#release?.();
    this.#release = undefined;
  }
}
