/**
 * Ed25519 verification (RFC 8032) for browsers whose WebCrypto has none: their own keys are P-256, and machines sign with
 * Ed25519 all the same. It only ever sees public bytes, so its time may tell them.
 *
 * Points of small order are refused, and s is less than the order, as the Rust side has it.
 */
import { concat, source } from "./bytes";

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const D = mod(-121665n * inverse(121666n));
/** A square root of -1. */
const I = power(2n, (P - 1n) / 4n);

/** Extended coordinates: x = X/Z, y = Y/Z, T = XY/Z. */
interface Point {
  readonly X: bigint;
  readonly Y: bigint;
  readonly Z: bigint;
  readonly T: bigint;
}

const IDENTITY: Point = { X: 0n, Y: 1n, Z: 1n, T: 0n };
const BASE = decompress(toBytes(mod(4n * inverse(5n))));

/** Whether the signature over the message was made with the private half of the key. */
export async function verifyEd25519(key: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<boolean> {
  if (key.length !== 32 || signature.length !== 64 || BASE === undefined) return false;
  const [rBytes, sBytes] = [signature.subarray(0, 32), signature.subarray(32)];
  const [a, r, s] = [decompress(key), decompress(rBytes), toInteger(sBytes)];
  if (a === undefined || r === undefined || s >= L || isSmall(a) || isSmall(r)) return false;
  const hash = await crypto.subtle.digest("SHA-512", source(concat([rBytes, key, message])));
  const k = toInteger(new Uint8Array(hash)) % L;
  return isSame(multiply(BASE, s), add(r, multiply(a, k)));
}

function decompress(bytes: Uint8Array): Point | undefined {
  const encoded = toInteger(bytes);
  const [sign, y] = [encoded >> 255n, encoded & (2n ** 255n - 1n)];
  if (y >= P) return undefined;
  const [u, v] = [mod(y * y - 1n), mod(D * y * y + 1n)];
  // x = u v³ (u v⁷)^((p-5)/8) is a root of u/v, or becomes one with the root of -1, or there is none.
  const v3 = mod(v * v * v);
  let x = mod(u * v3 * power(mod(u * v3 * v3 * v), (P - 5n) / 8n));
  if (mod(v * x * x) !== u) x = mod(x * I);
  if (mod(v * x * x) !== u || (x === 0n && sign === 1n)) return undefined;
  if ((x & 1n) !== sign) x = P - x;
  return { X: x, Y: y, Z: 1n, T: mod(x * y) };
}

function add(p: Point, q: Point): Point {
  const a = (p.Y - p.X) * (q.Y - q.X);
  const b = (p.Y + p.X) * (q.Y + q.X);
  const c = 2n * mod(p.T * q.T) * D;
  const d = 2n * p.Z * q.Z;
  const [e, f, g, h] = [mod(b - a), mod(d - c), mod(d + c), mod(b + a)];
  return { X: mod(e * f), Y: mod(g * h), Z: mod(f * g), T: mod(e * h) };
}

function multiply(point: Point, times: bigint): Point {
  let [sum, power2, left] = [IDENTITY, point, times];
  while (left > 0n) {
    if ((left & 1n) === 1n) sum = add(sum, power2);
    power2 = add(power2, power2);
    left >>= 1n;
  }
  return sum;
}

function isSmall(point: Point): boolean {
  return isSame(multiply(point, 8n), IDENTITY);
}

function isSame(p: Point, q: Point): boolean {
  return mod(p.X * q.Z - q.X * p.Z) === 0n && mod(p.Y * q.Z - q.Y * p.Z) === 0n;
}

function mod(value: bigint): bigint {
  const rest = value % P;
  return rest >= 0n ? rest : rest + P;
}

function power(base: bigint, exponent: bigint): bigint {
  let [result, square, left] = [1n, mod(base), exponent];
  while (left > 0n) {
    if ((left & 1n) === 1n) result = mod(result * square);
    square = mod(square * square);
    left >>= 1n;
  }
  return result;
}

function inverse(value: bigint): bigint {
  return power(value, P - 2n);
}

/** Little-endian, as RFC 8032 has every number. */
function toInteger(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let index = bytes.length - 1; index >= 0; index -= 1) value = (value << 8n) | BigInt(bytes[index] ?? 0);
  return value;
}

function toBytes(value: bigint): Uint8Array {
  const bytes = new Uint8Array(32);
  for (let index = 0; index < 32; index += 1) bytes[index] = Number((value >> BigInt(8 * index)) & 255n);
  return bytes;
}
