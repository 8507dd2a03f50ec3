/**
 * What one session asks of a machine: signed, sent, and answered once by a receipt that verifies.
 *
 * Effects do not pass here but by the outbox, which outlives sessions; a receipt for one of them is handed on to it.
 */
import { fromBinary } from "@bufbuild/protobuf";

import { LOCAL, Problem } from "../api/problem";
import { type CommandBody, type CommandResult, CommandResultSchema } from "../gen/flydex/agent/v1/agent_pb";
import { Outcome, type Receipt, type SignedReceipt } from "../gen/flydex/v1/command_pb";
import { type Progress, ProgressState } from "../gen/flydex/v1/relay_pb";
import { uuidText, uuidV7 } from "../protocol/bytes";
import { signCommand } from "../protocol/command";
import { LANE } from "../protocol/frames";
import type { DeviceKey, PublicKey } from "../protocol/keys";
import { bulkMatches, peekReceipt, verifyReceipt } from "../protocol/receipt";
import { BulkAssembly } from "./bulk";
import type { Outbox } from "./outbox";
import type { Sender } from "./sender";

export type Answer = { readonly receipt: Receipt; readonly result: CommandResult | undefined } | Problem;
export type Settle = (answer: Answer) => Promise<void> | void;
/** Asks the machine; answers the command's id. `dropped` hears that the session ended before an answer came. */
export type Ask = (body: CommandBody, settle: Settle, dropped?: (problem: Problem) => void) => string;

export interface CommandsDeps {
  readonly machineKey: PublicKey | undefined;
  readonly key: DeviceKey;
  readonly outbox: Outbox;
  readonly sender: Sender;
  readonly now: () => number;
  /** An answer of a machine whose key is not known here: it may introduce itself. */
  readonly introduced?: (claimed: Receipt) => Promise<void>;
  /** A command of any kind failed; the machine looks whether it says something of the session. */
  readonly failed: (problem: Problem) => void;
  /** What came as the machine's word is not signed by the key that is pinned. */
  readonly doubted: () => void;
}

interface Pending {
  readonly hash: Uint8Array;
  readonly settle: Settle;
  readonly dropped: (problem: Problem) => void;
  readonly timer: ReturnType<typeof setTimeout>;
  readonly bulk: BulkAssembly;
  receipt: Receipt | undefined;
}

const READ_LIFETIME_MS = 60_000;
const READ_TIMEOUT_MS = 40_000;

export class Commands {
  readonly #deps: CommandsDeps;
  readonly #pending = new Map<string, Pending>();
  /** Commands are signed one after the other, so that they leave in the order in which they were asked. */
  #signing: Promise<void> = Promise.resolve();
  /** Grows with every session and boot, so that what was asked before is not answered into the new one. */
  #round = 0;

  constructor(deps: CommandsDeps) {
    this.#deps = deps;
  }

  readonly ask: Ask = (body, settle, dropped = () => undefined) => {
    const commandId = uuidV7(this.#deps.now());
    const round = this.#round;
    const sign = () => this.#send(round, commandId, body, settle, dropped);
    this.#signing = this.#signing.then(sign).catch(() => undefined);
    return uuidText(commandId);
  };

  /** The session ended: nothing that waits is answered any more. */
  drop(problem: Problem): void {
    this.#round += 1;
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const one of waiting) {
      clearTimeout(one.timer);
      one.dropped(problem);
    }
  }

  /** Advice on the way; only effects are told of it. */
  async progress({ commandId, state }: Progress): Promise<void> {
    const { outbox } = this.#deps;
    if (state === ProgressState.ACCEPTED) await outbox.progress(uuidText(commandId), "accepted");
    if (state === ProgressState.DELIVERED) await outbox.progress(uuidText(commandId), "delivered");
  }

  async receipt(signed: SignedReceipt): Promise<void> {
    const { machineKey, key, outbox, sender } = this.#deps;
    const claimed = peekReceipt(signed);
    if (claimed === undefined) return;
    if (machineKey === undefined) {
      await this.#deps.introduced?.(claimed);
      return;
    }
    const id = uuidText(claimed.commandId);
    const pending = this.#pending.get(id);
    const commandHash = pending?.hash ?? outbox.hashOf(id);
    if (commandHash === undefined) return;
    const receipt = await verifyReceipt(signed, {
      machineKey,
      accountId: sender.accountBytes,
      machineId: sender.machineBytes,
      deviceId: key.deviceId,
      commandId: claimed.commandId,
      commandHash,
    });
    // A receipt that does not verify is no word of the machine's: it changes nothing.
    if (receipt === undefined) {
      this.#deps.doubted();
      return;
    }
    if (pending === undefined) {
      await outbox.receipt(id, receipt, receipt.result);
      return;
    }
    pending.receipt = receipt;
    await this.#settleIfWhole(id, pending);
  }

  async chunk(commandId: Uint8Array, offset: number, bytes: Uint8Array): Promise<void> {
    const id = uuidText(commandId);
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    const credit = pending.bulk.add(offset, bytes);
    if (credit > 0) this.#deps.sender.message(LANE.commands, "bulkCredit", { commandId, bytes: credit });
    await this.#settleIfWhole(id, pending);
  }

  /** A failure on the way, without the machine's signature. */
  async failure(commandId: Uint8Array, problem: Problem): Promise<void> {
    const id = uuidText(commandId);
    if (this.#pending.has(id)) {
      await this.#settle(id, problem);
    } else {
      await this.#deps.outbox.failure(id, problem);
      this.#deps.failed(problem);
    }
  }

  async #send(
    round: number,
    commandId: Uint8Array,
    body: CommandBody,
    settle: Settle,
    dropped: (problem: Problem) => void,
  ): Promise<void> {
    const id = uuidText(commandId);
    const context = round === this.#round ? this.#deps.sender.sessionContext() : undefined;
    if (context === undefined) {
      dropped(new Problem(LOCAL.connectionLost));
      return;
    }
    const full = { ...context, commandId, lifetimeMs: READ_LIFETIME_MS };
    const { command, hash } = await signCommand(this.#deps.key, full, body);
    if (round !== this.#round) {
      dropped(new Problem(LOCAL.connectionLost));
      return;
    }
    const timer = setTimeout(() => void this.#settle(id, new Problem(1008)), READ_TIMEOUT_MS);
    this.#pending.set(id, { hash, settle, dropped, timer, bulk: new BulkAssembly(), receipt: undefined });
    if (!this.#deps.sender.command(command)) await this.#settle(id, new Problem(LOCAL.connectionLost));
  }

  async #settleIfWhole(id: string, { receipt, bulk }: Pending): Promise<void> {
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
    if (answer instanceof Problem) this.#deps.failed(answer);
  }
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
