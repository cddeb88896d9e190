import type { NotOpened, Sealer } from '../seal';
import type { Slices } from '../slices';
import { type ClusterRecord, decodeCredential, decodeRecord } from './decode';
import { DocumentError, isUid, UnknownSchemaError } from './fields';
import { decodeHead, type Head, unconfirmedOf } from './head';
import { Lines } from './lines';
import { type Place, serverHash, sha256 } from './macs';
import { checkOrder } from './order';
import { type Hashes, SnapshotRefused, verify } from './verify';

/** A credential as stored in Redis, and the result of opening it. */
export interface Credential {
  readonly raw: string;
  /** Hex SHA-256 of `raw`. */
  readonly hash: string;
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
  /** Absent if they were not read: then entries have none, and the head's digest of them is taken as given. */
  readonly credentials?: ReadonlyMap<string, string>;
}

/** A record or credential as stored, and its hash. Credentials are opened only after everything is verified. */
interface Hashed {
  readonly raw: string;
  readonly hash: string;
}

/** The lines that a snapshot was verified with, so that a change of it need not make them again. */
const verified = new WeakMap<Snapshot, Hashes>();

/**
 * Makes a snapshot of a whole instance. Reuses the entries of `previous` that are the same, so a reload costs only what
 * changed. `acceptsLater`: takes an authentic snapshot of a lower order if it was written later. Throws SnapshotRefused;
 * then `previous` stays in use.
 */
export async function whole(
  place: Place,
  stored: Stored,
  previous: Snapshot | undefined,
  sealer: Sealer,
  slices: Slices,
  { acceptsLater = false }: { acceptsLater?: boolean } = {},
): Promise<Snapshot> {
  const head = readHead(stored.head);
  checkUids(stored.clusters.keys());
  checkUids(stored.credentials?.keys() ?? []);
  const records = new Map<string, Hashed>();
  for (const [uid, raw] of stored.clusters) {
    records.set(uid, hashed(raw));
    await slices.pause();
  }
  const credentials = stored.credentials && new Map<string, Hashed>();
  for (const [uid, raw] of stored.credentials ?? []) {
    const known = previous?.entries.get(uid)?.credential;
    credentials?.set(uid, known?.raw === raw ? known : hashed(raw));
    await slices.pause();
  }
  const lines = { records: linesOf(records), ...(credentials && { credentials: linesOf(credentials) }) };
  verify(place, head, lines, sealer);
  if (previous !== undefined) {
    checkOrder(head, previous.head, acceptsLater);
  }
  const held = (uid: string): Entry | undefined => previous?.entries.get(uid) ?? previous?.kept.get(uid);
  const unconfirmed = new Set(uidsOf(head));
  const entries = new Map<string, Entry>();
  for (const [uid, record] of records) {
    const known = held(uid);
    const isOwn = known !== undefined && unconfirmed.has(uid);
    entries.set(uid, isOwn ? known : entryOf(place, uid, record, credentials?.get(uid), known, sealer));
    await slices.pause();
  }
  const snapshot = { head, entries, kept: head.complete ? new Map() : keptOf(previous, entries, []) };
  if (unconfirmed.size === 0) {
    verified.set(snapshot, lines);
  }
  return snapshot;
}

/**
 * Applies what Redis returned about the `touched` clusters to `base`, which must have no unconfirmed clusters. Throws
 * SnapshotRefused if the result is not valid; then the caller reads the whole instance.
 */
export async function changed(
  place: Place,
  base: Snapshot,
  stored: Stored,
  touched: readonly string[],
  sealer: Sealer,
  slices: Slices,
): Promise<Snapshot> {
  const head = readHead(stored.head);
  checkUids(touched);
  const { clusters, credentials: sealed } = stored;
  const fresh = new Map<string, { readonly record?: Hashed; readonly credential?: Hashed }>();
  for (const uid of touched) {
    const [record, credential] = [clusters.get(uid), sealed?.get(uid)];
    fresh.set(uid, {
      ...(record !== undefined && { record: hashed(record) }),
      ...(credential !== undefined && { credential: hashed(credential) }),
    });
    await slices.pause();
  }
  const former = verified.get(base) ?? linesIn(base.entries);
  const lines = {
    records: former.records.with(touched.map(uid => [uid, fresh.get(uid)?.record?.hash])),
    ...(sealed && {
      credentials: (former.credentials ?? Lines.of([])).with(
        touched.map(uid => [uid, fresh.get(uid)?.credential?.hash]),
      ),
    }),
  };
  verify(place, head, lines, sealer);
  if (head.unconfirmed !== '') {
    throw new SnapshotRefused('Head', 'it has unconfirmed clusters, so all of it has to be read');
  }
  const entries = new Map(base.entries);
  for (const uid of touched) {
    const { record, credential } = fresh.get(uid) ?? {};
    if (record === undefined) {
      entries.delete(uid);
    } else {
      entries.set(uid, entryOf(place, uid, record, credential, base.entries.get(uid), sealer));
    }
    await slices.pause();
  }
  // Only what was in a verified snapshot and is not in the next one was dropped: entries of the stream are not authentic.
  const dropped = touched.filter(uid => base.entries.has(uid) && !entries.has(uid));
  const snapshot = { head, entries, kept: head.complete ? new Map() : keptOf(base, entries, dropped) };
  verified.set(snapshot, lines);
  return snapshot;
}

function uidsOf(head: Head): string[] {
  try {
    return unconfirmedOf(head);
  } catch (error) {
    throw new SnapshotRefused('Head', (error as Error).message);
  }
}

function checkUids(uids: Iterable<string>): void {
  for (const uid of uids) {
    if (!isUid(uid)) {
      throw new SnapshotRefused(
        'Uid',
        'a field of its hashes is not the uid of a cluster: somebody else wrote to these keys in Redis',
      );
    }
  }
}

function hashed(raw: string): Hashed {
  return { raw, hash: sha256(raw) };
}

function linesOf(texts: ReadonlyMap<string, Hashed>): Lines {
  return Lines.of([...texts].map(([uid, { hash }]) => [uid, hash]));
}

function linesIn(entries: ReadonlyMap<string, Entry>): Hashes {
  const all = [...entries.values()];
  return {
    records: Lines.of(all.map(({ uid, hash }) => [uid, hash])),
    credentials: Lines.of(all.flatMap(({ uid, credential }) => (credential ? [[uid, credential.hash] as const] : []))),
  };
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

type Decoded = Pick<Entry, 'record' | 'unreadable'>;

/** Reuses what `known` decoded and opened, as far as record and credential are the same. */
function entryOf(
  place: Place,
  uid: string,
  { raw, hash }: Hashed,
  credential: Hashed | undefined,
  known: Entry | undefined,
  sealer: Sealer,
): Entry {
  if (known?.hash === hash && known.credential?.hash === credential?.hash) {
    return known;
  }
  const entry = { uid, hash, ...(known?.hash === hash ? decodedIn(known) : decoded(place.instance, uid, raw)) };
  if (credential === undefined) {
    return entry;
  }
  const former = known?.credential?.hash === credential.hash ? known.credential : undefined;
  const isOpened = former !== undefined && isSameServer(known?.record?.server, entry.record?.server);
  return { ...entry, credential: isOpened ? former : opened(place, entry, credential, sealer) };
}

function decodedIn({ record, unreadable }: Entry): Decoded {
  return { ...(record && { record }), ...(unreadable !== undefined && { unreadable }) };
}

function decoded(instance: string, uid: string, raw: string): Decoded {
  try {
    return { record: decodeRecord(instance, uid, raw) };
  } catch (error) {
    if (!(error instanceof DocumentError)) {
      throw error;
    }
    return { unreadable: error.message };
  }
}

function isSameServer(one: ClusterRecord['server'], other: ClusterRecord['server']): boolean {
  return one?.url === other?.url && one?.caData === other?.caData && one?.tlsServerName === other?.tlsServerName;
}

/** Opens a credential, for the API server of its record only. */
function opened(
  place: Place,
  { uid, record }: { readonly uid: string; readonly record?: ClusterRecord },
  { raw, hash }: Hashed,
  sealer: Sealer,
): Credential {
  if (record === undefined) {
    const message = 'its record, which says which API server the token is for, cannot be read';
    return { raw, hash, refused: { reason: 'SealBroken', message } };
  }
  try {
    const { sealed, issuedAtText, expiresAtText, expiresAt } = decodeCredential(raw);
    const server = serverHash(record.server);
    const wanted = { ...place, uid, server, issued_at: issuedAtText, expires_at: expiresAtText };
    return { raw, hash, ...(expiresAt !== undefined && { expiresAt }), ...sealer.open(wanted, sealed) };
  } catch (error) {
    return { raw, hash, refused: { reason: 'SealBroken', message: (error as Error).message } };
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
