import { sha256 } from './macs';

/**
 * The lines `uid TAB hash` of a digest, sorted by uid. Immutable. A change makes new lines from them, so that one changed
 * cluster does not cost sorting all of them again. All uids are ASCII, so this is the order by bytes.
 */
export class Lines {
  private constructor(
    private readonly uids: readonly string[],
    private readonly lines: readonly string[],
  ) {}

  static of(hashes: Iterable<readonly [uid: string, hash: string]>): Lines {
    const sorted = [...hashes].sort(([one], [other]) => (one < other ? -1 : 1));
    return new Lines(
      sorted.map(([uid]) => uid),
      sorted.map(([uid, hash]) => lineOf(uid, hash)),
    );
  }

  get size(): number {
    return this.uids.length;
  }

  /** Hex SHA-256 of the lines, joined by line feeds. */
  digest(): string {
    return sha256(this.lines.join('\n'));
  }

  /** The lines with other hashes for some uids; undefined removes the line. */
  with(changes: Iterable<readonly [uid: string, hash: string | undefined]>): Lines {
    const uids = [...this.uids];
    const lines = [...this.lines];
    for (const [uid, hash] of changes) {
      const at = placeOf(uids, uid);
      const known = uids[at] === uid ? 1 : 0;
      if (hash === undefined) {
        uids.splice(at, known);
        lines.splice(at, known);
      } else {
        uids.splice(at, known, uid);
        lines.splice(at, known, lineOf(uid, hash));
      }
    }
    return new Lines(uids, lines);
  }

  /** The first uid that `others` does not have, or undefined. */
  firstNotIn(others: Lines): string | undefined {
    let at = 0;
    for (const uid of this.uids) {
      while ((others.uids[at] ?? uid) < uid) {
        at += 1;
      }
      if (others.uids[at] !== uid) {
        return uid;
      }
    }
    return undefined;
  }
}

function lineOf(uid: string, hash: string): string {
  return `${uid}\t${hash}`;
}

/** Where `uid` is in the sorted `uids`, or would be inserted. */
function placeOf(uids: readonly string[], uid: string): number {
  let [low, high] = [0, uids.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((uids[middle] ?? '') < uid) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
