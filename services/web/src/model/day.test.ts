// @vitest-environment node
import { readFileSync } from "node:fs";

import { expect, test } from "vitest";

import { AUDIT_KINDS } from "../api/names";
import { dayMs } from "./day";

test("a day begins at this browser's midnight and ends at the next", () => {
  expect(dayMs("2026-11-28", 0)).toBe(new Date(2026, 10, 28).getTime());
  expect(dayMs("2026-11-30", 1)).toBe(new Date(2026, 11, 1).getTime());
  for (const text of ["", "2026-11", "yesterday", "2026-11-28T00:00", "0000-00-00"]) {
    expect(dayMs(text, 0), text).toBe(undefined);
  }
});

test("every kind that can be searched for is one that is recorded", () => {
  const domain = readFileSync(new URL("../../../domain/src/audit.rs", import.meta.url), "utf8");
  for (const kind of AUDIT_KINDS) expect(domain).toContain(`=> "${kind}"`);
});
