/** A failure that a person can be told about: one of the system's numbered codes, or one seen only here. */

/** Failures that this browser finds by itself; below zero, so that they never meet a number of the wire. */
export const LOCAL = {
  unreachable: -1,
  unverified: -2,
  connectionLost: -3,
  notPairedHere: -4,
  keysUnsupported: -5,
  stale: -6,
  storage: -7,
  passkeyNotUsed: -8,
  passkeyKnown: -9,
  passkeysUnsupported: -10,
  notConfirmed: -11,
} as const;

export class Problem extends Error {
  readonly code: number;
  readonly retryAfterMs: number;

  constructor(code: number, retryAfterMs = 0) {
    super(`problem ${code}`);
    this.name = "Problem";
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }

  static from(reason: unknown): Problem {
    return reason instanceof Problem ? reason : new Problem(1000);
  }
}
