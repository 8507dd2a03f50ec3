/** The control plane's HTTP API: one function a route, the documented error shape, nothing cached. */
import { base64url } from "../protocol/bytes";
import type { KeyRotationJson } from "../protocol/rotation";
import type { PublicKey } from "../protocol/keys";
import type { Role } from "../protocol/pairing";
import { confirmPresence, tokenChange } from "./presence";
import { LOCAL, Problem } from "./problem";

export interface KeyJson {
  algorithm: "ed25519" | "p256";
  key: string;
}

export interface AccountSession {
  account_id: string;
  user_id: string;
  role: Role;
  account_name: string;
  expires_at_ms?: number;
  /** How many passkeys the user has. */
  passkeys?: number;
  /** Until when what needs a fresh proof of the person goes through without another one. */
  fresh_until_ms?: number;
}

export interface MachineJson {
  machine_id: string;
  /** Two computers hold its key: it is locked out until it is paired again. */
  quarantined?: boolean;
  label: string;
  machine_key: KeyJson;
  /** How its key followed on each one before, by its own signatures. */
  key_rotations?: KeyRotationJson[];
  region: string;
  /** The only region that may serve it, where its owner keeps it in one. */
  region_pin?: string;
  created_at_ms: number;
}

export interface LocalConnectJson {
  local_connect_id: string;
  status: "created" | "awaiting_browser_finalize" | "codex_ready" | "expired" | "cancelled" | "failed";
  code?: string | number;
  machine_id: string;
  role: Role;
  expires_at_ms: number;
  account?: { account_id: string; name: string };
  device?: { key: KeyJson; label: string; mac?: string };
  machine?: { key: KeyJson; label: string; mac?: string };
}

export interface RedeemedJson {
  local_connect_id: string;
  machine_id: string;
  machine_key: KeyJson;
  machine_label: string;
  account_id: string;
  role: Role;
  origin: string;
  expires_at_ms: number;
}

export interface RegionJson {
  region: string;
  session_url: string;
}

export interface TicketJson {
  ticket: string;
  grant: string;
  expires_at_ms: number;
}

export interface SessionRow {
  session_id: string;
  current: boolean;
  created_at_ms: number;
}

export interface DeviceRow {
  device_id: string;
  label: string;
  created_at_ms?: number;
  revoked?: boolean;
  machine_id?: string;
  role?: Role;
}

export interface AuditRow {
  number: number;
  audit_id: string;
  kind: string;
  at_ms: number;
  deferred: boolean;
  machine_id?: string;
  device_id?: string;
  user_id?: string;
  approval_id?: string;
  command_id?: string;
  decision?: string;
  code?: string | number;
}

/** What to look for; what is absent does not matter. */
export interface AuditSearch {
  kind?: string;
  machine_id?: string;
  device_id?: string;
  since_ms?: number;
  until_ms?: number;
}

export interface AuditIntent {
  machine_id: string;
  device_id: string;
  approval_id: string;
  generation: string;
  decision: string;
  command_id: string;
  command_hash: string;
}

export interface MemberRow {
  user_id: string;
  /** What the owners call them; empty for who made the account. */
  label: string;
  role: Role;
  you: boolean;
  joined_at_ms: number;
}

export interface InvitationRow {
  invitation_id: string;
  role: Role;
  label: string;
  created_at_ms: number;
  expires_at_ms: number;
}

export interface OfferJson {
  account_name: string;
  role: Role;
  label: string;
  expires_at_ms: number;
}

export interface JoinedJson {
  account_id: string;
  user_id: string;
  role: Role;
  account_name: string;
  /** Whether this browser is the new member now; else it stays where it is. */
  signed_in: boolean;
}

export interface UseJson {
  used: number;
  limit: number | null;
}

export interface BillingJson {
  /** Absent on a server that does not bill. */
  plan: string | null;
  machines: UseJson;
  seats: UseJson;
  grace_until_ms: number | null;
  frozen: boolean;
}

export interface AccountRow {
  account_id: string;
  account_name: string;
  role: Role;
  current: boolean;
}

const REQUEST_TIMEOUT_MS = 20_000;
const UNAUTHENTICATED = 2000;
const FRESH_ASSERTION_REQUIRED = 2030;

export function keyJson(key: PublicKey): KeyJson {
  return { algorithm: key.algorithm, key: base64url(key.bytes) };
}

export const api = {
  signIn: (token: string) => request<AccountSession>("POST", "/api/sign-in", { token }),
  signOut: () => request<void>("POST", "/api/sign-out", {}),
  session: () => request<AccountSession>("GET", "/api/session"),
  sessions: () => request<{ sessions: SessionRow[] }>("GET", "/api/sessions"),
  endSession: (id: string) => request<void>("DELETE", `/api/sessions/${encodeURIComponent(id)}`),
  signInLink: () => request<{ url: string; expires_at_ms: number }>("POST", "/api/sign-in-links", {}),
  machines: () => request<{ machines: MachineJson[] }>("GET", "/api/machines"),
  renameMachine: (id: string, label: string) => request<void>("PATCH", `/api/machines/${id}`, { label }),
  pinMachine: (id: string, region: string | null) => request<void>("PUT", `/api/machines/${id}/region-pin`, { region }),
  revokeMachine: (id: string) => request<void>("DELETE", `/api/machines/${id}`),
  devices: () => request<{ devices: DeviceRow[] }>("GET", "/api/devices"),
  revokeDevice: (id: string) => request<void>("DELETE", `/api/devices/${encodeURIComponent(id)}`),
  members: () => request<{ members: MemberRow[] }>("GET", "/api/members"),
  setRole: (id: string, role: Role) => request<void>("PATCH", `/api/members/${id}`, { role }),
  removeMember: (id: string) => request<void>("DELETE", `/api/members/${id}`),
  leave: () => request<{ now: AccountSession | null }>("POST", "/api/members/leave", {}),
  invitations: () => request<{ invitations: InvitationRow[] }>("GET", "/api/invitations"),
  invite: (role: Role, label: string) =>
    request<{ invitation_id: string; url: string; expires_at_ms: number }>("POST", "/api/invitations", { role, label }),
  revokeInvitation: (id: string) => request<void>("DELETE", `/api/invitations/${id}`),
  offer: (token: string) => request<OfferJson>("POST", "/api/invitations/offer", { token }),
  accept: (token: string) => request<JoinedJson>("POST", "/api/invitations/accept", { token }),
  billing: () => request<BillingJson>("GET", "/api/billing"),
  accounts: () => request<{ accounts: AccountRow[] }>("GET", "/api/accounts"),
  switchAccount: (id: string) => request<AccountSession>("POST", `/api/accounts/${id}/switch`, {}),
  regions: () => request<{ regions: RegionJson[] }>("GET", "/api/regions"),
  ticket: (device_key: KeyJson, region: string, device_label?: string) =>
    request<TicketJson>("POST", "/api/tickets", { device_key, region, device_label }),
  redeem: (claimId: string, body: { redeem_key: string; device_key: KeyJson; device_label: string }) =>
    request<RedeemedJson>("POST", `/api/claims/${claimId}/redeem`, body),
  finalize: (claimId: string, device_mac: string) =>
    request<void>("POST", `/api/claims/${claimId}/finalize`, { device_mac }),
  localConnect: (id: string, after: string, waitMs: number, signal?: AbortSignal) =>
    request<LocalConnectJson>("GET", `/api/local-connect/${id}?wait_ms=${waitMs}&after=${after}`, undefined, signal),
  cancelLocalConnect: (id: string) => request<void>("POST", `/api/local-connect/${id}/cancel`, {}),
  auditIntent: (intent: AuditIntent, signal: AbortSignal) =>
    request<{ audit_receipt: string }>("POST", "/api/audit/intents", intent, signal),
  audit: (search: AuditSearch, before: number | undefined, limit: number) => {
    const query = new URLSearchParams({ limit: String(limit) });
    for (const [name, value] of Object.entries({ ...search, before })) {
      if (value !== undefined) query.set(name, String(value));
    }
    return request<{ records: AuditRow[]; next_before?: number }>("GET", `/api/audit?${query.toString()}`);
  },
  /** Whether an approval acts only with control's receipt. */
  auditPolicy: () => request<{ strict: boolean }>("GET", "/api/audit/policy"),
  setAuditPolicy: (strict: boolean) => request<void>("PUT", "/api/audit/policy", { strict }),
  /** The signed head of the audit, as it is to be kept. */
  auditHead: () => request<{ number: number; head: string }>("GET", "/api/audit/head"),
  /** Where all of the audit can be downloaded. */
  auditExportUrl: async () => `${await whereTheApiIs()}/api/audit/export`,
};

export type Api = typeof api;

/**
 * One request. Where the server wants a fresh proof of the person, they are asked and it is made again; and so is one that
 * was under way while the session got another token.
 */
export async function request<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const changes = tokenChange.count;
  try {
    return await once<T>(method, path, body, signal);
  } catch (reason) {
    const { code } = Problem.from(reason);
    if (code === FRESH_ASSERTION_REQUIRED) {
      await confirmPresence();
    } else if (code === UNAUTHENTICATED && (tokenChange.running !== undefined || tokenChange.count !== changes)) {
      await tokenChange.running;
    } else {
      throw reason;
    }
    return once<T>(method, path, body, signal);
  }
}

async function once<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(`${await whereTheApiIs()}${path}`, {
      method,
      // Every request but a GET must be JSON, so that no form of another site can make it.
      headers: method === "GET" ? {} : { "content-type": "application/json" },
      body: method === "GET" ? undefined : JSON.stringify(body ?? {}),
      // The API may have an origin of its own, within this site; its cookie is for it alone.
      credentials: "include",
      cache: "no-store",
      redirect: "error",
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    });
  } catch {
    throw new Problem(LOCAL.unreachable);
  }
  if (!response.ok) throw await problemOf(response);
  const text = await response.text();
  try {
    return (text === "" ? undefined : JSON.parse(text)) as T;
  } catch {
    throw new Problem(LOCAL.unreachable);
  }
}

let apiOrigin: Promise<string> | undefined;

/** The API's origin, as the origin of this page says; asked once, and again after a failure. */
function whereTheApiIs(): Promise<string> {
  apiOrigin ??= ask().catch((error: unknown) => {
    apiOrigin = undefined;
    throw error;
  });
  return apiOrigin;
}

async function ask(): Promise<string> {
  const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  const response = await fetch("/.well-known/flydex.json", { cache: "no-store", redirect: "error", signal });
  // A relay that says nothing has its API here.
  if (response.status === 404) return "";
  if (!response.ok) throw new Problem(LOCAL.unreachable);
  const { api_origin } = (await response.json()) as { api_origin: string };
  return api_origin === location.origin ? "" : new URL(api_origin).origin;
}

async function problemOf(response: Response): Promise<Problem> {
  try {
    const { error } = (await response.json()) as { error: { number: number; retry_after_ms?: number } };
    return new Problem(error.number, error.retry_after_ms ?? 0);
  } catch {
    // Not our server's shape: a proxy in between, or nothing that speaks FlyDex.
    return new Problem(response.status === 401 ? 2000 : LOCAL.unreachable);
  }
}
