import { type RedisConnection, RedisReplyError } from '../redis/connection';
import type { Sealer } from '../seal';
import { Slices } from '../slices';
import {
  checkCount,
  checkFieldSizes,
  checkHashSizes,
  checkHeadSize,
  checkLength,
  MOST_CREDENTIAL_BYTES,
  MOST_RECORD_BYTES,
} from './bounds';
import { CHECK_FIELDS, checkedAtOf } from './checked';
import { DocumentError } from './fields';
import { type Change, decodeChange } from './head';
import type { Keys } from './keys';
import type { Place } from './macs';
import { changed, type Snapshot, type Stored, whole } from './snapshot';
import { SnapshotRefused } from './verify';

/** What a look at an instance's head shows. */
export interface Look {
  /** Epoch and version as one text, to compare with `orderOf`. */
  readonly order: string;
  /** When the daemon last confirmed the snapshot; milliseconds since 1970. Absent without a time that is authentic. */
  readonly checkedAt?: number;
}

/** Epoch and version of a snapshot as one text. */
export function orderOf({ head }: Snapshot): string {
  return `${head.epoch}/${head.version}`;
}

/** The result of reading an instance. */
export interface Reading {
  readonly snapshot: Snapshot;
  /** Whether the whole instance was read, and not only its changes. */
  readonly whole: boolean;
}

// For more changed clusters than this, reading everything is as cheap as asking for each by name.
const MOST_TOUCHED = 2_000;
// If the writer is faster than the reader, the reader gives up on changes and reads everything in one transaction.
const MOST_ROUNDS = 20;
const MOST_ENTRIES = '500';

/**
 * Reads instances from Redis, and asks for sizes before it reads. Every method throws SnapshotRefused, RedisReplyError and
 * RedisUnavailable.
 */
export class SnapshotReader {
  readonly #withCredentials: boolean;

  /** With `credentials: false` the credentials are never requested from Redis, and entries have none. */
  constructor(
    private readonly keys: Keys,
    private readonly sealer: Sealer,
    { credentials = true }: { credentials?: boolean } = {},
  ) {
    this.#withCredentials = credentials;
  }

  /** Looks which version is in Redis. Cheap; made in each round. */
  async look(connection: RedisConnection, instance: string, now: number): Promise<Look> {
    await checkHeadSize(connection, this.keys, instance);
    const reply = await connection.command(['HMGET', this.keys.head(instance), ...CHECK_FIELDS]);
    const values = reply as (string | null)[];
    const checkedAt = checkedAtOf(this.#place(instance), values, this.sealer, now);
    return { order: `${values[0]}/${values[1]}`, ...(checkedAt !== undefined && { checkedAt }) };
  }

  /**
   * Reads the changes since `held` if that is possible, else everything. With `acceptsLater` a lower order is accepted
   * if the snapshot is authentic and was written later than `held`.
   */
  async read(
    connection: RedisConnection,
    instance: string,
    held: Snapshot | undefined,
    { acceptsLater = false }: { acceptsLater?: boolean } = {},
  ): Promise<Reading> {
    // What was kept over the published record is not what the changes are based on.
    if (held !== undefined && held.head.unconfirmed === '' && !acceptsLater) {
      const found = await this.#readOn(connection, instance, held);
      if (found !== undefined) {
        return found;
      }
    }
    return this.#readAll(connection, instance, held, acceptsLater);
  }

  async #readAll(
    connection: RedisConnection,
    instance: string,
    held: Snapshot | undefined,
    acceptsLater: boolean,
  ): Promise<Reading> {
    const hashes = [
      this.keys.clusters(instance),
      ...(this.#withCredentials ? [this.keys.credentials(instance)] : []),
    ] as const;
    await checkHashSizes(connection, hashes);
    const [head, , ...found] = await connection.transaction([
      ['HGETALL', this.keys.head(instance)],
      ['XREAD', 'COUNT', '1', 'STREAMS', this.keys.changes(instance), '$'], // fails only if the key is not a stream
      ...hashes.map(key => ['HGETALL', key]),
    ]);
    const slices = new Slices();
    const [clusters, credentials] = found.map(reply => new Map(pairsOf(reply)));
    const stored: Stored = {
      head: Object.fromEntries(pairsOf(head)),
      clusters: clusters ?? new Map(),
      ...(credentials && { credentials }),
    };
    await slices.pause();
    this.#checkSizes(instance, stored);
    const place = this.#place(instance);
    const snapshot = await whole(place, stored, held, this.sealer, slices, { acceptsLater });
    return { snapshot, whole: true };
  }

  /** Undefined if the changes do not lead to a valid snapshot: a gap, another epoch, too many changes. */
  async #readOn(connection: RedisConnection, instance: string, held: Snapshot): Promise<Reading | undefined> {
    const { epoch, version } = held.head;
    const touched = new Set<string>();
    let last = version;
    for (let round = 0; round < MOST_ROUNDS; round += 1) {
      const changes = await this.#changesAfter(connection, instance, last);
      for (const change of changes ?? []) {
        if (change.epoch !== epoch || change.version !== last + 1 || change.hasUnconfirmed) {
          return undefined;
        }
        last = change.version;
        for (const uid of change.touched) {
          touched.add(uid);
        }
      }
      if (changes === undefined || touched.size > MOST_TOUCHED) {
        return undefined;
      }
      const stored = await this.#touchedOf(connection, instance, [...touched]);
      if (stored.head['epoch'] !== String(epoch)) {
        return undefined;
      }
      const there = Number(stored.head['version']);
      if (there > last) {
        continue; // a newer version was written meanwhile: read its changes, too
      }
      if (there < last || last === version) {
        return undefined;
      }
      try {
        const snapshot = await changed(this.#place(instance), held, stored, [...touched], this.sealer, new Slices());
        return { snapshot, whole: false };
      } catch (error) {
        if (error instanceof SnapshotRefused) {
          return undefined;
        }
        throw error;
      }
    }
    return undefined;
  }

  async #changesAfter(connection: RedisConnection, instance: string, version: number): Promise<Change[] | undefined> {
    // XREAD instead of XRANGE, because waiting needs XREAD anyway and the reader's ACL stays short.
    const reply = await connection.command([
      ...['XREAD', 'COUNT', MOST_ENTRIES, 'STREAMS'],
      ...[this.keys.changes(instance), `${version}-0`],
    ]);
    const entries = (reply as [string, [string, string[]][]][] | null)?.[0]?.[1] ?? [];
    try {
      return entries.map(([id, fields]) => decodeChange(id, Object.fromEntries(pairsOf(fields))));
    } catch (error) {
      if (error instanceof DocumentError) {
        return undefined;
      }
      throw error;
    }
  }

  async #touchedOf(connection: RedisConnection, instance: string, uids: string[]): Promise<Stored> {
    const hashes: readonly [string, number][] = [
      [this.keys.clusters(instance), MOST_RECORD_BYTES],
      ...(this.#withCredentials
        ? ([[this.keys.credentials(instance), MOST_CREDENTIAL_BYTES]] as [string, number][])
        : []),
    ];
    if (uids.length > 0) {
      await Promise.all(hashes.map(([key, most]) => checkFieldSizes(connection, key, uids, most)));
    }
    const [head, ...replies] = await connection.transaction([
      ['HGETALL', this.keys.head(instance)],
      ...(uids.length > 0 ? hashes.map(([key]) => ['HMGET', key, ...uids]) : []),
    ]);
    const [clusters, credentials] = hashes.map((_, at) => new Map(present(uids, replies[at] ?? [])));
    const stored: Stored = {
      head: Object.fromEntries(pairsOf(head)),
      clusters: clusters ?? new Map(),
      ...(credentials && { credentials }),
    };
    this.#checkSizes(instance, stored);
    return stored;
  }

  /** Again, because it may have grown after it was asked for. */
  #checkSizes(instance: string, { clusters, credentials = new Map() }: Stored): void {
    for (const [key, values, most] of [
      [this.keys.clusters(instance), clusters, MOST_RECORD_BYTES],
      [this.keys.credentials(instance), credentials, MOST_CREDENTIAL_BYTES],
    ] as const) {
      checkCount(key, values.size);
      for (const value of values.values()) {
        checkLength(key, value.length, most);
      }
    }
  }

  #place(instance: string): Place {
    return { prefix: this.keys.prefix, instance };
  }
}

function* pairsOf(reply: unknown): Generator<[string, string]> {
  if (!Array.isArray(reply)) {
    throw new RedisReplyError('UNEXPECTED');
  }
  for (let at = 0; at + 1 < reply.length; at += 2) {
    yield [String(reply[at]), String(reply[at + 1])];
  }
}

function* present(uids: string[], reply: unknown): Generator<[string, string]> {
  for (const [at, uid] of uids.entries()) {
    const value = (reply as unknown[])[at];
    if (typeof value === 'string') {
      yield [uid, value];
    }
  }
}
