import type { Head } from './head';
import { SnapshotRefused } from './verify';

/** How many looks in a row must find a later snapshot of a lower order, and how far apart they count as two. */
const LOOKS = 3;
const APART_MS = 30_000;

/** Whether `head` comes before `other` in the order of (epoch, version). */
export function isOlder(head: Head, other: Head): boolean {
  return head.epoch < other.epoch || (head.epoch === other.epoch && head.version < other.version);
}

/**
 * Refuses an authentic head that comes before the one in use, unless it was written later and `acceptsLater` is set.
 * Throws SnapshotRefused, which says what a person must do.
 */
export function checkOrder(head: Head, held: Head, acceptsLater: boolean): void {
  if (!isOlder(head, held)) {
    return;
  }
  const there = `version ${head.version} of epoch ${head.epoch}, written at ${iso(head.changedAt)}`;
  const here = `version ${held.version} of epoch ${held.epoch}, written at ${iso(held.changedAt)}`;
  if (head.changedAt <= held.changedAt) {
    throw new SnapshotRefused(
      'Order',
      `Redis holds ${there}, which is older than the one in use (${here}): Redis was restored from a backup, or somebody ` +
        'wrote an old copy back. Start or restart the daemon, which then publishes a newer one; restart this backend only if ' +
        'the older one is to be used',
    );
  }
  if (!acceptsLater) {
    throw new SnapshotRefused(
      'Order',
      `Redis holds ${there}, which has a lower order than the one in use (${here}), but is authentic and later: the epochs ` +
        `of the daemon ran backwards. It is taken if ${LOOKS} looks in a row find one, which takes about a minute; nothing has to be done`,
      true,
    );
  }
}

/** The looks in a row that found a later snapshot of a lower order. */
export interface LaterLooks {
  readonly count: number;
  readonly at: number;
}

/** Counts one more look at `now`, if it is far enough from the one before. */
export function counted(looks: LaterLooks | undefined, now: number): LaterLooks {
  return looks !== undefined && now - looks.at < APART_MS ? looks : { count: (looks?.count ?? 0) + 1, at: now };
}

/** Whether the later snapshot may be taken now. */
export function areEnough(looks: LaterLooks): boolean {
  return looks.count >= LOOKS;
}

function iso(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}
