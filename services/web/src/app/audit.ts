/** An accept is recorded at control before it is sent. */
import { api } from "../api/client";
import { decisionName, isAccept } from "../model/decision";
import { base64url } from "../protocol/bytes";
import { type OutboxEntry, auditIds } from "../session/outbox";

const WAIT_MS = 1_000;

/** Control's signed word on an accept; an empty one when it does not answer in time, and for all else. */
export async function recordAccept(deviceId: string, entry: OutboxEntry, hash: Uint8Array): Promise<string> {
  const { answer } = entry;
  const decision = answer === undefined ? undefined : decisionName(answer.decision);
  if (answer === undefined || decision === undefined || !isAccept(decision)) return "";
  try {
    const { audit_receipt } = await api.auditIntent(
      {
        machine_id: entry.machineId,
        device_id: deviceId,
        ...auditIds(answer),
        decision,
        command_id: entry.id,
        command_hash: base64url(hash),
      },
      AbortSignal.timeout(WAIT_MS),
    );
    return audit_receipt;
  } catch {
    return "";
  }
}
