/**
 * One machine over the session: attach, watch, reads, receipts, events, credits.
 *
 * Messages are handled one after the other, in the order in which they came, so that verifying a signature
 * never lets a later event overtake an earlier one.
 */
import { create, fromBinary } from "@bufbuild/protobuf";

import { LOCAL, Problem } from "../api/problem";
import {
  type AgentEvent,
  AgentEventSchema,
  type Attached,
  type CommandBody,
  CommandBodySchema,
  type CommandResult,
  CommandResultSchema,
  type ThreadWatched,
} from "../gen/flydex/agent/v1/agent_pb";
import {
  type Command,
  type Receipt,
  Outcome,
  type SignedReceipt,
  type TraceContext,
} from "../gen/flydex/v1/command_pb";
import {
  type DeviceMessage,
  DeviceMessageSchema,
  type MachineMessage,
  MachineState,
  type MachineStatus,
  ProgressState,
  type StreamVerdict,
} from "../gen/flydex/v1/relay_pb";
import * as machineModel from "../model/machine";
import * as threadModel from "../model/thread";
import { openApproval } from "../protocol/approval";
import { fromHex, hex, uuidText, uuidV7 } from "../protocol/bytes";
import { type CommandContext, signCommand } from "../protocol/command";
import { CLIENT, LANE } from "../protocol/frames";
import type { DeviceKey, PublicKey } from "../protocol/keys";
import { bulkMatches, peekReceipt, verifyReceipt } from "../protocol/receipt";
import { newTraceId, traceContext } from "../protocol/trace";
import { BulkAssembly } from "./bulk";
import { MachineClock } from "./clock";
import type { Outbox } from "./outbox";
import type { Welcome } from "./socket";
import { type Step, StreamSync } from "./stream";

export interface MachineDeps {
  readonly machineId: string;
  readonly accountId: string;
  /** The pinned key; undefined when this browser has not paired with the machine. */
  readonly machineKey: PublicKey | undefined;
  readonly key: DeviceKey;
  readonly outbox: Outbox;
  readonly now: () => number;
  readonly send: (lane: number, message: DeviceMessage) => boolean;
  readonly changed: () => void;
}

export type Admission =
  | { readonly kind: "none" }
  | { readonly kind: "asked" }
  | { readonly kind: "admitted" }
  | { readonly kind: "refused"; readonly problem: Problem };

interface Pending {
  readonly hash: Uint8Array;
  readonly settle: (answer: Answer) => Promise<void> | void;
  readonly timer: ReturnType<typeof setTimeout>;
  bulk: BulkAssembly;
  receipt: Receipt | undefined;
}

type MessageCase = NonNullable<DeviceMessage["kind"]["case"]>;
type Answer = { readonly receipt: Receipt; readonly result: CommandResult | undefined } | Problem;

const READ_LIFETIME_MS = 60_000;
const READ_TIMEOUT_MS = 40_000;
const RETRY_AFTER_MS = 1_500;
const PROBE_INTERVAL_MS = 4_000;
/** Silence of the whole path after which this session asks to be admitted again. */
const PROBE_SILENCE_MAX_MS = 20_000;
const DEFAULT_EVENT_WINDOW = 256 * 1024;

export class Machine {
  readonly id: string;
  readonly clock: MachineClock;
  status: MachineStatus | undefined;
  admission: Admission = { kind: "none" };
  model = machineModel.emptyMachine();
  thread: threadModel.ThreadModel | undefined;
  /** Why the thread on screen cannot be followed now. */
  threadProblem: Problem | undefined;
  /** When the whole path to the connector last answered, and how long it took. */
  probe: { readonly answeredAtMs: number; readonly roundTripMs: number } | undefined;
  /** Why the relay does not open the machine. */
  closed: Problem | undefined;

  readonly #deps: MachineDeps;
  readonly #machineBytes: Uint8Array;
  readonly #accountBytes: Uint8Array;
  readonly #pending = new Map<string, Pending>();
  readonly #machineStream = new StreamSync();
  readonly #threadStream = new StreamSync();
  #tail: Promise<void> = Promise.resolve();
  /** Reads are signed one after the other, so that they leave in the order in which they were asked. */
  #signing: Promise<void> = Promise.resolve();
  #welcome: Welcome | undefined;
  /** Grows with every session and boot, so that what was asked before is not answered into the new one. */
  #round = 0;
  #asked: { machine?: string; thread?: string } = {};
  #consumed = 0;
  #probes = new Map<bigint, number>();
  #probeNonce = 0n;
  #timers = new Set<ReturnType<typeof setTimeout>>();

  constructor(deps: MachineDeps) {
    this.#deps = deps;
    this.id = deps.machineId;
    this.clock = new MachineClock(deps.now);
    this.#machineBytes = fromHex(deps.machineId.replaceAll("-", ""));
    this.#accountBytes = fromHex(deps.accountId.replaceAll("-", ""));
  }

  get paired(): boolean {
    return this.#deps.machineKey !== undefined;
  }

  /** Whether everything that happened up to now is on screen. */
  get caughtUp(): boolean {
    const thread = this.thread === undefined || this.#threadStream.live;
    return this.admission.kind === "admitted" && this.#machineStream.live && thread;
  }

  // === The session ===

  sessionOpened(welcome: Welcome): void {
    this.sessionClosed();
    this.#welcome = welcome;
    this.clock.hint(welcome.serverTimeMs);
  }

  sessionClosed(): void {
    this.#welcome = undefined;
    this.status = undefined;
    this.closed = undefined;
    this.#detached(new Problem(LOCAL.connectionLost));
    this.#deps.changed();
  }

  closedByRelay(problem: Problem): void {
    this.status = undefined;
    this.closed = problem;
    this.#detached(problem);
    this.#deps.changed();
  }

  receive(message: MachineMessage): void {
    this.#tail = this.#tail.then(() => this.#handle(message)).catch(() => undefined);
  }

  /** Everything received so far has been handled; for tests. */
  idle(): Promise<void> {
    return this.#tail;
  }

  // === Asking ===

  /** A read: signed, sent, answered once. */
  async read(body: CommandBody): Promise<{ receipt: Receipt; result: CommandResult | undefined }> {
    if (this.admission.kind !== "admitted") throw new Problem(LOCAL.connectionLost);
    return new Promise((resolve, reject) => {
      void this.#ask(body, (answer) => (answer instanceof Problem ? reject(answer) : resolve(answer)));
    });
  }

  /** Follows a thread in place of the one before; undefined: none. */
  watch(threadId: string | undefined): void {
    if (this.thread?.threadId === threadId) return;
    const before = this.thread?.threadId;
    this.#threadStream.forget();
    this.#asked.thread = undefined;
    this.threadProblem = undefined;
    this.thread = threadId === undefined ? undefined : threadModel.emptyThread(threadId);
    if (before !== undefined && this.admission.kind === "admitted") {
      void this.#ask(bodyOf("unwatchThread", { threadId: before }), () => undefined);
    }
    this.#watchNow();
    this.#deps.changed();
  }

  /** Puts an older page before the thread on screen. */
  prepend(threadId: string, page: Parameters<typeof threadModel.prependPage>[1]): void {
    if (this.thread?.threadId !== threadId) return;
    this.thread = threadModel.prependPage(this.thread, page);
    this.#deps.changed();
  }

  /** A person asked to try again. */
  retry(): void {
    if (this.admission.kind === "refused") this.admission = { kind: "none" };
    this.#attach();
    this.#watchNow();
  }

  // === Handling ===

  async #handle(message: MachineMessage): Promise<void> {
    const { kind } = message;
    switch (kind.case) {
      case "status":
        this.#onStatus(kind.value);
        break;
      case "progress":
        await this.#onProgress(kind.value.commandId, kind.value.state);
        break;
      case "receipt":
        await this.#onReceipt(kind.value);
        break;
      case "verdict":
        await this.#onVerdict(kind.value);
        break;
      case "event":
        await this.#onEvent(kind.value.streamId, kind.value.seq, kind.value.body);
        break;
      case "chunk":
        await this.#onChunk(kind.value.commandId, kind.value.offset, kind.value.bytes);
        break;
      case "probeReply":
        this.#onProbeReply(kind.value.nonce, Number(kind.value.machineTimeMs));
        break;
      case "failure":
        await this.#onFailure(kind.value.commandId, new Problem(kind.value.code, kind.value.retryAfterMs));
        break;
      case "streamEnd":
        this.#onStreamEnd(kind.value.streamId);
        break;
      case undefined:
        break;
    }
    this.#deps.changed();
  }

  #onStatus(status: MachineStatus): void {
    const before = this.status;
    this.status = status;
    this.closed = undefined;
    const bootChanged = before === undefined || hex(before.bootId) !== hex(status.bootId);
    const away = status.bootId.length === 0 || status.state === MachineState.OFFLINE;
    if (away || bootChanged) this.#detached(new Problem(away ? 4000 : LOCAL.connectionLost));
    if (away) return;
    this.#attach();
    const becameReady = status.state === MachineState.CODEX_READY && before?.state !== MachineState.CODEX_READY;
    if (becameReady && !this.#threadStream.live) this.#watchNow();
  }

  async #onProgress(commandId: Uint8Array, state: ProgressState): Promise<void> {
    if (state === ProgressState.ACCEPTED) await this.#deps.outbox.progress(uuidText(commandId), "accepted");
    if (state === ProgressState.DELIVERED) await this.#deps.outbox.progress(uuidText(commandId), "delivered");
  }

  async #onReceipt(signed: SignedReceipt): Promise<void> {
    const { machineKey, key } = this.#deps;
    const claimed = peekReceipt(signed);
    if (machineKey === undefined || claimed === undefined) return;
    const id = uuidText(claimed.commandId);
    const pending = this.#pending.get(id);
    const commandHash = pending?.hash ?? this.#deps.outbox.hashOf(id);
    if (commandHash === undefined) return;
    const receipt = await verifyReceipt(signed, {
      machineKey,
      accountId: this.#accountBytes,
      machineId: this.#machineBytes,
      deviceId: key.deviceId,
      commandId: claimed.commandId,
      commandHash,
    });
    // A receipt that does not verify is no word of the machine's: it changes nothing.
    if (receipt === undefined) return;
    if (pending === undefined) {
      await this.#deps.outbox.receipt(id, receipt, receipt.result);
      return;
    }
    pending.receipt = receipt;
    await this.#settleIfWhole(id, pending);
  }

  async #onChunk(commandId: Uint8Array, offset: number, bytes: Uint8Array): Promise<void> {
    const id = uuidText(commandId);
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    const credit = pending.bulk.add(offset, bytes);
    if (credit > 0) this.#send(LANE.commands, "bulkCredit", { commandId, bytes: credit });
    await this.#settleIfWhole(id, pending);
  }

  async #settleIfWhole(id: string, pending: Pending): Promise<void> {
    const { receipt, bulk } = pending;
    if (receipt === undefined) return;
    if (receipt.bulk === undefined) {
      await this.#settle(id, answerOf(receipt, receipt.result));
    } else if (bulk.broken) {
      await this.#settle(id, new Problem(LOCAL.unverified));
    } else if (bulk.length >= receipt.bulk.totalBytes) {
      const bytes = bulk.bytes();
      const whole = await bulkMatches(receipt, bytes);
      await this.#settle(id, whole ? answerOf(receipt, bytes) : new Problem(LOCAL.unverified));
    }
  }

  async #settle(id: string, answer: Answer): Promise<void> {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    clearTimeout(pending.timer);
    this.#pending.delete(id);
    await pending.settle(answer);
    if (answer instanceof Problem) this.#ifForgotten(answer);
    this.#deps.changed();
  }

  /** The connector says that it does not know this session, though it did: it is asked to admit it again. */
  #ifForgotten(problem: Problem): void {
    if (problem.code !== 4010 || this.admission.kind !== "admitted") return;
    this.#detached(problem);
    this.#attach();
  }

  async #onFailure(commandId: Uint8Array, problem: Problem): Promise<void> {
    const id = uuidText(commandId);
    if (this.#pending.has(id)) await this.#settle(id, problem);
    else await this.#deps.outbox.failure(id, problem);
    this.#ifForgotten(problem);
  }

  // === Attach and watch ===

  #attach(): void {
    if (this.#deps.machineKey === undefined || this.#welcome === undefined) return;
    if (this.status === undefined || this.status.bootId.length === 0) return;
    if (this.admission.kind === "asked" || this.admission.kind === "admitted") return;
    if (this.admission.kind === "refused" && !passing(this.admission.problem)) return;
    this.admission = { kind: "asked" };
    this.#machineStream.asked();
    const cursor = this.#machineStream.cursor;
    const round = this.#round;
    this.#asked.machine = this.#ask(bodyOf("attach", { cursor, client: CLIENT }), (answer) =>
      round === this.#round ? this.#attached(answer) : undefined,
    );
  }

  async #attached(answer: Answer): Promise<void> {
    if (answer instanceof Problem) {
      this.admission = { kind: "refused", problem: answer };
      if (passing(answer)) this.#later(RETRY_AFTER_MS + answer.retryAfterMs, () => this.#attach());
      return;
    }
    const { receipt, result } = answer;
    if (result?.kind.case === "attached") await this.#applyAttached(result.kind.value, receipt);
    this.admission = { kind: "admitted" };
    this.#deps.outbox.attach({
      machineId: this.id,
      context: () => this.#context(),
      send: (command, traceId) => this.#sendCommand(command, traceId),
    });
    this.#probeNow();
    this.#watchNow();
  }

  async #applyAttached(attached: Attached, receipt: Receipt): Promise<void> {
    this.clock.learn(Number(attached.machineTimeMs), 0);
    const { snapshot } = attached;
    const { machineKey } = this.#deps;
    if (snapshot === undefined || receipt.asOf === undefined || machineKey === undefined) return;
    const cards = [];
    let unverified = 0;
    for (const signed of snapshot.approvals) {
      const card = await openApproval(signed, machineKey, this.#machineBytes);
      if (card === undefined) unverified += 1;
      else cards.push(card);
    }
    this.model = machineModel.applySnapshot(this.model, snapshot, cards, unverified);
    const { streamId, bootId, seq } = receipt.asOf;
    await this.#step(this.#machineStream, this.#machineStream.settled(streamId, bootId, seq));
  }

  #watchNow(): void {
    const threadId = this.thread?.threadId;
    if (threadId === undefined || this.admission.kind !== "admitted" || this.#asked.thread !== undefined) return;
    if (this.#threadStream.live) return;
    this.#threadStream.asked();
    const cursor = this.#threadStream.cursor;
    const round = this.#round;
    this.#asked.thread = this.#ask(bodyOf("watchThread", { threadId, cursor }), (answer) =>
      round === this.#round ? this.#watched(threadId, answer) : undefined,
    );
  }

  async #watched(threadId: string, answer: Answer): Promise<void> {
    if (this.thread?.threadId !== threadId) return;
    if (answer instanceof Problem) {
      this.#asked.thread = undefined;
      this.threadProblem = answer;
      if (passing(answer)) this.#later(RETRY_AFTER_MS + answer.retryAfterMs, () => this.#watchNow());
      return;
    }
    this.threadProblem = undefined;
    const { receipt, result } = answer;
    if (result?.kind.case === "threadWatched") await this.#applyWatched(result.kind.value, receipt);
    // A resumed stream carries no snapshot, and its verdict may come after this receipt: it is still waited for.
    if (this.#threadStream.live) this.#asked.thread = undefined;
  }

  async #applyWatched(watched: ThreadWatched, receipt: Receipt): Promise<void> {
    if (this.thread === undefined || watched.snapshot === undefined) return;
    this.thread = threadModel.applySnapshot(this.thread, watched.snapshot);
    const asOf = receipt.asOf;
    const bootId = asOf?.bootId ?? receipt.bootId;
    await this.#step(this.#threadStream, this.#threadStream.settled(watched.streamId, bootId, asOf?.seq ?? 0n));
  }

  // === Streams ===

  async #onVerdict(verdict: StreamVerdict): Promise<void> {
    const id = uuidText(verdict.commandId);
    const stream =
      id === this.#asked.machine ? this.#machineStream : id === this.#asked.thread ? this.#threadStream : undefined;
    if (stream === undefined) return;
    const { streamId, bootId } = verdict;
    if (verdict.verdict.case === "resumedFrom") {
      await this.#step(stream, stream.resumed(streamId, bootId, verdict.verdict.value));
      if (stream === this.#threadStream && stream.live && !this.#pending.has(id)) this.#asked.thread = undefined;
    } else if (verdict.verdict.case === "gapAsOf") {
      await this.#step(stream, stream.gap(streamId, bootId, verdict.verdict.value));
    }
  }

  async #onEvent(streamId: number, seq: bigint, body: Uint8Array): Promise<void> {
    const stream =
      streamId === 0 ? this.#machineStream : streamId === this.#threadStream.streamId ? this.#threadStream : undefined;
    // Of a thread that is not on screen any more: its bytes are credited all the same.
    if (stream === undefined) this.#consume(body.length);
    else await this.#step(stream, stream.event({ seq, body }));
  }

  #onStreamEnd(streamId: number): void {
    if (streamId === 0) {
      this.#detached(new Problem(LOCAL.connectionLost));
      this.#later(RETRY_AFTER_MS, () => this.#attach());
    } else if (streamId === this.#threadStream.streamId) {
      this.#threadStream.asked();
      this.#asked.thread = undefined;
      this.#later(RETRY_AFTER_MS, () => this.#watchNow());
    }
  }

  async #step(stream: StreamSync, step: Step): Promise<void> {
    if (step.kind === "hole") {
      this.#hole(stream);
      return;
    }
    for (const event of step.events) {
      const decoded = decodeEvent(event.body);
      if (decoded !== undefined) {
        if (stream === this.#machineStream) await this.#applyMachineEvent(decoded);
        else if (this.thread !== undefined) this.thread = threadModel.applyEvent(this.thread, decoded);
      }
      this.#consume(event.body.length);
    }
  }

  /** Something is missing: the stream is asked for again, from a snapshot. */
  #hole(stream: StreamSync): void {
    stream.forget();
    if (stream === this.#machineStream) {
      this.#detached(new Problem(LOCAL.connectionLost));
      this.#attach();
    } else {
      this.#asked.thread = undefined;
      this.#watchNow();
    }
  }

  async #applyMachineEvent(event: AgentEvent): Promise<void> {
    const { kind } = event;
    const { machineKey } = this.#deps;
    switch (kind.case) {
      case "approvalOpened": {
        if (machineKey === undefined) return;
        const card = await openApproval(kind.value, machineKey, this.#machineBytes);
        this.model =
          card === undefined
            ? machineModel.unverifiedApproval(this.model)
            : machineModel.openedApproval(this.model, card);
        break;
      }
      case "approvalClosed":
        this.model = machineModel.closedApproval(this.model, kind.value);
        break;
      case "questionOpened":
        this.model = machineModel.openedQuestion(this.model, kind.value);
        break;
      case "questionClosed":
        this.model = machineModel.closedQuestion(this.model, kind.value.questionId);
        break;
      case "threadChanged":
        this.model = machineModel.changedThread(this.model, kind.value);
        break;
      case "threadRemoved":
        this.model = machineModel.removedThread(this.model, kind.value.threadId);
        break;
      case "machineChanged":
        if (kind.value.snapshot !== undefined) {
          this.model = machineModel.changedMachine(this.model, kind.value.snapshot);
        }
        break;
      default:
        // Of a thread's stream, or of a later version.
        break;
    }
  }

  /** Tells the relay, now and then, that there is room again. */
  #consume(bytes: number): void {
    this.#consumed += bytes;
    const window = this.#welcome?.eventWindowBytes || DEFAULT_EVENT_WINDOW;
    if (this.#consumed < window / 4) return;
    this.#send(LANE.commands, "eventCredit", { bytes: this.#consumed });
    this.#consumed = 0;
  }

  // === Heartbeat ===

  #probeNow(): void {
    if (this.admission.kind !== "admitted") return;
    if (this.probe !== undefined && this.#deps.now() - this.probe.answeredAtMs > PROBE_SILENCE_MAX_MS) {
      // The relay answers and the connector does not: the session may be known to nobody there.
      this.#detached(new Problem(1013));
      this.#attach();
      return;
    }
    this.#probeNonce += 1n;
    this.#probes.set(this.#probeNonce, this.#deps.now());
    if (this.#probes.size > 8) this.#probes.delete(this.#probes.keys().next().value as bigint);
    this.#send(LANE.control, "probe", { nonce: this.#probeNonce });
    this.#later(PROBE_INTERVAL_MS, () => this.#probeNow());
  }

  #onProbeReply(nonce: bigint, machineTimeMs: number): void {
    const askedAtMs = this.#probes.get(nonce);
    if (askedAtMs === undefined) return;
    this.#probes.delete(nonce);
    const answeredAtMs = this.#deps.now();
    const roundTripMs = answeredAtMs - askedAtMs;
    this.probe = { answeredAtMs, roundTripMs };
    this.clock.learn(machineTimeMs, roundTripMs / 2);
  }

  // === Sending ===

  /** Signs and sends a read; `settle` is called once. Returns the command's id. */
  #ask(body: CommandBody, settle: Pending["settle"]): string {
    const commandId = uuidV7(this.#deps.now());
    const id = uuidText(commandId);
    this.#signing = this.#signing.then(() => this.#askNow(id, commandId, body, settle)).catch(() => undefined);
    return id;
  }

  async #askNow(id: string, commandId: Uint8Array, body: CommandBody, settle: Pending["settle"]): Promise<void> {
    const context = this.#context();
    const sessionId = this.#welcome?.sessionId;
    if (context === undefined || sessionId === undefined) {
      await settle(new Problem(LOCAL.connectionLost));
      return;
    }
    const round = this.#round;
    const full = { ...context, commandId, lifetimeMs: READ_LIFETIME_MS, sessionId };
    const { command, hash } = await signCommand(this.#deps.key, full, body);
    if (round !== this.#round) {
      await settle(new Problem(LOCAL.connectionLost));
      return;
    }
    const timer = setTimeout(() => void this.#settle(id, new Problem(1008)), READ_TIMEOUT_MS);
    this.#pending.set(id, { hash, settle, timer, bulk: new BulkAssembly(), receipt: undefined });
    if (!this.#sendCommand(command)) await this.#settle(id, new Problem(LOCAL.connectionLost));
  }

  #context(): Omit<CommandContext, "commandId" | "lifetimeMs"> | undefined {
    const bootId = this.status?.bootId;
    if (bootId === undefined || bootId.length === 0) return undefined;
    const issuedAtMs = this.clock.now();
    return { accountId: this.#accountBytes, machineId: this.#machineBytes, bootId, issuedAtMs };
  }

  #sendCommand(command: Command, traceId = newTraceId()): boolean {
    return this.#send(LANE.commands, "command", command, traceContext(traceId));
  }

  #send<C extends MessageCase>(lane: number, kind: C, value: object, trace?: TraceContext): boolean {
    return this.#deps.send(lane, create(DeviceMessageSchema, { trace, kind: { case: kind, value } as never }));
  }

  /** The connector does not know this session any more: what waits is told, streams keep their cursors. */
  #detached(problem: Problem): void {
    this.#round += 1;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.admission = { kind: "none" };
    this.probe = undefined;
    this.#probes.clear();
    this.#asked = {};
    this.#consumed = 0;
    this.#machineStream.asked();
    this.#threadStream.asked();
    this.#deps.outbox.detach(this.id);
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const one of pending) {
      clearTimeout(one.timer);
      void one.settle(problem);
    }
  }

  #later(waitMs: number, action: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, waitMs);
    this.#timers.add(timer);
  }
}

/** A command's body from its case and the fields of its value. */
export function bodyOf<C extends NonNullable<CommandBody["kind"]["case"]>>(
  kind: C,
  value: object,
): CommandBody {
  return create(CommandBodySchema, { kind: { case: kind, value } as never });
}

/** Whether asking again later may help. */
function passing(problem: Problem): boolean {
  const codes = [1000, 1006, 1008, 1009, 1013, 1015, 4000, 4005, 4007, 4010, 4014, 4016, 6001, 6005];
  return codes.includes(problem.code) || problem.code === LOCAL.connectionLost;
}

function answerOf(receipt: Receipt, bytes: Uint8Array): Answer {
  if (receipt.outcome === Outcome.REFUSED) return new Problem(receipt.code);
  if (receipt.outcome !== Outcome.EXECUTED) return new Problem(4013);
  if (bytes.length === 0) return { receipt, result: undefined };
  try {
    return { receipt, result: fromBinary(CommandResultSchema, bytes) };
  } catch {
    return new Problem(LOCAL.unverified);
  }
}

function decodeEvent(body: Uint8Array): AgentEvent | undefined {
  try {
    return fromBinary(AgentEventSchema, body);
  } catch {
    return undefined;
  }
}
