/**
 * Keys: this browser's own (non-extractable, made by WebCrypto) and other parties' public ones.
 *
 * The private key never leaves WebCrypto; only the handle is kept, in IndexedDB. A browser without Ed25519 has a P-256
 * key; machines always sign with Ed25519, which such a browser verifies by itself.
 */
import { fromHex, hex, source } from "./bytes";
import { verifyEd25519 } from "./ed25519";
import { LABEL, Transcript } from "./encoding";

/** Ed25519: 32 bytes. P-256: the uncompressed point, 65 bytes; signatures are r and s, s the lower of the two that hold. */
export type Algorithm = "ed25519" | "p256";

/** A public key as fingerprints and JSON carry it. */
export interface PublicKey {
  readonly algorithm: Algorithm;
  readonly bytes: Uint8Array;
}

/** The key that this browser signs with. */
export interface DeviceKey {
  readonly publicKey: PublicKey;
  /** The fingerprint by which machines know this browser, 32 bytes. */
  readonly deviceId: Uint8Array;
  sign(transcript: Transcript): Promise<Uint8Array>;
}

/** What is kept in IndexedDB: handles that WebCrypto will not export. */
export interface StoredKey {
  readonly privateKey: CryptoKey;
  readonly publicBytes: Uint8Array;
  /** Absent: Ed25519, as every key was once. */
  readonly algorithm?: Algorithm;
}

/** This browser can make no key that machines take. */
export class KeysUnsupported extends Error {
  constructor() {
    super("this browser can make neither Ed25519 nor P-256 keys");
  }
}

const ED25519 = { name: "Ed25519" };
const P256 = { name: "ECDSA", namedCurve: "P-256" };
const ECDSA = { name: "ECDSA", hash: "SHA-256" };
/** The order of P-256. */
const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

export async function generateKey(): Promise<StoredKey> {
  const made = (await generate("ed25519", ED25519)) ?? (await generate("p256", P256));
  if (made === undefined) throw new KeysUnsupported();
  return made;
}

async function generate(algorithm: Algorithm, parameters: typeof ED25519 | typeof P256): Promise<StoredKey | undefined> {
  try {
    const pair = (await crypto.subtle.generateKey(parameters, false, ["sign", "verify"])) as CryptoKeyPair;
    const publicBytes = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
    return { privateKey: pair.privateKey, publicBytes, algorithm };
  } catch {
    return undefined;
  }
}

export async function openKey(stored: StoredKey): Promise<DeviceKey> {
  const algorithm = stored.algorithm ?? "ed25519";
  const publicKey: PublicKey = { algorithm, bytes: stored.publicBytes };
  return {
    publicKey,
    deviceId: await fingerprint(publicKey),
    async sign(transcript) {
      const parameters = algorithm === "p256" ? ECDSA : ED25519;
      const signature = await crypto.subtle.sign(parameters, stored.privateKey, transcript.finish());
      return algorithm === "p256" ? lowS(new Uint8Array(signature)) : new Uint8Array(signature);
    },
  };
}

/** The one of the two signatures that hold for a message which is taken: s in the lower half. */
export function lowS(signature: Uint8Array): Uint8Array {
  const s = BigInt(`0x${hex(signature.subarray(32))}`);
  if (s <= ORDER / 2n) return signature;
  const low = fromHex((ORDER - s).toString(16).padStart(64, "0"));
  return new Uint8Array([...signature.subarray(0, 32), ...low]);
}

/** SHA-256 over label, algorithm and key: the name a device goes by. */
export function fingerprint(key: PublicKey): Promise<Uint8Array> {
  return new Transcript(LABEL.keyFingerprint).text(key.algorithm).bytes(key.bytes).sha256();
}

/** Whether the signature over the transcript was made with the private half of `key`. */
export async function verify(key: PublicKey, transcript: Transcript, signature: Uint8Array): Promise<boolean> {
  const message = transcript.finish();
  const [form, parameters] = key.algorithm === "p256" ? [P256, ECDSA] : [ED25519, ED25519];
  try {
    const imported = await crypto.subtle.importKey("raw", source(key.bytes), form, false, ["verify"]);
    return await crypto.subtle.verify(parameters, imported, source(signature), message);
  } catch (reason) {
    const isUnknown = reason instanceof DOMException && reason.name === "NotSupportedError";
    return isUnknown && key.algorithm === "ed25519" && verifyEd25519(key.bytes, message, signature);
  }
}
