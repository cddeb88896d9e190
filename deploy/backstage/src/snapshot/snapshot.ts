import type { NotOpened, Sealer } from '../seal';
import type { Slices } from '../slices';
import {
  type ClusterRecord,
  DocumentError,
  decodeCredential,
  decodeHead,
  decodeRecord,
  type Head,
  UnknownSchemaError,
} from './decode';
import { recordHash, SnapshotRefused, verify } from './verify';

/** A credential as stored in Redis, and the result of opening it. */
export interface Credential {
  readonly raw: string;
  readonly expiresAt?: number;
  readonly token?: string;
  readonly refused?: NotOpened;
}

/** One cluster of a snapshot. Entries are immutable: a changed cluster gets a new object. */
export interface Entry {
  readonly uid: string;
  readonly hash: string;
  /** Absent if the record cannot be read; then `unreadable` says why. */
  readonly record?: ClusterRecord;
  readonly unreadable?: string;
  readonly credential?: Credential;
}

/** An instance at one version, verified. */
export interface Snapshot {
  readonly head: Head;
  readonly entries: ReadonlyMap<string, Entry>;
  /** Clusters of the previous snapshot that this one, which is not complete yet, does not list. */
  readonly kept: ReadonlyMap<string, Entry>;
}

/** What Redis returned: a whole instance, or what changed since a snapshot. */
export interface Stored {
  readonly head: Readonly<Record<string, string>>;
  readonly clusters: ReadonlyMap<string, string>;
  readonly credentials: ReadonlyMap<string, string>;
}

/**
 * Makes a snapshot of a whole instance. Reuses the entries of `previous` that are the same, so a reload costs only what
 * changed. Throws SnapshotRefused; then `previous` stays in use.
 */
export async function whole(
  instance: string,
  stored: Stored,
  previous: Snapshot | undefined,
  sealer: Sealer,
  slices: Slices,
): Promise<Snapshot> {
  const head = readHead(stored.head);
  if (previous && isOlder(head, previous.head)) {
    throw new SnapshotRefused(
      'Order',
      `Redis holds version ${head.version} of epoch ${head.epoch}, older than the one known here (${previous.head.version} ` +
        `of ${previous.head.epoch}): restored from a backup, or tampered with; the daemon's next pass resolves it`,
    );
  }
  const records = new Map<string, Entry>();
  for (const [uid, raw] of stored.clusters) {
    records.set(uid, entryOf(instance, uid, raw, previous?.entries.get(uid) ?? previous?.kept.get(uid)));
    await slices.pause();
  }
  verify(instance, head, records, sealer);
  const entries = await withCredentials(instance, records, stored.credentials, sealer, slices);
  return { head, entries, kept: head.complete ? new Map() : keptOf(previous, entries, []) };
}

/**
 * Applies what Redis returned about the `touched` clusters to `base`. Throws SnapshotRefused if the result is not valid;
 * then the caller reads the whole instance.
 */
export async function changed(
  instance: string,
  base: Snapshot,
  stored: Stored,
  touched: Iterable<string>,
  dropped: Iterable<string>,
  sealer: Sealer,
  slices: Slices,
): Promise<Snapshot> {
  const head = readHead(stored.head);
  const entries = new Map(base.entries);
  const fresh = new Map<string, Entry>();
  for (const uid of touched) {
    const raw = stored.clusters.get(uid);
    if (raw === undefined) {
      entries.delete(uid);
      continue;
    }
    fresh.set(uid, entryOf(instance, uid, raw, base.entries.get(uid)));
    await slices.pause();
  }
  for (const [uid, entry] of fresh) {
    entries.set(uid, entry);
  }
  verify(instance, head, entries, sealer);
  for (const [uid, entry] of await withCredentials(instance, fresh, stored.credentials, sealer, slices)) {
    entries.set(uid, entry);
  }
  return { head, entries, kept: head.complete ? new Map() : keptOf(base, entries, dropped) };
}

/** Whether `head` comes before `other` in the order of (epoch, version). */
export function isOlder(head: Head, other: Head): boolean {
  return head.epoch < other.epoch || (head.epoch === other.epoch && head.version < other.version);
}

function readHead(fields: Readonly<Record<string, string>>): Head {
  if (fields['version'] === undefined) {
    throw new SnapshotRefused('Missing', 'Redis holds no snapshot of it; the daemon publishes one in its next pass');
  }
  try {
    return decodeHead(fields);
  } catch (error) {
    if (error instanceof UnknownSchemaError) {
      throw new SnapshotRefused(
        'Schema',
        `it was published by another version of palette-sync (${error.message}); upgrade this package`,
      );
    }
    throw new SnapshotRefused('Head', (error as Error).message);
  }
}

function entryOf(instance: string, uid: string, raw: string, known: Entry | undefined): Entry {
  const hash = recordHash(raw);
  if (known?.hash === hash) {
    return known;
  }
  const credential = known?.credential && { credential: known.credential };
  try {
    return { uid, hash, record: decodeRecord(instance, uid, raw), ...credential };
  } catch (error) {
    if (!(error instanceof DocumentError)) {
      throw error;
    }
    return { uid, hash, unreadable: error.message, ...credential };
  }
}

async function withCredentials(
  instance: string,
  entries: ReadonlyMap<string, Entry>,
  credentials: ReadonlyMap<string, string>,
  sealer: Sealer,
  slices: Slices,
): Promise<Map<string, Entry>> {
  const found = new Map<string, Entry>();
  for (const [uid, entry] of entries) {
    const raw = credentials.get(uid);
    if (raw === entry.credential?.raw) {
      found.set(uid, entry);
      continue;
    }
    const { credential: _former, ...rest } = entry;
    found.set(uid, raw === undefined ? rest : { ...rest, credential: await opened(instance, uid, raw, sealer) });
    await slices.pause();
  }
  return found;
}

async function opened(instance: string, uid: string, raw: string, sealer: Sealer): Promise<Credential> {
  try {
    const { sealed, ...rest } = decodeCredential(raw);
    return { raw, ...rest, ...(await sealer.open(instance, uid, sealed)) };
  } catch (error) {
    return { raw, refused: { reason: 'SealBroken', message: (error as Error).message } };
  }
}

function keptOf(
  previous: Snapshot | undefined,
  entries: ReadonlyMap<string, Entry>,
  dropped: Iterable<string>,
): Map<string, Entry> {
  const kept = new Map([...(previous?.entries ?? []), ...(previous?.kept ?? [])]);
  for (const uid of [...entries.keys(), ...dropped]) {
    kept.delete(uid);
  }
  return kept;
}
