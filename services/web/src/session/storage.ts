/** What this browser keeps on disk: its key, the machines it has paired with, and its outbox. */
import { LOCAL, Problem } from "../api/problem";
import type { StoredKey } from "../protocol/keys";
import type { PairingTerms, Role } from "../protocol/pairing";
import type { OutboxEntry } from "./outbox";

/** A machine whose key was verified in a pairing made by this browser. */
export interface PinnedMachine {
  readonly machineId: string;
  readonly accountId: string;
  readonly machineKey: Uint8Array;
  readonly label: string;
  readonly role: Role;
  readonly pairedAtMs: number;
  /** Another device let this browser in there: its key was told by that one, and the desk said no yes to it. */
  readonly endorsed?: true;
}

/**
 * A pairing that was begun and has not ended, so that a reload, or a phone that drops the page, goes on with it.
 *
 * It lies beside the device key, in the storage of this origin: whoever can read it here could use that key too.
 * Neither the claim's secret nor the key of the device's MAC is kept, so it cannot be used to begin a pairing anew;
 * the key of the machine's MAC is a handle that verifies and that no script can read. It is wiped when the
 * pairing ends, and at the next start when its time is over.
 */
export interface StoredPairing {
  readonly localConnectId: string;
  readonly machineLabel: string;
  readonly terms: PairingTerms;
  readonly deviceMac: Uint8Array;
  readonly machineMacKey: CryptoKey;
  readonly giveUpAtMs: number;
}

export interface Table<T> {
  get(key: string): Promise<T | undefined>;
  put(key: string, value: T): Promise<void>;
  delete(key: string): Promise<void>;
  all(): Promise<T[]>;
}

export interface Storage {
  readonly keys: Table<StoredKey>;
  readonly machines: Table<PinnedMachine>;
  readonly outbox: Table<OutboxEntry>;
  readonly pairings: Table<StoredPairing>;
}

const DATABASE = "flydex";
const VERSION = 2;
const TABLES = ["keys", "machines", "outbox", "pairings"] as const;

export async function openStorage(): Promise<Storage> {
  const database = await openDatabase();
  return {
    keys: new IndexedTable<StoredKey>(database, "keys"),
    machines: new IndexedTable<PinnedMachine>(database, "machines"),
    outbox: new IndexedTable<OutboxEntry>(database, "outbox"),
    pairings: new IndexedTable<StoredPairing>(database, "pairings"),
  };
}

/** Asks the browser not to throw the key away when disk gets short. */
export async function persist(): Promise<boolean> {
  try {
    return (await navigator.storage.persisted()) || (await navigator.storage.persist());
  } catch {
    return false;
  }
}

/** A table in memory, for tests. */
export class MemoryTable<T> implements Table<T> {
  readonly rows = new Map<string, T>();
  async get(key: string) {
    return this.rows.get(key);
  }
  async put(key: string, value: T) {
    this.rows.set(key, structuredClone(value));
  }
  async delete(key: string) {
    this.rows.delete(key);
  }
  async all() {
    return [...this.rows.values()];
  }
}

class IndexedTable<T> implements Table<T> {
  readonly #database: IDBDatabase;
  readonly #name: string;

  constructor(database: IDBDatabase, name: string) {
    this.#database = database;
    this.#name = name;
  }

  get(key: string): Promise<T | undefined> {
    return this.#run("readonly", (store) => store.get(key) as IDBRequest<T | undefined>);
  }

  async put(key: string, value: T): Promise<void> {
    await this.#run("readwrite", (store) => store.put(value, key));
  }

  async delete(key: string): Promise<void> {
    await this.#run("readwrite", (store) => store.delete(key));
  }

  all(): Promise<T[]> {
    return this.#run("readonly", (store) => store.getAll() as IDBRequest<T[]>);
  }

  /** A database that was closed is one that a newer version of the app in another tab has changed. */
  #transaction(mode: IDBTransactionMode): IDBTransaction {
    try {
      return this.#database.transaction(this.#name, mode, { durability: "strict" });
    } catch {
      throw new Problem(LOCAL.stale);
    }
  }

  #run<R>(mode: IDBTransactionMode, action: (store: IDBObjectStore) => IDBRequest<R>): Promise<R> {
    return new Promise((resolve, reject) => {
      const transaction = this.#transaction(mode);
      const request = action(transaction.objectStore(this.#name));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(new Problem(LOCAL.storage));
      transaction.onerror = () => reject(new Problem(LOCAL.storage));
    });
  }
}

function openDatabase(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, VERSION);
    request.onupgradeneeded = () => {
      const { result } = request;
      for (const table of TABLES) if (!result.objectStoreNames.contains(table)) result.createObjectStore(table);
    };
    request.onsuccess = () => {
      const database = request.result;
      // Makes way for a newer version of the app in another tab, which could not start otherwise.
      database.onversionchange = () => database.close();
      resolve(database);
    };
    request.onerror = () => reject(new Problem(LOCAL.storage));
    request.onblocked = () => reject(new Problem(LOCAL.storage));
  });
}
