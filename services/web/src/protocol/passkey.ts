/** The passkey by which a machine knows a person: its public key as the machine pins it. Mirrors `domain/src/passkey.rs`. */
import { PasskeyAlgorithm } from "../gen/flydex/agent/v1/agent_pb";
import { equal, fromHex } from "./bytes";

/** What `PinPasskey` carries. */
export interface PinnablePasskey {
  readonly credentialId: Uint8Array;
  readonly algorithm: PasskeyAlgorithm;
  readonly key: Uint8Array;
}

/** What an answer carries beside the device's signature. */
export interface PasskeyAssertionParts {
  readonly credentialId: Uint8Array;
  readonly authenticatorData: Uint8Array;
  readonly clientDataJson: Uint8Array;
  readonly signature: Uint8Array;
}

/** The COSE numbers of the algorithms that machines verify, the one that every browser can export first. */
export const COSE_ALGORITHMS = [-7, -8] as const;

/** How a public key of each algorithm begins as SubjectPublicKeyInfo; the key itself follows, and nothing after it. */
const FORMS: Readonly<Record<number, { algorithm: PasskeyAlgorithm; prefix: Uint8Array; keyBytes: number }>> = {
  [-7]: {
    algorithm: PasskeyAlgorithm.ES256,
    prefix: fromHex("3059301306072a8648ce3d020106082a8648ce3d030107034200"),
    keyBytes: 65,
  },
  [-8]: { algorithm: PasskeyAlgorithm.ED25519, prefix: fromHex("302a300506032b6570032100"), keyBytes: 32 },
};

/** The public key of a passkey, as a browser gives it; undefined when no machine could pin it. */
export function pinnable(credentialId: Uint8Array, cose: number, spki: Uint8Array): PinnablePasskey | undefined {
  const form = FORMS[cose];
  if (form === undefined || spki.length !== form.prefix.length + form.keyBytes) return undefined;
  if (!equal(spki.subarray(0, form.prefix.length), form.prefix)) return undefined;
  return { credentialId, algorithm: form.algorithm, key: spki.slice(form.prefix.length) };
}
