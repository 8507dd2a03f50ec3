/** Passkeys of this browser: the two steps with the server, and the browser's own question in between. */
import type { AccountSession } from "../api/client";
import { LOCAL, Problem } from "../api/problem";
import { type CredentialJson, type PasskeyRow, ways } from "../api/ways";

/** Whether this browser can use passkeys at all. */
export function passkeysSupported(): boolean {
  return typeof PublicKeyCredential === "function" && typeof PublicKeyCredential.parseRequestOptionsFromJSON === "function";
}

export async function signInWithPasskey(): Promise<AccountSession> {
  const { options } = await ways.beginPasskeySignIn();
  return ways.finishPasskeySignIn(await assertion(options));
}

/** Proves anew that the person is there. */
export async function assertPresence(): Promise<AccountSession> {
  const { options } = await ways.beginPresence();
  return ways.finishPresence(await assertion(options));
}

export async function addPasskey(label: string): Promise<PasskeyRow> {
  const { options } = await ways.beginPasskey();
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
  const made = await asked(() => navigator.credentials.create({ publicKey }));
  return ways.finishPasskey(label, json(made));
}

async function assertion(options: PublicKeyCredentialRequestOptionsJSON): Promise<CredentialJson> {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  return json(await asked(() => navigator.credentials.get({ publicKey })));
}

/** What the browser asks the person; a no, or nothing that fits, is one problem. */
export async function asked(
  question: () => Promise<Credential | null>,
  refused: number = LOCAL.passkeyNotUsed,
): Promise<PublicKeyCredential> {
  let answer: Credential | null;
  try {
    answer = await question();
  } catch (reason) {
    // The authenticator has one of the user's passkeys already.
    if (reason instanceof DOMException && reason.name === "InvalidStateError") throw new Problem(LOCAL.passkeyKnown);
    throw new Problem(refused);
  }
  if (!(answer instanceof PublicKeyCredential)) throw new Problem(refused);
  return answer;
}

function json(credential: PublicKeyCredential): CredentialJson {
  return credential.toJSON();
}
