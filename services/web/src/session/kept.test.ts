// @vitest-environment node
import { expect, test } from "vitest";

import { generateKey, openKey } from "../protocol/keys";
import { verifyingKey } from "../protocol/pairing";
import { begunPairing, deviceKey, forgetPairing, keepPairing } from "./kept";
import type { OutboxEntry } from "./outbox";
import { MemoryTable, type PinnedMachine, type Storage, type StoredPairing } from "./storage";

const NOW_MS = 1_700_000_000_000;

function memory(): Storage {
  return {
    keys: new MemoryTable(),
    machines: new MemoryTable<PinnedMachine>(),
    outbox: new MemoryTable<OutboxEntry>(),
    pairings: new MemoryTable<StoredPairing>(),
  };
}

async function pairing(): Promise<StoredPairing> {
  const { publicKey } = await openKey(await generateKey());
  const terms = {
    origin: "https://relay",
    claimId: "00000000-0000-7000-8000-0000000000cc",
    expiresAtMs: NOW_MS + 120_000,
    accountId: "00000000-0000-7000-8000-0000000000aa",
    machineId: "00000000-0000-7000-8000-0000000000bb",
    role: "owner",
    machineKey: publicKey,
    deviceKey: publicKey,
  } as const;
  return {
    localConnectId: "00000000-0000-7000-8000-0000000000dd",
    machineLabel: "Studio",
    terms,
    deviceMac: new Uint8Array(32),
    machineMacKey: await verifyingKey(new Uint8Array(32)),
    giveUpAtMs: NOW_MS + 600_000,
  };
}

test("a browser makes its key once", async () => {
  const storage = memory();
  const made = await deviceKey(storage);
  expect((await deviceKey(storage)).deviceId).toEqual(made.deviceId);
});

test("a pairing that was begun is there until it ends", async () => {
  const storage = memory();
  await keepPairing(storage, await pairing());
  expect(await begunPairing(storage, NOW_MS)).toMatchObject({ machineLabel: "Studio" });
  await forgetPairing(storage);
  expect(await begunPairing(storage, NOW_MS)).toBeUndefined();
});

test("a pairing whose time is over is wiped at the next start", async () => {
  const storage = memory();
  await keepPairing(storage, await pairing());
  expect(await begunPairing(storage, NOW_MS + 600_000)).toBeUndefined();
  expect(await storage.pairings.all()).toEqual([]);
});
