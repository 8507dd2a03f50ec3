/** This browser asks to be let in: it shows its key, and looks whether a machine has been told of it. */
import { DeviceRole, type Introduction } from "../gen/flydex/agent/v1/agent_pb";
import { fromHex } from "../protocol/bytes";
import { type Request, newRequest, requestUrl, verifyIntroduction } from "../protocol/endorsement";
import type { PublicKey } from "../protocol/keys";
import type { Role } from "../protocol/pairing";
import { app } from "./app.svelte";
import { deviceLabel } from "./label";

const LOOK_EVERY_MS = 2_500;
const ROLE_NAMES: Partial<Record<DeviceRole, Role>> = {
  [DeviceRole.VIEWER]: "viewer",
  [DeviceRole.OPERATOR]: "operator",
  [DeviceRole.OWNER]: "owner",
};

export class Asking {
  request: Request | undefined = $state.raw();
  url = $state("");
  /** The machine that let this browser in. */
  machineId: string | undefined = $state();
  #timer: ReturnType<typeof setInterval> | undefined;

  /** Shows a fresh code for that role, and looks for the answer until `stop`. */
  start(role: Role): void {
    this.stop();
    this.machineId = undefined;
    this.request = newRequest(app.deviceKey.publicKey, role, deviceLabel(navigator.userAgent), Date.now());
    this.url = requestUrl(location.origin, this.request);
    app.introduce = (machineId, introduction) => this.#introduced(machineId, introduction);
    this.#timer = setInterval(() => this.#look(role), LOOK_EVERY_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
    app.introduce = undefined;
    this.request = undefined;
  }

  #look(role: Role): void {
    // An old code is no code: a fresh one takes its place by itself.
    if (this.request !== undefined && Date.now() > this.request.expiresAtMs) this.start(role);
    for (const machineId of app.unpaired()) app.link(machineId)?.retry();
  }

  /** The machine's key, if whoever read the code off this screen knows it by that. */
  async #introduced(machineId: string, introduction: Introduction): Promise<void> {
    const { request } = this;
    const [account, role] = [app.account, ROLE_NAMES[introduction.role]];
    if (request === undefined || account === undefined || role === undefined) return;
    if (introduction.machineKeyAlgorithm !== "ed25519") return;
    const machineKey: PublicKey = { algorithm: "ed25519", bytes: introduction.machineKey };
    const terms = {
      origin: location.origin,
      accountId: fromHex(account.account_id.replaceAll("-", "")),
      machineId: fromHex(machineId.replaceAll("-", "")),
      machineKey,
      deviceKey: request.key,
      role,
    };
    if (!(await verifyIntroduction(terms, request.secret, introduction.mac))) return;
    this.stop();
    this.machineId = machineId;
    await app.pin({
      machineId,
      accountId: account.account_id,
      machineKey: machineKey.bytes,
      label: app.label(machineId),
      role,
      pairedAtMs: Date.now(),
      endorsed: true,
    });
  }
}
