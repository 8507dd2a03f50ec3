/**
 * Keys: this browser's own (non-extractable, made by WebCrypto) and other parties' public ones.
 *
 * The private key never leaves WebCrypto; only the handle is kept, in IndexedDB.
 */
import { Transcript, LABEL } from "./encoding";
import { source } from "./bytes";

/** A public key as fingerprints and JSON carry it. */
export interface PublicKey {
  readonly algorithm: "ed25519";
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
}

/** This browser cannot make Ed25519 keys. */
export class KeysUnsupported extends Error {
  constructor() {
    super("this browser cannot make Ed25519 keys");
  }
}

export async function generateKey(): Promise<StoredKey> {
  let pair: CryptoKeyPair;
  try {
    pair = (await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"])) as CryptoKeyPair;
  } catch {
    throw new KeysUnsupported();
  }
  const publicBytes = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { privateKey: pair.privateKey, publicBytes };
}

export async function openKey(stored: StoredKey): Promise<DeviceKey> {
  const publicKey: PublicKey = { algorithm: "ed25519", bytes: stored.publicBytes };
  return {
    publicKey,
    deviceId: await fingerprint(publicKey),
    async sign(transcript) {
      return new Uint8Array(await crypto.subtle.sign({ name: "Ed25519" }, stored.privateKey, transcript.finish()));
    },
  };
}

/** SHA-256 over label, algorithm and key: the name a device goes by. */
export function fingerprint(key: PublicKey): Promise<Uint8Array> {
  return new Transcript(LABEL.keyFingerprint).text(key.algorithm).bytes(key.bytes).sha256();
}

/** Whether the signature over the transcript was made with the private half of `key`. */
export async function verify(key: PublicKey, transcript: Transcript, signature: Uint8Array): Promise<boolean> {
  try {
    const imported = await crypto.subtle.importKey("raw", source(key.bytes), { name: "Ed25519" }, false, ["verify"]);
    return await crypto.subtle.verify({ name: "Ed25519" }, imported, source(signature), transcript.finish());
  } catch {
    return false;
  }
}
