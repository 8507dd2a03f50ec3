import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { api } from "./client";
import { changingToken, onPresenceNeeded } from "./presence";
import { Problem } from "./problem";

const refusals: Record<number, string> = { 2000: "unauthenticated", 2030: "fresh_assertion_required" };

function refused(number: number): Response {
  return new Response(JSON.stringify({ error: { code: refusals[number], number } }), { status: 403 });
}

function done(): Response {
  return new Response(null, { status: 204 });
}

let answers: (() => Response | Promise<Response>)[];
let asked: string[];

beforeEach(() => {
  answers = [];
  asked = [];
  vi.stubGlobal("fetch", async (address: string) => {
    // The page's own origin says nothing of the API: it is here.
    if (address.endsWith("flydex.json")) return new Response(null, { status: 404 });
    asked.push(address);
    return (answers.shift() ?? done)();
  });
});

afterEach(() => {
  onPresenceNeeded(undefined);
  vi.unstubAllGlobals();
});

test("what needs a fresh proof asks for it and goes on", async () => {
  const ask = vi.fn(async () => undefined);
  onPresenceNeeded(ask);
  answers = [() => refused(2030)];
  await api.revokeMachine("m");
  expect(ask).toHaveBeenCalledOnce();
  expect(asked).toEqual(["/api/machines/m", "/api/machines/m"]);
});

test("a no to the question is the answer, and nothing is sent again", async () => {
  onPresenceNeeded(() => Promise.reject(new Problem(2030)));
  answers = [() => refused(2030)];
  await expect(api.revokeMachine("m")).rejects.toThrow(new Problem(2030));
  expect(asked).toHaveLength(1);
});

test("two that need it at once ask the person once", async () => {
  const ask = vi.fn(async () => undefined);
  onPresenceNeeded(ask);
  answers = [() => refused(2030), () => refused(2030)];
  await Promise.all([api.revokeMachine("m"), api.revokeDevice("d")]);
  expect(ask).toHaveBeenCalledOnce();
});

test("it is not asked for twice for one request", async () => {
  onPresenceNeeded(async () => undefined);
  answers = [() => refused(2030), () => refused(2030)];
  await expect(api.revokeMachine("m")).rejects.toThrow(new Problem(2030));
  expect(asked).toHaveLength(2);
});

test("a request that met the old token while it was replaced is made again", async () => {
  let replaced: () => void = () => undefined;
  const change = changingToken(new Promise<void>((resolve) => (replaced = resolve)));
  answers = [() => refused(2000)];
  const listed = api.machines();
  await vi.waitFor(() => expect(asked).toHaveLength(1));
  replaced();
  await change;
  await listed;
  expect(asked).toHaveLength(2);
});

test("who is signed out is told so", async () => {
  answers = [() => refused(2000)];
  await expect(api.machines()).rejects.toThrow(new Problem(2000));
  expect(asked).toHaveLength(1);
});
