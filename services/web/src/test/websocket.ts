/** A WebSocket whose other end is the fake relay, in the same process. */
import type { WebSocketLike } from "../session/wire";
import { type FakeMachine, FakeSession } from "./fake";

export class FakeWebSocket implements WebSocketLike {
  binaryType = "";
  readyState = 1;
  onopen: WebSocketLike["onopen"] = null;
  onclose: WebSocketLike["onclose"] = null;
  onerror: WebSocketLike["onerror"] = null;
  onmessage: WebSocketLike["onmessage"] = null;
  readonly session: FakeSession;

  constructor(machine: FakeMachine) {
    this.session = new FakeSession(machine, (frame) => {
      const data = frame.slice().buffer;
      queueMicrotask(() => this.readyState === 1 && this.onmessage?.({ data } as MessageEvent));
    });
    queueMicrotask(() => this.onopen?.({} as Event));
  }

  send(data: Uint8Array<ArrayBuffer>): void {
    void this.session.up(data);
  }

  close(): void {
    this.readyState = 3;
  }

  break(): void {
    this.readyState = 3;
    this.onclose?.({} as CloseEvent);
  }
}

/** Waits until a condition holds; timers stand still meanwhile. */
export async function until(condition: () => boolean): Promise<void> {
  const giveUpAt = performance.now() + 4_000;
  while (performance.now() < giveUpAt) {
    if (condition()) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error("the condition never held");
}
