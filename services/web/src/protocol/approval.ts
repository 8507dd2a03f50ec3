/**
 * Approvals: what a machine asks, checked and frozen, and the digest over exactly what is shown.
 *
 * The views render an {@link ApprovalCard} and nothing else, and the digest is made from the same card, so what
 * a person saw is what they signed. Mirrors `services/domain/src/approval.rs`.
 */
import { fromBinary } from "@bufbuild/protobuf";

import {
  type Approval,
  ApprovalKind,
  ApprovalSchema,
  OfferedDecision,
  Risk,
  type SignedApproval,
} from "../gen/flydex/agent/v1/agent_pb";
import { base64url, equal, utf8 } from "./bytes";
import { LABEL, Transcript } from "./encoding";
import { type PublicKey, verify } from "./keys";

export type ApprovalKindName = "command" | "file_change" | "permissions";
export type DecisionName = "accept" | "accept_for_session" | "decline" | "cancel";

export interface ChangeCard {
  readonly path: string;
  readonly kind: string;
  readonly movedTo: string | undefined;
  readonly diff: string;
}

/** An open approval as it is rendered. */
export interface ApprovalCard {
  readonly id: string;
  readonly approvalId: Uint8Array;
  readonly machineId: Uint8Array;
  readonly generation: Uint8Array;
  readonly salt: Uint8Array;
  readonly threadId: string;
  readonly turnId: string;
  readonly itemId: string;
  readonly kind: ApprovalKindName;
  readonly highRisk: boolean;
  readonly openedAtMs: number;
  readonly expiresAtMs: number;
  readonly command: string;
  readonly cwd: string;
  readonly network: string | undefined;
  readonly permissions: readonly string[];
  readonly changes: readonly ChangeCard[];
  readonly reason: string;
  readonly decisions: readonly DecisionName[];
  readonly deskOnly: boolean;
  /** An accept carries the word of the passkey that the machine pinned. */
  readonly passkeyRequired: boolean;
}

const KIND_NAMES: Partial<Record<ApprovalKind, ApprovalKindName>> = {
  [ApprovalKind.COMMAND]: "command",
  [ApprovalKind.FILE_CHANGE]: "file_change",
  [ApprovalKind.PERMISSIONS]: "permissions",
};

const DECISION_NAMES: Partial<Record<OfferedDecision, DecisionName>> = {
  [OfferedDecision.ACCEPT]: "accept",
  [OfferedDecision.ACCEPT_FOR_SESSION]: "accept_for_session",
  [OfferedDecision.DECLINE]: "decline",
  [OfferedDecision.CANCEL]: "cancel",
};

/** The approval as a card, if the machine signed it for itself and every field is known. */
export async function openApproval(
  signed: SignedApproval,
  machineKey: PublicKey,
  machineId: Uint8Array,
): Promise<ApprovalCard | undefined> {
  const transcript = new Transcript(LABEL.approval).bytes(signed.approval);
  if (!(await verify(machineKey, transcript, signed.signature))) return undefined;
  try {
    const approval = fromBinary(ApprovalSchema, signed.approval);
    return equal(approval.machineId, machineId) ? toCard(approval) : undefined;
  } catch {
    return undefined;
  }
}

function toCard(approval: Approval): ApprovalCard | undefined {
  const kind = KIND_NAMES[approval.kind];
  if (kind === undefined) return undefined;
  return Object.freeze({
    id: base64url(approval.approvalId),
    approvalId: approval.approvalId,
    machineId: approval.machineId,
    generation: approval.generation,
    salt: approval.salt,
    threadId: approval.threadId,
    turnId: approval.turnId,
    itemId: approval.itemId,
    kind,
    highRisk: approval.risk !== Risk.NORMAL,
    openedAtMs: Number(approval.openedAtMs),
    expiresAtMs: Number(approval.expiresAtMs),
    command: approval.command,
    cwd: approval.cwd,
    network: approval.hasNetwork ? approval.network : undefined,
    permissions: Object.freeze([...approval.permissions]),
    changes: Object.freeze(
      approval.changes.map((change) =>
        Object.freeze({
          path: change.path,
          kind: change.kind,
          movedTo: change.hasMovedTo ? change.movedTo : undefined,
          diff: change.diff,
        }),
      ),
    ),
    reason: approval.reason,
    decisions: approval.decisions.flatMap((decision) => DECISION_NAMES[decision] ?? []),
    deskOnly: approval.deskOnly,
    passkeyRequired: approval.passkeyRequired,
  });
}

/** The digest that an answer signs: over every byte that the card shows before its buttons. */
export function approvalDigest(card: ApprovalCard): Promise<Uint8Array> {
  const transcript = new Transcript(LABEL.approvalDigest)
    .bytes(card.machineId)
    .bytes(card.generation)
    .bytes(card.approvalId)
    .integer(card.expiresAtMs)
    .bytes(card.salt)
    .text(card.kind)
    .text(card.command)
    .text(card.cwd)
    .optional(card.network === undefined ? undefined : utf8(card.network))
    .text(card.reason)
    .count(card.permissions.length);
  for (const permission of card.permissions) transcript.text(permission);
  transcript.count(card.changes.length);
  for (const change of card.changes) {
    transcript
      .text(change.path)
      .text(change.kind)
      .optional(change.movedTo === undefined ? undefined : utf8(change.movedTo))
      .text(change.diff);
  }
  return transcript.sha256();
}
