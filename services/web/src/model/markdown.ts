/**
 * Markdown as a tree of our own that names no HTML: whatever is not in this list is shown as text.
 *
 * Only the lexer of `marked` is used. Raw HTML stays visible text, images become links, and a link leads only to
 * http, https or mail.
 */
import { type Token, type Tokens, lexer } from "marked";

export type Inline =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "code"; readonly text: string }
  | { readonly kind: "break" }
  | { readonly kind: "strong" | "em" | "del"; readonly children: readonly Inline[] }
  | { readonly kind: "link"; readonly href: string; readonly children: readonly Inline[] };

export interface ListEntry {
  readonly checked: boolean | undefined;
  readonly blocks: readonly Block[];
}

export type Block =
  | { readonly kind: "paragraph"; readonly children: readonly Inline[] }
  | { readonly kind: "heading"; readonly depth: number; readonly children: readonly Inline[] }
  | { readonly kind: "code"; readonly language: string; readonly text: string }
  | { readonly kind: "quote"; readonly blocks: readonly Block[] }
  | { readonly kind: "list"; readonly ordered: boolean; readonly start: number; readonly entries: readonly ListEntry[] }
  | { readonly kind: "table"; readonly head: readonly Inline[][]; readonly rows: readonly Inline[][][] }
  | { readonly kind: "rule" };

/** Text past this is shown without markup, so that a huge message cannot hold up the page. */
const MARKUP_MAX = 200_000;

export function parseMarkdown(text: string): Block[] {
  if (text.length > MARKUP_MAX) return [{ kind: "code", language: "", text }];
  try {
    return blocks(lexer(text));
  } catch {
    return [{ kind: "code", language: "", text }];
  }
}

function blocks(tokens: readonly Token[]): Block[] {
  return tokens.flatMap((token) => block(token) ?? []);
}

function block(token: Token): Block | undefined {
  switch (token.type) {
    case "space":
    case "def":
      return undefined;
    case "heading":
      return { kind: "heading", depth: (token as Tokens.Heading).depth, children: inlines(token) };
    case "code":
      return { kind: "code", language: (token as Tokens.Code).lang ?? "", text: (token as Tokens.Code).text };
    case "blockquote":
      return { kind: "quote", blocks: blocks((token as Tokens.Blockquote).tokens) };
    case "hr":
      return { kind: "rule" };
    case "list":
      return list(token as Tokens.List);
    case "table":
      return table(token as Tokens.Table);
    case "html":
      return { kind: "paragraph", children: [{ kind: "text", text: token.raw.trimEnd() }] };
    default:
      return { kind: "paragraph", children: inlines(token) };
  }
}

function list(token: Tokens.List): Block {
  const entries = token.items.map((item) => ({
    checked: item.task ? (item.checked ?? false) : undefined,
    blocks: blocks(item.tokens.filter((child) => child.type !== "checkbox")),
  }));
  return { kind: "list", ordered: token.ordered, start: Number(token.start) || 1, entries };
}

function table(token: Tokens.Table): Block {
  const cells = (row: Tokens.TableCell[]) => row.map((cell) => cell.tokens.flatMap(inline));
  return { kind: "table", head: cells(token.header), rows: token.rows.map(cells) };
}

function inlines(token: Token): Inline[] {
  if ("tokens" in token && token.tokens !== undefined) return token.tokens.flatMap(inline);
  return [{ kind: "text", text: decode(textOf(token)) }];
}

function inline(token: Token): Inline | Inline[] {
  switch (token.type) {
    case "strong":
    case "em":
    case "del":
      return { kind: token.type, children: inlines(token) };
    case "codespan":
      return { kind: "code", text: textOf(token) };
    case "br":
      return { kind: "break" };
    case "link": {
      const { href } = token as Tokens.Link;
      return allowed(href) ? { kind: "link", href, children: inlines(token) } : inlines(token);
    }
    case "image": {
      const { href, text } = token as Tokens.Image;
      const children: Inline[] = [{ kind: "text", text: text || href }];
      return allowed(href) ? { kind: "link", href, children } : children;
    }
    case "html":
      return { kind: "text", text: token.raw };
    default:
      return inlines(token);
  }
}

function allowed(href: string): boolean {
  try {
    return ["http:", "https:", "mailto:"].includes(new URL(href).protocol);
  } catch {
    return false;
  }
}

function textOf(token: Token): string {
  return "text" in token && typeof token.text === "string" ? token.text : token.raw;
}

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/** The few entities that people write; an unknown one stays as it is. */
function decode(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]{2,6}));/gi, (whole, decimal, hexadecimal, name) => {
    if (name !== undefined) return ENTITIES[(name as string).toLowerCase()] ?? whole;
    const code = decimal === undefined ? Number.parseInt(hexadecimal as string, 16) : Number(decimal);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}
