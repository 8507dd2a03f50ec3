/** The list of a machine's threads: pages as they are asked for, kept current by the machine's stream. */
import { Problem } from "../api/problem";
import type { Thread } from "../gen/flydex/agent/v1/agent_pb";
import type { MachineModel } from "../model/machine";
import { listThreads } from "./actions";

/** `cursor_expired`: the list is read anew. */
const CURSOR_EXPIRED = 6016;

export class ThreadList {
  readonly machineId: string;
  search = $state("");
  archived = $state(false);
  loading = $state(false);
  loaded = $state(false);
  problem: Problem | undefined = $state.raw();
  #pages: readonly Thread[] = $state.raw([]);
  #cursor = $state("");
  #round = 0;

  constructor(machineId: string) {
    this.machineId = machineId;
  }

  get more(): boolean {
    return this.#cursor !== "";
  }

  /** Reads the first page anew. */
  async reload(): Promise<void> {
    this.#round += 1;
    await this.#read("");
  }

  async next(): Promise<void> {
    if (this.loading || this.#cursor === "" || this.problem !== undefined) return;
    await this.#read(this.#cursor);
  }

  /** The rows with what changed since they were read, newest first. */
  rows(model: MachineModel | undefined): readonly Thread[] {
    if (model === undefined) return this.#pages;
    return mergeThreads(this.#pages, model, { archived: this.archived, search: this.search });
  }

  async #read(cursor: string): Promise<void> {
    const round = this.#round;
    this.loading = true;
    try {
      const page = await listThreads(this.machineId, { cursor, archived: this.archived, search: this.search });
      if (round !== this.#round) return;
      this.#pages = cursor === "" ? page.threads : [...this.#pages, ...page.threads];
      this.#cursor = page.nextCursor;
      this.problem = undefined;
      this.loaded = true;
    } catch (reason) {
      if (round !== this.#round) return;
      const problem = Problem.from(reason);
      if (problem.code === CURSOR_EXPIRED && cursor !== "") void this.reload();
      else this.problem = problem;
    } finally {
      if (round === this.#round) this.loading = false;
    }
  }
}

export function mergeThreads(
  pages: readonly Thread[],
  model: Pick<MachineModel, "threads" | "removed">,
  filter: { archived: boolean; search: string },
): readonly Thread[] {
  const seen = new Set<string>();
  const rows: Thread[] = [];
  for (const listed of pages) {
    const thread = model.threads.get(listed.id) ?? listed;
    if (seen.has(thread.id) || model.removed.has(thread.id) || thread.archived !== filter.archived) continue;
    seen.add(thread.id);
    rows.push(thread);
  }
  if (filter.search === "") {
    for (const thread of model.threads.values()) {
      if (!seen.has(thread.id) && thread.archived === filter.archived) rows.push(thread);
    }
  }
  return rows.sort((left, right) => Number(right.updatedAtMs - left.updatedAtMs));
}
