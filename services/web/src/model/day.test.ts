// @vitest-environment node
import { expect, test } from "vitest";

import { dayMs } from "./day";

test("a day begins at this browser's midnight and ends at the next", () => {
  expect(dayMs("2026-11-28", 0)).toBe(new Date(2026, 10, 28).getTime());
  expect(dayMs("2026-11-30", 1)).toBe(new Date(2026, 11, 1).getTime());
  for (const text of ["", "2026-11", "yesterday", "2026-11-28T00:00", "0000-00-00"]) {
    expect(dayMs(text, 0), text).toBe(undefined);
  }
});
