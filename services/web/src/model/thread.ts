/**
 * A thread as this browser sees it: pure state, changed by snapshots, pages and events.
 *
 * Nothing is changed in place: what did not change keeps its identity, so only changed rows are drawn again.
 */
import {
  type AgentEvent,
  DeltaField,
  type HistoryPage,
  type Item,
  type ItemDelta,
  ItemState,
  type Plan,
  type Thread,
  type ThreadSnapshot,
  type Turn,
  TurnState,
} from "../gen/flydex/agent/v1/agent_pb";

export interface TurnView {
  readonly id: string;
  readonly state: TurnState;
  readonly error: string;
  readonly startedAtMs: number;
  readonly completedAtMs: number;
  readonly items: readonly Item[];
  readonly plan?: Plan;
  readonly diff?: { readonly text: string; readonly truncated: boolean };
}

export interface ThreadModel {
  readonly threadId: string;
  /** Whether a snapshot has been applied. */
  readonly loaded: boolean;
  readonly thread?: Thread;
  readonly turns: readonly TurnView[];
  /** Empty at the beginning of the thread. */
  readonly olderCursor: string;
  /** The machine attached in the middle: text from before is missing until the item ends. */
  readonly partial: boolean;
  readonly policy: string;
  readonly writable: boolean;
  readonly notWritableCode: number;
  readonly usage?: { readonly total: number; readonly window: number };
  readonly problem?: { readonly code: number; readonly willRetry: boolean };
}

/** Text that one item may grow to here, in characters; its head goes first, and the card says so. */
const ITEM_TEXT_MAX = 512 * 1024;

export function emptyThread(threadId: string): ThreadModel {
  return {
    threadId,
    loaded: false,
    turns: [],
    olderCursor: "",
    partial: false,
    policy: "",
    writable: false,
    notWritableCode: 0,
  };
}

/** The turn that runs now, if one does. */
export function runningTurn(model: ThreadModel): TurnView | undefined {
  return model.turns.findLast((turn) => turn.state === TurnState.RUNNING);
}

export function applySnapshot(model: ThreadModel, snapshot: ThreadSnapshot): ThreadModel {
  const page = (snapshot.page?.turns ?? []).map(turnView);
  const first = page[0];
  // Older turns stay where the new page joins onto them; else there may be a hole between.
  const joint = first === undefined ? -1 : model.turns.findIndex((turn) => turn.id === first.id);
  const older = joint > 0 ? model.turns.slice(0, joint) : [];
  return {
    ...model,
    loaded: true,
    thread: snapshot.thread ?? model.thread,
    turns: [...older, ...page],
    olderCursor: joint > 0 ? model.olderCursor : (snapshot.page?.olderCursor ?? ""),
    partial: snapshot.partial,
    policy: snapshot.effectivePolicy,
    writable: snapshot.writable,
    notWritableCode: snapshot.notWritableCode,
    problem: undefined,
  };
}

/** Puts an older page before what is there; a turn that was split over pages is joined. */
export function prependPage(model: ThreadModel, page: HistoryPage): ThreadModel {
  const known = new Set(model.turns.map((turn) => turn.id));
  const turns = [...model.turns];
  const fresh: TurnView[] = [];
  for (const turn of page.turns) {
    if (!known.has(turn.id)) {
      fresh.push(turnView(turn));
      continue;
    }
    const index = turns.findIndex((other) => other.id === turn.id);
    const present = turns[index] as TurnView;
    const ids = new Set(present.items.map((item) => item.id));
    const missing = turn.items.filter((item) => !ids.has(item.id));
    turns[index] = { ...present, items: [...missing, ...present.items] };
  }
  return { ...model, turns: [...fresh, ...turns], olderCursor: page.olderCursor };
}

export function applyEvent(model: ThreadModel, event: AgentEvent): ThreadModel {
  const { kind } = event;
  switch (kind.case) {
    case "turnStarted": {
      const startedAtMs = Number(kind.value.startedAtMs);
      const started = withTurn(model, kind.value.turnId, (turn) => ({ ...turn, state: TurnState.RUNNING, startedAtMs }));
      return { ...started, problem: undefined };
    }
    case "turnEnded":
      return withTurn(model, kind.value.turnId, (turn) => ({
        ...turn,
        state: kind.value.state,
        error: kind.value.error,
        completedAtMs: Number(kind.value.completedAtMs),
        items: turn.items.map((item) => (item.state === ItemState.RUNNING ? stopped(item, kind.value.state) : item)),
      }));
    case "itemStarted":
    case "itemCompleted": {
      const { item, turnId } = kind.value;
      return item === undefined ? model : withTurn(model, turnId, (turn) => withItem(turn, item));
    }
    case "itemDelta":
      return withTurn(model, kind.value.turnId, (turn) => withDelta(turn, kind.value));
    case "planUpdated":
      return withTurn(model, kind.value.turnId, (turn) => ({ ...turn, plan: kind.value.plan }));
    case "diffUpdated": {
      const diff = { text: kind.value.diff, truncated: kind.value.truncated };
      return withTurn(model, kind.value.turnId, (turn) => ({ ...turn, diff }));
    }
    case "tokenUsage":
      return {
        ...model,
        usage: { total: Number(kind.value.totalTokens), window: Number(kind.value.contextWindow) },
      };
    case "problem":
      return { ...model, problem: { code: kind.value.code, willRetry: kind.value.willRetry } };
    case "threadState":
      return { ...model, thread: kind.value };
    default:
      // Of the machine's stream, or of a later version.
      return model;
  }
}

function turnView(turn: Turn): TurnView {
  return {
    id: turn.id,
    state: turn.state,
    error: turn.error,
    startedAtMs: Number(turn.startedAtMs),
    completedAtMs: Number(turn.completedAtMs),
    items: turn.items,
  };
}

function withTurn(model: ThreadModel, turnId: string, change: (turn: TurnView) => TurnView): ThreadModel {
  const index = model.turns.findLastIndex((turn) => turn.id === turnId);
  const turns = [...model.turns];
  if (index < 0) {
    const turn = { id: turnId, state: TurnState.RUNNING, error: "", startedAtMs: 0, completedAtMs: 0, items: [] };
    turns.push(change(turn));
  } else {
    turns[index] = change(turns[index] as TurnView);
  }
  return { ...model, turns };
}

function withItem(turn: TurnView, item: Item): TurnView {
  const index = turn.items.findLastIndex((other) => other.id === item.id);
  if (index < 0) return { ...turn, items: [...turn.items, item] };
  const items = [...turn.items];
  items[index] = item;
  return { ...turn, items };
}

function withDelta(turn: TurnView, delta: ItemDelta): TurnView {
  const index = turn.items.findLastIndex((item) => item.id === delta.itemId);
  const item = turn.items[index];
  if (item === undefined) return turn;
  const items = [...turn.items];
  items[index] = appended(item, delta);
  return { ...turn, items };
}

function appended(item: Item, delta: ItemDelta): Item {
  const { kind } = item;
  if (kind.case === "agentMessage" && delta.field === DeltaField.TEXT) {
    return { ...item, kind: { case: kind.case, value: { ...kind.value, text: kind.value.text + delta.text } } };
  }
  if (kind.case === "plan" && delta.field === DeltaField.TEXT) {
    return { ...item, kind: { case: kind.case, value: { ...kind.value, text: kind.value.text + delta.text } } };
  }
  if (kind.case === "reasoning" && delta.field === DeltaField.SUMMARY) {
    return { ...item, kind: { case: kind.case, value: { ...kind.value, summary: kind.value.summary + delta.text } } };
  }
  if (kind.case === "commandExecution" && delta.field === DeltaField.OUTPUT) {
    const output = kind.value.output + delta.text;
    const cut = output.length > ITEM_TEXT_MAX;
    const value = { ...kind.value, output: cut ? output.slice(-ITEM_TEXT_MAX) : output };
    return { ...item, truncated: item.truncated || cut, kind: { case: kind.case, value } };
  }
  return item;
}

/** Codex says nothing more of items that were open when their turn was stopped. */
function stopped(item: Item, state: TurnState): Item {
  return { ...item, state: state === TurnState.COMPLETED ? ItemState.COMPLETED : ItemState.FAILED };
}
