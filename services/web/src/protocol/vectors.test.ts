// @vitest-environment node
import { expect, test } from "vitest";

import { create, toBinary } from "@bufbuild/protobuf";

import vectors from "../../../../proto/vectors/v1.json";
import { isExplained } from "../api/errors";
import { AUDIT_KINDS, CODE_NAMES } from "../api/names";
import { ApprovalKind, ApprovalSchema, SignedApprovalSchema } from "../gen/flydex/agent/v1/agent_pb";
import { type ApprovalCard, approvalDigest, openApproval } from "./approval";
import { fromHex, hex } from "./bytes";
import { commandHash, commandTranscript } from "./command";
import { LABEL, Transcript } from "./encoding";
import {
  type IntroductionTerms,
  introductionMac,
  keyCode,
  newRequest,
  parseRequest,
  requestUrl,
  verifyIntroduction,
} from "./endorsement";
import { type PublicKey, fingerprint, generateKey, openKey, verify } from "./keys";
import { type PairingTerms, type Role, claimKeys, pairingMac, shortCode, verifyPairingMac, verifyingKey } from "./pairing";

const ed25519 = (text: string): PublicKey => ({ algorithm: "ed25519", bytes: fromHex(text) });

test("transcripts have the same bytes on both sides", () => {
  const transcript = new Transcript(LABEL.pairing)
    .text("grüße")
    .bytes(new Uint8Array([0, 255]))
    .integer(0xffff_ffff_ffff_ffffn)
    .optional(undefined)
    .optional(new Uint8Array())
    .count(3);
  expect(hex(transcript.finish())).toBe(vectors.transcript.hex);
});

test("pairing keys, MACs and the short code are the same on both sides", async () => {
  const { pairing } = vectors;
  const keys = await claimKeys(fromHex(pairing.secret));
  expect(hex(keys.redeem)).toBe(pairing.redeem);
  expect(hex(keys.deviceToMachine)).toBe(pairing.device_to_machine);
  expect(hex(keys.machineToDevice)).toBe(pairing.machine_to_device);
  const terms: PairingTerms = {
    origin: pairing.origin,
    claimId: pairing.claim_id,
    expiresAtMs: pairing.expires_at_ms,
    accountId: pairing.account_id,
    machineId: pairing.machine_id,
    role: pairing.role as Role,
    machineKey: ed25519(pairing.machine_key),
    deviceKey: ed25519(pairing.device_key),
  };
  expect(hex(await pairingMac(terms, keys.deviceToMachine))).toBe(pairing.device_mac);
  const machineToDevice = await verifyingKey(keys.machineToDevice);
  const deviceToMachine = await verifyingKey(keys.deviceToMachine);
  expect(await verifyPairingMac(terms, machineToDevice, fromHex(pairing.machine_mac))).toBe(true);
  expect(await verifyPairingMac(terms, deviceToMachine, fromHex(pairing.machine_mac))).toBe(false);
  const promoted = { ...terms, role: "viewer" as const };
  expect(await verifyPairingMac(promoted, machineToDevice, fromHex(pairing.machine_mac))).toBe(false);
  expect(await shortCode(terms)).toBe(pairing.short_code);
  expect(hex(await fingerprint(terms.deviceKey))).toBe(pairing.device_id);
});

test("introductions are the same on both sides, and an address carries all that a new device shows", async () => {
  const { introduction } = vectors;
  const secret = fromHex(introduction.secret);
  const terms: IntroductionTerms = {
    origin: introduction.origin,
    accountId: fromHex(introduction.account_id.replaceAll("-", "")),
    machineId: fromHex(introduction.machine_id.replaceAll("-", "")),
    machineKey: ed25519(introduction.machine_key),
    deviceKey: ed25519(introduction.device_key),
    role: introduction.role as Role,
  };
  const mac = await introductionMac(terms, secret);
  expect(hex(mac)).toBe(introduction.mac);
  expect(await verifyIntroduction(terms, secret, mac)).toBe(true);
  for (const other of [
    { ...terms, role: "owner" as const },
    { ...terms, machineKey: terms.deviceKey },
    { ...terms, origin: "https://other.example" },
  ]) {
    expect(await verifyIntroduction(other, secret, mac)).toBe(false);
  }
  expect(await verifyIntroduction(terms, new Uint8Array(32), mac)).toBe(false);

  const request = newRequest(terms.deviceKey, "operator", "Firefox auf Grün", 1_000);
  const url = requestUrl("https://relay.example", request);
  expect(url.indexOf("#")).toBe("https://relay.example/endorse".length);
  expect(parseRequest(url)).toEqual(request);
  const parts = url.slice(url.indexOf("#") + 1).split(".");
  for (const [index, wrong] of ["rsa", "AAAA", "root", "soon", "AAAA", ""].entries()) {
    expect(parseRequest(parts.with(index, wrong).join("."))).toBeUndefined();
  }
  expect(parseRequest(`${url}.more`)).toBeUndefined();
  expect(parseRequest("")).toBeUndefined();
  expect(await keyCode(terms.deviceKey)).toMatch(/^\d{3} \d{3} \d{3} \d{3}$/);
});

test("signatures of the other side verify for their own purpose only", async () => {
  const { signatures } = vectors;
  const key = ed25519(signatures.public_key);
  const bytes = fromHex(signatures.bytes);
  expect(hex(await commandHash(bytes))).toBe(signatures.command_hash);
  expect(await verify(key, commandTranscript(bytes), fromHex(signatures.command_signature))).toBe(true);
  const receipt = new Transcript(LABEL.receipt).bytes(bytes);
  expect(await verify(key, receipt, fromHex(signatures.receipt_signature))).toBe(true);
  expect(await verify(key, receipt, fromHex(signatures.command_signature))).toBe(false);
  const approval = new Transcript(LABEL.approval).bytes(bytes);
  expect(await verify(key, approval, fromHex(signatures.approval_signature))).toBe(true);
});

test("the digest of what is rendered is the machine's digest", async () => {
  const { approval } = vectors;
  for (const one of approval.cases) {
    const card: ApprovalCard = {
      id: "",
      approvalId: fromHex(approval.approval_id),
      machineId: fromHex(approval.machine_id),
      generation: fromHex(approval.generation),
      salt: fromHex(approval.salt),
      threadId: "",
      turnId: "",
      itemId: "",
      kind: one.kind as ApprovalCard["kind"],
      highRisk: false,
      openedAtMs: 0,
      expiresAtMs: approval.expires_at_ms,
      command: one.command,
      cwd: one.cwd,
      network: one.network ?? undefined,
      permissions: one.permissions,
      changes: one.changes.map((change) => ({ ...change, movedTo: change.moved_to ?? undefined })),
      reason: one.reason,
      decisions: [],
      deskOnly: false,
      passkeyRequired: false,
    };
    expect(hex(await approvalDigest(card))).toBe(one.digest);
    expect(hex(await approvalDigest({ ...card, command: `${card.command} ` }))).not.toBe(one.digest);
  }
});

test("every code of the system has a sentence and a next step", () => {
  const missing = vectors.error_codes.filter(({ number }) => !isExplained(number));
  expect(missing).toEqual([]);
  expect(CODE_NAMES).toEqual(Object.fromEntries(vectors.error_codes.map(({ name, number }) => [name, number])));
});

test("every kind of the audit can be searched for", () => {
  expect(AUDIT_KINDS).toEqual(vectors.audit_kinds);
});

test("an approval of another machine, or without the machine's signature, gives no card", async () => {
  const key = await openKey(await generateKey());
  const machineId = new Uint8Array(16).fill(1);
  const approval = toBinary(ApprovalSchema, create(ApprovalSchema, { machineId, kind: ApprovalKind.COMMAND }));
  const signature = await key.sign(new Transcript(LABEL.approval).bytes(approval));
  const signed = create(SignedApprovalSchema, { approval, signature });
  expect(await openApproval(signed, key.publicKey, machineId)).toBeDefined();
  expect(await openApproval(signed, key.publicKey, new Uint8Array(16).fill(2))).toBeUndefined();
  const other = await openKey(await generateKey());
  expect(await openApproval(signed, other.publicKey, machineId)).toBeUndefined();
});
