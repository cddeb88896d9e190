import { type RedisConnection, RedisReplyError } from '../redis/connection';
import type { Sealer } from '../seal';
import { Slices } from '../slices';
import { type Change, DocumentError, decodeChange } from './decode';
import type { Keys } from './keys';
import { changed, type Snapshot, type Stored, whole } from './snapshot';
import { SnapshotRefused } from './verify';

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

/** Reads instances from Redis. Every method throws SnapshotRefused, RedisReplyError and RedisUnavailable. */
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

  /** Reads the changes since `held` if that is possible, else everything. */
  async read(connection: RedisConnection, instance: string, held: Snapshot | undefined): Promise<Reading> {
    if (held !== undefined) {
      const found = await this.#readOn(connection, instance, held);
      if (found !== undefined) {
        return found;
      }
    }
    return this.#readAll(connection, instance, held);
  }

  async #readAll(connection: RedisConnection, instance: string, held: Snapshot | undefined): Promise<Reading> {
    const [head, clusters, , credentials = []] = await connection.transaction([
      ['HGETALL', this.keys.head(instance)],
      ['HGETALL', this.keys.clusters(instance)],
      ['XREAD', 'COUNT', '1', 'STREAMS', this.keys.changes(instance), '$'], // fails only if the key is not a stream
      ...(this.#withCredentials ? [['HGETALL', this.keys.credentials(instance)]] : []),
    ]);
    const slices = new Slices();
    const stored: Stored = {
      head: Object.fromEntries(pairsOf(head)),
      clusters: new Map(pairsOf(clusters)),
      credentials: new Map(pairsOf(credentials)),
    };
    await slices.pause();
    const snapshot = await whole(instance, stored, held, this.sealer, slices);
    return { snapshot, whole: true };
  }

  /** Undefined if the changes do not lead to a valid snapshot: a gap, another epoch, too many changes. */
  async #readOn(connection: RedisConnection, instance: string, held: Snapshot): Promise<Reading | undefined> {
    const { epoch, version } = held.head;
    const touched = new Set<string>();
    const dropped = new Set<string>();
    let last = version;
    for (let round = 0; round < MOST_ROUNDS; round += 1) {
      const changes = await this.#changesAfter(connection, instance, last);
      for (const change of changes ?? []) {
        if (change.epoch !== epoch || change.version !== last + 1) {
          return undefined;
        }
        last = change.version;
        for (const uid of change.touched) {
          touched.add(uid);
          dropped.delete(uid);
        }
        for (const uid of change.dropped) {
          dropped.add(uid);
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
        const snapshot = await changed(instance, held, stored, touched, dropped, this.sealer, new Slices());
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
    const reply = await connection.command(['XREAD', 'STREAMS', this.keys.changes(instance), `${version}-0`]);
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
    const asked =
      uids.length > 0
        ? [
            ['HMGET', this.keys.clusters(instance), ...uids],
            ...(this.#withCredentials ? [['HMGET', this.keys.credentials(instance), ...uids]] : []),
          ]
        : [];
    const [head, clusters = [], credentials = []] = await connection.transaction([
      ['HGETALL', this.keys.head(instance)],
      ...asked,
    ]);
    return {
      head: Object.fromEntries(pairsOf(head)),
      clusters: new Map(present(uids, clusters)),
      credentials: new Map(present(uids, credentials)),
    };
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
