import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import {
  DefaultNamespaceEntityPolicy,
  type Entity,
  FieldFormatEntityPolicy,
  makeValidator,
  resourceEntityV1alpha1Validator,
} from '@backstage/catalog-model';
import { entitiesOf } from '../../src/catalog/entities';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { SealKeys } from '../../src/seal';
import { Keys } from '../../src/snapshot/keys';
import { SnapshotReader } from '../../src/snapshot/reader';
import type { Entry, Snapshot } from '../../src/snapshot/snapshot';
import { Valkey } from '../support/processes';
import { randomPrefix, SEAL_LINE } from '../support/published';
import { REPOSITORY, VENV_BIN } from '../support/repository';

/** What a reader must find, according to the daemon's own writer. */
interface Published {
  readonly version: number;
  readonly clusters: Record<string, unknown>[];
}

let valkey: Valkey;
let redis: RedisConnection;

before(async () => {
  valkey = await Valkey.start();
  redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
});

after(async () => {
  await redis?.close();
  await valkey?.stop();
});

/** Versions with unusual records, published by the daemon's own writer. */
async function* published(prefix: string, seed: number, records: number, versions: number): AsyncGenerator<Published> {
  const script = join(REPOSITORY, 'tests', 'contract', 'publish_odd_records.py');
  const args = [script, valkey.url, prefix, SEAL_LINE, ...[seed, records, versions].map(String)];
  const writer = spawn(join(VENV_BIN, 'python'), args, { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    for await (const line of createInterface({ input: writer.stdout })) {
      yield JSON.parse(line) as Published;
      writer.stdin.write('\n');
    }
  } finally {
    writer.kill();
  }
}

function seen({ record, credential, unreadable }: Entry): Record<string, unknown> {
  assert(record, unreadable);
  const { project, server, auth, palette, access } = record;
  return {
    uid: record.uid,
    name: record.name,
    title: record.title,
    instance: record.instance,
    scope: record.scope,
    project: project ? [project.uid, project.name] : null,
    server: server ? [server.url, server.caData ?? null, server.tlsServerName ?? null] : null,
    auth: auth ? [auth.provider, ...(auth.provider === 'oidc' ? [auth.tokenProvider] : [])] : null,
    palette: [palette.state, palette.health, palette.cloudType, palette.tags],
    access: [access.state, access.reason, access.message],
    kubernetes_version: record.kubernetesVersion ?? null,
    skip_metrics_lookup: record.skipMetricsLookup,
    dashboard_url: record.dashboardUrl ?? null,
    token: credential?.token ?? null,
    expires_at: credential?.expiresAt ?? null,
  };
}

async function assertAccepted(entity: Entity): Promise<void> {
  assert.equal(await resourceEntityV1alpha1Validator.check(entity), true);
  const policy = new FieldFormatEntityPolicy(makeValidator());
  await policy.enforce((await new DefaultNamespaceEntityPolicy().enforce(entity)) as Entity);
}

function byUid(clusters: Record<string, unknown>[]): Map<unknown, Record<string, unknown>> {
  return new Map(clusters.map(one => [one['uid'], one]));
}

describe("what the daemon's writer publishes, however odd, is read as it was meant", () => {
  for (const seed of [1, 2, 3]) {
    test(`field by field, by changes and as a whole (seed ${seed})`, async () => {
      const prefix = randomPrefix();
      const reader = new SnapshotReader(new Keys(prefix), SealKeys.fromLines(SEAL_LINE));
      let held: Snapshot | undefined;
      let count = 0;
      for await (const { version, clusters } of published(prefix, seed, 120, 6)) {
        const next = await reader.read(redis, 'alpha', held);
        const all = await reader.read(redis, 'alpha', undefined);

        assert.equal(next.whole, held === undefined);
        for (const { snapshot } of [next, all]) {
          assert.equal(snapshot.head.version, version);
          assert.deepEqual(byUid([...snapshot.entries.values()].map(seen)), byUid(clusters));
        }
        held = next.snapshot;
        count += 1;
      }
      assert.equal(count, 6);
    });
  }

  test('ten thousand at once, and their entities are valid in the catalog', async () => {
    const prefix = randomPrefix();
    const reader = new SnapshotReader(new Keys(prefix), SealKeys.fromLines(SEAL_LINE));
    let count = 0;
    for await (const { version, clusters } of published(prefix, 4, 10_000, 1)) {
      count += clusters.length;
      const { snapshot } = await reader.read(redis, 'alpha', undefined);

      assert.equal(snapshot.head.version, version);
      assert.deepEqual(byUid([...snapshot.entries.values()].map(seen)), byUid(clusters));
      // The daemon cleans names only; all other texts arrive as people wrote them in Palette.
      const records = [...snapshot.entries.values()].flatMap(({ record }, at) =>
        record ? [{ ...record, name: `alpha-${at}`, dashboardUrl: `https://${record.title}` }] : [],
      );
      for (const projectAs of ['tag', 'both'] as const) {
        const settings = {
          ...{ namespace: 'default', type: 'kubernetes-cluster', annotationPrefix: 'palette-sync' },
          ...{ ownerTag: 'a', defaultOwner: 'group:default/unknown', projectAs },
        };
        const { entities, duplicates } = entitiesOf(records, settings);
        assert.deepEqual([entities.length, duplicates.length], [10_000, 0]);
        for (const entity of entities) {
          await assertAccepted(entity);
        }
      }
    }
    assert.equal(count, 10_000);
  });
});
