/** A relay and a machine in memory that speak the real protocol, for tests and screenshots only. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";

import {
  type AgentEvent,
  AgentEventSchema,
  ApprovalKind,
  ApprovalSchema,
  type CommandBody,
  CommandBodySchema,
  CommandResultSchema,
  DeviceRole,
  OfferedDecision,
  Risk,
  type SignedApproval,
  SignedApprovalSchema,
  type Thread,
  ThreadSchema,
  ThreadState,
  type Turn,
} from "../gen/flydex/agent/v1/agent_pb";
import {
  type Command,
  CommandHeaderSchema,
  Outcome,
  ReceiptSchema,
  SignedReceiptSchema,
  type TraceContext,
} from "../gen/flydex/v1/command_pb";
import { type MachineMessage, MachineMessageSchema, MachineState, Transport } from "../gen/flydex/v1/relay_pb";
import { SessionDownSchema, type SessionUp, SessionUpSchema } from "../gen/flydex/v1/session_pb";
import { fromHex, sha256, uuidText } from "../protocol/bytes";
import { commandHash } from "../protocol/command";
import { LABEL, Transcript } from "../protocol/encoding";
import { LANE } from "../protocol/frames";
import { type DeviceKey, generateKey, openKey } from "../protocol/keys";

export const ACCOUNT_ID = "00000000-0000-7000-8000-0000000000aa";
export const MACHINE_ID = "00000000-0000-7000-8000-0000000000bb";

const bytes = (text: string) => fromHex(text.replaceAll("-", ""));

type EventKind = NonNullable<AgentEvent["kind"]["case"]>;
type Handler = (body: CommandBody, command: Command) => Promise<Reply> | Reply;

export interface Reply {
  readonly outcome?: Outcome;
  readonly code?: number;
  readonly result?: { readonly case: string; readonly value: object };
  /** No receipt at all. */
  readonly silent?: boolean;
}

interface Stream {
  readonly id: number;
  seq: bigint;
  readonly ring: { seq: bigint; body: Uint8Array }[];
}

export class FakeMachine {
  readonly key: DeviceKey;
  bootId = new Uint8Array(16).fill(7);
  generation = new Uint8Array(32).fill(8);
  state = MachineState.CODEX_READY;
  readonly threads: Thread[] = [];
  readonly turns = new Map<string, Turn[]>();
  readonly approvals = new Map<string, SignedApproval>();
  /** Whether the desk allows accepting for a whole session. */
  sessionAcceptance = false;
  /** Whether the desk demands a passkey for what is of high risk. */
  passkeyDemanded = false;
  /** The passkey of whoever asks. */
  ownPasskey = new Uint8Array();
  ownRole = DeviceRole.OWNER;
  /** What it tells a device that another one endorsed. */
  introduction: { machineKeyAlgorithm: string; machineKey: Uint8Array; role: DeviceRole; mac: Uint8Array } | undefined;
  readonly directories = [{ path: "/home/mira/atlas", label: "atlas" }];
  /** Overrides the answer to a kind of command. */
  readonly handlers = new Map<string, Handler>();
  /** Every command that arrived, in order. */
  readonly commands: Command[] = [];
  /** The trace context that came with each of them. */
  readonly traces: (TraceContext | undefined)[] = [];
  readonly #receipts = new Map<string, MachineMessage>();
  readonly #streams = new Map<string, Stream>();
  deliver: (lane: number, message: MachineMessage) => void = () => undefined;
  /** On: whatever an answer sends on the events lane is overtaken by its receipt, as lanes allow. */
  receiptsFirst = false;
  #overtaken: MachineMessage[] = [];

  private constructor(
    key: DeviceKey,
    readonly id: string,
  ) {
    this.key = key;
  }

  static async create(id = MACHINE_ID): Promise<FakeMachine> {
    return new FakeMachine(await openKey(await generateKey()), id);
  }

  /** Sends an event to a stream: `""` is the machine's, else a thread's id. */
  emit(streamName: string, kind: EventKind, value: object): void {
    const stream = this.#stream(streamName);
    stream.seq += 1n;
    const body = toBinary(AgentEventSchema, create(AgentEventSchema, { kind: { case: kind, value } as never }));
    stream.ring.push({ seq: stream.seq, body });
    this.#send(LANE.events, "event", { streamId: stream.id, seq: stream.seq, body });
  }

  /** Loses the events that a resume would need. */
  forgetRing(streamName: string): void {
    this.#stream(streamName).ring.length = 0;
  }

  status(): void {
    const away = this.state === MachineState.OFFLINE;
    this.#send(LANE.control, "status", {
      state: this.state,
      bootId: away ? new Uint8Array() : this.bootId,
      sinceMs: BigInt(Date.now()),
      transport: Transport.QUIC,
      connectorVersion: "0.1.0",
      codexVersion: "0.169.0",
      channelBound: true,
    });
  }

  /** Says to every session what changed at the desk; what each may do is not in it. */
  changed(): void {
    this.emit("", "machineChanged", { snapshot: this.#shared() });
  }

  async ask(approval: {
    threadId: string;
    turnId: string;
    itemId: string;
    command?: string;
    changes?: { path: string; kind: string; diff: string }[];
    reason?: string;
    cwd?: string;
    lifetimeMs?: number;
    forSession?: boolean;
    passkeyRequired?: boolean;
  }): Promise<Uint8Array> {
    const { lifetimeMs = 600_000, forSession = false, ...shown } = approval;
    const approvalId = crypto.getRandomValues(new Uint8Array(32));
    const body = toBinary(
      ApprovalSchema,
      create(ApprovalSchema, {
        ...shown,
        approvalId,
        machineId: bytes(this.id),
        generation: this.generation,
        kind: approval.changes === undefined ? ApprovalKind.COMMAND : ApprovalKind.FILE_CHANGE,
        risk: Risk.NORMAL,
        openedAtMs: BigInt(Date.now()),
        expiresAtMs: BigInt(Date.now() + lifetimeMs),
        salt: new Uint8Array(16).fill(3),
        decisions: [
          OfferedDecision.ACCEPT,
          ...(forSession ? [OfferedDecision.ACCEPT_FOR_SESSION] : []),
          OfferedDecision.DECLINE,
          OfferedDecision.CANCEL,
        ],
      }),
    );
    const signature = await this.key.sign(new Transcript(LABEL.approval).bytes(body));
    const signed = create(SignedApprovalSchema, { approval: body, signature });
    this.approvals.set(approvalId.join(), signed);
    this.emit("", "approvalOpened", signed);
    return approvalId;
  }

  async receive(command: Command): Promise<void> {
    const header = fromBinary(CommandHeaderSchema, command.header);
    const id = uuidText(header.commandId);
    this.commands.push(command);
    const known = this.#receipts.get(id);
    if (known !== undefined) {
      this.deliver(LANE.commands, known);
      return;
    }
    const body = fromBinary(CommandBodySchema, command.body);
    const kind = body.kind.case ?? "";
    if (header.sessionId.length === 0) this.#send(LANE.commands, "progress", { commandId: header.commandId, state: 2 });
    const own = this.handlers.get(kind);
    const reply = own === undefined ? this.#answer(body, header.commandId) : await own(body, command);
    if (reply.silent) return;
    await this.#receipt(command, reply, kind);
  }

  async #receipt(command: Command, reply: Reply, kind: string): Promise<void> {
    const header = fromBinary(CommandHeaderSchema, command.header);
    const result =
      reply.result === undefined
        ? new Uint8Array()
        : toBinary(CommandResultSchema, create(CommandResultSchema, { kind: reply.result as never }));
    const bulk = result.length > 32 * 1024;
    const body = fromBinary(CommandBodySchema, command.body);
    const streamName = body.kind.case === "watchThread" ? body.kind.value.threadId : "";
    const stream = this.#stream(streamName);
    const receipt = toBinary(
      ReceiptSchema,
      create(ReceiptSchema, {
        accountId: header.accountId,
        machineId: header.machineId,
        deviceId: header.deviceId,
        commandId: header.commandId,
        commandHash: await commandHash(command.header),
        outcome: reply.outcome ?? Outcome.EXECUTED,
        code: reply.code ?? 0,
        bootId: this.bootId,
        generation: this.generation,
        atMs: BigInt(Date.now()),
        asOf: ["attach", "watchThread"].includes(kind)
          ? { streamId: stream.id, bootId: this.bootId, seq: stream.seq }
          : undefined,
        result: bulk ? new Uint8Array() : result,
        bulk: bulk ? { totalBytes: result.length, sha256: await sha256(result) } : undefined,
      }),
    );
    const signature = await this.key.sign(new Transcript(LABEL.receipt).bytes(receipt));
    const message = create(MachineMessageSchema, {
      kind: { case: "receipt", value: create(SignedReceiptSchema, { receipt, signature }) },
    });
    if (header.sessionId.length === 0) this.#receipts.set(uuidText(header.commandId), message);
    this.deliver(LANE.commands, message);
    for (const late of this.#overtaken.splice(0)) this.deliver(LANE.events, late);
    if (!bulk) return;
    for (let offset = 0; offset < result.length; offset += 16_384) {
      const chunk = { commandId: header.commandId, offset, bytes: result.subarray(offset, offset + 16_384) };
      this.#send(LANE.bulk, "chunk", chunk);
    }
  }

  #answer(body: CommandBody, commandId: Uint8Array): Reply {
    switch (body.kind.case) {
      case "attach": {
        const resumed = this.#verdict("", commandId, body.kind.value.cursor);
        const snapshot = {
          ...this.#shared(),
          ownRole: this.ownRole,
          ownPasskey: this.ownPasskey,
          approvals: [...this.approvals.values()],
        };
        const value = {
          snapshot: resumed ? undefined : snapshot,
          machineTimeMs: BigInt(Date.now()),
          introduction: this.introduction,
        };
        return { result: { case: "attached", value } };
      }
      case "listThreads": {
        const { archived, search, cursor, limit } = body.kind.value;
        const from = Number(cursor || "0");
        const all = this.threads.filter(
          (thread) => thread.archived === archived && thread.name.toLowerCase().includes(search.toLowerCase()),
        );
        const nextCursor = from + limit < all.length ? String(from + limit) : "";
        return { result: { case: "threadPage", value: { threads: all.slice(from, from + limit), nextCursor } } };
      }
      case "watchThread": {
        const { threadId, cursor } = body.kind.value;
        const resumed = this.#verdict(threadId, commandId, cursor);
        const snapshot = {
          thread: this.threads.find((thread) => thread.id === threadId),
          page: this.#page(threadId, ""),
          effectivePolicy: "on-request, workspace-write",
          writable: true,
        };
        const streamId = this.#stream(threadId).id;
        return { result: { case: "threadWatched", value: { threadId, streamId, snapshot: resumed ? undefined : snapshot } } };
      }
      case "unwatchThread":
        this.#send(LANE.events, "streamEnd", { streamId: this.#stream(body.kind.value.threadId).id, code: 1010 });
        return {};
      case "readThread":
        return { result: { case: "historyPage", value: this.#page(body.kind.value.threadId, body.kind.value.cursor) } };
      case "listModels":
        return { result: { case: "modelList", value: { models: [{ id: "gpt-5", displayName: "GPT-5", isDefault: true }] } } };
      case "startTurn":
        return { result: { case: "turnAccepted", value: { turnId: "turn-new" } } };
      case "pinPasskey":
        this.ownPasskey = new Uint8Array(body.kind.value.credentialId);
        this.changed();
        return {};
      case undefined:
        return { outcome: Outcome.REFUSED, code: 1001 };
      default:
        return {};
    }
  }

  #shared() {
    return {
      machineLabel: "Studio",
      codexVersion: "0.169.0",
      connectorVersion: "0.1.0",
      directories: this.directories,
      sessionAcceptance: this.sessionAcceptance,
      passkeyDemanded: this.passkeyDemanded,
    };
  }

  #page(threadId: string, cursor: string) {
    const all = this.turns.get(threadId) ?? [];
    const end = cursor === "" ? all.length : Number(cursor);
    const from = Math.max(0, end - 20);
    return { threadId, turns: all.slice(from, end), olderCursor: from > 0 ? String(from) : "" };
  }

  #verdict(streamName: string, commandId: Uint8Array, cursor: { streamId: number; bootId: Uint8Array; seq: bigint } | undefined): boolean {
    const stream = this.#stream(streamName);
    const { id: streamId } = stream;
    const sameBoot = cursor !== undefined && cursor.bootId.join() === this.bootId.join() && cursor.streamId === streamId;
    const first = stream.ring[0]?.seq ?? stream.seq + 1n;
    const whole = cursor !== undefined && cursor.seq + 1n >= first;
    if (cursor !== undefined && sameBoot && whole) {
      this.#send(LANE.events, "verdict", {
        commandId,
        streamId,
        bootId: this.bootId,
        verdict: { case: "resumedFrom", value: cursor.seq },
      });
      for (const { seq, body } of stream.ring) {
        if (seq > cursor.seq) this.#send(LANE.events, "event", { streamId, seq, body });
      }
      return true;
    }
    const verdict = { case: "gapAsOf", value: stream.seq } as const;
    this.#send(LANE.events, "verdict", { commandId, streamId, bootId: this.bootId, verdict });
    return false;
  }

  #stream(name: string): Stream {
    const existing = this.#streams.get(name);
    if (existing !== undefined) return existing;
    const made = { id: name === "" ? 0 : this.#streams.size + 1, seq: 0n, ring: [] };
    this.#streams.set(name, made);
    return made;
  }

  #send(lane: number, kind: NonNullable<MachineMessage["kind"]["case"]>, value: object): void {
    const message = create(MachineMessageSchema, { kind: { case: kind, value } as never });
    if (this.receiptsFirst && lane === LANE.events) this.#overtaken.push(message);
    else this.deliver(lane, message);
  }
}

/** One session of the relay: answers the hello, opens the machine, passes messages on. */
export class FakeSession {
  readonly #machine: FakeMachine;
  readonly #send: (frame: Uint8Array) => void;
  /** Answers probes and pings; off, the path is silent. */
  answering = true;

  constructor(machine: FakeMachine, send: (frame: Uint8Array) => void) {
    this.#machine = machine;
    this.#send = send;
  }

  async up(frame: Uint8Array): Promise<void> {
    const message: SessionUp = fromBinary(SessionUpSchema, frame.subarray(1));
    const { kind } = message;
    if (kind.case === "hello") {
      const value = { version: 1, nonce: new Uint8Array(32), gatewayId: "gw", serverTimeMs: BigInt(Date.now()) };
      this.down(LANE.control, { case: "challenge", value });
    } else if (kind.case === "proof") {
      const value = {
        sessionId: crypto.getRandomValues(new Uint8Array(16)),
        pingIntervalMs: 4_000,
        silenceMaxMs: 8_000,
        eventWindowBytes: 262_144,
        bulkWindowBytes: 262_144,
      };
      this.down(LANE.control, { case: "welcome", value });
    } else if (kind.case === "open") {
      // The machine speaks to the session that opened it last.
      this.#machine.deliver = (lane, message) => {
        this.down(lane, { case: "fromMachine", value: { machineId: bytes(this.#machine.id), message } });
      };
      this.#machine.status();
    } else if (kind.case === "ping") {
      if (this.answering) this.down(LANE.control, { case: "pong", value: { nonce: kind.value.nonce } });
    } else if (kind.case === "toMachine") {
      const inner = kind.value.message?.kind;
      if (inner?.case === "command") {
        this.#machine.traces.push(kind.value.message?.trace);
        await this.#machine.receive(inner.value);
      }
      if (inner?.case === "probe" && this.answering) {
        const value = { nonce: inner.value.nonce, machineTimeMs: BigInt(Date.now()) };
        const reply = create(MachineMessageSchema, { kind: { case: "probeReply", value } });
        this.#machine.deliver(LANE.control, reply);
      }
    }
  }

  /** Says that this relay restarts soon. */
  goAway(reconnectInMs: number, tryForMs = 30_000): void {
    this.down(LANE.control, { case: "goAway", value: { reconnectInMs, tryForMs } });
  }

  down(lane: number, kind: { case: string; value: object }): void {
    const body = toBinary(SessionDownSchema, create(SessionDownSchema, { kind: kind as never }));
    const frame = new Uint8Array(body.length + 1);
    frame[0] = lane;
    frame.set(body, 1);
    this.#send(frame);
  }
}

export function fakeThread(id: string, name: string, fields: Partial<Thread> = {}): Thread {
  return create(ThreadSchema, {
    id,
    name,
    cwd: "/home/mira/atlas",
    createdAtMs: BigInt(Date.now() - 86_400_000),
    updatedAtMs: BigInt(Date.now()),
    state: ThreadState.IDLE,
    gitBranch: "main",
    ...(fields as object),
  });
}
