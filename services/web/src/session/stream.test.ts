// @vitest-environment node
import { expect, test } from "vitest";

import { StreamSync } from "./stream";

const BOOT = new Uint8Array(16).fill(1);
const event = (seq: bigint) => ({ seq, body: new Uint8Array([Number(seq)]) });
const seqs = (step: ReturnType<StreamSync["event"]>) =>
  step.kind === "hole" ? "hole" : step.events.map((one) => Number(one.seq));

test("events that overtake their snapshot wait for it", () => {
  const stream = new StreamSync();
  stream.asked();
  expect(seqs(stream.gap(4, BOOT, 5n))).toEqual([]);
  expect(seqs(stream.event(event(6n)))).toEqual([]);
  expect(stream.live).toBe(false);
  expect(seqs(stream.settled(4, BOOT, 5n))).toEqual([6]);
  expect(seqs(stream.event(event(7n)))).toEqual([7]);
  expect(stream.cursor?.seq).toBe(7n);
});

test("a snapshot that overtakes its verdict is enough", () => {
  const stream = new StreamSync();
  stream.asked();
  expect(seqs(stream.settled(4, BOOT, 5n))).toEqual([]);
  expect(seqs(stream.gap(4, BOOT, 5n))).toEqual([]);
  expect(seqs(stream.event(event(6n)))).toEqual([6]);
});

test("a resume goes on where it was, and repeats are dropped", () => {
  const stream = new StreamSync();
  stream.settled(4, BOOT, 5n);
  stream.asked();
  expect(seqs(stream.resumed(4, BOOT, 5n))).toEqual([]);
  expect(seqs(stream.event(event(5n)))).toEqual([]);
  expect(seqs(stream.event(event(6n)))).toEqual([6]);
});

test("what an earlier watch still sent before the verdict leaves no hole", () => {
  const stream = new StreamSync();
  stream.settled(4, BOOT, 5n);
  stream.asked();
  expect(seqs(stream.event(event(8n)))).toEqual([]);
  expect(seqs(stream.resumed(4, BOOT, 5n))).toEqual([]);
  expect(seqs(stream.event(event(6n)))).toEqual([6]);
});

test("a hole is never skipped in silence", () => {
  const stream = new StreamSync();
  stream.settled(4, BOOT, 5n);
  expect(seqs(stream.event(event(7n)))).toBe("hole");
});

test("a resume of another place or boot is a hole", () => {
  const stream = new StreamSync();
  stream.settled(4, BOOT, 5n);
  stream.asked();
  expect(seqs(stream.resumed(4, BOOT, 4n))).toBe("hole");
  expect(seqs(stream.resumed(4, new Uint8Array(16), 5n))).toBe("hole");
  expect(seqs(new StreamSync().resumed(4, BOOT, 5n))).toBe("hole");
});
