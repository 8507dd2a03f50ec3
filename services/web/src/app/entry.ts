/**
 * What the address brought: a token to sign in or to join with, a claim, a provider's answer, or what a new device shows.
 * Read once, and wiped from the address at once.
 */
import type { ProviderAnswer } from "../api/ways";
import { type Request, parseRequest } from "../protocol/endorsement";
import { type Claim, parseClaim } from "../protocol/pairing";

export interface Entry {
  readonly page: "app" | "sign-in" | "identity" | "invite" | "pair" | "endorse";
  readonly token: string | undefined;
  readonly claim: Claim | undefined;
  readonly answer?: ProviderAnswer;
  /** What a new device shows, read off its screen. */
  readonly request?: Request | undefined;
}

/** Takes the secrets out of the address bar and the history before anything else runs. */
export function takeEntry(location: Location, history: History): Entry {
  const { pathname, hash, search } = location;
  if (pathname === "/sign-in/identity") {
    history.replaceState(null, "", "/sign-in");
    const words = new URLSearchParams(search);
    const word = (name: string) => words.get(name) ?? undefined;
    const answer = { state: word("state") ?? "", code: word("code"), issuer: word("iss") };
    return { page: "identity", token: undefined, claim: undefined, answer };
  }
  if (pathname === "/sign-in") {
    history.replaceState(null, "", "/sign-in");
    return { page: "sign-in", token: hash.slice(1) || undefined, claim: undefined };
  }
  if (pathname === "/invite") {
    history.replaceState(null, "", "/invite");
    return { page: "invite", token: hash.slice(1) || undefined, claim: undefined };
  }
  if (pathname === "/pair") {
    history.replaceState(null, "", "/pair");
    return { page: "pair", token: undefined, claim: parseClaim(hash) };
  }
  if (pathname === "/endorse") {
    history.replaceState(null, "", "/endorse");
    return { page: "endorse", token: undefined, claim: undefined, request: parseRequest(hash) };
  }
  return { page: "app", token: undefined, claim: undefined };
}

/** The token of a sign-in link that was pasted whole or in part. */
export function tokenOf(text: string): string | undefined {
  const trimmed = text.trim();
  const token = trimmed.includes("#") ? trimmed.slice(trimmed.lastIndexOf("#") + 1) : trimmed;
  return /^[A-Za-z0-9._~-]{8,}$/.test(token) ? token : undefined;
}
