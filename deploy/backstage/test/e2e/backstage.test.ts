import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import type { Health } from '../../src/health';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { SealKeys } from '../../src/seal';
import { Keys } from '../../src/snapshot/keys';
import { SnapshotReader } from '../../src/snapshot/reader';
import { Backstage } from '../support/backstage';
import { CapturingLogger } from '../support/logger';
import { Daemon, type SimulatedCluster, type SimulatedInstance, Simulation, until, Valkey } from '../support/processes';

// The tests run in order over one simulation, and each leaves it usable for the next.
const logger = new CapturingLogger();
let simulation: Simulation;
let valkey: Valkey;
let daemon: Daemon;
let backstage: Backstage;
let alpha: SimulatedInstance;
let paletteSync: Record<string, unknown>;

function nameOf(cluster: { name: string }): string {
  return `alpha-${cluster.name}`;
}

async function withRedis<T>(use: (redis: RedisConnection) => Promise<T>): Promise<T> {
  const redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
  try {
    return await use(redis);
  } finally {
    await redis.close();
  }
}

async function health(): Promise<Health> {
  return (await backstage.health<Health>()).body;
}

function accounts(): SimulatedCluster[] {
  return alpha.clusters.filter(({ oidc }) => !oidc);
}

async function startDaemon(): Promise<Daemon> {
  return Daemon.start(simulation.config, {
    PALETTE_SYNC_REDIS__URL: valkey.url,
    PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL: '1s',
    PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL: '1h',
  });
}

/** Kills the daemon and deletes its lease, for which the next daemon would otherwise wait. */
async function killDaemon(): Promise<void> {
  await daemon.kill();
  await withRedis(redis => redis.command(['DEL', '{palette-sync:alpha}:lease']));
}

before(async () => {
  [simulation, valkey] = await Promise.all([
    Simulation.start({ instances: 1, projects: 2, clusters: 9 }),
    Valkey.start(),
  ]);
  [alpha] = (await simulation.instances()) as [SimulatedInstance];
  daemon = await startDaemon();
  // Clusters in OIDC mode have tests of their own, in page.test.ts.
  paletteSync = { redis: { url: valkey.url }, sealKeysFile: simulation.sealKeysFile, oidcTokenProviders: [] };
  backstage = await Backstage.start({ paletteSync, logger });
});

after(async () => {
  await backstage?.stop();
  await daemon?.stop();
  await simulation?.stop();
  await valkey?.stop();
});

test('the clusters of Palette appear in Backstage by themselves', async () => {
  assert(accounts().length >= 4 && accounts().length < alpha.clusters.length);

  const shown = await until('all clusters with a service account', async () => {
    const names = await backstage.clusters();
    return names.length === accounts().length && names;
  });

  assert.deepEqual(shown, accounts().map(nameOf).sort());
  // The pass that is running must not see what the next tests do to clusters.
  await until('the end of the first pass', () => daemon.passes.length > 0);
});

test('TLS is verified: a cluster whose CA is another one now gives an error, and the others their pods', async () => {
  const [one] = accounts();
  await simulation.ask('POST', `/clusters/${one!.uid}/renew-authority`);

  const items = await backstage.workloads();
  assert.equal(items.length, accounts().length);
  const itself = items.find(({ cluster }) => cluster.name === nameOf(one!));
  assert.deepEqual(
    itself?.errors.map(({ errorType }) => errorType),
    ['FETCH_ERROR'],
  );
  assert(items.every(item => item === itself || item.pods.length === 2));
  const headers = { 'Backstage-Kubernetes-Cluster': nameOf(one!) };
  const proxied = await backstage.request('GET', '/api/kubernetes/proxy/version', { headers });
  assert.equal(proxied.status, 500);

  await daemon.verifyAll(alpha.clusters.length); // fetches the kubeconfig again, which names the new CA
  await until('its pods', async () => {
    const found = (await backstage.workloads()).find(({ cluster }) => cluster.name === nameOf(one!));
    return found?.errors.length === 0 && found.pods.length === 2;
  });
});

test('the Kubernetes page lists pods of every cluster, over verified TLS, and withholds those in OIDC mode', async () => {
  const items = await backstage.workloads();

  assert.deepEqual(
    items.map(({ cluster }) => cluster.name),
    accounts().map(nameOf).sort(),
  );
  for (const { pods, errors } of items) {
    assert.equal(pods.length, 2);
    assert.match(pods.join(), /^cart-/);
    assert.deepEqual(errors, []);
  }
  // Nothing above waited for those, so the daemon may still be working on them.
  const others = alpha.clusters.length - accounts().length;
  await until('all others', async () => {
    const { withheld } = (await health()).instances[0]!;
    return withheld['OidcProviderNotConfigured'] === others;
  });
});

test('the proxy reaches a cluster with the token, over verified TLS', async () => {
  const [one] = accounts();
  const headers = { 'Backstage-Kubernetes-Cluster': nameOf(one!) };

  const { items } = await backstage.json<{ items: { metadata: { name: string } }[] }>(
    'GET',
    '/api/kubernetes/proxy/api/v1/namespaces/shop/pods',
    undefined,
    headers,
  );

  assert.equal(items.length, 4);
});

test('a rotated token is used without a restart', async () => {
  const [, one] = accounts();
  const before = await tokenFor(one!);
  await simulation.ask('POST', `/clusters/${one!.uid}/revoke-tokens`);
  const refused = (await backstage.workloads()).find(({ cluster }) => cluster.name === nameOf(one!));
  assert.deepEqual(
    refused?.errors.map(({ statusCode }) => statusCode),
    [401],
  );

  await daemon.verifyAll(alpha.clusters.length);
  await until('its pods', async () => {
    const found = (await backstage.workloads()).find(({ cluster }) => cluster.name === nameOf(one!));
    return found?.errors.length === 0 && found.pods.length === 2;
  });

  assert.notEqual(await tokenFor(one!), before);
});

/** The opened token from Redis, which must never be in a log. */
async function tokenFor(cluster: SimulatedCluster): Promise<string> {
  const sealer = SealKeys.fromLines(readFileSync(simulation.sealKeysFile, 'utf8'));
  const reader = new SnapshotReader(new Keys('palette-sync'), sealer);
  const { snapshot } = await withRedis(redis => reader.read(redis, 'alpha', undefined));
  const token = snapshot.entries.get(cluster.uid)?.credential?.token;
  assert(token);
  return token;
}

test('a new cluster appears and a removed one goes, without a restart', async () => {
  const project = alpha.projects[0]!.uid;
  const { uid } = await simulation.ask<{ uid: string }>('POST', '/clusters', {
    instance: 'alpha',
    project,
    name: 'brand-new',
  });
  await until('the new cluster', async () => (await backstage.clusters()).includes('alpha-brand-new'));
  const items = await backstage.workloads();
  assert.equal(items.find(({ cluster }) => cluster.name === 'alpha-brand-new')?.pods.length, 2);

  await simulation.ask('DELETE', `/clusters/${uid}`);
  await until('its end', async () => !(await backstage.clusters()).includes('alpha-brand-new'));
});

test('a cluster that cannot be reached is withheld once the daemon knows, so that no page hangs on it', async () => {
  const project = alpha.projects[0]!.uid;
  const { uid } = await simulation.ask<{ uid: string }>('POST', '/clusters', {
    instance: 'alpha',
    project,
    name: 'dead',
  });
  await until('the cluster', async () => (await backstage.clusters()).includes('alpha-dead'));
  await simulation.ask('POST', `/clusters/${uid}/shut`);
  await daemon.verifyAll(alpha.clusters.length);

  await until('its absence', async () => !(await backstage.clusters()).includes('alpha-dead'));

  const withheld = (await health()).withheld.find(({ cluster }) => cluster === 'alpha-dead');
  assert.equal(withheld?.reason, 'Unreachable');
  await simulation.ask('DELETE', `/clusters/${uid}`);
});

test('the health route', async () => {
  const { status, body } = await backstage.health<Health>();
  assert.equal(status, 200);
  assert.equal(body.status, 'ok');
  assert.equal(body.redis?.connected, true);
  assert.equal(body.instances[0]?.served, accounts().length);
  for (const canary of [valkey.url, ...accounts().map(({ url }) => url)]) {
    assert(!JSON.stringify(body).includes(canary));
  }

  const anonymous = await backstage.request('GET', '/api/kubernetes/palette-sync/health', {
    headers: { authorization: '' },
  });
  assert.equal(anonymous.status, 401);
});

test('the health route answers only who may read the list of clusters', async context => {
  const closed = await Backstage.start({ paletteSync, permission: 'DENY' });
  context.after(() => closed.stop());

  assert.equal((await closed.health()).status, 403);
});

test('with the daemon gone everything stays', async () => {
  await killDaemon();

  assert.equal((await backstage.workloads()).length, accounts().length);
});

test('a record changed by someone without the key never gets the token', async context => {
  const [one] = accounts();
  const keys = new Keys('palette-sync');
  const seen: string[] = [];
  const thief = createServer((request, response) => {
    seen.push(request.headers.authorization ?? 'nothing');
    response.end('{}');
  }).listen(0, '127.0.0.1');
  context.after(() => thief.close());
  await once(thief, 'listening');
  const port = (thief.address() as { port: number }).port;
  const original = String(await withRedis(redis => redis.command(['HGET', keys.clusters('alpha'), one!.uid])));
  const record = JSON.parse(original) as { server: { url: string } };
  record.server.url = `http://127.0.0.1:${port}`;
  await withRedis(async redis => {
    await redis.command(['HSET', keys.clusters('alpha'), one!.uid, JSON.stringify(record)]);
    const version = Number(await redis.command(['HGET', keys.head('alpha'), 'version'])) + 1;
    // Someone who can write can also trigger a read: a new version without a valid mac.
    await redis.command(['HSET', keys.head('alpha'), 'version', String(version)]);
    await redis.command([
      ...[
        'XADD',
        keys.changes('alpha'),
        `${version}-0`,
        'epoch',
        String(await redis.command(['HGET', keys.head('alpha'), 'epoch'])),
      ],
      ...['put', JSON.stringify([one!.uid]), 'drop', '[]', 'rotated', '[]', 'digest', '', 'mac', '', 'at', ''],
    ]);
  });
  await until('the refusal', async () => (await health()).instances[0]?.refused?.reason === 'Digest');

  const items = await backstage.workloads();
  assert.equal(items.find(({ cluster }) => cluster.name === nameOf(one!))?.pods.length, 2);
  assert.equal(items.length, accounts().length);

  // A Backstage that starts now has no earlier snapshot, so it shows no cluster at all.
  const fresh = await Backstage.start({ paletteSync });
  context.after(() => fresh.stop());
  await until('its refusal', async () => (await fresh.health<Health>()).body.instances[0]?.refused !== undefined);
  assert.deepEqual(await fresh.clusters(), []);
  assert.equal((await fresh.health()).status, 503);
  assert.deepEqual(seen, []);

  // The daemon repairs it: its next version is valid.
  daemon = await startDaemon();
  await until('the repaired snapshot', async () => {
    const { refused, complete, served } = (await health()).instances[0]!;
    return refused === undefined && complete && served === accounts().length;
  });
  await until(
    'all clusters',
    async () => (await backstage.workloads()).filter(({ pods }) => pods.length === 2).length === accounts().length,
  );
});

test('a token moved to another cluster is noticed, and nothing of that snapshot is used', async context => {
  await killDaemon();
  const [one, two] = accounts();
  const credentials = new Keys('palette-sync').credentials('alpha');
  await withRedis(async redis => {
    const moved = String(await redis.command(['HGET', credentials, one!.uid]));
    await redis.command(['HSET', credentials, two!.uid, moved]);
  });

  const fresh = await Backstage.start({ paletteSync });
  context.after(() => fresh.stop());
  await until(
    'the refusal',
    async () => (await fresh.health<Health>()).body.instances[0]?.refused?.reason === 'CredentialsDigest',
  );
  assert.deepEqual(await fresh.clusters(), []);
});

test('an unknown schema number: the last snapshot stays', async () => {
  const head = new Keys('palette-sync').head('alpha');
  await withRedis(async redis => {
    await redis.command(['HSET', head, 'schema', '2']);
    await redis.command(['HINCRBY', head, 'version', '1']);
  });
  await until('the refusal', async () => (await health()).instances[0]?.refused?.reason === 'Schema');

  assert.equal((await backstage.workloads()).length, accounts().length);
  assert.equal((await health()).status, 'degraded');
});

test('Redis killed: the last snapshot stays; after its restart new snapshots are read', async context => {
  await valkey.kill();
  await until('the loss', async () => (await health()).redis?.connected === false);
  assert.equal((await backstage.workloads()).filter(({ pods }) => pods.length === 2).length, accounts().length);

  // A Backstage that starts now shows its other clusters, and ours when Redis is back.
  const booted = await Backstage.start({
    paletteSync,
    kubernetes: {
      serviceLocatorMethod: { type: 'multiTenant' },
      clusterLocatorMethods: [
        {
          type: 'config',
          clusters: [
            { name: 'static', url: 'https://static.example', authProvider: 'serviceAccount', serviceAccountToken: 'x' },
          ],
        },
      ],
    },
  });
  context.after(() => booted.stop());
  assert.deepEqual(await booted.clusters(), ['static']);

  await valkey.restart();
  await withRedis(redis => redis.command(['FLUSHALL']));
  daemon = await startDaemon();
  await until('all clusters', async () => (await booted.clusters()).length === accounts().length + 1);
  await until('the new snapshot', async () => (await health()).status === 'ok');
});

test('no secret is in any log line', async () => {
  const tokens = await Promise.all(accounts().map(tokenFor));
  const key = readFileSync(simulation.sealKeysFile, 'utf8').trim().split(/\s+/)[1] ?? '';
  assert(key.length > 40 && tokens.every(token => token.length > 100));
  assert(logger.lines.length > 20);
  // The mock of the auth service quotes unknown tokens in errors; Backstage's own service does not.
  const lines = logger.lines.filter(line => !line.includes('Unknown mock token'));

  for (const canary of [key, ...tokens, 'serviceAccountToken', 'eyJ']) {
    const line = lines.find(one => one.includes(canary));
    assert(!line, `a log line holds ${canary.slice(0, 8)}...: ${line?.slice(0, 120)}`);
  }
});
