/**
 * Text as it really is: what a terminal or a browser would hide or act on is taken out or made visible.
 *
 * A command under approval must not be able to look like another, so direction marks, zero-width characters and
 * control characters are shown by their code points.
 */

export interface Span {
  readonly text: string;
  /** Stands for a character that would not be seen. */
  readonly hidden: boolean;
}

// Control characters but tab and newline; soft hyphen; zero-width, direction and invisible characters; tags.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;
// CSI, OSC and the short escapes of ECMA-48.
const ANSI = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])/g;

/** Splits a text so that hidden characters can be marked. */
export function spans(text: string): Span[] {
  const result: Span[] = [];
  let from = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > from) result.push({ text: text.slice(from, match.index), hidden: false });
    const code = (match[0].codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    result.push({ text: `U+${code}`, hidden: true });
    from = match.index + match[0].length;
  }
  if (from < text.length) result.push({ text: text.slice(from), hidden: false });
  return result;
}

/** Output of a command for a plain box: no escapes, no control characters, lines that overwrite each other cut. */
export function plainOutput(text: string): string {
  return text
    .replace(ANSI, "")
    .replaceAll("\r\n", "\n")
    .replace(/^.*\r(?!$)/gm, "")
    .replace(HIDDEN, "");
}
