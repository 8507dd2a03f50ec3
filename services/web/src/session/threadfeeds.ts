/**
 * The thread on screen, followed by its stream, and the few that were on screen before it.
 *
 * Only the one on screen is watched. A thread that is left keeps what is known of it and its place in the stream:
 * the machine follows it a while longer, so coming back in that time brings what happened meanwhile, not a new page.
 */
import { Problem } from "../api/problem";
import type { HistoryPage, ThreadWatched } from "../gen/flydex/agent/v1/agent_pb";
import type { Receipt } from "../gen/flydex/v1/command_pb";
import type { StreamVerdict } from "../gen/flydex/v1/relay_pb";
import * as threadModel from "../model/thread";
import { bodyOf } from "../protocol/command";
import type { Answer, Ask } from "./commands";
import { Feed } from "./feed";
import { RETRY_AFTER_MS, isPassing } from "./retry";
import type { Later } from "./timers";

export interface ThreadFeedsDeps {
  readonly ask: Ask;
  readonly admitted: () => boolean;
  readonly consumed: (bytes: number) => void;
  /** Runs an action after a wait, unless the session ends before. */
  readonly later: Later;
}

/** Threads that are remembered after they were left; each may hold some megabytes of history. */
const LEFT_MAX = 3;

class ThreadFeed extends Feed {
  model: threadModel.ThreadModel;
  /** Why the thread cannot be followed now. */
  problem: Problem | undefined;

  constructor(threadId: string, consumed: (bytes: number) => void) {
    super((event) => {
      this.model = threadModel.applyEvent(this.model, event);
    }, consumed);
    this.model = threadModel.emptyThread(threadId);
  }
}

export class ThreadFeeds {
  readonly #deps: ThreadFeedsDeps;
  #shown: ThreadFeed | undefined;
  /** By id, the one that was left last at the end. */
  readonly #left = new Map<string, ThreadFeed>();

  constructor(deps: ThreadFeedsDeps) {
    this.#deps = deps;
  }

  get model(): threadModel.ThreadModel | undefined {
    return this.#shown?.model;
  }

  get problem(): Problem | undefined {
    return this.#shown?.problem;
  }

  /** Whether everything that happened is on screen; nothing is missing of no thread. */
  get live(): boolean {
    return this.#shown === undefined || this.#shown.stream.live;
  }

  /** Shows a thread in place of the one before; undefined: none. */
  show(threadId: string | undefined): void {
    const before = this.#shown;
    if (before?.model.threadId === threadId) return;
    if (before !== undefined) this.#leave(before);
    this.#shown = threadId === undefined ? undefined : this.#come(threadId);
    this.follow();
  }

  /** Reads the thread on screen anew, without regard to what is known of it. */
  reread(): void {
    if (this.#shown === undefined) return;
    this.#shown = new ThreadFeed(this.#shown.model.threadId, this.#deps.consumed);
    this.follow();
  }

  /** Asks for the stream of the thread on screen, unless it comes or was asked for already. */
  follow(): void {
    const feed = this.#shown;
    if (feed === undefined || feed.asked !== undefined || feed.stream.live || !this.#deps.admitted()) return;
    feed.stream.asked();
    const { threadId } = feed.model;
    const body = bodyOf("watchThread", { threadId, cursor: feed.stream.cursor });
    const id = this.#deps.ask(body, (answer) => (feed.asked === id ? this.#watched(feed, answer) : undefined));
    feed.asked = id;
  }

  /** The session ended: the streams keep their places. */
  pause(): void {
    this.#shown?.pause();
  }

  prepend(threadId: string, page: HistoryPage): void {
    const feed = this.#shown;
    if (feed?.model.threadId === threadId) feed.model = threadModel.prependPage(feed.model, page);
  }

  async verdict(commandId: string, verdict: StreamVerdict): Promise<void> {
    const feed = this.#shown;
    if (feed !== undefined && feed.asked === commandId) this.#ifWhole(feed, await feed.verdict(verdict));
  }

  async event(streamId: number, seq: bigint, body: Uint8Array): Promise<void> {
    const feed = this.#shown;
    // Of a thread that is not on screen any more: its bytes are credited all the same.
    if (feed === undefined || feed.stream.streamId !== streamId) this.#deps.consumed(body.length);
    else this.#ifWhole(feed, await feed.run(feed.stream.event({ seq, body })));
  }

  ended(streamId: number): void {
    const feed = this.#shown;
    // One that was asked for again is on its way: this is the end of the watch before.
    if (feed === undefined || feed.stream.streamId !== streamId || !feed.stream.live) return;
    feed.pause();
    this.#deps.later(RETRY_AFTER_MS, () => this.follow());
  }

  #leave(feed: ThreadFeed): void {
    const { threadId, loaded } = feed.model;
    feed.pause();
    if (loaded) this.#left.set(threadId, feed);
    for (const oldest of this.#left.keys()) {
      if (this.#left.size <= LEFT_MAX) break;
      this.#left.delete(oldest);
    }
    if (this.#deps.admitted()) this.#deps.ask(bodyOf("unwatchThread", { threadId }), () => undefined);
  }

  #come(threadId: string): ThreadFeed {
    const known = this.#left.get(threadId);
    this.#left.delete(threadId);
    return known ?? new ThreadFeed(threadId, this.#deps.consumed);
  }

  async #watched(feed: ThreadFeed, answer: Answer): Promise<void> {
    if (answer instanceof Problem) {
      feed.asked = undefined;
      feed.problem = answer;
      if (isPassing(answer)) this.#deps.later(RETRY_AFTER_MS + answer.retryAfterMs, () => this.follow());
      return;
    }
    feed.problem = undefined;
    const { receipt, result } = answer;
    if (result?.kind.case === "threadWatched") await this.#apply(feed, result.kind.value, receipt);
  }

  /** A resumed stream carries no snapshot, and its verdict may come after this receipt. */
  async #apply(feed: ThreadFeed, { snapshot, streamId }: ThreadWatched, { asOf, bootId }: Receipt): Promise<void> {
    if (snapshot === undefined) return;
    feed.model = threadModel.applySnapshot(feed.model, snapshot);
    const step = feed.stream.settled(streamId, asOf?.bootId ?? bootId, asOf?.seq ?? 0n);
    this.#ifWhole(feed, await feed.run(step));
  }

  /** Something is missing: the stream is asked for again, from a snapshot. */
  #ifWhole(feed: ThreadFeed, whole: boolean): void {
    if (whole) return;
    feed.pause();
    feed.stream.forget();
    this.follow();
  }
}
