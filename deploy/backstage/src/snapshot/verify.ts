import { createHash } from 'node:crypto';
import type { Sealer } from '../seal';
import type { Head } from './decode';

/** Why a snapshot is refused as a whole. */
export type RefusalReason = 'Schema' | 'Head' | 'Missing' | 'Order' | 'Count' | 'Digest' | 'Mac';

/** A snapshot is refused; the last good one stays. The text says what to do. */
export class SnapshotRefused extends Error {
  override readonly name = 'SnapshotRefused';

  constructor(
    readonly reason: RefusalReason,
    message: string,
  ) {
    super(message);
  }
}

/** Hex SHA-256 of a record's bytes as stored in Redis. */
export function recordHash(raw: string): string {
  return createHash('sha256').update(raw).digest('hex');
}

/** Hex SHA-256 over the lines `uid TAB record hash`, sorted bytewise and joined by newlines. */
export function digestOf(hashes: Iterable<readonly [uid: string, hash: string]>): string {
  const lines: string[] = [];
  let ascii = true; // as uids are; for other characters the order by bytes has to be computed
  for (const [uid, hash] of hashes) {
    ascii &&= /^[\w-]*$/.test(uid);
    lines.push(`${uid}\t${hash}`);
  }
  if (ascii) {
    lines.sort(); // by code unit, which is the order by bytes if everything is ASCII
  } else {
    lines.sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)));
  }
  return createHash('sha256').update(lines.join('\n')).digest('hex');
}

/** Checks the head against the records. Throws SnapshotRefused. */
export function verify(
  instance: string,
  head: Head,
  hashes: ReadonlyMap<string, { readonly hash: string }>,
  sealer: Sealer,
): void {
  if (head.clusters !== hashes.size) {
    throw new SnapshotRefused(
      'Count',
      `the head counts ${head.clusters} clusters, but Redis holds ${hashes.size}: evicted (see maxmemory-policy) or tampered with`,
    );
  }
  const digest = digestOf(mapped(hashes));
  if (head.digest !== digest) {
    throw new SnapshotRefused(
      'Digest',
      'the digest does not match the records: somebody else wrote to these keys in Redis',
    );
  }
  if (!sealer.macMatches(instance, head.epoch, head.version, digest, head.mac)) {
    throw new SnapshotRefused(
      'Mac',
      `it was not written with one of the seal keys here (${sealer.keys}): compare them with the daemon's, ` +
        'or find out who else writes to Redis',
    );
  }
}

function* mapped(hashes: ReadonlyMap<string, { readonly hash: string }>): Generator<[string, string]> {
  for (const [uid, { hash }] of hashes) {
    yield [uid, hash];
  }
}
