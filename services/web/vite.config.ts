import { svelte } from "@sveltejs/vite-plugin-svelte";
import { svelteTesting } from "@testing-library/svelte/vite";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const PUBLIC = new URL("./public/", import.meta.url).pathname;

export default defineConfig({
  plugins: [svelte(), svelteTesting(), serviceWorker()],
  build: {
    target: "es2022",
    // Data URLs would need a wider content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8080", "/v1": { target: "ws://127.0.0.1:8080", ws: true } } },
  test: {
    environment: "jsdom",
    include: ["src/**/*.test.ts"],
    setupFiles: ["src/test/setup.ts"],
  },
});

/**
 * Writes `sw.js` with the list of the app's own files. Its version is a hash over their names, which carry
 * their contents' hashes, so the same sources always give the same bytes.
 */
function serviceWorker(): Plugin {
  return {
    name: "flydex-service-worker",
    apply: "build",
    generateBundle(_options, bundle) {
      const built = Object.keys(bundle).filter((name) => name.startsWith("assets/"));
      const fixed = readdirSync(PUBLIC, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(PUBLIC.length));
      const files = ["/", ...[...built, ...fixed].sort().map((name) => `/${name}`)];
      const hash = createHash("sha256").update(files.join("\n"));
      for (const name of fixed.sort()) hash.update(readFileSync(join(PUBLIC, name)));
      hash.update(readFileSync(new URL("./index.html", import.meta.url)));
      const source = readFileSync(new URL("./src/service-worker.js", import.meta.url), "utf8")
        .replace("__VERSION__", hash.digest("hex").slice(0, 16))
        .replace("__FILES__", JSON.stringify(files));
      this.emitFile({ type: "asset", fileName: "sw.js", source });
    },
  };
}
