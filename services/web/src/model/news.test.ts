// @vitest-environment node
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";

import { ApprovalEnd, QuestionSchema } from "../gen/flydex/agent/v1/agent_pb";
import type { ApprovalCard } from "../protocol/approval";
import type { OutboxEntry } from "../session/outbox";
import { emptyMachine } from "./machine";
import { News } from "./news";

const card = { id: "a1", kind: "command" } as ApprovalCard;
const entry = (fields: Partial<OutboxEntry>) => ({ id: "e1", text: "go", ...fields }) as OutboxEntry;

test("what is asked is said once, and what became of it once more", () => {
  const news = new News();
  const asked = { ...emptyMachine(), approvals: new Map([["a1", card]]), questions: new Map([["q1", create(QuestionSchema)]]) };
  expect(news.of([asked], [])).toEqual(["Codex asks to run a command.", "Codex asks a question."]);
  expect(news.of([asked], [])).toEqual([]);
  const closed = { id: "a1", card, end: ApprovalEnd.DECLINED, deviceId: "", deviceLabel: "", atMs: 1 };
  const answered = { ...emptyMachine(), closed: new Map([["a1", closed]]) };
  expect(news.of([answered], [])).toEqual(["Declined."]);
  expect(news.of([answered], [])).toEqual([]);
});

test("a message that was not sent is said with its cause and what to do", () => {
  const news = new News();
  expect(news.of([], [entry({ state: "sent" })])).toEqual([]);
  expect(news.of([], [entry({ state: "refused", code: 6014 })])).toEqual([
    "Not run. The message is empty. Write something first.",
  ]);
  expect(news.of([], [entry({ state: "refused", code: 6014 })])).toEqual([]);
  // Whatever is no message says so in its own place.
  expect(news.of([], [entry({ id: "e2", state: "refused", code: 6014, text: undefined })])).toEqual([]);
});
