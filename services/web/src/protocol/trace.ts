/** W3C trace contexts: one trace for each command, from here over the relay to the machine and back. */
import { create } from "@bufbuild/protobuf";

import { type TraceContext, TraceContextSchema } from "../gen/flydex/v1/command_pb";

const SAMPLED = 1;

/** A fresh trace. Random, so that it says nothing about who asks or what for. */
export function newTraceId(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(16));
}

/** One sending of a command within its trace. */
export function traceContext(traceId: Uint8Array): TraceContext {
  return create(TraceContextSchema, { traceId, spanId: crypto.getRandomValues(new Uint8Array(8)), flags: SAMPLED });
}
