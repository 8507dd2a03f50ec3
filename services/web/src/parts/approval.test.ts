import { create } from "@bufbuild/protobuf";
import { cleanup, render, screen } from "@testing-library/svelte";
import { afterEach, expect, test } from "vitest";

import type { MachineView } from "../app/view";
import { DeviceRole, MachineSnapshotSchema } from "../gen/flydex/agent/v1/agent_pb";
import { emptyMachine } from "../model/machine";
import type { ApprovalCard, DecisionName } from "../protocol/approval";
import Approval from "./Approval.svelte";

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

/** The labels of a card's buttons, in their order. */
function buttons(decisions: DecisionName[], desk: { sessionAcceptance?: boolean; ownRole?: DeviceRole } | undefined) {
  cleanup();
  const snapshot = desk === undefined ? undefined : create(MachineSnapshotSchema, desk);
  const view = { id: "m1", model: { ...emptyMachine(), snapshot }, clockOffsetMs: 0 } as MachineView;
  render(Approval, { card: card(decisions), view, online: true });
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
  };
}
