import { render } from "@testing-library/svelte";
import { expect, test } from "vitest";

import Markdown from "../parts/Markdown.svelte";
import { parseMarkdown } from "./markdown";

const HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "text <b onclick=alert(1)>bold</b> text",
  '<a href="javascript:alert(1)">x</a>',
  "[x](javascript:alert(1))",
  "[x](data:text/html,<script>alert(1)</script>)",
  "![x](https://tracker.example/pixel.png)",
  "<iframe src='https://example.org'></iframe>\n\n<style>*{display:none}</style>",
  "| a | b |\n|---|---|\n| <img src=x> | <svg onload=alert(1)> |",
  "- <input autofocus onfocus=alert(1)>",
];

test.each(HOSTILE)("raw HTML never becomes an element: %s", (text) => {
  const { container } = render(Markdown, { text });
  expect(container.querySelector("script, img, iframe, style, svg, input, b, form, object, embed")).toBeNull();
  for (const element of container.querySelectorAll("*")) {
    for (const { name } of element.attributes) expect(name.startsWith("on")).toBe(false);
  }
  for (const link of container.querySelectorAll("a")) expect(link.protocol).toMatch(/^https?:$/);
});

test("raw HTML stays readable as text", () => {
  const { container } = render(Markdown, { text: "a <b>bold</b> claim" });
  expect(container.textContent).toContain("<b>bold</b>");
});

test("what people write is laid out", () => {
  const { container } = render(Markdown, {
    text: "# Title\n\nSome **strong** `code &amp;` &amp; [link](https://example.org).\n\n1. one\n2. two\n\n```rust\nfn main() {}\n```\n\n- [x] done",
  });
  expect(container.querySelector("h3")?.textContent).toBe("Title");
  expect(container.querySelector("strong")?.textContent).toBe("strong");
  expect(container.querySelector("p code")?.textContent).toBe("code &amp;");
  expect(container.querySelector("p")?.textContent).toContain("& link");
  expect(container.querySelectorAll("ol li").length).toBe(2);
  expect(container.querySelector("pre")?.textContent).toBe("fn main() {}");
  expect(container.querySelector(".task")?.textContent).toContain("☑");
});

test("a half-written message parses at every length", () => {
  const text = "Look:\n\n```js\nlet a = `x`\n```\n\n| a | b |\n|---|---|\n| 1 | **2** |\n";
  for (let length = 0; length <= text.length; length += 1) {
    expect(() => parseMarkdown(text.slice(0, length))).not.toThrow();
  }
});
