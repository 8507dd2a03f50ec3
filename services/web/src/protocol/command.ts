/** Commands: what this browser asks of a machine, and signs. */
import { create, toBinary } from "@bufbuild/protobuf";

import { type CommandBody, CommandBodySchema } from "../gen/flydex/agent/v1/agent_pb";
import {
  ApprovalAnswerSchema,
  type Command,
  CommandHeaderSchema,
  CommandKind,
  CommandSchema,
  type Decision,
} from "../gen/flydex/v1/command_pb";
import { sha256 } from "./bytes";
import { LABEL, Transcript } from "./encoding";
import type { DeviceKey } from "./keys";

type BodyCase = NonNullable<CommandBody["kind"]["case"]>;

const KINDS: Record<BodyCase, CommandKind> = {
  attach: CommandKind.ATTACH,
  listThreads: CommandKind.LIST_THREADS,
  readThread: CommandKind.READ_THREAD,
  listModels: CommandKind.LIST_MODELS,
  watchThread: CommandKind.WATCH_THREAD,
  unwatchThread: CommandKind.UNWATCH_THREAD,
  startThread: CommandKind.START_THREAD,
  startTurn: CommandKind.START_TURN,
  steer: CommandKind.STEER,
  interrupt: CommandKind.INTERRUPT,
  renameThread: CommandKind.RENAME_THREAD,
  archiveThread: CommandKind.ARCHIVE_THREAD,
  unarchiveThread: CommandKind.UNARCHIVE_THREAD,
  review: CommandKind.REVIEW,
  answerApproval: CommandKind.ANSWER_APPROVAL,
  answerQuestion: CommandKind.ANSWER_QUESTION,
  listDevices: CommandKind.LIST_DEVICES,
  endorseDevice: CommandKind.ENDORSE_DEVICE,
  pinPasskey: CommandKind.PIN_PASSKEY,
};

/** A command's body from its case and the fields of its value. */
export function bodyOf<C extends BodyCase>(kind: C, value: object): CommandBody {
  return create(CommandBodySchema, { kind: { case: kind, value } as never });
}

/** The header's kind for a body. */
export function kindOf(body: CommandBody): CommandKind {
  if (body.kind.case === undefined) throw new TypeError("a command needs a body");
  return KINDS[body.kind.case];
}

/** Who asks whom, and when. Reads carry the session; effects outlive it and do not. */
export interface CommandContext {
  readonly commandId: Uint8Array;
  readonly accountId: Uint8Array;
  readonly machineId: Uint8Array;
  readonly bootId: Uint8Array;
  readonly issuedAtMs: number;
  readonly lifetimeMs: number;
  readonly sessionId?: Uint8Array;
  readonly answer?: ApprovalAnswer;
}

export interface ApprovalAnswer {
  readonly approvalId: Uint8Array;
  readonly generation: Uint8Array;
  readonly decision: Decision;
}

/** A signed command and the hash by which receipts and audit name it. */
export interface SignedCommand {
  readonly command: Command;
  readonly hash: Uint8Array;
}

export async function signCommand(key: DeviceKey, context: CommandContext, body: CommandBody): Promise<SignedCommand> {
  return signEncoded(key, context, kindOf(body), toBinary(CommandBodySchema, body));
}

/** Signs a body that is already encoded: the outbox keeps bodies as bytes. */
export async function signEncoded(
  key: DeviceKey,
  context: CommandContext,
  kind: CommandKind,
  body: Uint8Array,
): Promise<SignedCommand> {
  const header = toBinary(
    CommandHeaderSchema,
    create(CommandHeaderSchema, {
      commandId: context.commandId,
      accountId: context.accountId,
      machineId: context.machineId,
      deviceId: key.deviceId,
      bootId: context.bootId,
      issuedAtMs: BigInt(Math.trunc(context.issuedAtMs)),
      lifetimeMs: context.lifetimeMs,
      kind,
      bodySha256: await sha256(body),
      sessionId: context.sessionId ?? new Uint8Array(),
      answer: context.answer === undefined ? undefined : create(ApprovalAnswerSchema, context.answer),
    }),
  );
  const signature = await key.sign(commandTranscript(header));
  return { command: create(CommandSchema, { header, body, signature }), hash: await commandHash(header) };
}

export function commandTranscript(header: Uint8Array): Transcript {
  return new Transcript(LABEL.command).bytes(header);
}

export function commandHash(header: Uint8Array): Promise<Uint8Array> {
  return commandTranscript(header).sha256();
}
