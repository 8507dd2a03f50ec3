/**
 * One numbered stream as this browser follows it (INV-ORDER): what to apply now, what to hold back, when to ask
 * again. Lanes have no order between them, so a snapshot may come before or after its verdict.
 */
import { equal } from "../protocol/bytes";

export interface Cursor {
  readonly streamId: number;
  readonly bootId: Uint8Array;
  readonly seq: bigint;
}

export interface StreamEvent {
  readonly seq: bigint;
  readonly body: Uint8Array;
}

/** Bodies to apply, in order; or that there is a hole and the stream must be asked for again. */
export type Step = { readonly kind: "apply"; readonly events: readonly StreamEvent[] } | { readonly kind: "hole" };

const NOTHING: Step = { kind: "apply", events: [] };
const HOLE: Step = { kind: "hole" };
/** Events held back while a snapshot is on its way; the event window keeps honest peers far below it. */
const HELD_MAX = 8192;

export class StreamSync {
  #cursor: Cursor | undefined;
  #live = false;
  #verdict: { streamId: number; bootId: Uint8Array; gapAsOf?: bigint } | undefined;
  #held: StreamEvent[] = [];

  /** Where to resume from; undefined for a fresh start. */
  get cursor(): Cursor | undefined {
    return this.#cursor;
  }

  /** Whether everything up to the newest event has been applied. */
  get live(): boolean {
    return this.#live;
  }

  get streamId(): number | undefined {
    return this.#verdict?.streamId ?? this.#cursor?.streamId;
  }

  /** The stream is asked for anew; what is held is stale. */
  asked(): void {
    this.#live = false;
    this.#verdict = undefined;
    this.#held = [];
  }

  /** Forgets the place, so that the next ask gets a snapshot. */
  forget(): void {
    this.asked();
    this.#cursor = undefined;
  }

  resumed(streamId: number, bootId: Uint8Array, from: bigint): Step {
    const cursor = this.#cursor;
    const matches =
      cursor !== undefined && cursor.streamId === streamId && cursor.seq === from && equal(cursor.bootId, bootId);
    if (!matches) return HOLE;
    this.#verdict = { streamId, bootId };
    this.#live = true;
    // What came before the verdict was sent for an earlier watch; all after the cursor is sent anew.
    this.#held = [];
    return NOTHING;
  }

  gap(streamId: number, bootId: Uint8Array, asOf: bigint): Step {
    this.#verdict = { streamId, bootId, gapAsOf: asOf };
    // The snapshot overtook its verdict.
    return this.#live ? this.#drain() : NOTHING;
  }

  /** The snapshot was applied; it holds as of `asOf`. */
  settled(streamId: number, bootId: Uint8Array, asOf: bigint): Step {
    this.#cursor = { streamId, bootId, seq: asOf };
    this.#live = true;
    return this.#drain();
  }

  event(event: StreamEvent): Step {
    this.#held.push(event);
    if (this.#held.length > HELD_MAX) return HOLE;
    return this.#live ? this.#drain() : NOTHING;
  }

  #drain(): Step {
    const events: StreamEvent[] = [];
    const held = this.#held;
    this.#held = [];
    for (const event of held) {
      const cursor = this.#cursor;
      if (cursor === undefined || event.seq > cursor.seq + 1n) return HOLE;
      if (event.seq <= cursor.seq) continue;
      this.#cursor = { ...cursor, seq: event.seq };
      events.push(event);
    }
    return { kind: "apply", events };
  }
}
