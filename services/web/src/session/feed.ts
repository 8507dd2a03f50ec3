/** A numbered stream that a command asked for: its verdict, its snapshot, and its events in their order. */
import { fromBinary } from "@bufbuild/protobuf";

import { type AgentEvent, AgentEventSchema } from "../gen/flydex/agent/v1/agent_pb";
import type { StreamVerdict } from "../gen/flydex/v1/relay_pb";
import { type Step, StreamSync } from "./stream";

export class Feed {
  readonly stream = new StreamSync();
  /** The command that asked for the stream, by whose id its verdict is known. */
  asked: string | undefined;
  readonly #apply: (event: AgentEvent) => Promise<void> | void;
  readonly #consumed: (bytes: number) => void;

  constructor(apply: (event: AgentEvent) => Promise<void> | void, consumed: (bytes: number) => void) {
    this.#apply = apply;
    this.#consumed = consumed;
  }

  /** Nobody sends the stream any more: it must be asked for again, from where it is. */
  pause(): void {
    this.asked = undefined;
    this.stream.asked();
  }

  /** Applies what is due; false when something is missing in between. */
  async run(step: Step): Promise<boolean> {
    if (step.kind === "hole") return false;
    for (const event of step.events) {
      const decoded = decodeEvent(event.body);
      if (decoded !== undefined) await this.#apply(decoded);
      this.#consumed(event.body.length);
    }
    return true;
  }

  async verdict({ streamId, bootId, verdict }: StreamVerdict): Promise<boolean> {
    if (verdict.case === "resumedFrom") return this.run(this.stream.resumed(streamId, bootId, verdict.value));
    if (verdict.case === "gapAsOf") return this.run(this.stream.gap(streamId, bootId, verdict.value));
    return true;
  }
}

function decodeEvent(body: Uint8Array): AgentEvent | undefined {
  try {
    return fromBinary(AgentEventSchema, body);
  } catch {
    return undefined;
  }
}
