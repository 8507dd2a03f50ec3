/** The connector's word that this session may see and ask: asked for once in each session and boot. */
import { Problem } from "../api/problem";
import { bodyOf } from "../protocol/command";
import { CLIENT } from "../protocol/frames";
import type { MachineClock } from "./clock";
import type { Answer, Ask } from "./commands";
import type { MachineFeed } from "./machinefeed";
import { RETRY_AFTER_MS, isPassing } from "./retry";
import type { Later } from "./timers";

export type AdmissionState =
  | { readonly kind: "none" }
  | { readonly kind: "asked" }
  | { readonly kind: "admitted" }
  | { readonly kind: "refused"; readonly problem: Problem };

export interface AdmissionDeps {
  readonly feed: MachineFeed;
  readonly ask: Ask;
  /** Whether machine, boot and session are known, so that it makes sense to ask. */
  readonly possible: () => boolean;
  readonly admitted: () => void;
  /** The snapshot does not join the events: it is all to be asked for again. */
  readonly hole: () => void;
  readonly clock: MachineClock;
  readonly later: Later;
}

export class Admission {
  state: AdmissionState = { kind: "none" };
  readonly #deps: AdmissionDeps;

  constructor(deps: AdmissionDeps) {
    this.#deps = deps;
  }

  get granted(): boolean {
    return this.state.kind === "admitted";
  }

  ask(): void {
    const { feed, ask, possible } = this.#deps;
    if (!possible() || this.state.kind === "asked" || this.state.kind === "admitted") return;
    if (this.state.kind === "refused" && !isPassing(this.state.problem)) return;
    this.state = { kind: "asked" };
    feed.stream.asked();
    feed.asked = ask(bodyOf("attach", { cursor: feed.stream.cursor, client: CLIENT }), (answer) => this.#answered(answer));
  }

  /** A person asked to try again, whatever the refusal was. */
  askAgain(): void {
    if (this.state.kind === "refused") this.state = { kind: "none" };
    this.ask();
  }

  async #answered(answer: Answer): Promise<void> {
    const { feed, admitted, hole, clock, later } = this.#deps;
    if (answer instanceof Problem) {
      this.state = { kind: "refused", problem: answer };
      if (isPassing(answer)) later(RETRY_AFTER_MS + answer.retryAfterMs, () => this.ask());
      return;
    }
    const { receipt, result } = answer;
    let whole = true;
    if (result?.kind.case === "attached") {
      const { machineTimeMs, snapshot } = result.kind.value;
      clock.learn(Number(machineTimeMs), 0);
      if (snapshot !== undefined && receipt.asOf !== undefined) whole = await feed.apply(snapshot, receipt.asOf);
    }
    if (!whole) {
      hole();
      return;
    }
    this.state = { kind: "admitted" };
    admitted();
  }
}
