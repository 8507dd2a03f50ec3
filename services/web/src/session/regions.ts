/**
 * One socket to each region in which this browser watches machines. Each breaks and comes back by itself: a region that
 * cannot be reached disturbs no machine of another.
 */
import type { Problem } from "../api/problem";
import type { MachineMessage } from "../gen/flydex/v1/relay_pb";
import { Socket, type SocketDeps, type SocketState } from "./socket";
import type { Welcome } from "./wire";

/** What the sockets tell, each with its region. */
export interface RegionEvents {
  onState(region: string, state: SocketState): void;
  /** The socket is needed no more. */
  onGone(region: string): void;
  onOpen(region: string, welcome: Welcome): void;
  onClose(region: string): void;
  onMachine(region: string, machineId: string, message: MachineMessage): void;
  onMachineClosed(region: string, machineId: string, problem: Problem): void;
}

export class Regions {
  readonly #deps: Omit<SocketDeps, "region">;
  readonly #events: RegionEvents;
  readonly #sockets = new Map<string, Socket>();

  constructor(deps: Omit<SocketDeps, "region">, events: RegionEvents) {
    this.#deps = deps;
    this.#events = events;
  }

  /** The socket to a region, opened if there is none yet. */
  to(region: string): Socket {
    const known = this.#sockets.get(region);
    if (known !== undefined) return known;
    const { onState, onOpen, onClose, onMachine, onMachineClosed } = this.#events;
    const socket = new Socket(
      { ...this.#deps, region },
      {
        onState: (state) => onState(region, state),
        onOpen: (welcome) => onOpen(region, welcome),
        onClose: () => onClose(region),
        onMachine: (machineId, message) => onMachine(region, machineId, message),
        onMachineClosed: (machineId, problem) => onMachineClosed(region, machineId, problem),
      },
    );
    this.#sockets.set(region, socket);
    socket.start();
    return socket;
  }

  get(region: string): Socket | undefined {
    return this.#sockets.get(region);
  }

  /** Closes those to all other regions. */
  keep(regions: ReadonlySet<string>): void {
    for (const [region, socket] of this.#sockets) {
      if (regions.has(region)) continue;
      this.#sockets.delete(region);
      socket.stop();
      this.#events.onGone(region);
    }
  }

  /** Tries at once instead of waiting. */
  retryNow(): void {
    for (const socket of this.#sockets.values()) socket.retryNow();
  }

  /** Makes sure that open sockets still answer. */
  check(): void {
    for (const socket of this.#sockets.values()) socket.check();
  }
}
