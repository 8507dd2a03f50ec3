/** What the views ask of a machine, in one line each. */
import { fromBinary } from "@bufbuild/protobuf";

import { type CommandResult, CommandResultSchema, type HistoryPage, type ThreadPage } from "../gen/flydex/agent/v1/agent_pb";
import { LOCAL, Problem } from "../api/problem";
import { needsPasskey, wireDecision } from "../model/decision";
import { type ApprovalCard, type DecisionName, approvalDigest } from "../protocol/approval";
import { bodyOf } from "../protocol/command";
import type { OutboxEntry } from "../session/outbox";
import { app } from "./app.svelte";
import { confirmByPasskey } from "./machinepasskey";

const PAGE_ROWS = 50;
const HISTORY_PAGE_BYTES = 128 * 1024;

export interface ThreadQuery {
  readonly cursor: string;
  readonly archived: boolean;
  readonly search: string;
}

export async function listThreads(machineId: string, query: ThreadQuery): Promise<ThreadPage> {
  const result = await read(machineId, bodyOf("listThreads", { ...query, limit: PAGE_ROWS }));
  if (result?.kind.case !== "threadPage") throw new Problem(LOCAL.unverified);
  return result.kind.value;
}

export async function readHistory(machineId: string, threadId: string, cursor: string): Promise<HistoryPage> {
  const result = await read(machineId, bodyOf("readThread", { threadId, cursor, maxBytes: HISTORY_PAGE_BYTES }));
  if (result?.kind.case !== "historyPage") throw new Problem(LOCAL.unverified);
  return result.kind.value;
}

export async function listModels(machineId: string) {
  const result = await read(machineId, bodyOf("listModels", {}));
  if (result?.kind.case !== "modelList") throw new Problem(LOCAL.unverified);
  return result.kind.value.models;
}

export function startThread(machineId: string, directory: string, text: string, model: string): Promise<string> {
  return app.send(machineId, bodyOf("startThread", { directory, text, model }), { text });
}

export function startTurn(machineId: string, threadId: string, text: string): Promise<string> {
  return app.send(machineId, bodyOf("startTurn", { threadId, text }), { threadId, text });
}

export function steer(machineId: string, threadId: string, expectedTurnId: string, text: string): Promise<string> {
  return app.send(machineId, bodyOf("steer", { threadId, expectedTurnId, text }), { threadId, text });
}

export function interrupt(machineId: string, threadId: string, turnId: string): Promise<string> {
  return app.send(machineId, bodyOf("interrupt", { threadId, turnId }), { threadId });
}

export function renameThread(machineId: string, threadId: string, name: string): Promise<string> {
  return app.send(machineId, bodyOf("renameThread", { threadId, name }), { threadId });
}

export function archiveThread(machineId: string, threadId: string, archive: boolean): Promise<string> {
  return app.send(machineId, bodyOf(archive ? "archiveThread" : "unarchiveThread", { threadId }), { threadId });
}

export function review(machineId: string, threadId: string): Promise<string> {
  const target = { case: "uncommittedChanges", value: true };
  return app.send(machineId, bodyOf("review", { threadId, target }), { threadId });
}

/** Answers an approval: the digest is made from the very card that was on screen. */
export async function answerApproval(machineId: string, card: ApprovalCard, decision: DecisionName): Promise<string> {
  const digest = await approvalDigest(card);
  const answer = { approvalId: card.approvalId, generation: card.generation, decision: wireDecision(decision) };
  const body = bodyOf("answerApproval", { digest });
  const about = { threadId: card.threadId, answer };
  if (!needsPasskey(card, decision)) return app.send(machineId, body, about);
  const passkey = app.link(machineId)?.model.snapshot?.ownPasskey ?? new Uint8Array();
  if (passkey.length === 0) throw new Problem(5009);
  return app.send(machineId, body, about, (hash) => confirmByPasskey(passkey, hash));
}

export interface PartAnswer {
  readonly partId: string;
  readonly answers: string[];
}

export function answerQuestion(
  machineId: string,
  question: { questionId: Uint8Array; generation: Uint8Array; threadId: string },
  answers: PartAnswer[],
): Promise<string> {
  const { questionId, generation, threadId } = question;
  return app.send(machineId, bodyOf("answerQuestion", { questionId, generation, answers }), { threadId });
}

/** The content of a final receipt. */
export function resultOf(entry: OutboxEntry): CommandResult | undefined {
  if (entry.result === undefined || entry.result.length === 0) return undefined;
  try {
    return fromBinary(CommandResultSchema, entry.result);
  } catch {
    return undefined;
  }
}

async function read(machineId: string, body: Parameters<NonNullable<ReturnType<typeof app.link>>["read"]>[0]) {
  const link = app.link(machineId);
  if (link === undefined) throw new Problem(LOCAL.connectionLost);
  const { result } = await link.read(body);
  return result;
}
