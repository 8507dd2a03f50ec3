/** The service worker that keeps the app's own files for a start without a network. */

const WORKER_URL = "/sw.js";
/** Named in the server's content security policy; it passes one address and no other. */
const POLICY = "flydex-worker";

interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL: (url: string) => string }): {
    createScriptURL(url: string): unknown;
  };
}

export function registerWorker(): void {
  if (!("serviceWorker" in navigator)) return;
  try {
    const { trustedTypes } = globalThis as { trustedTypes?: TrustedTypes };
    const url = trustedTypes?.createPolicy(POLICY, { createScriptURL: onlyWorker }).createScriptURL(WORKER_URL);
    void navigator.serviceWorker.register((url ?? WORKER_URL) as string).catch(() => undefined);
  } catch {
    // Without it the app works as before, and needs the network to start.
  }
}

function onlyWorker(url: string): string {
  if (url !== WORKER_URL) throw new TypeError("not the app's worker");
  return url;
}
