import type { Sealer } from '../seal';
import type { Head } from './head';
import type { Lines } from './lines';
import { headText, type Place } from './macs';

/** Why a snapshot is refused as a whole. */
export type RefusalReason =
  | 'Schema'
  | 'Head'
  | 'Missing'
  | 'TooLarge'
  | 'Uid'
  | 'Order'
  | 'Count'
  | 'Digest'
  | 'CredentialsDigest'
  | 'Mac';

/** A snapshot is refused; the last good one stays. The text says what to do. */
export class SnapshotRefused extends Error {
  override readonly name = 'SnapshotRefused';

  constructor(
    readonly reason: RefusalReason,
    message: string,
    /** With `Order`: it is authentic and was written later than the one in use. */
    readonly isLater: boolean = false,
  ) {
    super(message);
  }
}

/** The lines of all records and all credentials of a snapshot. */
export interface Hashes {
  readonly records: Lines;
  /** Absent if the credentials were not read; then the head's digest of them is taken as given. */
  readonly credentials?: Lines;
}

/** Checks the head against the records and the credentials. Throws SnapshotRefused. */
export function verify(place: Place, head: Head, { records, credentials }: Hashes, sealer: Sealer): void {
  if (head.clusters !== records.size) {
    throw new SnapshotRefused(
      'Count',
      `the head counts ${head.clusters} clusters, but Redis holds ${records.size}: evicted (see maxmemory-policy) or tampered with`,
    );
  }
  checkDigest('Digest', 'records', head.digest, records);
  if (credentials !== undefined) {
    checkDigest('CredentialsDigest', 'credentials', head.credentialsDigest, credentials);
    const stray = credentials.firstNotIn(records);
    if (stray !== undefined) {
      throw new SnapshotRefused('CredentialsDigest', `there is a credential of ${stray}, but no record: tampered with`);
    }
  }
  if (!sealer.isAuthentic(headText(place, head), head.mac)) {
    throw new SnapshotRefused(
      'Mac',
      `it was not written with one of the seal keys here (${sealer.keys}), or for another prefix or instance: compare the ` +
        "keys with the daemon's, or find out who else writes to Redis",
    );
  }
}

function checkDigest(reason: RefusalReason, what: string, wanted: string, lines: Lines): void {
  if (wanted !== lines.digest()) {
    throw new SnapshotRefused(
      reason,
      `the digest does not match the ${what}: somebody else wrote to these keys in Redis`,
    );
  }
}
