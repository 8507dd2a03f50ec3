/** What is true of a machine right now, from measured facts only, in the words that people see. */
import { explain } from "../api/errors";
import { LOCAL, Problem } from "../api/problem";
import { type MachineStatus, MachineState, Transport } from "../gen/flydex/v1/relay_pb";
import type { AdmissionState } from "../session/admission";
import type { SocketState } from "../session/socket";

export type ConnectionKind =
  | "live"
  | "catching_up"
  | "connecting"
  | "machine_offline"
  | "codex_starting"
  | "codex_unavailable"
  | "draining"
  | "paused"
  | "silent"
  | "not_paired"
  | "refused"
  | "relay_unreachable";

export interface Connection {
  readonly kind: ConnectionKind;
  readonly label: string;
  readonly detail: string;
  readonly tone: "good" | "busy" | "bad" | "off";
}

export interface Facts {
  readonly socket: SocketState;
  readonly paired: boolean;
  readonly status: MachineStatus | undefined;
  readonly closed: Problem | undefined;
  readonly admission: AdmissionState;
  readonly caughtUp: boolean;
  readonly probe: { readonly answeredAtMs: number; readonly roundTripMs: number } | undefined;
  readonly nowMs: number;
}

/** The machine's owner changes: it is opened again in a moment. */
const MOVING = 1015;
/** Past this the path to the connector counts as silent: two probes. */
const PROBE_SILENCE_MAX_MS = 12_000;

export function connectionOf(facts: Facts): Connection {
  const relay = relayProblem(facts);
  if (relay !== undefined) return relay;
  const { status } = facts;
  if (status === undefined) {
    if (facts.closed?.code === MOVING) {
      return { kind: "catching_up", label: "Catching up", detail: "the computer moves to another server", tone: "busy" };
    }
    if (facts.closed !== undefined) return refused(facts.closed);
    return { kind: "connecting", label: "Connecting", detail: "asking the relay for the computer", tone: "busy" };
  }
  const machine = machineProblem(status);
  if (machine !== undefined) return machine;
  if (!facts.paired) {
    return {
      kind: "not_paired",
      label: "Not paired here",
      detail: "the computer does not know this browser; run “flydex connect” there",
      tone: "off",
    };
  }
  if (facts.admission.kind === "refused") return refused(facts.admission.problem);
  if (facts.probe !== undefined && facts.nowMs - facts.probe.answeredAtMs > PROBE_SILENCE_MAX_MS) {
    const seconds = Math.round((facts.nowMs - facts.probe.answeredAtMs) / 1000);
    return { kind: "silent", label: "No answer", detail: `the computer last answered ${seconds} s ago`, tone: "bad" };
  }
  if (status.paused) {
    return { kind: "paused", label: "Paused", detail: "remote control is paused at the computer", tone: "off" };
  }
  if (facts.admission.kind !== "admitted" || !facts.caughtUp) {
    return { kind: "catching_up", label: "Catching up", detail: "reading what happened meanwhile", tone: "busy" };
  }
  return { kind: "live", label: "Live", detail: liveDetail(facts, status), tone: "good" };
}

function relayProblem({ socket, nowMs }: Facts): Connection | undefined {
  if (socket.phase === "open") return undefined;
  if (socket.phase === "connecting" && socket.problem === undefined) {
    return { kind: "connecting", label: "Connecting", detail: "opening the connection", tone: "busy" };
  }
  const waitMs = socket.retryAtMs === undefined ? 0 : socket.retryAtMs - nowMs;
  const next = waitMs > 900 ? `next try in ${Math.ceil(waitMs / 1000)} s` : "trying now";
  const problem = socket.problem ?? new Problem(LOCAL.unreachable);
  const passing = problem.code === LOCAL.unreachable;
  return {
    kind: "relay_unreachable",
    label: passing ? "Relay unreachable" : "Not connected",
    detail: passing ? next : `${explain(problem).title} ${socket.phase === "refused" ? "" : next}`.trim(),
    tone: "bad",
  };
}

function machineProblem(status: MachineStatus): Connection | undefined {
  switch (status.state) {
    case MachineState.OFFLINE:
    case MachineState.UNSPECIFIED:
      return { kind: "machine_offline", label: "Computer offline", detail: "no connection from it", tone: "off" };
    case MachineState.CONNECTING:
      return { kind: "connecting", label: "Connecting", detail: "the computer is connecting", tone: "busy" };
    case MachineState.LINK_UP:
      return { kind: "codex_starting", label: "Connected", detail: "waiting for word on Codex", tone: "busy" };
    case MachineState.CODEX_STARTING:
      return { kind: "codex_starting", label: "Codex is starting", detail: "on the computer", tone: "busy" };
    case MachineState.CODEX_UNAVAILABLE: {
      const { title, next } = explain(status.code);
      return { kind: "codex_unavailable", label: "Codex not ready", detail: `${title} ${next}`, tone: "bad" };
    }
    case MachineState.DRAINING:
      return { kind: "draining", label: "Shutting down", detail: "FlyDex is stopping on the computer", tone: "off" };
    case MachineState.CODEX_READY:
      return undefined;
    default:
      // Of a later version: nothing that this page knows may be done.
      return { kind: "machine_offline", label: "Unknown state", detail: "reload to update this page", tone: "off" };
  }
}

function refused(problem: Problem): Connection {
  const { title, next } = explain(problem);
  return { kind: "refused", label: "Not admitted", detail: `${title} ${next}`, tone: "bad" };
}

function liveDetail(facts: Facts, status: MachineStatus): string {
  const transport = status.transport === Transport.QUIC ? "QUIC" : "WebSocket";
  if (facts.probe === undefined) return `computer linked by ${transport}`;
  return `${Math.max(1, Math.round(facts.probe.roundTripMs))} ms to the computer, linked by ${transport}`;
}
