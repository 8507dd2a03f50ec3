/** A pairing in progress, from the claim in the link to the machine's verified word. */
import { api, keyJson, type LocalConnectJson } from "../api/client";
import { CODE_NAMES } from "../api/names";
import { LOCAL, Problem } from "../api/problem";
import { base64url, fromBase64url } from "../protocol/bytes";
import type { PublicKey } from "../protocol/keys";
import {
  type Claim,
  type PairingTerms,
  claimKeys,
  pairingMac,
  shortCode,
  verifyPairingMac,
  verifyingKey,
} from "../protocol/pairing";
import type { StoredPairing } from "../session/storage";
import { app } from "./app.svelte";
import { deviceLabel } from "./label";

export type PairingStep = "start" | "redeeming" | "comparing" | "confirmed" | "done" | "failed";

const POLL_WAIT_MS = 10_000;
const POLL_RETRY_MS = 1_500;
/** The desk's time to answer; mirrors LOCAL_CONNECT_LIFETIME of `domain/src/limits.rs`. */
const GIVE_UP_AFTER_MS = 600_000;
/** The relay is away or busy for a moment: asked again, the pairing goes on. */
const PASSING_CODES = new Set<number>([LOCAL.unreachable, 1006, 1007, 1008]);

export class Pairing {
  step: PairingStep = $state("start");
  code = $state("");
  machineLabel = $state("");
  machineId = $state("");
  problem: Problem | undefined = $state.raw();
  #localConnectId = "";
  #stopped = false;

  /** Begins a pairing with the claim of a link. */
  async run(claim: Claim): Promise<void> {
    await this.#attempt(async () => {
      this.step = "redeeming";
      const pairing = await this.#redeem(claim);
      await app.keepPairing(pairing);
      await this.#go(pairing);
    });
  }

  /** Goes on with a pairing that an earlier life of the page began. */
  async resume(pairing: StoredPairing): Promise<void> {
    await this.#attempt(() => this.#go(pairing));
  }

  async cancel(): Promise<void> {
    await this.leave();
    if (this.#localConnectId !== "" && this.step !== "done") {
      await api.cancelLocalConnect(this.#localConnectId).catch(() => undefined);
    }
  }

  /** Looks at it no longer; what the machine has said holds. */
  async leave(): Promise<void> {
    this.#stopped = true;
    await app.forgetPairing();
  }

  async #attempt(action: () => Promise<void>): Promise<void> {
    try {
      await action();
      if (this.step === "done") await app.forgetPairing();
    } catch (reason) {
      if (this.#stopped) return;
      this.problem = Problem.from(reason);
      this.step = "failed";
      await app.forgetPairing();
    }
  }

  async #redeem(claim: Claim): Promise<StoredPairing> {
    const key = app.deviceKey;
    const keys = await claimKeys(claim.secret);
    const redeemed = await api.redeem(claim.claimId, {
      redeem_key: base64url(keys.redeem),
      device_key: keyJson(key.publicKey),
      device_label: deviceLabel(navigator.userAgent),
    });
    // Both screens must speak of the same relay, and this page of the account that it is signed in to.
    if (redeemed.origin !== location.origin || redeemed.account_id !== app.account?.account_id) throw new Problem(3004);
    const machineKey = fromBase64url(redeemed.machine_key.key);
    if (machineKey === undefined || machineKey.length !== 32) throw new Problem(3004);
    const terms: PairingTerms = {
      origin: location.origin,
      claimId: claim.claimId,
      expiresAtMs: redeemed.expires_at_ms,
      accountId: redeemed.account_id,
      machineId: redeemed.machine_id,
      role: redeemed.role,
      machineKey: { algorithm: "ed25519", bytes: machineKey } satisfies PublicKey,
      deviceKey: key.publicKey,
    };
    return {
      localConnectId: redeemed.local_connect_id,
      machineLabel: redeemed.machine_label,
      terms,
      deviceMac: await pairingMac(terms, keys.deviceToMachine),
      machineMacKey: await verifyingKey(keys.machineToDevice),
      giveUpAtMs: Date.now() + GIVE_UP_AFTER_MS,
    };
  }

  async #go(pairing: StoredPairing): Promise<void> {
    const { terms, deviceMac, localConnectId, machineLabel } = pairing;
    this.#localConnectId = localConnectId;
    this.machineLabel = machineLabel;
    this.machineId = terms.machineId;
    this.code = await shortCode(terms);
    // Said again after a reload, because nobody knows whether it arrived; the same word twice changes nothing.
    await this.#asked(pairing, () => api.finalize(terms.claimId, base64url(deviceMac)));
    this.step = "comparing";
    await this.#follow(pairing);
  }

  async #follow(pairing: StoredPairing): Promise<void> {
    let confirmed = false;
    let seen = "awaiting_browser_finalize";
    let waitMs = 0;
    while (!this.#stopped) {
      const askedAt = Date.now();
      const state = await this.#asked(pairing, () => api.localConnect(pairing.localConnectId, seen, waitMs));
      if (state === undefined) return;
      if (state.machine?.mac !== undefined && !confirmed) {
        await this.#confirm(pairing, state.machine.mac);
        confirmed = true;
        this.step = "confirmed";
      }
      if (state.status === "codex_ready" && confirmed) {
        this.step = "done";
        return;
      }
      if (["expired", "cancelled", "failed"].includes(state.status)) throw endOf(state);
      // A server that does not wait is not asked without a pause.
      if (state.status === seen && Date.now() - askedAt < POLL_RETRY_MS) await pause(POLL_RETRY_MS / 3);
      seen = state.status;
      // Any change ends the wait, also one that leaves the status as it is: the machine's word.
      waitMs = POLL_WAIT_MS;
    }
  }

  /** Asks until there is an answer, through changes of the network; undefined when it was stopped meanwhile. */
  async #asked<T>({ giveUpAtMs }: StoredPairing, ask: () => Promise<T>): Promise<T | undefined> {
    while (!this.#stopped) {
      if (Date.now() > giveUpAtMs) throw new Problem(3005);
      try {
        return await ask();
      } catch (reason) {
        const problem = Problem.from(reason);
        if (!PASSING_CODES.has(problem.code)) throw problem;
        await pause(Math.max(POLL_RETRY_MS, problem.retryAfterMs));
      }
    }
    return undefined;
  }

  /** The machine's MAC verifies: its key is pinned, and only from here on is it believed. */
  async #confirm({ terms, machineMacKey }: StoredPairing, mac: string): Promise<void> {
    const bytes = fromBase64url(mac);
    if (bytes === undefined || !(await verifyPairingMac(terms, machineMacKey, bytes))) throw new Problem(3004);
    await app.pin({
      machineId: terms.machineId,
      accountId: terms.accountId,
      machineKey: terms.machineKey.bytes,
      label: this.machineLabel,
      role: terms.role,
      pairedAtMs: Date.now(),
    });
  }
}

function endOf(state: LocalConnectJson): Problem {
  if (state.status === "expired") return new Problem(3001);
  if (state.status === "cancelled") return new Problem(3003);
  const code = typeof state.code === "number" ? state.code : CODE_NAMES[state.code ?? ""];
  return new Problem(code ?? 3005);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
