/**
 * The injective encoding that every signature, MAC and digest covers.
 *
 * It writes the same bytes as `services/domain/src/encoding.rs`; `proto/vectors/v1.json` holds both equal.
 * Each field is its length as a big-endian u32 and its bytes; integers are 8 big-endian bytes; an absent field
 * is the count 0, a present one the count 1 and the field; a list is its count and its fields.
 */
import { concat, sha256, utf8 } from "./bytes";

/** What a signature, MAC or digest is for. A value made for one purpose never verifies for another. */
export const LABEL = {
  keyFingerprint: "flydex/v1/key-fingerprint",
  command: "flydex/v1/command",
  receipt: "flydex/v1/receipt",
  approvalDigest: "flydex/v1/approval-digest",
  approval: "flydex/v1/approval",
  sessionProof: "flydex/v1/session-proof",
  pairing: "flydex/v1/pairing",
  pairingCode: "flydex/v1/pairing-code",
  claimKeys: "flydex/v1/claim-keys",
  keyRotation: "flydex/v1/key-rotation",
  introduction: "flydex/v1/introduction",
} as const;

export type Label = (typeof LABEL)[keyof typeof LABEL];

/** Builds the bytes of one transcript. */
export class Transcript {
  readonly #parts: Uint8Array[] = [];

  constructor(label: Label) {
    this.text(label);
  }

  bytes(field: Uint8Array): this {
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, field.length);
    this.#parts.push(length, field);
    return this;
  }

  text(field: string): this {
    return this.bytes(utf8(field));
  }

  integer(field: bigint | number): this {
    const value = new Uint8Array(8);
    new DataView(value.buffer).setBigUint64(0, BigInt(field));
    return this.bytes(value);
  }

  optional(field: Uint8Array | undefined): this {
    return field === undefined ? this.integer(0) : this.integer(1).bytes(field);
  }

  /** The count of a list; its fields follow. */
  count(count: number): this {
    return this.integer(count);
  }

  finish(): Uint8Array<ArrayBuffer> {
    return concat(this.#parts);
  }

  sha256(): Promise<Uint8Array<ArrayBuffer>> {
    return sha256(this.finish());
  }
}
