/**
 * Where the server wants a fresh proof of the person: who asks them, and what is known of the session's token, which
 * every such proof replaces.
 */
import { Problem } from "./problem";

let ask: (() => Promise<void>) | undefined;
let asking: Promise<void> | undefined;

/** Says who asks the person. */
export function onPresenceNeeded(handler: (() => Promise<void>) | undefined): void {
  ask = handler;
}

/** Asks the person for a fresh proof, once for all who want one at the same time. */
export function confirmPresence(): Promise<void> {
  if (ask === undefined) return Promise.reject(new Problem(2030));
  asking ??= ask().finally(() => {
    asking = undefined;
  });
  return asking;
}

/** Replacements of the session's token: how many there were, and the one under way. */
export const tokenChange: { count: number; running: Promise<unknown> | undefined } = { count: 0, running: undefined };

/** Notes a request that replaces the session's token. */
export async function changingToken<T>(request: Promise<T>): Promise<T> {
  const quiet = request.catch(() => undefined);
  tokenChange.running = quiet;
  try {
    return await request;
  } finally {
    tokenChange.count += 1;
    if (tokenChange.running === quiet) tokenChange.running = undefined;
  }
}
