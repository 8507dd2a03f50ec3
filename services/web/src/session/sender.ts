/** What leaves for one machine: commands with all that they must name, credits, probes. */
import { create } from "@bufbuild/protobuf";

import type { Command, TraceContext } from "../gen/flydex/v1/command_pb";
import { type DeviceMessage, DeviceMessageSchema } from "../gen/flydex/v1/relay_pb";
import type { CommandContext } from "../protocol/command";
import { LANE } from "../protocol/frames";
import { newTraceId, traceContext } from "../protocol/trace";
import type { Welcome } from "./wire";

/** What the machine's boot adds to a command. */
export type BootContext = Omit<CommandContext, "commandId" | "lifetimeMs">;
/** And what the session adds to one that does not outlive it. */
export type SessionContext = BootContext & { readonly sessionId: Uint8Array };

export interface SenderDeps {
  readonly accountBytes: Uint8Array;
  readonly machineBytes: Uint8Array;
  /** The machine's time. */
  readonly now: () => number;
  readonly send: (lane: number, message: DeviceMessage) => boolean;
}

type MessageCase = NonNullable<DeviceMessage["kind"]["case"]>;

const DEFAULT_EVENT_WINDOW = 256 * 1024;

export class Sender {
  /** The open session; undefined while there is none. */
  welcome: Welcome | undefined;
  /** The boot of the connector; undefined while the machine is away. */
  bootId: Uint8Array | undefined;
  readonly accountBytes: Uint8Array;
  readonly machineBytes: Uint8Array;
  readonly #now: () => number;
  readonly #send: SenderDeps["send"];
  #consumedBytes = 0;

  constructor(deps: SenderDeps) {
    this.accountBytes = deps.accountBytes;
    this.machineBytes = deps.machineBytes;
    this.#now = deps.now;
    this.#send = deps.send;
  }

  context(): BootContext | undefined {
    const { accountBytes: accountId, machineBytes: machineId, bootId } = this;
    return bootId === undefined ? undefined : { accountId, machineId, bootId, issuedAtMs: this.#now() };
  }

  sessionContext(): SessionContext | undefined {
    const [context, sessionId] = [this.context(), this.welcome?.sessionId];
    return context === undefined || sessionId === undefined ? undefined : { ...context, sessionId };
  }

  command(command: Command, traceId = newTraceId()): boolean {
    return this.message(LANE.commands, "command", command, traceContext(traceId));
  }

  message<C extends MessageCase>(lane: number, kind: C, value: object, trace?: TraceContext): boolean {
    return this.#send(lane, create(DeviceMessageSchema, { trace, kind: { case: kind, value } as never }));
  }

  /** Tells the relay, now and then, that there is room for events again. */
  consumed(bytes: number): void {
    this.#consumedBytes += bytes;
    const window = this.welcome?.eventWindowBytes || DEFAULT_EVENT_WINDOW;
    if (this.#consumedBytes < window / 4) return;
    this.message(LANE.commands, "eventCredit", { bytes: this.#consumedBytes });
    this.#consumedBytes = 0;
  }

  /** The window is counted anew. */
  forgetConsumed(): void {
    this.#consumedBytes = 0;
  }
}
