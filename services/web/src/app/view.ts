/** A machine as the views see it: a copy, made once per frame. */
import type { Problem } from "../api/problem";
import type { MachineStatus } from "../gen/flydex/v1/relay_pb";
import type { MachineModel } from "../model/machine";
import type { ThreadModel } from "../model/thread";
import type { AdmissionState } from "../session/admission";
import type { Probe } from "../session/heartbeat";
import type { Machine } from "../session/machine";

export interface MachineView {
  readonly id: string;
  readonly paired: boolean;
  /** The region in which it is looked for. */
  readonly region: string;
  readonly status: MachineStatus | undefined;
  readonly closed: Problem | undefined;
  readonly admission: AdmissionState;
  readonly model: MachineModel;
  readonly thread: ThreadModel | undefined;
  readonly threadProblem: Problem | undefined;
  readonly probe: Probe | undefined;
  readonly caughtUp: boolean;
  /** What to add to this device's clock to get the machine's. */
  readonly clockOffsetMs: number;
}

export function viewOf(machine: Machine, region: string): MachineView {
  return {
    id: machine.id,
    paired: machine.paired,
    region,
    status: machine.status,
    closed: machine.closed,
    admission: machine.admission,
    model: machine.model,
    thread: machine.thread,
    threadProblem: machine.threadProblem,
    probe: machine.probe,
    caughtUp: machine.caughtUp,
    clockOffsetMs: machine.clock.now() - Date.now(),
  };
}
