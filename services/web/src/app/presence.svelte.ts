/** The question whether it is still the same person, as one of the page's states. */
import { onPresenceNeeded } from "../api/presence";
import { Problem } from "../api/problem";

class Presence {
  /** Whether the person is being asked. */
  asked = $state(false);

  #settle: { resolve: () => void; reject: (reason: Problem) => void } | undefined;

  /** Asks on whatever page is shown. */
  start(): void {
    onPresenceNeeded(
      () =>
        new Promise<void>((resolve, reject) => {
          this.#settle = { resolve, reject };
          this.asked = true;
        }),
    );
  }

  confirmed(): void {
    this.#settle?.resolve();
    this.#end();
  }

  refused(): void {
    this.#settle?.reject(new Problem(2030));
    this.#end();
  }

  #end(): void {
    this.#settle = undefined;
    this.asked = false;
  }
}

export const presence = new Presence();
