/**
 * Pairing without trusting the relay; mirrors `services/domain/src/pairing.rs`.
 *
 * HKDF-SHA-256 over the secret of the QR code gives three keys. Both MACs cover the same terms, so both sides
 * agree on relay, account, role and both keys, or neither goes on.
 */
import { fromBase64url, fromUuid, source, utf8 } from "./bytes";
import { LABEL, Transcript } from "./encoding";
import type { PublicKey } from "./keys";

export type Role = "viewer" | "operator" | "owner";

/** What a pairing link carries in its fragment. */
export interface Claim {
  readonly claimId: string;
  readonly secret: Uint8Array;
}

export interface ClaimKeys {
  readonly redeem: Uint8Array;
  readonly deviceToMachine: Uint8Array;
  readonly machineToDevice: Uint8Array;
}

/** Everything that both sides of a pairing must agree on. */
export interface PairingTerms {
  readonly origin: string;
  readonly claimId: string;
  readonly expiresAtMs: number;
  readonly accountId: string;
  readonly machineId: string;
  readonly role: Role;
  readonly machineKey: PublicKey;
  readonly deviceKey: PublicKey;
}

const SECRET_BYTES = 32;

/** Reads `<claim id>.<secret>`, with or without the leading `#`. */
export function parseClaim(fragment: string): Claim | undefined {
  const [claimId, secretText, ...rest] = fragment.replace(/^#/, "").split(".");
  if (claimId === undefined || secretText === undefined || rest.length > 0) return undefined;
  const secret = fromBase64url(secretText);
  if (fromUuid(claimId) === undefined || secret === undefined || secret.length !== SECRET_BYTES) return undefined;
  return { claimId, secret };
}

export async function claimKeys(secret: Uint8Array): Promise<ClaimKeys> {
  const base = await crypto.subtle.importKey("raw", source(secret), "HKDF", false, ["deriveBits"]);
  const derive = async (info: string) => {
    const parameters = { name: "HKDF", hash: "SHA-256", salt: utf8(LABEL.claimKeys), info: utf8(info) };
    return new Uint8Array(await crypto.subtle.deriveBits(parameters, base, 256));
  };
  return {
    redeem: await derive("redeem"),
    deviceToMachine: await derive("device-to-machine"),
    machineToDevice: await derive("machine-to-device"),
  };
}

export async function pairingMac(terms: PairingTerms, key: Uint8Array): Promise<Uint8Array> {
  const hmac = await macKey(key, "sign");
  return new Uint8Array(await crypto.subtle.sign("HMAC", hmac, transcript(LABEL.pairing, terms).finish()));
}

/** A handle of a MAC key that verifies, and that cannot be read any more. */
export function verifyingKey(key: Uint8Array): Promise<CryptoKey> {
  return macKey(key, "verify");
}

/** Whether `mac` is the terms' MAC under `key`; WebCrypto compares in constant time. */
export async function verifyPairingMac(terms: PairingTerms, key: CryptoKey, mac: Uint8Array): Promise<boolean> {
  return crypto.subtle.verify("HMAC", key, source(mac), transcript(LABEL.pairing, terms).finish());
}

/** The six digits that both screens show, for people to compare. */
export async function shortCode(terms: PairingTerms): Promise<string> {
  const hash = await transcript(LABEL.pairingCode, terms).sha256();
  const number = new DataView(hash.buffer).getUint32(0) % 1_000_000;
  const digits = number.toString().padStart(6, "0");
  return `${digits.slice(0, 3)} ${digits.slice(3)}`;
}

function transcript(label: typeof LABEL.pairing | typeof LABEL.pairingCode, terms: PairingTerms): Transcript {
  return new Transcript(label)
    .text(terms.origin)
    .bytes(uuid(terms.claimId))
    .integer(terms.expiresAtMs)
    .bytes(uuid(terms.accountId))
    .bytes(uuid(terms.machineId))
    .text(terms.role)
    .text(terms.machineKey.algorithm)
    .bytes(terms.machineKey.bytes)
    .text(terms.deviceKey.algorithm)
    .bytes(terms.deviceKey.bytes);
}

function macKey(key: Uint8Array, usage: "sign" | "verify"): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", source(key), { name: "HMAC", hash: "SHA-256" }, false, [usage]);
}

function uuid(text: string): Uint8Array {
  const bytes = fromUuid(text);
  if (bytes === undefined) throw new TypeError("not a UUID");
  return bytes;
}
