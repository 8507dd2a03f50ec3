/** The machine's own stream: its state, its open approvals and questions, and which threads changed. */
import { fromBinary } from "@bufbuild/protobuf";

import { type AgentEvent, CommandBodySchema, type MachineSnapshot, type SignedApproval } from "../gen/flydex/agent/v1/agent_pb";
import * as machineModel from "../model/machine";
import { type ApprovalCard, openApproval } from "../protocol/approval";
import type { PublicKey } from "../protocol/keys";
import { Feed } from "./feed";
import type { OutboxEntry } from "./outbox";
import type { Cursor } from "./stream";

export class MachineFeed extends Feed {
  model = machineModel.emptyMachine();
  readonly #machineKey: PublicKey | undefined;
  readonly #machineBytes: Uint8Array;

  readonly #doubted: () => void;

  constructor(
    machineKey: PublicKey | undefined,
    machineBytes: Uint8Array,
    consumed: (bytes: number) => void,
    doubted: () => void,
  ) {
    super((event) => this.#onEvent(event), consumed);
    this.#machineKey = machineKey;
    this.#machineBytes = machineBytes;
    this.#doubted = doubted;
  }

  /** Replaces what was known; false when the events held back do not join onto it. */
  async apply(snapshot: MachineSnapshot, { streamId, bootId, seq }: Cursor): Promise<boolean> {
    const cards = [];
    let unverified = 0;
    for (const signed of snapshot.approvals) {
      const card = await this.#open(signed);
      if (card === undefined) unverified += 1;
      else cards.push(card);
    }
    this.model = machineModel.applySnapshot(this.model, snapshot, cards, unverified);
    return this.run(this.stream.settled(streamId, bootId, seq));
  }

  /** The machine carried out what this browser asked: what that changed of this device, no event tells. */
  executed({ body }: OutboxEntry): void {
    const { kind } = fromBinary(CommandBodySchema, body);
    if (kind.case === "pinPasskey") this.model = machineModel.pinnedPasskey(this.model, kind.value.credentialId);
  }

  async #onEvent({ kind }: AgentEvent): Promise<void> {
    switch (kind.case) {
      case "approvalOpened": {
        const card = await this.#open(kind.value);
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

  async #open(signed: SignedApproval): Promise<ApprovalCard | undefined> {
    if (this.#machineKey === undefined) return undefined;
    const card = await openApproval(signed, this.#machineKey, this.#machineBytes);
    if (card === undefined) this.#doubted();
    return card;
  }
}
