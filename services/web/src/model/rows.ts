/** The rows of a thread on screen: items, what a turn came to, approvals, and our own messages on their way. */
import { type Item, type Plan, type Question, TurnState } from "../gen/flydex/agent/v1/agent_pb";
import type { ApprovalCard } from "../protocol/approval";
import type { OutboxEntry } from "../session/outbox";
import type { ClosedApproval, MachineModel } from "./machine";
import type { ThreadModel, TurnView } from "./thread";

export type Row =
  | { readonly kind: "older"; readonly key: string }
  | { readonly kind: "item"; readonly key: string; readonly item: Item }
  | { readonly kind: "plan"; readonly key: string; readonly plan: Plan }
  | { readonly kind: "diff"; readonly key: string; readonly diff: string; readonly truncated: boolean }
  | { readonly kind: "ended"; readonly key: string; readonly turn: TurnView }
  | { readonly kind: "closed"; readonly key: string; readonly closed: ClosedApproval }
  | { readonly kind: "approval"; readonly key: string; readonly card: ApprovalCard }
  | { readonly kind: "question"; readonly key: string; readonly question: Question }
  | { readonly kind: "outbox"; readonly key: string; readonly entry: OutboxEntry };

export function threadRows(thread: ThreadModel, machine: MachineModel, outbox: readonly OutboxEntry[]): Row[] {
  const rows: Row[] = [];
  if (thread.olderCursor !== "") rows.push({ kind: "older", key: "older" });
  const closedByItem = groupClosed(machine, thread.threadId);
  const sentIds = new Set<string>();
  for (const turn of thread.turns) {
    for (const item of turn.items) {
      if (item.kind.case === "userMessage" && item.kind.value.clientId !== "") sentIds.add(item.kind.value.clientId);
      rows.push({ kind: "item", key: `${turn.id}/${item.id}`, item });
      for (const closed of closedByItem.get(item.id) ?? []) {
        rows.push({ kind: "closed", key: `closed/${closed.id}`, closed });
      }
      closedByItem.delete(item.id);
    }
    pushTurnEnd(rows, turn);
  }
  for (const orphans of closedByItem.values()) {
    for (const closed of orphans) rows.push({ kind: "closed", key: `closed/${closed.id}`, closed });
  }
  for (const card of machine.approvals.values()) {
    if (card.threadId === thread.threadId) rows.push({ kind: "approval", key: `approval/${card.id}`, card });
  }
  for (const [id, question] of machine.questions) {
    if (question.threadId === thread.threadId) rows.push({ kind: "question", key: `question/${id}`, question });
  }
  for (const entry of outbox) {
    if (entry.threadId !== thread.threadId || entry.text === undefined || sentIds.has(entry.id)) continue;
    rows.push({ kind: "outbox", key: `outbox/${entry.id}`, entry });
  }
  return rows;
}

function pushTurnEnd(rows: Row[], turn: TurnView): void {
  const planned = turn.items.some((item) => item.kind.case === "plan");
  if (turn.plan !== undefined && !planned) rows.push({ kind: "plan", key: `${turn.id}/plan`, plan: turn.plan });
  if (turn.state === TurnState.RUNNING) return;
  const edited = turn.items.some((item) => item.kind.case === "fileEdit");
  if (turn.diff !== undefined && turn.diff.text !== "" && !edited) {
    rows.push({ kind: "diff", key: `${turn.id}/diff`, diff: turn.diff.text, truncated: turn.diff.truncated });
  }
  if (turn.state === TurnState.INTERRUPTED || turn.state === TurnState.FAILED) {
    rows.push({ kind: "ended", key: `${turn.id}/ended`, turn });
  }
}

function groupClosed(machine: MachineModel, threadId: string): Map<string, ClosedApproval[]> {
  const groups = new Map<string, ClosedApproval[]>();
  for (const closed of machine.closed.values()) {
    if (closed.card === undefined || closed.card.threadId !== threadId) continue;
    const group = groups.get(closed.card.itemId) ?? [];
    group.push(closed);
    groups.set(closed.card.itemId, group);
  }
  return groups;
}
