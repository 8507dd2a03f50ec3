/**
 * The outbox: effects that this browser asked for, kept on disk until the machine's signed word on each.
 *
 * An entry is signed once, when the machine's boot is known, and from then on the same bytes travel under the
 * same id after any break. Only a verified receipt makes an outcome final (INV-FINAL); what is not known is
 * shown as not known.
 */
import { create } from "@bufbuild/protobuf";

import { LOCAL, Problem } from "../api/problem";
import {
  type Command,
  type CommandKind,
  CommandSchema,
  Outcome,
  PasskeyAssertionSchema,
  type Receipt,
} from "../gen/flydex/v1/command_pb";
import { base64url, fromHex, uuidText, uuidV7 } from "../protocol/bytes";
import { type ApprovalAnswer, type CommandContext, signEncoded } from "../protocol/command";
import type { DeviceKey } from "../protocol/keys";
import type { PasskeyAssertionParts } from "../protocol/passkey";
import { newTraceId } from "../protocol/trace";
import { backoffMs } from "./backoff";
import type { Table } from "./storage";

export type OutboxState =
  | "queued" // not signed yet: the machine is not there
  | "sent" // signed and on its way
  | "accepted" // the relay has it
  | "delivered" // the machine has it in its journal
  | "executed" // final: Codex took it
  | "refused" // final: it did not happen
  | "unknown" // final: the machine does not know whether it happened
  | "unsent"; // given up here before the machine could have had it

export interface OutboxEntry {
  readonly id: string;
  readonly machineId: string;
  readonly accountId: string;
  readonly kind: CommandKind;
  readonly body: Uint8Array;
  readonly createdAtMs: number;
  /** The trace of every sending of it; random. */
  readonly traceId?: Uint8Array;
  readonly state: OutboxState;
  /** The thread it is about, when there is one yet. */
  readonly threadId?: string;
  /** What the person wrote, to show it and to give it back. */
  readonly text?: string;
  readonly answer?: ApprovalAnswer;
  readonly signed?: SignedParts;
  /** How often the signed bytes went out. */
  readonly attempts: number;
  readonly code?: number;
  readonly settledAtMs?: number;
  /** The serialised CommandResult of a final receipt. */
  readonly result?: Uint8Array;
}

export interface SignedParts {
  readonly header: Uint8Array;
  readonly signature: Uint8Array;
  readonly hash: Uint8Array;
  readonly auditReceipt: string;
  /** A person's own word on it, where the machine wants one. */
  readonly assertion?: PasskeyAssertionParts;
}

/** What a new entry is made of. */
export interface Draft {
  readonly machineId: string;
  readonly accountId: string;
  readonly kind: CommandKind;
  readonly body: Uint8Array;
  readonly threadId?: string;
  readonly text?: string;
  readonly answer?: ApprovalAnswer;
}

/** Asks a person for their word on a command, by its hash; a no throws. */
export type Confirm = (hash: Uint8Array) => Promise<PasskeyAssertionParts>;

/** A machine that can be sent to now. */
export interface Port {
  readonly machineId: string;
  /** What the command must name; undefined while the machine's boot is not known. */
  context(): Omit<CommandContext, "commandId" | "lifetimeMs"> | undefined;
  send(command: Command, traceId?: Uint8Array): boolean;
  /** The machine carried it out. */
  executed?(entry: OutboxEntry): void;
}

export interface OutboxDeps {
  readonly table: Table<OutboxEntry>;
  readonly key: DeviceKey;
  readonly now: () => number;
  readonly random: () => number;
  /** Records an accept before it is sent; the receipt, or an empty text when there was no answer in time. */
  readonly audit: (entry: OutboxEntry, hash: Uint8Array) => Promise<string>;
  readonly changed: () => void;
}

const LIFETIME_MS = 600_000;
/** An entry that found no machine for this long is given back to the person: the moment has passed. */
const QUEUE_MAX_MS = 600_000;
const RESEND_MIN_MS = 2_000;
const FINAL: ReadonlySet<OutboxState> = new Set(["executed", "refused", "unknown", "unsent"]);

/** Failures on the way after which the same bytes may go through later. */
const PASSING_CODES = new Set([1000, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 1015, 1016, 4000, 4010, 4014, 4015, 4016]);

export class Outbox {
  readonly #deps: OutboxDeps;
  #entries = new Map<string, OutboxEntry>();
  readonly #ports = new Map<string, Port>();
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #busy = new Set<string>();

  constructor(deps: OutboxDeps) {
    this.#deps = deps;
  }

  /** Reads what an earlier life of the page left behind. */
  async load(): Promise<void> {
    for (const entry of await this.#deps.table.all()) this.#entries.set(entry.id, entry);
    this.#deps.changed();
  }

  all(): OutboxEntry[] {
    return [...this.#entries.values()].sort((left, right) => (left.id < right.id ? -1 : 1));
  }

  get(id: string): OutboxEntry | undefined {
    return this.#entries.get(id);
  }

  /** Takes an effect; it is on disk when this returns, and sent as soon as the machine is there. */
  async add(draft: Draft): Promise<string> {
    const entry = this.#entry(draft);
    await this.#keep(entry);
    void this.#push(entry.id);
    return entry.id;
  }

  /** Takes an effect that a person confirms by the hash of its very bytes; when they do not, nothing is kept or sent. */
  async addConfirmed(draft: Draft, confirm: Confirm): Promise<string> {
    const entry = this.#entry(draft);
    const signed = await this.#sign(entry, confirm);
    if (signed === undefined) throw new Problem(LOCAL.connectionLost);
    await this.#keep({ ...entry, signed });
    void this.#push(entry.id);
    return entry.id;
  }

  #entry(draft: Draft): OutboxEntry {
    const id = uuidText(uuidV7(this.#deps.now()));
    const [createdAtMs, traceId] = [this.#deps.now(), newTraceId()];
    return { ...draft, id, createdAtMs, traceId, state: "queued", attempts: 0 };
  }

  /** Forgets an entry. What was sent may still take effect; the views say so before they call this. */
  async dismiss(id: string): Promise<void> {
    this.#clearTimer(id);
    this.#entries.delete(id);
    await this.#deps.table.delete(id);
    this.#deps.changed();
  }

  /** Forgets everything, as when the browser is signed out. What was sent may still take effect. */
  async forget(): Promise<void> {
    for (const { id } of this.all()) await this.dismiss(id);
  }

  /** The machine admitted this session: everything unsettled goes out again. */
  attach(port: Port): void {
    this.#ports.set(port.machineId, port);
    for (const entry of this.all()) {
      if (entry.machineId === port.machineId && !FINAL.has(entry.state)) void this.#push(entry.id);
    }
  }

  detach(machineId: string): void {
    this.#ports.delete(machineId);
    for (const entry of this.#entries.values()) {
      if (entry.machineId === machineId) this.#clearTimer(entry.id);
    }
  }

  /** The hash that a receipt for this command must name. */
  hashOf(id: string): Uint8Array | undefined {
    return this.#entries.get(id)?.signed?.hash;
  }

  /** Advice on the way; never moves an entry backwards or out of a final state. */
  async progress(id: string, state: "accepted" | "delivered"): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined || FINAL.has(entry.state) || entry.state === "delivered") return;
    await this.#save({ ...entry, state });
  }

  /** The machine's verified last word. */
  async receipt(id: string, receipt: Receipt, result: Uint8Array): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#clearTimer(id);
    const state =
      receipt.outcome === Outcome.EXECUTED ? "executed" : receipt.outcome === Outcome.REFUSED ? "refused" : "unknown";
    if (state === "executed") this.#ports.get(entry.machineId)?.executed?.(entry);
    await this.#save({ ...entry, state, code: receipt.code, settledAtMs: Number(receipt.atMs), result });
  }

  /** A failure on the way: not the machine's word, so final only for what cannot have been delivered. */
  async failure(id: string, problem: Problem): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined || FINAL.has(entry.state)) return;
    if (PASSING_CODES.has(problem.code)) {
      await this.#save({ ...entry, code: problem.code });
      this.#resendLater(id, problem.retryAfterMs);
      return;
    }
    this.#clearTimer(id);
    const undelivered = entry.state === "sent" && entry.attempts <= 1;
    await this.#save({ ...entry, state: undelivered ? "unsent" : "unknown", code: problem.code });
  }

  async #push(id: string): Promise<void> {
    // One at a time for each entry: it must be signed once only.
    if (this.#busy.has(id)) return;
    this.#busy.add(id);
    try {
      await this.#pushOnce(id);
    } catch {
      // It could not be written down, so it did not leave.
      this.#resendLater(id, 0);
    } finally {
      this.#busy.delete(id);
    }
  }

  async #pushOnce(id: string): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined || FINAL.has(entry.state)) return;
    if (entry.signed === undefined && this.#deps.now() - entry.createdAtMs > QUEUE_MAX_MS) {
      await this.#save({ ...entry, state: "unsent", code: 4004 });
      return;
    }
    const signed = entry.signed ?? (await this.#sign(entry));
    const port = this.#ports.get(entry.machineId);
    if (signed === undefined || port === undefined || !this.#entries.has(id)) return;
    const { header, signature, auditReceipt } = signed;
    const assertion = signed.assertion && create(PasskeyAssertionSchema, signed.assertion);
    const command = create(CommandSchema, { header, body: entry.body, signature, auditReceipt, assertion });
    // On disk before it leaves: a reload in between must send the same bytes again.
    const state = entry.state === "queued" ? "sent" : entry.state;
    await this.#keep({ ...entry, signed, state, attempts: entry.attempts + 1 });
    if (port.send(command, entry.traceId)) this.#resendLater(id, 0);
  }

  async #sign(entry: OutboxEntry, confirm?: Confirm): Promise<SignedParts | undefined> {
    const context = this.#ports.get(entry.machineId)?.context();
    if (context === undefined) return undefined;
    const commandId = fromHex(entry.id.replaceAll("-", ""));
    const { command, hash } = await signEncoded(
      this.#deps.key,
      { ...context, commandId, lifetimeMs: LIFETIME_MS, answer: entry.answer },
      entry.kind,
      entry.body,
    );
    const assertion = await confirm?.(hash);
    const auditReceipt = await this.#deps.audit(entry, hash);
    return { header: command.header, signature: command.signature, hash, auditReceipt, assertion };
  }

  /** Asks again when neither receipt nor failure came: the answer itself may have been lost. */
  #resendLater(id: string, adviceMs: number): void {
    this.#clearTimer(id);
    const attempts = this.#entries.get(id)?.attempts ?? 0;
    const waitMs = Math.max(adviceMs, RESEND_MIN_MS, backoffMs(attempts + 3, this.#deps.random));
    this.#timers.set(
      id,
      setTimeout(() => void this.#push(id), waitMs),
    );
  }

  #clearTimer(id: string): void {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }

  /** Saves what must be on disk before anything else happens; what cannot be is as it was before. */
  async #keep(entry: OutboxEntry): Promise<void> {
    const before = this.#entries.get(entry.id);
    try {
      await this.#save(entry);
    } catch (reason) {
      if (before === undefined) this.#entries.delete(entry.id);
      else this.#entries.set(entry.id, before);
      this.#deps.changed();
      throw reason;
    }
  }

  async #save(entry: OutboxEntry): Promise<void> {
    this.#entries.set(entry.id, entry);
    this.#deps.changed();
    await this.#deps.table.put(entry.id, entry);
  }
}

/** Whether nothing more will be heard of an entry. */
export function isFinal(entry: OutboxEntry): boolean {
  return FINAL.has(entry.state);
}

/** The form in which the audit names ids. */
export function auditIds(answer: ApprovalAnswer): { approval_id: string; generation: string } {
  return { approval_id: base64url(answer.approvalId), generation: base64url(answer.generation) };
}

