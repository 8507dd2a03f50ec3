/** What this browser keeps about itself: its key, the machines that it paired with, a pairing that was begun. */
import { equal } from "../protocol/bytes";
import { type DeviceKey, generateKey, openKey } from "../protocol/keys";
import { type KeyRotationJson, newestKey } from "../protocol/rotation";
import type { PinnedMachine, Storage, StoredPairing } from "./storage";

const KEY_NAME = "device";
const PAIRING_NAME = "begun";

/** The key of this browser; made at the first start. */
export async function deviceKey({ keys }: Storage): Promise<DeviceKey> {
  const stored = await keys.get(KEY_NAME);
  if (stored !== undefined) return openKey(stored);
  const made = await generateKey();
  await keys.put(KEY_NAME, made);
  return openKey(made);
}

export async function pinnedMachines({ machines }: Storage): Promise<ReadonlyMap<string, PinnedMachine>> {
  return new Map((await machines.all()).map((machine) => [machine.machineId, machine]));
}

/** Follows a pinned machine to its newest key, by its own statements; whether there is a newer one. */
export async function followKey(
  { machines }: Storage,
  pinned: PinnedMachine,
  statements: readonly KeyRotationJson[],
): Promise<boolean> {
  const machineKey = await newestKey(pinned.machineKey, pinned, statements);
  if (machineKey === undefined || equal(machineKey, pinned.machineKey)) return false;
  await machines.put(pinned.machineId, { ...pinned, machineKey });
  return true;
}

export async function keepPairing({ pairings }: Storage, pairing: StoredPairing): Promise<void> {
  await pairings.put(PAIRING_NAME, pairing);
}

export async function forgetPairing({ pairings }: Storage): Promise<void> {
  await pairings.delete(PAIRING_NAME);
}

/** The pairing that was begun, if its time is not over; else it is wiped. */
export async function begunPairing(storage: Storage, nowMs: number): Promise<StoredPairing | undefined> {
  const pairing = await storage.pairings.get(PAIRING_NAME);
  if (pairing === undefined || pairing.giveUpAtMs > nowMs) return pairing;
  await forgetPairing(storage);
  return undefined;
}
