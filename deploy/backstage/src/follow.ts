import type { LoggerService } from '@backstage/backend-plugin-api';
import type { Settings } from './config';
import { RedisConnection, RedisUnavailable } from './redis/connection';
import { ClusterTail } from './snapshot/clusterTail';
import type { InstanceState } from './snapshot/follower';
import { Keys } from './snapshot/keys';
import { SnapshotReader } from './snapshot/reader';
import { type Following, SnapshotTail } from './snapshot/tail';

/**
 * Builds the follower of the snapshots that `settings` describe, not started yet. Each module has its own. With
 * `credentials: false` it reads the records of clusters only and never asks Redis for their credentials.
 */
export function follow(
  settings: Settings,
  logger: LoggerService,
  onChange: (state: InstanceState) => Promise<void>,
  onRound?: () => void,
  { credentials = true }: { credentials?: boolean } = {},
): Following {
  const keys = new Keys(settings.prefix);
  // Fixed at the start, also if a file holds the URL.
  const Tail = address(settings).cluster ? ClusterTail : SnapshotTail;
  return new Tail({
    connect: () => RedisConnection.open(address(settings), settings.redisTls),
    reader: new SnapshotReader(keys, settings.sealer, { credentials }),
    keys,
    ...(settings.instances && { instances: settings.instances }),
    logger,
    onChange,
    ...(onRound && { onRound }),
  });
}

function address(settings: Settings): ReturnType<Settings['redisAddress']> {
  try {
    return settings.redisAddress();
  } catch {
    throw new RedisUnavailable('paletteSync.redis.urlFile cannot be read, or no longer holds a URL of Redis');
  }
}
