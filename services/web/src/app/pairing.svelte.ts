/** A pairing in progress, from the claim in the link to the machine's verified word. */
import { api, keyJson, type LocalConnectJson } from "../api/client";
import { CODE_NAMES } from "../api/names";
import { Problem } from "../api/problem";
import { base64url, fromBase64url } from "../protocol/bytes";
import type { PublicKey } from "../protocol/keys";
import {
  type Claim,
  type ClaimKeys,
  type PairingTerms,
  claimKeys,
  pairingMac,
  shortCode,
  verifyPairingMac,
} from "../protocol/pairing";
import { app } from "./app.svelte";
import { deviceLabel } from "./label";

export type PairingStep = "start" | "redeeming" | "comparing" | "confirmed" | "done" | "failed";

const POLL_WAIT_MS = 10_000;
const POLL_RETRY_MS = 1_500;
/** The desk's time to answer; mirrors LOCAL_CONNECT_LIFETIME of `domain/src/limits.rs`. */
const GIVE_UP_AFTER_MS = 600_000;

export class Pairing {
  step: PairingStep = $state("start");
  code = $state("");
  machineLabel = $state("");
  machineId = $state("");
  problem: Problem | undefined = $state.raw();
  #localConnectId = "";
  #stopped = false;

  async run(claim: Claim): Promise<void> {
    try {
      this.step = "redeeming";
      const keys = await claimKeys(claim.secret);
      const terms = await this.#redeem(claim, keys);
      const mac = await pairingMac(terms, keys.deviceToMachine);
      await api.finalize(claim.claimId, base64url(mac));
      this.code = await shortCode(terms);
      this.step = "comparing";
      await this.#follow(terms, keys);
    } catch (reason) {
      this.#fail(Problem.from(reason));
    }
  }

  async cancel(): Promise<void> {
    this.#stopped = true;
    if (this.#localConnectId !== "" && this.step !== "done") {
      await api.cancelLocalConnect(this.#localConnectId).catch(() => undefined);
    }
  }

  async #redeem(claim: Claim, keys: ClaimKeys): Promise<PairingTerms> {
    const key = app.deviceKey;
    const redeemed = await api.redeem(claim.claimId, {
      redeem_key: base64url(keys.redeem),
      device_key: keyJson(key.publicKey),
      device_label: deviceLabel(navigator.userAgent),
    });
    // Both screens must speak of the same relay, and this page of the account that it is signed in to.
    if (redeemed.origin !== location.origin || redeemed.account_id !== app.account?.account_id) throw new Problem(3004);
    const machineKey = fromBase64url(redeemed.machine_key.key);
    if (machineKey === undefined || machineKey.length !== 32) throw new Problem(3004);
    this.#localConnectId = redeemed.local_connect_id;
    this.machineLabel = redeemed.machine_label;
    this.machineId = redeemed.machine_id;
    return {
      origin: location.origin,
      claimId: claim.claimId,
      expiresAtMs: redeemed.expires_at_ms,
      accountId: redeemed.account_id,
      machineId: redeemed.machine_id,
      role: redeemed.role,
      machineKey: { algorithm: "ed25519", bytes: machineKey } satisfies PublicKey,
      deviceKey: key.publicKey,
    };
  }

  async #follow(terms: PairingTerms, keys: ClaimKeys): Promise<void> {
    const giveUpAt = Date.now() + GIVE_UP_AFTER_MS;
    let confirmed = false;
    let seen = "awaiting_browser_finalize";
    let waitMs = 0;
    while (!this.#stopped && Date.now() < giveUpAt) {
      const askedAt = Date.now();
      const state = await this.#poll(seen, waitMs);
      if (state === undefined) continue;
      if (state.machine?.mac !== undefined && !confirmed) {
        await this.#confirm(terms, keys, state.machine.mac);
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
    if (!this.#stopped) throw new Problem(3005);
  }

  async #poll(seen: string, waitMs: number): Promise<LocalConnectJson | undefined> {
    try {
      return await api.localConnect(this.#localConnectId, seen, waitMs);
    } catch (reason) {
      const problem = Problem.from(reason);
      // A phone that changes networks: asked again, the pairing goes on.
      if (problem.code > 0 && problem.code !== 1006 && problem.code !== 1007 && problem.code !== 1008) throw problem;
      await pause(POLL_RETRY_MS);
      return undefined;
    }
  }

  /** The machine's MAC verifies: its key is pinned, and only from here on is it believed. */
  async #confirm(terms: PairingTerms, keys: ClaimKeys, mac: string): Promise<void> {
    const bytes = fromBase64url(mac);
    if (bytes === undefined || !(await verifyPairingMac(terms, keys.machineToDevice, bytes))) throw new Problem(3004);
    await app.pin({
      machineId: terms.machineId,
      accountId: terms.accountId,
      machineKey: terms.machineKey.bytes,
      label: this.machineLabel,
      role: terms.role,
      pairedAtMs: Date.now(),
    });
  }

  #fail(problem: Problem): void {
    if (this.#stopped) return;
    this.problem = problem;
    this.step = "failed";
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
