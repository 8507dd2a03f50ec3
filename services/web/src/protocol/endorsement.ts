/**
 * Endorsement: a new device shows its key, an owner device vouches for it; mirrors
 * `services/domain/src/endorsement.rs`.
 *
 * The code on the new device's screen carries a secret that the relay never sees. Under it the owner device makes a
 * MAC over the machine's key as it knows it, and so the new device learns whom to believe.
 */
import { base64url, fromBase64url, fromUtf8, source, utf8 } from "./bytes";
import { LABEL, Transcript } from "./encoding";
import { type PublicKey, fingerprint } from "./keys";
import type { Role } from "./pairing";

/** What a new device shows. */
export interface Request {
  readonly key: PublicKey;
  readonly role: Role;
  readonly label: string;
  /** By the clock of the new device. */
  readonly expiresAtMs: number;
  readonly secret: Uint8Array;
}

/** What the new device must find the same on the machine's side. */
export interface IntroductionTerms {
  readonly origin: string;
  readonly accountId: Uint8Array;
  readonly machineId: Uint8Array;
  readonly machineKey: PublicKey;
  readonly deviceKey: PublicKey;
  readonly role: Role;
}

/** A person walks from one screen to the other within this time. */
export const REQUEST_LIFETIME_MS = 300_000;
export const ROLES: readonly Role[] = ["viewer", "operator", "owner"];
const SECRET_BYTES = 32;
const KEY_BYTES = 32;
const LABEL_MAX = 64;

export function newRequest(key: PublicKey, role: Role, label: string, nowMs: number): Request {
  const secret = crypto.getRandomValues(new Uint8Array(SECRET_BYTES));
  return { key, role, label, expiresAtMs: nowMs + REQUEST_LIFETIME_MS, secret };
}

/** The address in the code: all of it stands behind `#`, so no server sees it. */
export function requestUrl(origin: string, request: Request): string {
  const { key, role, label, expiresAtMs, secret } = request;
  const parts = [key.algorithm, base64url(key.bytes), role, expiresAtMs, base64url(secret), base64url(utf8(label))];
  return `${origin}/endorse#${parts.join(".")}`;
}

/** Reads an address, or what stands behind its `#`. */
export function parseRequest(text: string): Request | undefined {
  const [algorithm, keyText, role, expiresText, secretText, labelText, ...rest] = text
    .trim()
    .replace(/^[^#]*#/, "")
    .split(".");
  const [key, secret, labelBytes] = [keyText, secretText, labelText].map((part) => fromBase64url(part ?? "!"));
  const expiresAtMs = Number(expiresText);
  if (algorithm !== "ed25519" || rest.length > 0 || !Number.isSafeInteger(expiresAtMs)) return undefined;
  if (key?.length !== KEY_BYTES || secret?.length !== SECRET_BYTES || labelBytes === undefined) return undefined;
  if (!ROLES.includes(role as Role)) return undefined;
  const label = printable(fromUtf8(labelBytes));
  if (label === "") return undefined;
  return { key: { algorithm, bytes: key }, role: role as Role, label, expiresAtMs, secret };
}

/** What both screens show of the new device's key, for people who paste instead of scanning. */
export async function keyCode(key: PublicKey): Promise<string> {
  const hash = await fingerprint(key);
  const digits = (new DataView(hash.buffer, hash.byteOffset).getBigUint64(0) % 1_000_000_000_000n).toString();
  return digits.padStart(12, "0").replace(/(\d{3})(?=\d)/g, "$1 ");
}

export async function introductionMac(terms: IntroductionTerms, secret: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.sign("HMAC", await macKey(secret), transcript(terms)));
}

/** Whether `mac` is the terms' MAC; WebCrypto compares in constant time. */
export async function verifyIntroduction(
  terms: IntroductionTerms,
  secret: Uint8Array,
  mac: Uint8Array,
): Promise<boolean> {
  return crypto.subtle.verify("HMAC", await macKey(secret), source(mac), transcript(terms));
}

function transcript(terms: IntroductionTerms): Uint8Array<ArrayBuffer> {
  return new Transcript(LABEL.introduction)
    .text(terms.origin)
    .bytes(terms.accountId)
    .bytes(terms.machineId)
    .text(terms.machineKey.algorithm)
    .bytes(terms.machineKey.bytes)
    .text(terms.deviceKey.algorithm)
    .bytes(terms.deviceKey.bytes)
    .text(terms.role)
    .finish();
}

function macKey(secret: Uint8Array): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", source(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
}

function printable(text: string): string {
  return [...text.replace(/\p{C}/gu, "")].slice(0, LABEL_MAX).join("").trim();
}
