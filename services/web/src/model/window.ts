/**
 * Which rows of a long list are drawn: heights measured where known and estimated where not.
 *
 * A list of any length costs the rows that are on screen; its offsets are sums kept in one array.
 */

export interface Layout {
  /** Offset of each row, and the total at the end. */
  readonly offsets: Float64Array;
  readonly count: number;
}

export class Heights {
  readonly #estimate: number;
  readonly #measured = new Map<string, number>();

  constructor(estimate: number) {
    this.#estimate = estimate;
  }

  /** Notes a height; whether that changed anything. */
  measure(key: string, height: number): boolean {
    if (height <= 0 || Math.abs((this.#measured.get(key) ?? -1) - height) < 0.5) return false;
    this.#measured.set(key, height);
    return true;
  }

  /** A row's height, once it was on screen. */
  heightOf(key: string): number | undefined {
    return this.#measured.get(key);
  }

  layout(keys: readonly string[]): Layout {
    const offsets = new Float64Array(keys.length + 1);
    let offset = 0;
    for (let index = 0; index < keys.length; index += 1) {
      offsets[index] = offset;
      offset += this.#measured.get(keys[index] as string) ?? this.#estimate;
    }
    offsets[keys.length] = offset;
    return { offsets, count: keys.length };
  }
}

export function totalOf({ offsets, count }: Layout): number {
  return offsets[count] ?? 0;
}

/** The row at an offset: the last one that begins at or before it. */
export function indexAt({ offsets, count }: Layout, offset: number): number {
  let low = 0;
  let high = Math.max(0, count - 1);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((offsets[middle] ?? 0) <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The half-open range of rows that touch the given stretch. */
export function rangeOf(layout: Layout, from: number, to: number): { first: number; end: number } {
  if (layout.count === 0) return { first: 0, end: 0 };
  return { first: indexAt(layout, from), end: Math.min(layout.count, indexAt(layout, to) + 1) };
}
