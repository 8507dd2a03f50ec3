/**
 * A machine's change of keys: the old key says which one comes next, and the next one that it is there.
 *
 * A browser follows the statements from the key that it enrolled with. It writes the same bytes as
 * `services/domain/src/rotation.rs`; what the relay adds, leaves out or makes up leads nowhere.
 */
import { fromBase64url, fromHex, hex } from "./bytes";
import { LABEL, Transcript } from "./encoding";
import { type PublicKey, verify } from "./keys";

/** A statement as the control plane hands it on. */
export interface KeyRotationJson {
  counter: number;
  old_key: { algorithm: string; key: string };
  new_key: { algorithm: string; key: string };
  at_ms: number;
  old_signature: string;
  new_signature: string;
}

/** The machine that the statements are about. */
export interface Subject {
  readonly accountId: string;
  readonly machineId: string;
}

/** More than control keeps of a machine. */
const STATEMENTS_MAX = 256;

/**
 * The newest key that a known one leads to; the known one itself where nothing follows on it. Undefined when what
 * follows does not hold: then the known key stays the only one to believe.
 */
export async function newestKey(
  known: Uint8Array,
  subject: Subject,
  statements: readonly KeyRotationJson[],
): Promise<Uint8Array | undefined> {
  if (statements.length > STATEMENTS_MAX) return undefined;
  const byOldKey = new Map<string, KeyRotationJson>();
  for (const statement of statements) {
    const old = keyOf(statement.old_key);
    if (old !== undefined && !byOldKey.has(hex(old.bytes))) byOldKey.set(hex(old.bytes), statement);
  }
  let key = known;
  let counter = 0;
  for (;;) {
    const statement = byOldKey.get(hex(key));
    if (statement === undefined) return key;
    const next = keyOf(statement.new_key);
    if (next === undefined || !(statement.counter > counter) || !(await holds(statement, subject))) return undefined;
    key = next.bytes;
    counter = statement.counter;
  }
}

async function holds(statement: KeyRotationJson, { accountId, machineId }: Subject): Promise<boolean> {
  const [oldKey, newKey] = [keyOf(statement.old_key), keyOf(statement.new_key)];
  const [old, made] = [fromBase64url(statement.old_signature), fromBase64url(statement.new_signature)];
  if (oldKey === undefined || newKey === undefined || old === undefined || made === undefined) return false;
  const numbers = [statement.at_ms, statement.counter];
  if (!numbers.every((number) => Number.isSafeInteger(number) && number >= 0)) return false;
  const transcript = () =>
    new Transcript(LABEL.keyRotation)
      .bytes(fromHex(accountId.replaceAll("-", "")))
      .bytes(fromHex(machineId.replaceAll("-", "")))
      .text(oldKey.algorithm)
      .bytes(oldKey.bytes)
      .text(newKey.algorithm)
      .bytes(newKey.bytes)
      .integer(BigInt(statement.at_ms))
      .integer(BigInt(statement.counter));
  return (await verify(oldKey, transcript(), old)) && (await verify(newKey, transcript(), made));
}

function keyOf(json: { algorithm: string; key: string }): PublicKey | undefined {
  const bytes = fromBase64url(json.key);
  return json.algorithm === "ed25519" && bytes?.length === 32 ? { algorithm: "ed25519", bytes } : undefined;
}
