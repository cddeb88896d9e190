import { Directory } from '../../src/directory';
import type { Policy } from '../../src/mapping';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { type Sealer, SealKeys } from '../../src/seal';
import { ClusterTail } from '../../src/snapshot/clusterTail';
import type { InstanceState } from '../../src/snapshot/follower';
import { Keys } from '../../src/snapshot/keys';
import { SnapshotReader } from '../../src/snapshot/reader';
import { SnapshotTail, type Following as Tail } from '../../src/snapshot/tail';
import { CapturingLogger } from './logger';
import { SEAL_LINE } from './published';

export const SERVE_ALL: Policy = {
  chosen: () => true,
  underMaintenance: () => false,
  servesOidc: () => false,
  withholdUnreachable: true,
  dashboard: { links: true },
};

/** A tail that updates a directory, as in the module. */
export class Following {
  readonly logger = new CapturingLogger();
  readonly directory = new Directory(SERVE_ALL);
  readonly tail: Tail;
  /** How many rounds the tail has made. */
  looks = 0;

  constructor(
    url: string,
    prefix: string,
    { sealer = SealKeys.fromLines(SEAL_LINE), instances }: { sealer?: Sealer; instances?: string[] } = {},
  ) {
    const keys = new Keys(prefix);
    const Kind = parseRedisUrl(url).cluster ? ClusterTail : SnapshotTail;
    this.tail = new Kind({
      connect: () => RedisConnection.open(parseRedisUrl(url), {}),
      reader: new SnapshotReader(keys, sealer),
      keys,
      ...(instances && { instances }),
      logger: this.logger,
      onChange: async ({ name, snapshot }) => {
        if (snapshot !== undefined) {
          await this.directory.update(name, snapshot);
        }
      },
      onRound: () => {
        this.looks += 1;
      },
    });
    this.tail.start();
  }

  state(instance = 'alpha'): InstanceState | undefined {
    return this.tail.instances.find(one => one.name === instance);
  }

  version(instance = 'alpha'): number | undefined {
    return this.state(instance)?.snapshot?.head.version;
  }

  names(): string[] {
    return this.directory
      .clusters(Date.now())
      .map(({ name }) => name)
      .sort();
  }

  token(name: string): string | undefined {
    return this.directory.clusters(Date.now()).find(one => one.name === name)?.authMetadata['serviceAccountToken'];
  }
}
