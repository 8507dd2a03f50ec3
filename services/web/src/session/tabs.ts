/**
 * One tab of a browser holds the connection. The others wait for it: the next goes on when the holder is closed, or a
 * person asks for it in one of them.
 */

const LOCK = "flydex-session";
const CHANNEL = "flydex-tabs";
const TAKE_OVER = "take-over";
/** A holder that does not give way by then is frozen by its browser, and loses the connection unasked. */
const GIVE_WAY_MAX_MS = 2_000;

export interface TabEvents {
  /** This tab holds the connection now. */
  onOwner(): void;
  /** Another tab holds it. */
  onGuest(): void;
}

export class Tabs {
  readonly #events: TabEvents;
  readonly #channel = new BroadcastChannel(CHANNEL);
  #owner = false;
  /** Grows with every request of the lock, so that an older one decides nothing. */
  #round = 0;
  /** Ends this tab's hold on the lock, or its place in the queue for it. */
  #leave: () => void = () => undefined;

  constructor(events: TabEvents) {
    this.#events = events;
    // Whoever is asked to give way queues anew behind the one that asks.
    this.#channel.addEventListener("message", ({ data }) => data === TAKE_OVER && this.#giveWay());
  }

  get owner(): boolean {
    return this.#owner;
  }

  /** Becomes the owner if no tab is, else a guest that waits. */
  start(): void {
    if (navigator.locks === undefined) this.#own();
    else this.#request({ ifAvailable: true });
  }

  /** Asks the owner to give way; one that does not answer is passed over. */
  takeOver(): void {
    this.#channel.postMessage(TAKE_OVER);
    setTimeout(() => {
      if (this.#owner) return;
      this.#leave();
      this.#request({ steal: true });
    }, GIVE_WAY_MAX_MS);
  }

  /** Waits in the queue until the lock is this tab's. */
  #queue(): void {
    const place = new AbortController();
    this.#request({ signal: place.signal });
    this.#leave = () => place.abort();
  }

  #request(options: LockOptions): void {
    const round = ++this.#round;
    const granted = (lock: Lock | null) => {
      if (round !== this.#round) return undefined;
      if (lock === null) {
        this.#lose();
        return undefined;
      }
      this.#own();
      // Held until it is given away or the tab goes.
      return new Promise<void>((release) => {
        this.#leave = release;
      });
    };
    navigator.locks.request(LOCK, options, granted).catch(() => {
      // Stolen: this tab did not hear that it was asked.
      if (round === this.#round) this.#lose();
    });
  }

  #own(): void {
    this.#owner = true;
    this.#events.onOwner();
  }

  #giveWay(): void {
    // The socket is closed before the lock is free.
    if (this.#owner) this.#events.onGuest();
    this.#owner = false;
    this.#leave();
    this.#queue();
  }

  #lose(): void {
    this.#owner = false;
    this.#events.onGuest();
    this.#queue();
  }
}
