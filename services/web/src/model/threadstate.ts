/** States of a thread as people read them. */
import { type Thread, ThreadState } from "../gen/flydex/agent/v1/agent_pb";

export interface StateWord {
  readonly text: string;
  readonly tone: "busy" | "ask" | "bad" | "off" | "none";
}

export function stateWord(state: ThreadState): StateWord {
  switch (state) {
    case ThreadState.RUNNING:
      return { text: "Running", tone: "busy" };
    case ThreadState.WAITING_ON_APPROVAL:
      return { text: "Needs your yes", tone: "ask" };
    case ThreadState.WAITING_ON_INPUT:
      return { text: "Asks something", tone: "ask" };
    case ThreadState.FAILED:
      return { text: "Failed", tone: "bad" };
    case ThreadState.OPEN_ELSEWHERE:
      return { text: "Open at the computer", tone: "off" };
    case ThreadState.IDLE:
    case ThreadState.NOT_LOADED:
    case ThreadState.UNSPECIFIED:
      return { text: "", tone: "none" };
  }
}

export function threadTitle(thread: Thread | undefined): string {
  const title = thread?.name.trim() || thread?.preview.trim().split("\n")[0] || "";
  return title === "" ? "Thread" : title;
}

/** The last two folders of a path: enough to tell projects apart. */
export function shortPath(path: string): string {
  const parts = path.split(/[/\\]/).filter((part) => part !== "");
  return parts.slice(-2).join("/") || path;
}
