/** What happened since it was last looked, in sentences to be read out: asked, answered, and not sent. */
import { explain } from "../api/errors";
import type { OutboxEntry, OutboxState } from "../session/outbox";
import { endText } from "./decision";
import type { MachineModel } from "./machine";

const ASKED = {
  command: "Codex asks to run a command.",
  file_change: "Codex asks to change files.",
  permissions: "Codex asks for more access.",
} as const;

const FAILED: Partial<Record<OutboxState, string>> = {
  refused: "Not run.",
  unsent: "Not sent.",
  unknown: "Not known whether it ran.",
};

export class News {
  /** What was said already, by the keys of approvals, questions and failed sendings. */
  #known = new Set<string>();

  of(machines: readonly Pick<MachineModel, "approvals" | "questions" | "closed">[], outbox: readonly OutboxEntry[]): string[] {
    const said: string[] = [];
    const known = new Set<string>();
    const tell = (key: string, text: string) => {
      known.add(key);
      if (!this.#known.has(key)) said.push(text);
    };
    for (const { approvals, questions, closed } of machines) {
      for (const [id, card] of approvals) tell(`asked/${id}`, ASKED[card.kind]);
      for (const id of questions.keys()) tell(`question/${id}`, "Codex asks a question.");
      for (const [id, { end }] of closed) tell(`closed/${id}/${end}`, `${endText(end)}.`);
    }
    for (const { id, state, code, text } of outbox) {
      const failed = FAILED[state];
      // What is no message says it where it was asked for.
      if (failed === undefined || text === undefined) continue;
      const { title, next } = explain(state === "unknown" ? 4013 : (code ?? 0));
      tell(`failed/${id}`, `${failed} ${title} ${next}`);
    }
    this.#known = known;
    return said;
  }
}
