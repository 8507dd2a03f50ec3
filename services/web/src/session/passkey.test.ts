// @vitest-environment node
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { expect, test, vi } from "vitest";

import { LOCAL, Problem } from "../api/problem";
import { CommandBodySchema } from "../gen/flydex/agent/v1/agent_pb";
import { CommandHeaderSchema, CommandKind, Decision, Outcome, PasskeyAssertionSchema } from "../gen/flydex/v1/command_pb";
import { MachineState } from "../gen/flydex/v1/relay_pb";
import { bodyOf, commandHash } from "../protocol/command";
import type { PasskeyAssertionParts } from "../protocol/passkey";
import { ACCOUNT_ID, FakeMachine, MACHINE_ID } from "../test/fake";
import { until } from "../test/websocket";
import { effects, onFakeTime, world } from "../test/world";
import type { Draft } from "./outbox";

onFakeTime();

const ASSERTION: PasskeyAssertionParts = {
  credentialId: new Uint8Array([1]),
  authenticatorData: new Uint8Array([2]),
  clientDataJson: new Uint8Array([3]),
  signature: new Uint8Array([4]),
};
const accept: Draft = {
  machineId: MACHINE_ID,
  accountId: ACCOUNT_ID,
  kind: CommandKind.ANSWER_APPROVAL,
  body: toBinary(CommandBodySchema, bodyOf("answerApproval", { digest: new Uint8Array(32) })),
  answer: { approvalId: new Uint8Array(32), generation: new Uint8Array(32), decision: Decision.ACCEPT },
};

test("a person confirms the hash of the very bytes that are sent, and sent again after a break", async () => {
  const one = await world();
  one.fake.handlers.set("answerApproval", () => ({ silent: true }));
  await until(() => one.machine.caughtUp);
  const asked: Uint8Array[] = [];
  const id = await one.outbox.addConfirmed(accept, (hash) => {
    asked.push(hash);
    return Promise.resolve(ASSERTION);
  });
  await until(() => effects(one.fake).length === 1);
  one.fake.handlers.clear();
  one.sockets[0]?.break();
  await vi.advanceTimersByTimeAsync(1_000);
  await until(() => one.outbox.get(id)?.state === "executed");
  const sent = effects(one.fake);
  expect(sent.length).toBeGreaterThan(1);
  expect(asked).toEqual([await commandHash(sent[0]?.header ?? new Uint8Array())]);
  for (const command of sent) {
    expect(command.header).toEqual(sent[0]?.header);
    expect(command.assertion).toEqual(create(PasskeyAssertionSchema, ASSERTION));
  }
  expect(fromBinary(CommandHeaderSchema, sent[0]?.header ?? new Uint8Array()).kind).toBe(CommandKind.ANSWER_APPROVAL);
});

test("what a person does not confirm is neither kept nor sent", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  const refused = one.outbox.addConfirmed(accept, () => Promise.reject(new Problem(LOCAL.notConfirmed)));
  await expect(refused).rejects.toMatchObject({ code: LOCAL.notConfirmed });
  await one.machine.idle();
  expect([one.outbox.all(), one.table.rows.size, effects(one.fake)]).toEqual([[], 0, []]);
});

test("nobody is asked to confirm what cannot be signed for now", async () => {
  const fake = await FakeMachine.create();
  fake.state = MachineState.OFFLINE;
  const one = await world(fake);
  await until(() => one.machine.status !== undefined);
  const confirm = vi.fn(() => Promise.resolve(ASSERTION));
  await expect(one.outbox.addConfirmed(accept, confirm)).rejects.toMatchObject({ code: LOCAL.connectionLost });
  expect(confirm).not.toHaveBeenCalled();
  expect(one.outbox.all()).toEqual([]);
});

test("a passkey that the machine has pinned is known at once, and after what it tells everybody", async () => {
  const one = await world();
  await until(() => one.machine.caughtUp);
  const own = () => one.machine.model.snapshot?.ownPasskey;
  expect(own()).toHaveLength(0);
  const credentialId = new Uint8Array([9, 9]);
  const body = toBinary(CommandBodySchema, bodyOf("pinPasskey", { credentialId, algorithm: 1, key: new Uint8Array(65) }));
  await one.outbox.add({ machineId: MACHINE_ID, accountId: ACCOUNT_ID, kind: CommandKind.PIN_PASSKEY, body });
  await until(() => own()?.length === 2);
  one.fake.passkeyDemanded = true;
  one.fake.changed();
  await until(() => one.machine.model.snapshot?.passkeyDemanded === true);
  expect(own()).toEqual(credentialId);
});

test("a passkey that the machine refused to pin is not known", async () => {
  const one = await world();
  one.fake.handlers.set("pinPasskey", () => ({ outcome: Outcome.REFUSED, code: 3014 }));
  await until(() => one.machine.caughtUp);
  const pin = { credentialId: new Uint8Array([9]), algorithm: 1, key: new Uint8Array(65) };
  const body = toBinary(CommandBodySchema, bodyOf("pinPasskey", pin));
  const id = await one.outbox.add({ machineId: MACHINE_ID, accountId: ACCOUNT_ID, kind: CommandKind.PIN_PASSKEY, body });
  await until(() => one.outbox.get(id)?.state === "refused");
  expect(one.machine.model.snapshot?.ownPasskey).toHaveLength(0);
});
