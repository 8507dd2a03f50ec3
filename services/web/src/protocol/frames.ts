/** Frames of the session WebSocket: a lane byte, then one protobuf message. */
import { fromBinary, toBinary } from "@bufbuild/protobuf";

import { type SessionDown, SessionDownSchema, type SessionUp, SessionUpSchema } from "../gen/flydex/v1/session_pb";

export const SUBPROTOCOL = "flydex.v1";
export const VERSION = 1;
export const CLIENT = "flydex-web 0.1.0";

/** The lanes, in the order in which they are written. */
export const LANE = { control: 0, commands: 1, events: 2, bulk: 3 } as const;

/** The longest frame that any lane may carry to us, in bytes; mirrors `domain/src/limits.rs`. */
const FRAME_BYTES_MAX = 160 * 1024;

export function encodeFrame(lane: number, message: SessionUp): Uint8Array<ArrayBuffer> {
  const body = toBinary(SessionUpSchema, message);
  const frame = new Uint8Array(body.length + 1);
  frame[0] = lane;
  frame.set(body, 1);
  return frame;
}

/** The message of a frame; undefined when it is not one. */
export function decodeFrame(frame: Uint8Array): SessionDown | undefined {
  const lane = frame[0];
  if (lane === undefined || lane > LANE.bulk || frame.length > FRAME_BYTES_MAX) return undefined;
  try {
    return fromBinary(SessionDownSchema, frame.subarray(1));
  } catch {
    return undefined;
  }
}
