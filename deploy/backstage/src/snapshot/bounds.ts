import { type RedisConnection, RedisReplyError } from '../redis/connection';
import type { Keys } from './keys';
import { SnapshotRefused } from './verify';

/** The most names in the set of instances, and the most clusters of one instance. */
export const MOST_INSTANCES = 1_000;
export const MOST_CLUSTERS = 20_000;
export const MOST_RECORD_BYTES = 64 * 1024;
export const MOST_CREDENTIAL_BYTES = 16 * 1024;
const MIB = 1024 * 1024;
const MOST_SET_BYTES = MIB;
const MOST_HEAD_BYTES = 4 * MIB; // `unconfirmed` may name every cluster
const MOST_KEY_BYTES = 64 * MIB;

type Asking = Pick<RedisConnection, 'command'>;

/**
 * What is wrong with the size of the set of instances, or undefined. Asked before the set is read. Throws
 * RedisReplyError, RedisUnavailable.
 */
export async function instancesProblem(connection: Asking, key: string): Promise<string | undefined> {
  const [names, bytes] = await Promise.all([countOf(connection, 'SCARD', key), bytesOf(connection, key)]);
  const remedy = 'remove the names that are not yours with SREM, or list your instances in paletteSync.instances';
  if (names > MOST_INSTANCES) {
    return `${key} in Redis holds ${names} names of instances, more than ${MOST_INSTANCES}, so no new one is read; ${remedy}`;
  }
  return bytes > MOST_SET_BYTES
    ? `${key} in Redis holds ${inMiB(bytes)}, more than ${inMiB(MOST_SET_BYTES)}, so no new instance is read; ${remedy}`
    : undefined;
}

/** Checks what each look at an instance reads: its head and its stream. Throws SnapshotRefused and what the connection throws. */
export async function checkHeadSize(connection: Asking, keys: Keys, instance: string): Promise<void> {
  await checkBytes(connection, [
    [keys.head(instance), MOST_HEAD_BYTES],
    [keys.changes(instance), MOST_KEY_BYTES],
  ]);
}

/** Checks hashes that are to be read as a whole. Throws SnapshotRefused and what the connection throws. */
export async function checkHashSizes(connection: Asking, hashes: readonly string[]): Promise<void> {
  const counts = hashes.map(async key => ({ key, fields: await countOf(connection, 'HLEN', key) }));
  const sizes = checkBytes(
    connection,
    hashes.map(key => [key, MOST_KEY_BYTES]),
  );
  for (const { key, fields } of (await Promise.all([Promise.all(counts), sizes]))[0]) {
    checkCount(key, fields);
  }
}

/** Checks single fields that are to be read. Throws SnapshotRefused and what the connection throws. */
export async function checkFieldSizes(
  connection: Asking,
  key: string,
  fields: readonly string[],
  most: number,
): Promise<void> {
  const lengths = await Promise.all(fields.map(field => connection.command(['HSTRLEN', key, field])));
  checkLength(key, Math.max(0, ...lengths.map(Number)), most);
}

/** Throws SnapshotRefused if a hash has more fields than an instance may have clusters. */
export function checkCount(key: string, fields: number): void {
  if (fields > MOST_CLUSTERS) {
    throw tooLarge(`${key} has ${fields} fields, more than ${MOST_CLUSTERS}`);
  }
}

/** Throws SnapshotRefused if one field is too long. */
export function checkLength(key: string, bytes: number, most: number): void {
  if (bytes > most) {
    throw tooLarge(`a field of ${key} has ${bytes} bytes, more than ${most}`);
  }
}

async function checkBytes(connection: Asking, bounds: readonly (readonly [string, number])[]): Promise<void> {
  const sizes = await Promise.all(bounds.map(([key]) => bytesOf(connection, key)));
  for (const [at, [key, most]] of bounds.entries()) {
    if ((sizes[at] ?? 0) > most) {
      throw tooLarge(`${key} holds ${inMiB(sizes[at] ?? 0)}, more than ${inMiB(most)}`);
    }
  }
}

async function countOf(connection: Asking, command: 'SCARD' | 'HLEN', key: string): Promise<number> {
  return Number(await connection.command([command, key]));
}

/**
 * What the whole value takes in the server's memory, which is a little more than what it sends. 0 where the server does not
 * know the command, as some managed ones: then only the bound on what a connection receives holds.
 */
async function bytesOf(connection: Asking, key: string): Promise<number> {
  try {
    return Number(await connection.command(['MEMORY', 'USAGE', key, 'SAMPLES', '0']));
  } catch (error) {
    if (error instanceof RedisReplyError && error.code === 'ERR') {
      return 0;
    }
    throw error;
  }
}

function tooLarge(what: string): SnapshotRefused {
  return new SnapshotRefused(
    'TooLarge',
    `${what}, so it is not read: find out who else writes to Redis, and delete it`,
  );
}

function inMiB(bytes: number): string {
  return `${Math.ceil(bytes / MIB)} MiB`;
}
