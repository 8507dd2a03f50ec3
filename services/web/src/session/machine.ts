/**
 * One machine over the session: its status, admission of this session there, and what then comes from it.
 *
 * Messages are handled one after the other, in the order in which they came, so that verifying a signature
 * never lets a later event overtake an earlier one.
 */
import { fromBinary } from "@bufbuild/protobuf";

import { LOCAL, Problem } from "../api/problem";
import {
  type CommandBody,
  type CommandResult,
  CommandResultSchema,
  type HistoryPage,
  type Introduction,
} from "../gen/flydex/agent/v1/agent_pb";
import type { Receipt } from "../gen/flydex/v1/command_pb";
import type { DeviceMessage, MachineMessage, MachineStatus, StreamVerdict } from "../gen/flydex/v1/relay_pb";
import { MachineState } from "../gen/flydex/v1/relay_pb";
import type { MachineModel } from "../model/machine";
import type { ThreadModel } from "../model/thread";
import { equal, fromHex, uuidText } from "../protocol/bytes";
import { LANE } from "../protocol/frames";
import type { DeviceKey, PublicKey } from "../protocol/keys";
import { Admission, type AdmissionState } from "./admission";
import { MachineClock } from "./clock";
import { Commands } from "./commands";
import { Heartbeat, type Probe } from "./heartbeat";
import { MachineFeed } from "./machinefeed";
import type { Outbox } from "./outbox";
import { RETRY_AFTER_MS } from "./retry";
import { Sender } from "./sender";
import { ThreadFeeds } from "./threadfeeds";
import { Timers } from "./timers";
import type { Welcome } from "./wire";

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
  /** What came as its word is not signed by the pinned key: it may have changed its key. */
  readonly doubted: () => void;
  /** While this browser asks to be let in: judges how a machine introduces itself, and pins its key if that holds. */
  readonly introduce?: () => Introduce | undefined;
}

export type Introduce = (introduction: Introduction) => Promise<void>;

const MACHINE_STREAM = 0;
const NOT_ADMITTED = 4010;

export class Machine {
  readonly id: string;
  readonly clock: MachineClock;
  status: MachineStatus | undefined;
  /** Why the relay does not open the machine. */
  closed: Problem | undefined;

  readonly #deps: MachineDeps;
  readonly #sender: Sender;
  readonly #commands: Commands;
  readonly #admission: Admission;
  readonly #feed: MachineFeed;
  readonly #threads: ThreadFeeds;
  readonly #heartbeat: Heartbeat;
  readonly #timers = new Timers();
  #tail: Promise<void> = Promise.resolve();

  constructor(deps: MachineDeps) {
    const { machineId, accountId, machineKey, key, outbox, now } = deps;
    this.#deps = deps;
    this.id = machineId;
    this.clock = new MachineClock(now);
    const machineBytes = fromHex(machineId.replaceAll("-", ""));
    const accountBytes = fromHex(accountId.replaceAll("-", ""));
    const { later } = this.#timers;
    this.#sender = new Sender({ accountBytes, machineBytes, now: () => this.clock.now(), send: deps.send });
    const consumed = (bytes: number) => this.#sender.consumed(bytes);
    const failed = (problem: Problem) => this.#ifForgotten(problem);
    const introduced = (claimed: Receipt) => this.#introduced(claimed);
    this.#commands = new Commands({
      machineKey,
      key,
      outbox,
      sender: this.#sender,
      now,
      failed,
      introduced,
      doubted: deps.doubted,
    });
    this.#feed = new MachineFeed(machineKey, machineBytes, consumed, deps.doubted);
    this.#admission = new Admission({
      feed: this.#feed,
      ask: this.#commands.ask,
      possible: () => (this.paired || deps.introduce?.() !== undefined) && this.#sender.sessionContext() !== undefined,
      admitted: () => this.#admitted(),
      hole: () => this.#hole(),
      clock: this.clock,
      later,
    });
    const admitted = () => this.#admission.granted;
    this.#threads = new ThreadFeeds({ ask: this.#commands.ask, admitted, consumed, later });
    this.#heartbeat = new Heartbeat({
      now,
      clock: this.clock,
      send: (nonce) => this.#sender.message(LANE.control, "probe", { nonce }),
      silent: () => this.#attachAgain(new Problem(1013)),
      later,
    });
  }

  get paired(): boolean {
    return this.#deps.machineKey !== undefined;
  }

  get admission(): AdmissionState {
    return this.#admission.state;
  }

  get model(): MachineModel {
    return this.#feed.model;
  }

  get thread(): ThreadModel | undefined {
    return this.#threads.model;
  }

  /** Why the thread on screen cannot be followed now. */
  get threadProblem(): Problem | undefined {
    return this.#threads.problem;
  }

  /** When the whole path to the connector last answered, and how long it took. */
  get probe(): Probe | undefined {
    return this.#heartbeat.last;
  }

  /** Whether everything that happened up to now is on screen. */
  get caughtUp(): boolean {
    return this.#admission.granted && this.#feed.stream.live && this.#threads.live;
  }

  /** Nothing of the receipt is believed here but what the introduction itself proves. */
  async #introduced(claimed: Receipt): Promise<void> {
    const introduce = this.#deps.introduce?.();
    if (introduce === undefined) return;
    let kind: CommandResult["kind"];
    try {
      ({ kind } = fromBinary(CommandResultSchema, claimed.result));
    } catch {
      return;
    }
    if (kind.case === "attached" && kind.value.introduction !== undefined) await introduce(kind.value.introduction);
  }

  // === The session ===

  /** A session is open; in place of another one when that was not closed before. */
  sessionOpened(welcome: Welcome): void {
    this.#detached(new Problem(LOCAL.connectionLost));
    this.#sender.welcome = welcome;
    this.clock.hint(welcome.serverTimeMs);
    this.#deps.changed();
  }

  sessionClosed(): void {
    this.#sender.welcome = undefined;
    this.#gone(new Problem(LOCAL.connectionLost), undefined);
  }

  closedByRelay(problem: Problem): void {
    this.#gone(problem, problem);
  }

  receive(message: MachineMessage): void {
    this.#tail = this.#tail.then(() => this.#handle(message)).catch(() => undefined);
  }

  /** When everything received so far has been handled; for tests. */
  idle(): Promise<void> {
    return this.#tail;
  }

  // === Asking ===

  /** A read: signed, sent, answered once. */
  async read(body: CommandBody): Promise<{ receipt: Receipt; result: CommandResult | undefined }> {
    if (!this.#admission.granted) throw new Problem(LOCAL.connectionLost);
    return new Promise((resolve, reject) => {
      this.#commands.ask(body, (answer) => (answer instanceof Problem ? reject(answer) : resolve(answer)), reject);
    });
  }

  /** Follows a thread in place of the one before; undefined: none. */
  watch(threadId: string | undefined): void {
    this.#threads.show(threadId);
    this.#deps.changed();
  }

  /** Reads the thread on screen anew: its place in the history is not known any more. */
  reread(): void {
    this.#threads.reread();
    this.#deps.changed();
  }

  /** Puts an older page before the thread on screen. */
  prepend(threadId: string, page: HistoryPage): void {
    this.#threads.prepend(threadId, page);
    this.#deps.changed();
  }

  /** A person asked to try again. */
  retry(): void {
    this.#admission.askAgain();
    this.#threads.follow();
  }

  async #handle({ kind }: MachineMessage): Promise<void> {
    switch (kind.case) {
      case "status":
        this.#onStatus(kind.value);
        break;
      case "progress":
        await this.#commands.progress(kind.value);
        break;
      case "receipt":
        await this.#commands.receipt(kind.value);
        break;
      case "verdict":
        await this.#onVerdict(kind.value);
        break;
      case "event":
        await this.#onEvent(kind.value.streamId, kind.value.seq, kind.value.body);
        break;
      case "chunk":
        await this.#commands.chunk(kind.value.commandId, kind.value.offset, kind.value.bytes);
        break;
      case "probeReply":
        this.#heartbeat.answered(kind.value);
        break;
      case "failure":
        await this.#commands.failure(kind.value.commandId, new Problem(kind.value.code, kind.value.retryAfterMs));
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
    const away = status.bootId.length === 0 || status.state === MachineState.OFFLINE;
    this.#sender.bootId = away ? undefined : status.bootId;
    const booted = before === undefined || !equal(before.bootId, status.bootId);
    if (away || booted) this.#detached(new Problem(away ? 4000 : LOCAL.connectionLost));
    if (away) return;
    this.#admission.ask();
    if (status.state === MachineState.CODEX_READY && before?.state !== MachineState.CODEX_READY) this.#threads.follow();
  }

  async #onVerdict(verdict: StreamVerdict): Promise<void> {
    const id = uuidText(verdict.commandId);
    if (id !== this.#feed.asked) await this.#threads.verdict(id, verdict);
    else if (!(await this.#feed.verdict(verdict))) this.#hole();
  }

  async #onEvent(streamId: number, seq: bigint, body: Uint8Array): Promise<void> {
    if (streamId !== MACHINE_STREAM) await this.#threads.event(streamId, seq, body);
    else if (!(await this.#feed.run(this.#feed.stream.event({ seq, body })))) this.#hole();
  }

  #onStreamEnd(streamId: number): void {
    if (streamId !== MACHINE_STREAM) return this.#threads.ended(streamId);
    this.#detached(new Problem(LOCAL.connectionLost));
    this.#timers.later(RETRY_AFTER_MS, () => this.#admission.ask());
  }

  #admitted(): void {
    this.#deps.outbox.attach({
      machineId: this.id,
      context: () => this.#sender.context(),
      send: (command, traceId) => this.#sender.command(command, traceId),
      executed: (entry) => this.#feed.executed(entry),
    });
    this.#heartbeat.beat();
    this.#threads.follow();
  }

  #gone(problem: Problem, closed: Problem | undefined): void {
    this.status = undefined;
    this.closed = closed;
    this.#sender.bootId = undefined;
    this.#detached(problem);
    this.#deps.changed();
  }

  /** Something is missing of the machine's stream: it is asked for again, from a snapshot. */
  #hole(): void {
    this.#feed.stream.forget();
    this.#attachAgain(new Problem(LOCAL.connectionLost));
  }

  /** The connector says that it does not know this session, though it did: it is asked to admit it again. */
  #ifForgotten(problem: Problem): void {
    if (problem.code === NOT_ADMITTED && this.#admission.granted) this.#attachAgain(problem);
    this.#deps.changed();
  }

  #attachAgain(problem: Problem): void {
    this.#detached(problem);
    this.#admission.ask();
  }

  /** The connector does not know this session any more: what waits is told, streams keep their cursors. */
  #detached(problem: Problem): void {
    this.#timers.clear();
    this.#admission.state = { kind: "none" };
    this.#heartbeat.forget();
    this.#sender.forgetConsumed();
    this.#feed.pause();
    this.#threads.pause();
    this.#deps.outbox.detach(this.id);
    this.#commands.drop(problem);
  }
}
