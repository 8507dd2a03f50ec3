/** A machine as this browser sees it: what its stream told, as pure state. */
import {
  type ApprovalClosed,
  ApprovalEnd,
  DeviceRole,
  type MachineSnapshot,
  type Question,
  type Thread,
} from "../gen/flydex/agent/v1/agent_pb";
import { base64url } from "../protocol/bytes";
import type { ApprovalCard } from "../protocol/approval";

export interface ClosedApproval {
  readonly id: string;
  readonly card: ApprovalCard | undefined;
  readonly end: ApprovalEnd;
  readonly deviceId: string;
  readonly deviceLabel: string;
  readonly atMs: number;
}

export interface MachineModel {
  readonly snapshot: MachineSnapshot | undefined;
  readonly approvals: ReadonlyMap<string, ApprovalCard>;
  /** The newest of those that were closed while this page watched. */
  readonly closed: ReadonlyMap<string, ClosedApproval>;
  readonly questions: ReadonlyMap<string, Question>;
  /** Threads that changed since the list was read. */
  readonly threads: ReadonlyMap<string, Thread>;
  readonly removed: ReadonlySet<string>;
  /** Approvals that did not verify: shown as a warning, never as a card. */
  readonly unverified: number;
}

const CLOSED_MAX = 100;
const THREADS_MAX = 1_000;

export function emptyMachine(): MachineModel {
  return {
    snapshot: undefined,
    approvals: new Map(),
    closed: new Map(),
    questions: new Map(),
    threads: new Map(),
    removed: new Set(),
    unverified: 0,
  };
}

/** Replaces what was known; an approval that is gone from the list was closed while nobody watched. */
export function applySnapshot(
  model: MachineModel,
  snapshot: MachineSnapshot,
  cards: readonly ApprovalCard[],
  unverified: number,
): MachineModel {
  const approvals = new Map(cards.map((card) => [card.id, card]));
  let next: MachineModel = { ...model, snapshot, approvals, unverified };
  for (const card of model.approvals.values()) {
    if (!approvals.has(card.id)) {
      next = withClosed(next, { id: card.id, card, end: ApprovalEnd.UNSPECIFIED, deviceId: "", deviceLabel: "", atMs: 0 });
    }
  }
  const questions = new Map(snapshot.questions.map((question) => [base64url(question.questionId), question]));
  return { ...next, questions };
}

export function openedApproval(model: MachineModel, card: ApprovalCard): MachineModel {
  return { ...model, approvals: new Map(model.approvals).set(card.id, card) };
}

export function unverifiedApproval(model: MachineModel): MachineModel {
  return { ...model, unverified: model.unverified + 1 };
}

export function closedApproval(model: MachineModel, closed: ApprovalClosed): MachineModel {
  const id = base64url(closed.approvalId);
  const card = model.approvals.get(id) ?? model.closed.get(id)?.card;
  const approvals = new Map(model.approvals);
  approvals.delete(id);
  return withClosed(
    { ...model, approvals },
    {
      id,
      card,
      end: closed.end,
      deviceId: base64url(closed.deviceId),
      deviceLabel: closed.deviceLabel,
      atMs: Number(closed.atMs),
    },
  );
}

export function openedQuestion(model: MachineModel, question: Question): MachineModel {
  return { ...model, questions: new Map(model.questions).set(base64url(question.questionId), question) };
}

export function closedQuestion(model: MachineModel, questionId: Uint8Array): MachineModel {
  const questions = new Map(model.questions);
  questions.delete(base64url(questionId));
  return { ...model, questions };
}

export function changedThread(model: MachineModel, thread: Thread): MachineModel {
  const threads = new Map(model.threads);
  threads.delete(thread.id);
  threads.set(thread.id, thread);
  trim(threads, THREADS_MAX);
  const removed = new Set(model.removed);
  removed.delete(thread.id);
  return { ...model, threads, removed };
}

export function removedThread(model: MachineModel, threadId: string): MachineModel {
  const threads = new Map(model.threads);
  threads.delete(threadId);
  return { ...model, threads, removed: new Set(model.removed).add(threadId) };
}

/** What is said to every device does not say what this one may do or has: that stays as it was told at the start. */
export function changedMachine(model: MachineModel, snapshot: MachineSnapshot): MachineModel {
  const ownRole = snapshot.ownRole || (model.snapshot?.ownRole ?? DeviceRole.UNSPECIFIED);
  const ownPasskey = snapshot.ownPasskey.length > 0 ? snapshot.ownPasskey : (model.snapshot?.ownPasskey ?? snapshot.ownPasskey);
  return { ...model, snapshot: { ...snapshot, ownRole, ownPasskey } };
}

/** The machine has pinned a passkey of this device. */
export function pinnedPasskey(model: MachineModel, ownPasskey: Uint8Array): MachineModel {
  return model.snapshot === undefined ? model : { ...model, snapshot: { ...model.snapshot, ownPasskey } };
}

function withClosed(model: MachineModel, closed: ClosedApproval): MachineModel {
  const all = new Map(model.closed);
  // A later word on the same approval replaces a vaguer one.
  all.delete(closed.id);
  all.set(closed.id, closed);
  trim(all, CLOSED_MAX);
  return { ...model, closed: all };
}

function trim(map: Map<string, unknown>, max: number): void {
  for (const key of map.keys()) {
    if (map.size <= max) return;
    map.delete(key);
  }
}
