/** Waits between attempts: doubling from 250 ms to 30 s, with jitter so that many phones do not knock at once. */

const WAIT_MIN_MS = 250;
const WAIT_MAX_MS = 30_000;

export function backoffMs(attempt: number, random: () => number): number {
  const ceiling = Math.min(WAIT_MAX_MS, WAIT_MIN_MS * 2 ** Math.min(attempt, 16));
  return Math.round(ceiling / 2 + (ceiling / 2) * random());
}
