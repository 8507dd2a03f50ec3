/** Many changes, one drawing: what changed is collected and handed on once per frame. */

/** A hidden page gets no frames but timers. */
const HIDDEN_FRAME_MS = 250;

export class Frames {
  readonly #draw: () => void;
  #pending = false;

  constructor(draw: () => void) {
    this.#draw = draw;
  }

  schedule(): void {
    if (this.#pending) return;
    this.#pending = true;
    if (document.visibilityState === "visible") requestAnimationFrame(() => this.#frame());
    else setTimeout(() => this.#frame(), HIDDEN_FRAME_MS);
  }

  #frame(): void {
    this.#pending = false;
    this.#draw();
  }
}
