/** What stands before an approval acts, in real Chromium: the computer's passkey, and the account's strict policy. */
import { fromBinary } from "@bufbuild/protobuf";
import type { CDPSession, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";

import { CommandBodySchema } from "../gen/flydex/agent/v1/agent_pb";
import { base64url } from "../protocol/bytes";
import { commandHash } from "../protocol/command";
import { Stage, at } from "./browser";
import { MACHINE_ID, fakeThread } from "./fake";

let stage: Stage;

beforeAll(async () => {
  stage = await Stage.open();
  stage.machine.threads.push(fakeThread("t1", "Nightly job fails since Tuesday"));
});

afterEach(async () => {
  const problems = stage.problems.splice(0);
  for (const context of stage.browser.contexts()) await context.close();
  stage.machine.approvals.clear();
  stage.machine.commands.length = 0;
  stage.machine.ownPasskey = new Uint8Array();
  stage.machine.passkeyDemanded = false;
  expect(problems).toEqual([]);
});

afterAll(() => stage.close());

test("a passkey is set up right after the pairing, and its word on the very command goes with a yes", async () => {
  const page = await pairing();
  await authenticator(page);
  await page.click(at("set-up-machine-passkey"));
  await page.waitForSelector(`${at("machine-passkey")}[data-state=known]`);
  const pin = stage.machine.commands.map((command) => fromBinary(CommandBodySchema, command.body).kind).at(-1);
  expect(pin).toMatchObject({ case: "pinPasskey", value: { algorithm: 1 } });
  expect(pin?.case === "pinPasskey" && pin.value.key.length).toBe(65);
  await page.click(at("pair-open"));

  await asked(page);
  await page.click(at("approval-accept"));
  await expect.poll(() => answer()?.assertion).toBeDefined();
  const { header, assertion } = answer() ?? {};
  expect(assertion?.credentialId).toEqual(stage.machine.ownPasskey);
  const client = JSON.parse(new TextDecoder().decode(assertion?.clientDataJson)) as Record<string, unknown>;
  const challenge = base64url(await commandHash(header ?? new Uint8Array()));
  expect(client).toMatchObject({ type: "webauthn.get", challenge, origin: stage.origin });
  // The person was there and proved to be the right one.
  expect((assertion?.authenticatorData[32] ?? 0) & 5).toBe(5);
});

test("a yes that is not confirmed is not sent, and the question stays open", async () => {
  const page = await pairing();
  const { cdp, authenticatorId } = await authenticator(page);
  await page.click(at("set-up-machine-passkey"));
  await page.waitForSelector(`${at("machine-passkey")}[data-state=known]`);
  await page.click(at("pair-open"));
  await asked(page);
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: false });
  await page.click(at("approval-accept"));
  expect(await page.textContent(at("approval-failure"))).toContain("so nothing was sent");
  expect(answer()).toBeUndefined();
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: true });
  await page.click(at("approval-accept"));
  await expect.poll(() => answer()?.assertion).toBeDefined();
});

test("a browser of which the computer knows no passkey can say no, and is told what to do for a yes", async () => {
  const page = await pairing();
  await page.click(at("pair-open"));
  await asked(page);
  expect(await page.textContent(at("approval-no-passkey"))).toContain("knows none of this browser");
  expect(await page.isDisabled(at("approval-accept"))).toBe(true);
  await page.click(at("approval-decline"));
  await expect.poll(() => answer()).toBeDefined();
  expect(answer()?.assertion).toBeUndefined();
  stage.machine.passkeyDemanded = true;
  stage.machine.changed();
  await page.goto(`${stage.origin}/#/m/${MACHINE_ID}/about`);
  await page.waitForSelector(`${at("machine-passkey")}[data-state=offered]`);
});

test("a browser that makes no passkey says so, and the computer is asked nothing", async () => {
  const page = await pairing();
  const { cdp, authenticatorId } = await authenticator(page);
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: false });
  await page.click(at("set-up-machine-passkey"));
  await page.waitForSelector("text=No passkey was used.");
  expect(stage.machine.ownPasskey).toHaveLength(0);
});

test("an owner lets approvals wait for the server, and reads what that means", async () => {
  const page = await stage.paired();
  await page.goto(`${stage.origin}/#/account`);
  await page.waitForSelector(`${at("strict-audit")}[data-strict=false]`);
  await page.click(at("change-strict-audit"));
  await page.waitForSelector(`${at("strict-audit")}[data-strict=true]`);
  expect(stage.strictAudit).toBe(true);
  expect(await page.textContent(at("strict-audit"))).toContain("approvals wait");
  await page.click(at("change-strict-audit"));
  await page.waitForSelector(`${at("strict-audit")}[data-strict=false]`);
  expect(stage.strictAudit).toBe(false);
});

/** A page that has just been paired. */
async function pairing(): Promise<Page> {
  stage.signedIn = true;
  stage.deskSaysYes = true;
  const page = await stage.page();
  await page.goto(stage.pairUrl());
  await page.waitForSelector(`${at("pair-status")}[data-state=done]`);
  return page;
}

/** An approval that wants a passkey is on screen. */
async function asked(page: Page): Promise<void> {
  await page.click(`${at("thread-row")}[data-thread=t1]`);
  await page.waitForSelector(at("composer-text"));
  await stage.machine.ask({ threadId: "t1", turnId: "u1", itemId: "i1", command: "sudo true", passkeyRequired: true });
  await page.waitForSelector(at("approval-card"));
}

/** The newest answer that reached the computer. */
function answer() {
  const isAnswer = (body: Uint8Array) => fromBinary(CommandBodySchema, body).kind.case === "answerApproval";
  return stage.machine.commands.findLast((command) => isAnswer(command.body));
}

/** An authenticator in software, whose person is there and says yes. */
async function authenticator(page: Page): Promise<{ cdp: CDPSession; authenticatorId: string }> {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2",
      transport: "internal",
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  });
  return { cdp, authenticatorId };
}
