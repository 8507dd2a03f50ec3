// @vitest-environment node
import { afterEach, expect, test, vi } from "vitest";

import vectors from "../../../../proto/vectors/v1.json";
import { fromHex, hex } from "./bytes";
import { verifyEd25519 } from "./ed25519";
import { LABEL, Transcript } from "./encoding";
import { fingerprint, generateKey, lowS, openKey, verify } from "./keys";

const transcript = () => new Transcript(LABEL.command).text("body");
const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

/** WebCrypto as it was before it had Ed25519. */
function withoutEd25519(): void {
  const { subtle } = globalThis.crypto;
  const refuse = (algorithm: unknown) => {
    if ((algorithm as { name?: string }).name === "Ed25519") throw new DOMException("no", "NotSupportedError");
  };
  vi.spyOn(subtle, "generateKey").mockImplementation((async (algorithm: never, ...rest: never[]) => {
    refuse(algorithm);
    return Reflect.apply(generate, subtle, [algorithm, ...rest]);
  }) as never);
  vi.spyOn(subtle, "importKey").mockImplementation((async (format: never, data: never, algorithm: never, ...rest: never[]) => {
    refuse(algorithm);
    return Reflect.apply(load, subtle, [format, data, algorithm, ...rest]);
  }) as never);
}
const { generateKey: generate, importKey: load } = globalThis.crypto.subtle;

afterEach(() => {
  vi.restoreAllMocks();
});

test("a browser without Ed25519 makes a P-256 key and signs in the one form that is taken", async () => {
  withoutEd25519();
  const key = await openKey(await generateKey());
  expect(key.publicKey.algorithm).toBe("p256");
  expect(key.publicKey.bytes).toHaveLength(65);
  expect(key.publicKey.bytes[0]).toBe(4);
  for (let round = 0; round < 20; round += 1) {
    const signature = await key.sign(transcript());
    expect(signature).toHaveLength(64);
    expect(BigInt(`0x${hex(signature.subarray(32))}`) <= ORDER / 2n).toBe(true);
    expect(await verify(key.publicKey, transcript(), signature)).toBe(true);
  }
});

test("of two forms of a signature the lower one is given", () => {
  const r = new Uint8Array(32).fill(1);
  const high = fromHex((ORDER - 5n).toString(16).padStart(64, "0"));
  expect(hex(lowS(new Uint8Array([...r, ...high])))).toBe(hex(r) + "5".padStart(64, "0"));
  const low = new Uint8Array([...r, ...fromHex("7".padStart(64, "0"))]);
  expect(lowS(low)).toEqual(low);
});

test("a P-256 key has the same fingerprint and form on both sides", async () => {
  const { p256 } = vectors;
  const key = { algorithm: "p256", bytes: fromHex(p256.public_key) } as const;
  expect(hex(await fingerprint(key))).toBe(p256.device_id);
  const signed = new Transcript(LABEL.command).bytes(fromHex(p256.bytes));
  expect(await verify(key, signed, fromHex(p256.command_signature))).toBe(true);
  expect(await verify(key, transcript(), fromHex(p256.command_signature))).toBe(false);
});

test("a machine's signature is verified where WebCrypto cannot", async () => {
  const { signatures } = vectors;
  const key = { algorithm: "ed25519", bytes: fromHex(signatures.public_key) } as const;
  const receipt = () => new Transcript(LABEL.receipt).bytes(fromHex(signatures.bytes));
  withoutEd25519();
  expect(await verify(key, receipt(), fromHex(signatures.receipt_signature))).toBe(true);
  expect(await verify(key, receipt(), fromHex(signatures.command_signature))).toBe(false);
});

test("our own verification says what WebCrypto says", async () => {
  const pair = (await crypto.subtle.generateKey({ name: "Ed25519" }, true, ["sign", "verify"])) as CryptoKeyPair;
  const key = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  for (const length of [0, 1, 31, 64, 300]) {
    const message = crypto.getRandomValues(new Uint8Array(length));
    const signature = new Uint8Array(await crypto.subtle.sign({ name: "Ed25519" }, pair.privateKey, message));
    expect(await verifyEd25519(key, message, signature)).toBe(true);
    for (const index of [0, 31, 32, 63]) {
      const broken = signature.slice();
      broken[index] = (broken[index] ?? 0) ^ 1;
      expect(await verifyEd25519(key, message, broken)).toBe(false);
    }
    expect(await verifyEd25519(key, new Uint8Array([...message, 0]), signature)).toBe(false);
  }
});

test("keys and signatures of small order, or past the order, are refused", async () => {
  const identity = new Uint8Array(32);
  identity[0] = 1;
  const forged = new Uint8Array([...identity, ...new Uint8Array(32)]);
  expect(await verifyEd25519(identity, new Uint8Array(3), forged)).toBe(false);
  expect(await verifyEd25519(new Uint8Array(32), new Uint8Array(3), forged)).toBe(false);
  expect(await verifyEd25519(new Uint8Array(32).fill(255), new Uint8Array(3), forged)).toBe(false);
  expect(await verifyEd25519(new Uint8Array(31), new Uint8Array(3), forged)).toBe(false);
});
