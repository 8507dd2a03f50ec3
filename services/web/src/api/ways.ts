/** Ways into the account: passkeys, recovery codes and identities at a provider. */
import { type AccountSession, request } from "./client";
import { changingToken } from "./presence";

export interface SignInOptions {
  readonly passkeys: boolean;
  /** The provider that the server is set up with. */
  readonly identity_provider?: { readonly name: string };
}

export interface PasskeyRow {
  readonly passkey_id: string;
  readonly label: string;
  readonly created_at_ms: number;
  readonly used_at_ms?: number;
}

export interface IdentityRow {
  readonly identity_id: string;
  readonly issuer: string;
  readonly created_at_ms: number;
}

export interface WaysIn {
  readonly passkeys: readonly PasskeyRow[];
  readonly identities: readonly IdentityRow[];
  readonly recovery_codes_left: number;
}

interface ProviderAddress {
  readonly url: string;
}

/** What the provider sent the browser back with. */
export interface ProviderAnswer {
  readonly state: string;
  readonly code?: string;
  readonly issuer?: string;
}

interface CreationOptions {
  readonly options: PublicKeyCredentialCreationOptionsJSON;
}

interface AssertionOptions {
  readonly options: PublicKeyCredentialRequestOptionsJSON;
}

export type CredentialJson = RegistrationResponseJSON | AuthenticationResponseJSON;

export const ways = {
  options: () => request<SignInOptions>("GET", "/api/sign-in/options"),
  list: () => request<WaysIn>("GET", "/api/ways-in"),
  beginPasskeySignIn: () => request<AssertionOptions>("POST", "/api/sign-in/passkey/start"),
  finishPasskeySignIn: (credential: CredentialJson) =>
    request<AccountSession>("POST", "/api/sign-in/passkey/finish", { credential }),
  useRecoveryCode: (code: string) => request<AccountSession>("POST", "/api/sign-in/recovery", { code }),
  beginPresence: () => request<AssertionOptions>("POST", "/api/presence/start"),
  finishPresence: (credential: CredentialJson) =>
    changingToken(request<AccountSession>("POST", "/api/presence/finish", { credential })),
  beginPasskey: () => request<CreationOptions>("POST", "/api/passkeys/start"),
  finishPasskey: (label: string, credential: CredentialJson) =>
    changingToken(request<PasskeyRow>("POST", "/api/passkeys/finish", { label, credential })),
  renamePasskey: (id: string, label: string) => request<void>("PATCH", `/api/passkeys/${id}`, { label }),
  removePasskey: (id: string) => request<void>("DELETE", `/api/passkeys/${id}`),
  makeRecoveryCodes: () => request<{ codes: readonly string[] }>("POST", "/api/recovery-codes"),
  beginIdentitySignIn: () => request<ProviderAddress>("POST", "/api/sign-in/identity/start"),
  finishIdentitySignIn: (answer: ProviderAnswer) =>
    request<AccountSession>("POST", "/api/sign-in/identity/finish", answer),
  beginIdentity: () => request<ProviderAddress>("POST", "/api/identities/start"),
  finishIdentity: (answer: ProviderAnswer) => request<void>("POST", "/api/identities/finish", answer),
  removeIdentity: (id: string) => request<void>("DELETE", `/api/identities/${id}`),
  endAllSessions: () => request<void>("DELETE", "/api/sessions"),
};
