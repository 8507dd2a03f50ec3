/** Unified diffs as rows to draw. */

export type DiffRowKind = "add" | "delete" | "hunk" | "meta" | "same";

export interface DiffRow {
  readonly kind: DiffRowKind;
  readonly text: string;
}

export interface DiffCount {
  readonly added: number;
  readonly deleted: number;
}

export function diffRows(diff: string): DiffRow[] {
  const lines = diff.replace(/\n$/, "").split("\n");
  return lines.map((text) => ({ kind: kindOf(text), text }));
}

export function diffCount(diff: string): DiffCount {
  let added = 0;
  let deleted = 0;
  for (const { kind } of diffRows(diff)) {
    if (kind === "add") added += 1;
    if (kind === "delete") deleted += 1;
  }
  return { added, deleted };
}

function kindOf(line: string): DiffRowKind {
  if (line.startsWith("@@")) return "hunk";
  if (/^(\+\+\+ |--- |diff |index |similarity |rename |new file|deleted file|\\ )/.test(line)) return "meta";
  if (line.startsWith("+")) return "add";
  if (line.startsWith("-")) return "delete";
  return "same";
}
