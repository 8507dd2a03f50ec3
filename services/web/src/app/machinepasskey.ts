/**
 * The passkey that a machine asks for where much is at risk: made for one machine, right after its desk said yes to this
 * browser, and asked for one command at a time, by the command's hash.
 *
 * It is none of the account's passkeys: the machine takes its key from this browser and not from the server.
 */
import { LOCAL, Problem } from "../api/problem";
import { bodyOf } from "../protocol/command";
import { COSE_ALGORITHMS, type PasskeyAssertionParts, type PinnablePasskey, pinnable } from "../protocol/passkey";
import type { PinnedMachine } from "../session/storage";
import { app } from "./app.svelte";
import { asked } from "./passkeys";

const HANDLE_BYTES = 16;
/** For how long after the yes at the desk a passkey is taken; mirrors PASSKEY_PIN_WINDOW of `domain/src/limits.rs`. */
const PIN_WINDOW_MS = 600_000;

/** Whether this browser can make passkeys and tell their public keys. */
export function machinePasskeysSupported(): boolean {
  return typeof AuthenticatorAttestationResponse === "function" && "getPublicKey" in AuthenticatorAttestationResponse.prototype;
}

/** Makes a passkey for the machine and asks the machine to pin it; the id of that command. */
export async function setUpMachinePasskey(machineId: string): Promise<string> {
  const passkey = await make(app.label(machineId));
  return app.send(machineId, bodyOf("pinPasskey", passkey));
}

/** Asks the person for the pinned passkey's word on exactly one command. */
export async function confirmByPasskey(credentialId: Uint8Array, hash: Uint8Array): Promise<PasskeyAssertionParts> {
  if (!machinePasskeysSupported()) throw new Problem(LOCAL.passkeysUnsupported);
  const publicKey: PublicKeyCredentialRequestOptions = {
    challenge: new Uint8Array(hash),
    rpId: location.hostname,
    allowCredentials: [{ type: "public-key", id: new Uint8Array(credentialId) }],
    userVerification: "required",
  };
  const { rawId, response } = await asked(() => navigator.credentials.get({ publicKey }), LOCAL.notConfirmed);
  if (!(response instanceof AuthenticatorAssertionResponse)) throw new Problem(LOCAL.notConfirmed);
  return {
    credentialId: new Uint8Array(rawId),
    authenticatorData: new Uint8Array(response.authenticatorData),
    clientDataJson: new Uint8Array(response.clientDataJSON),
    signature: new Uint8Array(response.signature),
  };
}

async function make(machineLabel: string): Promise<PinnablePasskey> {
  if (!machinePasskeysSupported()) throw new Problem(LOCAL.passkeysUnsupported);
  const name = `Approvals on ${machineLabel}`;
  const publicKey: PublicKeyCredentialCreationOptions = {
    // Nobody verifies the making of it: that the machine pins it rests on the device's signature.
    challenge: crypto.getRandomValues(new Uint8Array(32)),
    rp: { id: location.hostname, name: "FlyDex" },
    // A handle of its own, so that it takes the place of no other passkey.
    user: { id: crypto.getRandomValues(new Uint8Array(HANDLE_BYTES)), name, displayName: name },
    pubKeyCredParams: COSE_ALGORITHMS.map((alg) => ({ type: "public-key", alg })),
    // It is asked for by its id, and signs nobody in.
    authenticatorSelection: { residentKey: "discouraged", userVerification: "required" },
    attestation: "none",
  };
  const { rawId, response } = await asked(() => navigator.credentials.create({ publicKey }));
  if (!(response instanceof AuthenticatorAttestationResponse)) throw new Problem(LOCAL.passkeyNotUsed);
  const spki = response.getPublicKey();
  const made = spki && pinnable(new Uint8Array(rawId), response.getPublicKeyAlgorithm(), new Uint8Array(spki));
  if (!made) throw new Problem(LOCAL.passkeysUnsupported);
  return made;
}

/** Whether the machine would still take a passkey of this browser, as far as can be known here. */
export function mayPin({ role, endorsed, pairedAtMs }: PinnedMachine, nowMs: number): boolean {
  return role !== "viewer" && endorsed === undefined && nowMs - pairedAtMs < PIN_WINDOW_MS;
}
