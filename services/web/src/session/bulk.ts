/** Large answers: chunks collected until their receipt says how many bytes there are and what they hash to. */
import { concat } from "../protocol/bytes";

/** Mirrors PAGE_BYTES_MAX of `domain/src/limits.rs`. */
export const PAGE_BYTES_MAX = 256 * 1024;
/** How much is consumed before the sender is told. */
const CREDIT_EVERY_BYTES = 64 * 1024;

export class BulkAssembly {
  #chunks: Uint8Array[] = [];
  #length = 0;
  #uncredited = 0;
  #broken = false;

  get length(): number {
    return this.#length;
  }

  /** Whether chunks came out of order or over the bound: the answer cannot be assembled. */
  get broken(): boolean {
    return this.#broken;
  }

  /** Takes a chunk; returns the bytes to credit now, or 0. */
  add(offset: number, bytes: Uint8Array): number {
    if (offset !== this.#length || offset + bytes.length > PAGE_BYTES_MAX) {
      this.#broken = true;
      return 0;
    }
    this.#chunks.push(bytes);
    this.#length += bytes.length;
    this.#uncredited += bytes.length;
    if (this.#uncredited < CREDIT_EVERY_BYTES) return 0;
    const credit = this.#uncredited;
    this.#uncredited = 0;
    return credit;
  }

  bytes(): Uint8Array {
    return concat(this.#chunks);
  }
}
