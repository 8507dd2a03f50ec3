/** Receipts: the machine's signed last word on a command. Nothing else is believed to be final. */
import { fromBinary } from "@bufbuild/protobuf";

import { type Receipt, ReceiptSchema, type SignedReceipt } from "../gen/flydex/v1/command_pb";
import { equal, sha256 } from "./bytes";
import { LABEL, Transcript } from "./encoding";
import { type PublicKey, verify } from "./keys";

/** What a receipt must name to be the answer to a command of ours. */
export interface Expected {
  readonly machineKey: PublicKey;
  readonly accountId: Uint8Array;
  readonly machineId: Uint8Array;
  readonly deviceId: Uint8Array;
  readonly commandId: Uint8Array;
  readonly commandHash: Uint8Array;
}

/** Decodes a receipt without believing it: to find the command that it claims to answer. */
export function peekReceipt(signed: SignedReceipt): Receipt | undefined {
  try {
    return fromBinary(ReceiptSchema, signed.receipt);
  } catch {
    return undefined;
  }
}

/** The receipt, if the machine signed it and it answers exactly the expected command. */
export async function verifyReceipt(signed: SignedReceipt, expected: Expected): Promise<Receipt | undefined> {
  const transcript = new Transcript(LABEL.receipt).bytes(signed.receipt);
  if (!(await verify(expected.machineKey, transcript, signed.signature))) return undefined;
  const receipt = peekReceipt(signed);
  if (receipt === undefined) return undefined;
  const holds =
    equal(receipt.accountId, expected.accountId) &&
    equal(receipt.machineId, expected.machineId) &&
    equal(receipt.deviceId, expected.deviceId) &&
    equal(receipt.commandId, expected.commandId) &&
    equal(receipt.commandHash, expected.commandHash);
  return holds ? receipt : undefined;
}

/** Whether a large answer is the one that the receipt describes. */
export async function bulkMatches(receipt: Receipt, bytes: Uint8Array): Promise<boolean> {
  if (receipt.bulk === undefined || bytes.length !== receipt.bulk.totalBytes) return false;
  return equal(await sha256(bytes), receipt.bulk.sha256);
}
