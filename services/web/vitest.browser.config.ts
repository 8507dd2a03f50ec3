import { defineConfig } from "vitest/config";

/** The built app in real Chromium against the fake relay: `npm run test:browser` after `npm run build`. */
export default defineConfig({
  test: {
    environment: "node",
    include: ["src/**/*.browser.ts"],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    // One browser at a time: two cores are not enough for more.
    fileParallelism: false,
  },
});
