import { webcrypto } from "node:crypto";

// jsdom has no WebCrypto of its own; Node's is the same interface, Ed25519 included.
if (globalThis.crypto?.subtle === undefined) {
  Object.defineProperty(globalThis, "crypto", { value: webcrypto, configurable: true });
}
