// @vitest-environment node
import { expect, test } from "vitest";

import { PasskeyAlgorithm } from "../gen/flydex/agent/v1/agent_pb";
import { pinnable } from "./passkey";

const ID = new Uint8Array([1, 2, 3]);
const P256 = { name: "ECDSA", namedCurve: "P-256" };

async function exported(algorithm: EcKeyGenParams | AlgorithmIdentifier): Promise<{ spki: Uint8Array; raw: Uint8Array }> {
  const { publicKey } = (await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"])) as CryptoKeyPair;
  const [spki, raw] = [await crypto.subtle.exportKey("spki", publicKey), await crypto.subtle.exportKey("raw", publicKey)];
  return { spki: new Uint8Array(spki), raw: new Uint8Array(raw) };
}

test("the key that a browser exports becomes the key that a machine pins", async () => {
  const [es256, ed25519] = [await exported(P256), await exported("Ed25519")];
  expect(pinnable(ID, -7, es256.spki)).toEqual({ credentialId: ID, algorithm: PasskeyAlgorithm.ES256, key: es256.raw });
  expect(pinnable(ID, -8, ed25519.spki)).toEqual({
    credentialId: ID,
    algorithm: PasskeyAlgorithm.ED25519,
    key: ed25519.raw,
  });
});

test("a key of another algorithm, curve or form is pinned by nobody", async () => {
  const [es256, p384] = [await exported(P256), await exported({ ...P256, namedCurve: "P-384" })];
  expect(pinnable(ID, -257, es256.spki)).toBeUndefined();
  expect(pinnable(ID, -8, es256.spki)).toBeUndefined();
  expect(pinnable(ID, -7, p384.spki)).toBeUndefined();
  expect(pinnable(ID, -7, es256.raw)).toBeUndefined();
  expect(pinnable(ID, -7, new Uint8Array([...es256.spki, 0]))).toBeUndefined();
});
