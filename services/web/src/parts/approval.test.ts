import { create } from "@bufbuild/protobuf";
import { cleanup, render, screen } from "@testing-library/svelte";
import { flushSync } from "svelte";
import { afterEach, expect, test, vi } from "vitest";

import type { MachineView } from "../app/view";
import { DeviceRole, MachineSnapshotSchema } from "../gen/flydex/agent/v1/agent_pb";
import { emptyMachine } from "../model/machine";
import type { ApprovalCard, DecisionName } from "../protocol/approval";
import Approval from "./Approval.svelte";

interface Desk {
  sessionAcceptance?: boolean;
  ownRole?: DeviceRole;
  ownPasskey?: Uint8Array;
}

const ALL: DecisionName[] = ["cancel", "decline", "accept_for_session", "accept"];

afterEach(cleanup);

test("accepting for a session is offered when the card and the desk both allow it", () => {
  const accepts = { sessionAcceptance: true };
  expect(buttons(ALL, accepts)).toEqual(["Accept", "Accept for this session", "Decline", "Decline and stop"]);
  expect(buttons(["accept", "decline"], accepts)).toEqual(["Accept", "Decline"]);
});

test("accepting for a session is not offered when the desk has it switched off, whatever an older card says", () => {
  expect(buttons(ALL, { sessionAcceptance: false })).toEqual(["Accept", "Decline", "Decline and stop"]);
  expect(buttons(ALL, undefined)).toEqual(["Accept", "Decline", "Decline and stop"]);
});

test("a browser that may only look is told so, and is offered no answer", () => {
  expect(buttons(ALL, { ownRole: DeviceRole.VIEWER })).toEqual([]);
  expect(screen.getByText(/may only look/)).toBeTruthy();
});

test("where the computer wants a passkey and knows none of this browser, only a no is possible here", () => {
  const enabled = () => screen.queryAllByRole("button").filter((button) => !(button as HTMLButtonElement).disabled).length;
  vi.useFakeTimers();
  for (const [ownPasskey, offered] of [
    [new Uint8Array(), 2],
    [new Uint8Array([1]), 4],
  ] as const) {
    buttons(ALL, { sessionAcceptance: true, ownPasskey }, true);
    vi.advanceTimersByTime(1_000);
    flushSync();
    expect(enabled()).toBe(offered);
    expect(screen.queryAllByText(/knows none of this browser/)).toHaveLength(offered === 2 ? 1 : 0);
  }
  vi.useRealTimers();
});

/** The labels of a card's buttons, in their order. */
function buttons(decisions: DecisionName[], desk: Desk | undefined, passkeyRequired = false) {
  cleanup();
  const snapshot = desk === undefined ? undefined : create(MachineSnapshotSchema, desk);
  const view = { id: "m1", model: { ...emptyMachine(), snapshot }, clockOffsetMs: 0 } as MachineView;
  render(Approval, { card: { ...card(decisions), passkeyRequired }, view, online: true });
  return screen.queryAllByRole("button").map((button) => button.textContent?.trim());
}

function card(decisions: DecisionName[]): ApprovalCard {
  const none = new Uint8Array();
  return {
    id: "a1",
    approvalId: none,
    machineId: none,
    generation: none,
    salt: none,
    threadId: "t1",
    turnId: "u1",
    itemId: "i1",
    kind: "command",
    highRisk: false,
    openedAtMs: Date.now(),
    expiresAtMs: Date.now() + 600_000,
    command: "id -u",
    cwd: "",
    network: undefined,
    permissions: [],
    changes: [],
    reason: "",
    decisions,
    deskOnly: false,
    passkeyRequired: false,
  };
}
