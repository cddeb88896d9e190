import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { type BackendFeature, coreServices, createServiceFactory } from '@backstage/backend-plugin-api';
import { mockServices } from '@backstage/backend-test-utils';
import {
  catalogProcessingExtensionPoint,
  type EntityProvider,
  type EntityProviderMutation,
} from '@backstage/plugin-catalog-node';
import type { JsonObject } from '@backstage/types';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { installed, NO_HTTP_SERVER, PACKAGES, startedBackend } from '../support/backstage';
import { CapturingLogger } from '../support/logger';
import { until, Valkey } from '../support/processes';
import { cluster, Publisher, randomPrefix, SEAL_LINE } from '../support/published';

let valkey: Valkey;
let redis: RedisConnection;
const running: (() => Promise<void>)[] = [];

before(async () => {
  valkey = await Valkey.start();
  redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
});

afterEach(async () => {
  await Promise.all(running.splice(0).map(stop => stop()));
});

after(async () => {
  await redis?.close();
  await valkey?.stop();
});

/** A catalog that keeps what it is given. */
class Catalog {
  readonly mutations: EntityProviderMutation[] = [];
  readonly logger = new CapturingLogger();
  failures = 0;

  static async start(
    prefix: string,
    settings: Record<string, unknown> = {},
    options: { failures?: number; catalog?: unknown; from?: string; features?: BackendFeature[] } = {},
  ): Promise<Catalog> {
    const catalog = new Catalog();
    catalog.failures = options.failures ?? 0;
    const providers = { paletteSync: options.catalog ?? {} };
    const paletteSync = { redis: { url: valkey.url, prefix }, sealKeys: SEAL_LINE, ...settings };
    const backend = await startedBackend({
      extensionPoints: [
        [
          catalogProcessingExtensionPoint,
          {
            addEntityProvider: (provider: EntityProvider) =>
              void provider.connect({
                applyMutation: async mutation => {
                  if (catalog.failures > 0) {
                    catalog.failures -= 1;
                    throw new Error('database is locked');
                  }
                  catalog.mutations.push(mutation);
                },
                refresh: async () => {},
              }),
          } as never,
        ],
      ],
      features: [
        installed(options.from ?? PACKAGES.catalog),
        ...(options.features ?? []),
        mockServices.rootConfig.factory({ data: { paletteSync, catalog: { providers } } as JsonObject }),
        createServiceFactory({ service: coreServices.rootLogger, deps: {}, factory: () => catalog.logger }),
      ],
    });
    running.push(() => backend.stop());
    return catalog;
  }

  get last(): string[] {
    const mutation = this.mutations.at(-1);
    const entities = mutation?.type === 'full' ? mutation.entities : (mutation?.added ?? []);
    return entities.map(({ entity }) => entity.metadata.name).sort();
  }
}

const [ONE, TWO, THREE] = [
  cluster(1),
  cluster(2, { access: { state: 'failed', reason: 'Forbidden', message: '', since: '2027-01-15T07:00:00Z' } }),
  cluster(3),
];

test('all clusters become Resources, in one full mutation, and follow the snapshots', async () => {
  const prefix = randomPrefix();
  const daemon = new Publisher(redis, 'alpha', prefix);
  await daemon.publish({ put: [ONE, TWO] });
  const catalog = await Catalog.start(prefix);
  await until('the entities', () => catalog.last.length === 2);
  assert.equal(catalog.mutations[0]?.type, 'full');

  await daemon.publish({ put: [THREE], drop: [ONE.uid] });
  await until('the next ones', () => catalog.last.includes('alpha-3'));

  assert.deepEqual(catalog.last, ['alpha-2', 'alpha-3']);
  assert.equal(catalog.mutations.length, 2);
});

test('while a snapshot is not complete, entities are only added', async () => {
  const prefix = randomPrefix();
  const daemon = new Publisher(redis, 'alpha', prefix);
  await daemon.publish({ put: [ONE], complete: false });
  const catalog = await Catalog.start(prefix);
  await until('the first entity', () => catalog.last.length === 1);
  assert.equal(catalog.mutations[0]?.type, 'delta');

  await daemon.publish({ put: [TWO], complete: true });
  await until('the full mutation', () => catalog.mutations.at(-1)?.type === 'full');

  assert.deepEqual(catalog.last, ['alpha-1', 'alpha-2']);
});

test('an instance that cannot be believed removes nothing of any instance', async () => {
  const prefix = randomPrefix();
  await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE] });
  await new Publisher(redis, 'bravo', prefix).publish({ put: [cluster(2, { name: 'bravo-2' })] });
  await redis.command(['HSET', `{${prefix}:bravo}:clusters`, cluster(2).uid, '{}']);
  const catalog = await Catalog.start(prefix);

  await until('the entity', () => catalog.last.length === 1);
  await until('the refusal', () => catalog.logger.count(/bravo: the snapshot in Redis is refused/) === 1);

  assert(catalog.mutations.every(({ type }) => type === 'delta'));
});

test('a record that cannot be read removes nothing, and the others are added', async () => {
  const prefix = randomPrefix();
  const daemon = new Publisher(redis, 'alpha', prefix);
  await daemon.publish({ put: [ONE, TWO] });
  const catalog = await Catalog.start(prefix);
  await until('the entities', () => catalog.last.length === 2);

  const newer = { state: 'ready-in-a-way-to-come', reason: '', message: '', since: '2027-01-15T07:00:00Z' };
  await daemon.publish({ put: [cluster(2, { access: newer }), THREE] });
  await until('the next one', () => catalog.last.includes('alpha-3'));
  assert.equal(catalog.mutations.at(-1)?.type, 'delta');

  await daemon.publish({ drop: [TWO.uid] });
  await until('the full mutation', () => catalog.mutations.at(-1)?.type === 'full');
  assert.deepEqual(catalog.last, ['alpha-1', 'alpha-3']);
});

test('a token that changes does not change the catalog', async () => {
  const prefix = randomPrefix();
  const daemon = new Publisher(redis, 'alpha', prefix);
  await daemon.publish({ put: [ONE], tokens: { [ONE.uid]: 'canary-token-1' } });
  const catalog = await Catalog.start(prefix);
  await until('the entity', () => catalog.last.length === 1);

  await daemon.publish({ tokens: { [ONE.uid]: 'canary-token-2' } });
  await daemon.publish({ put: [THREE] });
  await until('the next one', () => catalog.last.includes('alpha-3'));

  assert.equal(catalog.mutations.length, 2);
  assert(!JSON.stringify(catalog.mutations).includes('canary'));
});

test('a catalog that fails gets the entities again, and one line is logged', async () => {
  const prefix = randomPrefix();
  await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE] });
  const catalog = await Catalog.start(prefix, {}, { failures: 2 });

  await until('the entity', () => catalog.last.length === 1);

  assert.equal(catalog.failures, 0);
  assert.equal(catalog.logger.count(/the catalog did not accept the clusters: Error: database is locked/), 1);
});

test('a Redis user that may not read credentials is enough: they are never requested', async () => {
  const prefix = randomPrefix();
  const daemon = new Publisher(redis, 'alpha', prefix);
  await daemon.publish({ put: [ONE], tokens: { [ONE.uid]: 'canary-token' } });
  const keys = ['head', 'clusters', 'changes'].map(key => `~{${prefix}:alpha}:${key}`);
  const commands = [
    ...['smembers', 'scard', 'hgetall', 'hmget', 'hlen', 'hstrlen', 'xread', 'memory|usage'],
    ...['multi', 'exec', 'ping', 'select'],
  ].map(name => `+${name}`);
  await redis.command([
    'ACL',
    'SETUSER',
    prefix,
    'on',
    '>pw',
    'resetkeys',
    `~${prefix}:instances`,
    ...keys,
    ...commands,
  ]);
  const url = valkey.url.replace('redis://', `redis://${prefix}:pw@`);
  const catalog = await Catalog.start(prefix, { redis: { url, prefix } });
  await until('the entity', () => catalog.last.length === 1);

  await daemon.publish({ put: [THREE], tokens: { [THREE.uid]: 'canary-token-3' } });
  await until('the next one', () => catalog.last.includes('alpha-3'));

  const denied = (await redis.command(['ACL', 'LOG'])) as unknown[];
  assert.deepEqual(denied, []);
});

test('the filter and the settings under catalog.providers hold here too', async () => {
  const prefix = randomPrefix();
  await new Publisher(redis, 'alpha', prefix).publish({
    put: [ONE, cluster(2, { project: { uid: 'p2', name: 'Other' } })],
  });
  const settings = { filter: { excludeProjects: ['Other'] } };
  const catalog = await Catalog.start(prefix, settings, { catalog: { projectAs: 'system', namespace: 'clusters' } });
  await until('the entity', () => catalog.last.length === 1);

  const mutation = catalog.mutations[0];
  assert(mutation?.type === 'full');
  assert.equal(mutation.entities[0]?.entity.metadata.namespace, 'clusters');
  assert.deepEqual(mutation.entities[0]?.entity.spec, {
    type: 'kubernetes-cluster',
    owner: 'group:default/team-web',
    system: 'system:default/Shop',
  });
});

test('the former export of the Kubernetes package is the same module', async () => {
  const prefix = randomPrefix();
  await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE] });

  const catalog = await Catalog.start(prefix, {}, { from: `${PACKAGES.kubernetes}/catalog` });

  await until('the entity', () => catalog.last.length === 1);
});

test('an invalid configuration fails the start of the backend; the error names the keys and holds no secret', async () => {
  const wrong = { sealKeys: 'k1 canary-key' };
  const options = { catalog: { typo: 1 }, features: [NO_HTTP_SERVER] };
  await assert.rejects(Catalog.start(randomPrefix(), wrong, options), (error: unknown) => {
    const text = String((error as Error).stack) + String((error as { cause?: unknown }).cause);
    assert.match(text, /palette-sync: the configuration is invalid: .*paletteSync\.sealKeys: line 1/);
    assert.match(text, /catalog\.providers\.paletteSync\.typo: is not known/);
    assert(!text.includes('canary'));
    return true;
  });
});
