import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { mockCredentials } from '@backstage/backend-test-utils';
import type { CatalogService } from '@backstage/plugin-catalog-node';
import type { Health } from '../../src/health';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { Keys } from '../../src/snapshot/keys';
import { Backstage, type ClusterPods, component } from '../support/backstage';
import { Daemon, type SimulatedCluster, type SimulatedInstance, Simulation, until, Valkey } from '../support/processes';

// What a user's page shows, with the module's defaults, over simulated clusters of which some are in OIDC mode.
let simulation: Simulation;
let valkey: Valkey;
let daemon: Daemon;
let alpha: SimulatedInstance;
let accounts: SimulatedCluster[];
let oidc: SimulatedCluster[];
let paletteSync: Record<string, unknown>;

function nameOf(cluster: { name: string } | undefined): string {
  return `alpha-${cluster?.name}`;
}

before(async () => {
  [simulation, valkey] = await Promise.all([
    Simulation.start({ instances: 1, projects: 2, clusters: 9 }),
    Valkey.start(),
  ]);
  [alpha] = (await simulation.instances()) as [SimulatedInstance];
  accounts = alpha.clusters.filter(one => !one.oidc);
  oidc = alpha.clusters.filter(one => one.oidc);
  daemon = await Daemon.start(simulation.config, {
    PALETTE_SYNC_REDIS__URL: valkey.url,
    PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL: '1h',
  });
  // Healthy clusters have time to answer on a busy machine; tests of the deadline set a shorter one.
  paletteSync = { redis: { url: valkey.url }, sealKeysFile: simulation.sealKeysFile, clusterTimeout: '2m' };
});

const running: Backstage[] = [];

/** A Backstage that knows all clusters. */
async function start(options: Parameters<typeof Backstage.start>[0] = {}): Promise<Backstage> {
  const backstage = await Backstage.start({ paletteSync, ...options });
  running.push(backstage);
  await until('all clusters', async () => {
    const served = (await backstage.health<Health>()).body.instances[0]?.served;
    return served === alpha.clusters.length;
  });
  return backstage;
}

afterEach(async () => {
  await Promise.all(running.splice(0).map(one => one.stop()));
});

after(async () => {
  await daemon?.stop();
  await simulation?.stop();
  await valkey?.stop();
});

function withPods(items: readonly ClusterPods[]): string[] {
  return items
    .filter(({ pods, errors }) => pods.length === 2 && errors.length === 0)
    .map(({ cluster }) => cluster.name);
}

/** A token of a user, of the issuer and for the client that the daemon published, unless `changes` say otherwise. */
async function tokenFor(cluster: SimulatedCluster | undefined, changes: Record<string, unknown> = {}): Promise<string> {
  const redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
  const record = await redis.command(['HGET', new Keys('palette-sync').clusters('alpha'), cluster?.uid ?? '']);
  await redis.close();
  const { auth } = JSON.parse(String(record)) as { auth: { issuer_url: string; client_id: string } };
  const claims = { iss: auth.issuer_url, aud: auth.client_id, ...changes };
  const body = { name: 'jo', groups: ['system:masters'], claims };
  return (await simulation.ask<{ token: string }>('POST', `/clusters/${cluster?.uid}/user-token`, body)).token;
}

async function podRequests(cluster?: SimulatedCluster): Promise<number> {
  const where = cluster ? `&cluster=${cluster.uid}` : '';
  const path = encodeURIComponent('/pods$');
  return (await simulation.ask<{ count: number }>('GET', `/requests/count?target=kube${where}&path_regex=${path}`))
    .count;
}

async function leftOut(backstage: Backstage): Promise<unknown[]> {
  const { body } = await backstage.health<Health>();
  return body.leftOut.map(({ reason, provider, caller, clusters }) => [reason, provider, caller, clusters]);
}

describe('clusters in OIDC mode beside others', () => {
  test('are listed, so that the page asks the user to log in', async () => {
    const backstage = await start();

    assert.deepEqual(await backstage.clusters(), alpha.clusters.map(nameOf).sort());
  });

  for (const [what, auth, headers, caller] of [
    ['a user without a token', {}, undefined, 'user'],
    ['a request without auth', undefined, undefined, 'user'],
    ["a service, such as the plugin's own action", {}, { authorization: mockCredentials.service.header() }, 'service'],
  ] as const) {
    test(`cost ${what} nothing: the others show their pods`, async () => {
      const backstage = await start();

      const items = await backstage.workloads(auth, 'cart', headers);

      assert.deepEqual(withPods(items), accounts.map(nameOf).sort());
      assert.equal(items.length, accounts.length);
      assert.deepEqual(await leftOut(backstage), [['NoToken', 'spectrocloud', caller, oidc.length]]);
    });
  }

  test('are left out of a query for custom resources, too', async () => {
    const backstage = await start();
    const customResources = [{ group: 'apps', apiVersion: 'v1', plural: 'deployments' }];

    const response = await backstage.request('POST', '/api/kubernetes/resources/custom/query', {
      body: { entityRef: 'component:default/cart', auth: {}, customResources },
    });

    assert.equal(response.status, 200);
    assert.equal((await leftOut(backstage)).length, 1);
  });

  test('show their pods to a user with a token of their issuer; the token is sent to no other cluster', async () => {
    const backstage = await start();
    const [mine, ...others] = oidc;
    const before = await Promise.all(others.map(podRequests));

    const items = await backstage.workloads({ oidc: { spectrocloud: await tokenFor(mine) } });

    assert.deepEqual(withPods(items), [...accounts, mine].map(nameOf).sort());
    assert.equal(items.length, accounts.length + 1);
    assert.deepEqual(await Promise.all(others.map(podRequests)), before);
    assert(others.length > 0);
    assert.deepEqual(await leftOut(backstage), [['IssuerDiffers', 'spectrocloud', 'user', others.length]]);
  });

  for (const changes of [{ iss: 'https://issuer.example' }, { aud: 'somebody-else' }]) {
    test(`are left out if the token has ${JSON.stringify(changes)}`, async () => {
      const backstage = await start();
      const before = await Promise.all(oidc.map(podRequests));

      const items = await backstage.workloads({ oidc: { spectrocloud: await tokenFor(oidc[0], changes) } });

      assert.deepEqual(withPods(items), accounts.map(nameOf).sort());
      assert.deepEqual(await Promise.all(oidc.map(podRequests)), before);
    });
  }

  test('get a token through the proxy only if it is of their issuer', async () => {
    const backstage = await start();
    const [mine, other] = oidc;
    const token = await tokenFor(mine);
    const proxied = (cluster: SimulatedCluster | undefined) =>
      backstage.request('GET', '/api/kubernetes/proxy/api/v1/namespaces/shop/pods', {
        headers: {
          'backstage-kubernetes-cluster': nameOf(cluster),
          'backstage-kubernetes-authorization-oidc-spectrocloud': token,
        },
      });
    const before = await podRequests(other);

    assert.equal((await proxied(mine)).status, 200);
    assert.equal((await proxied(other)).status, 404);
    assert.equal(await podRequests(other), before);
  });
});

describe('a cluster that hangs', () => {
  test('costs a page its deadline, twice; the others show their pods, and it is not asked again at once', async context => {
    const backstage = await start({ paletteSync: { ...paletteSync, clusterTimeout: '5s' } });
    const [hanging] = accounts;
    const fault = { target: 'kube', kind: 'hang', cluster: hanging?.uid, path: '/pods' };
    const { id } = await simulation.ask<{ id: number }>('POST', '/faults', fault);
    context.after(() => simulation.ask('DELETE', `/faults/${id}`));
    const itself = (items: ClusterPods[]) => items.find(({ cluster }) => cluster.name === nameOf(hanging));

    const first = await backstage.workloads();
    assert.match(itself(first)?.errors[0]?.message ?? '', /did not answer within 5 s/);
    assert.equal(itself(first)?.errors[0]?.errorType, 'FETCH_ERROR');
    // Others may miss their deadline on a busy machine, and then be shown with that; most do not.
    assert(withPods(first).length > 0);
    const second = await backstage.workloads();
    const asked = await podRequests(hanging);
    const third = await backstage.workloads();

    assert.match(itself(second)?.errors[0]?.message ?? '', /did not answer/);
    assert.match(itself(third)?.errors[0]?.message ?? '', /has not answered repeatedly/);
    assert.equal(await podRequests(hanging), asked);
    const { body } = await backstage.health<Health>();
    assert(body.notAnswering.some(({ cluster }) => cluster === nameOf(hanging)));
  });
});

describe('the clusters of an entity', () => {
  const entities = () => {
    const [one, two] = accounts;
    return [
      component('named', { 'backstage.io/kubernetes-cluster': `${nameOf(one)}, ${nameOf(two).slice(0, -1)}?` }),
      component('related', {}, `resource:clusters/${nameOf(two).toLowerCase()}`),
      component('of-project', { 'palette-sync.io/project': alpha.projects[0]?.name ?? '' }),
      component('elsewhere', { 'backstage.io/kubernetes-cluster': 'gone' }),
    ];
  };

  test('are those that it names, has relations to, or whose project it names; no other is asked', async () => {
    const backstage = await start({ entities: entities() });
    const [one, two] = accounts;
    const ofProject = accounts.filter(({ project }) => project === alpha.projects[0]?.uid);
    assert(ofProject.length > 0 && ofProject.length < accounts.length);
    const matching = accounts.filter(({ name }) => name.slice(0, -1) === two?.name.slice(0, -1));
    const expected: Record<string, SimulatedCluster[]> = {
      named: [...new Set([one!, ...matching])],
      related: [two!],
      'of-project': ofProject,
      elsewhere: [],
    };
    for (const [name, clusters] of Object.entries(expected)) {
      const before = await podRequests();
      assert.deepEqual(withPods(await backstage.workloads({}, name)), clusters.map(nameOf).sort(), name);
      assert.equal((await podRequests()) - before, clusters.length, name);
    }
    assert.deepEqual((await backstage.health<Health>()).body.located, {
      'cluster annotation': 2,
      relation: 1,
      'project annotation': 1,
    });
  });

  test('are all if it selects none, up to a limit that the page shows, or none', async () => {
    const limited = await start({ paletteSync: { ...paletteSync, locator: { fallbackLimit: 2 } } });
    const items = await limited.workloads();
    assert.equal(withPods(items).length, 2);
    const notice = items.find(({ cluster }) => cluster.name === 'palette-sync');
    assert.match(notice?.errors[0]?.message ?? '', /clusters were not asked.*add the annotation/);

    const none = await start({ paletteSync: { ...paletteSync, locator: { fallback: 'none' } } });
    assert.deepEqual(await none.workloads(), []);
  });
});

test('visibility: catalog: a user sees the clusters whose Resource he may read, and no other name', async () => {
  const [one] = accounts;
  const getEntities = (async (_request, { credentials }) => {
    const isUser = (credentials.principal as { type: string }).type === 'user';
    const annotations = { 'backstage.io/managed-by-location': `palette-sync:alpha/${one?.uid}` };
    return { items: isUser ? [{ apiVersion: '', kind: 'Resource', metadata: { name: 'x', annotations } }] : [] };
  }) as CatalogService['getEntities'];
  const backstage = await start({ paletteSync: { ...paletteSync, visibility: 'catalog' }, getEntities });

  assert.deepEqual(await backstage.clusters(), [nameOf(one)]);
  assert.deepEqual(withPods(await backstage.workloads()), [nameOf(one)]);
  const headers = { 'backstage-kubernetes-cluster': nameOf(accounts[1]) };
  const proxied = await backstage.request('GET', '/api/kubernetes/proxy/version', { headers });
  assert.equal(proxied.status, 404);
  const service = await backstage.workloads({}, 'cart', { authorization: mockCredentials.service.header() });
  assert.equal(withPods(service).length, accounts.length);
});
