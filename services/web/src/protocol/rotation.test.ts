// @vitest-environment node
import { expect, test } from "vitest";

import vectors from "../../../../proto/vectors/v1.json";
import { fromHex, hex } from "./bytes";
import { type KeyRotationJson, newestKey } from "./rotation";

const { rotation } = vectors;
const SUBJECT = { accountId: rotation.account_id, machineId: rotation.machine_id };
const CHAIN = rotation.statements as KeyRotationJson[];
const FIRST = fromHex(rotation.first_key);

const newest = async (known: Uint8Array, chain: readonly KeyRotationJson[], subject = SUBJECT) => {
  const key = await newestKey(known, subject, chain);
  return key === undefined ? undefined : hex(key);
};

test("a pinned key leads to the newest one by the machine's own statements", async () => {
  expect(await newest(FIRST, CHAIN)).toBe(rotation.newest_key);
  expect(await newest(FIRST, [...CHAIN].reverse())).toBe(rotation.newest_key);
  expect(await newest(fromHex(rotation.newest_key), CHAIN)).toBe(rotation.newest_key);
});

test("without a statement the pinned key stays, and a stranger's chain leads nowhere", async () => {
  expect(await newest(FIRST, [])).toBe(rotation.first_key);
  expect(await newest(new Uint8Array(32).fill(9), CHAIN)).toBe("09".repeat(32));
});

test("a statement that is altered, of another machine or out of order is not followed", async () => {
  const [first, second] = CHAIN as [KeyRotationJson, KeyRotationJson];
  const forged: KeyRotationJson[] = [
    { ...first, counter: 7 },
    { ...first, at_ms: 1 },
    { ...first, new_key: second.new_key },
    { ...first, old_signature: first.new_signature },
    { ...first, new_signature: second.new_signature },
    { ...first, new_key: { algorithm: "p256", key: first.new_key.key } },
    { ...first, counter: Number.NaN },
    { ...first, counter: 0 },
  ];
  for (const statement of forged) expect(await newest(FIRST, [statement, second])).toBeUndefined();
  const elsewhere = { ...SUBJECT, machineId: SUBJECT.accountId };
  expect(await newest(FIRST, CHAIN, elsewhere)).toBeUndefined();
});
