import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { createBackendModule } from '@backstage/backend-plugin-api';
import { ConfigReader } from '@backstage/config';
import {
  kubernetesClusterSupplierExtensionPoint,
  kubernetesFetcherExtensionPoint,
  kubernetesObjectsProviderExtensionPoint,
  kubernetesServiceLocatorExtensionPoint,
} from '@backstage/plugin-kubernetes-node';
import { entityOf } from '../../src/catalog/entities';
import { readCatalogSettings } from '../../src/catalog/settings';
import type { Health } from '../../src/health';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { decodeRecord } from '../../src/snapshot/decode';
import { Backstage, component, installed, kubernetesPlugin, NO_HTTP_SERVER } from '../support/backstage';
import { CapturingLogger } from '../support/logger';
import { until, Valkey } from '../support/processes';
import { cluster, Publisher, randomPrefix, SEAL_LINE } from '../support/published';

const STATIC = {
  name: 'static',
  url: 'https://static.example',
  authProvider: 'serviceAccount',
  serviceAccountToken: 'x',
};
const LOCATOR = { serviceLocatorMethod: { type: 'multiTenant' } };
const [ONE, TWO] = [cluster(1), cluster(2)];

let valkey: Valkey;
let redis: RedisConnection;
let prefix: string;
let paletteSync: Record<string, unknown>;

before(async () => {
  valkey = await Valkey.start();
  redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
  prefix = randomPrefix();
  const tokens = { [ONE.uid]: 'canary-token-1', [TWO.uid]: 'canary-token-2' };
  await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE, TWO], tokens });
  paletteSync = { redis: { url: `${valkey.url}`, prefix }, sealKeys: SEAL_LINE };
});

/** Stopped after each test, also after a failed one: else this file would never end. */
const running: Backstage[] = [];

async function start(options: Parameters<typeof Backstage.start>[0]): Promise<Backstage> {
  const backstage = await Backstage.start(options);
  running.push(backstage);
  return backstage;
}

afterEach(async () => {
  await Promise.all(running.splice(0).map(one => one.stop()));
});

after(async () => {
  await redis?.close();
  await valkey?.stop();
});

function methods(...clusters: unknown[]): unknown {
  return { ...LOCATOR, clusterLocatorMethods: [{ type: 'config', clusters }] };
}

async function clustersIn(backstage: Backstage, count: number): Promise<string[]> {
  return until(`${count} clusters`, async () => {
    const names = await backstage.clusters();
    return names.length === count && names;
  });
}

describe('beside other clusters', () => {
  test('static clusters stay, first', async () => {
    const backstage = await start({ paletteSync, kubernetes: methods(STATIC) });

    assert.deepEqual(await clustersIn(backstage, 3), ['alpha-1', 'alpha-2', 'static']);
  });

  test('of two clusters of one name the static one stays, which is logged once and shown on the health route', async () => {
    const backstage = await start({ paletteSync, kubernetes: methods({ ...STATIC, name: 'alpha-1' }) });

    assert.deepEqual(await clustersIn(backstage, 2), ['alpha-1', 'alpha-2']);
    await backstage.clusters();
    assert.equal(backstage.logger.count(/has the name alpha-1, too/), 1);
    assert.deepEqual((await backstage.health<Health>()).body.duplicates, ['alpha-1']);
  });

  for (const [what, kubernetes] of [
    ['no clusterLocatorMethods', LOCATOR],
    [
      'a clusterLocatorMethod that Backstage does not know',
      { ...LOCATOR, clusterLocatorMethods: [{ type: 'nonsense' }] },
    ],
  ] as const) {
    test(`${what}: ours are shown, and the remedy is logged`, async () => {
      const backstage = await start({ paletteSync, kubernetes });

      assert.deepEqual(await clustersIn(backstage, 2), ['alpha-1', 'alpha-2']);
      assert.equal(
        backstage.logger.count(/kubernetes\.clusterLocatorMethods cannot be used: .*Correct it, or write/),
        1,
      );
    });
  }

  test('no serviceLocatorMethod: entities get the clusters that they select, and the remedy is logged', async () => {
    const named = component('named', { 'backstage.io/kubernetes-cluster': 'alpha-2' });
    const kubernetes = { clusterLocatorMethods: [], objectTypes: ['pods'] };
    const backstage = await start({ paletteSync, kubernetes, entities: [named] });
    await clustersIn(backstage, 2);

    const asked = (await backstage.workloads({}, 'named')).map(({ cluster }) => cluster.name);
    assert.deepEqual(asked, ['alpha-2']); // with an error: this cluster does not exist
    assert.equal((await backstage.workloads()).length, 2);
    assert.equal(backstage.logger.count(/kubernetes\.serviceLocatorMethod cannot be used: .*Correct it/), 1);
  });

  test('a default supplier that fails at each call costs its own clusters only', async () => {
    const kubernetes = { ...LOCATOR, clusterLocatorMethods: [{ type: 'catalog' }] };
    const backstage = await start({ paletteSync, kubernetes, brokenCatalog: true });

    assert.deepEqual(await clustersIn(backstage, 2), ['alpha-1', 'alpha-2']);
    await backstage.clusters();
    assert.equal(
      backstage.logger.count(/the clusters of kubernetes\.clusterLocatorMethods are missing: the catalog is away/),
      1,
    );
  });

  test('the catalog locator does not list the Resources of our clusters a second time, nor their servers', async () => {
    const settings = readCatalogSettings(new ConfigReader({}));
    const ours = [ONE, TWO].map(one => entityOf(decodeRecord('alpha', one.uid, JSON.stringify(one)), settings));
    const theirs = structuredClone(ours[0]!);
    theirs.metadata.name = 'theirs';
    Object.assign(theirs.metadata.annotations!, {
      'kubernetes.io/api-server-certificate-authority': '',
      'kubernetes.io/auth-provider': 'oidc',
      'kubernetes.io/oidc-token-provider': 'theirs',
    });
    // Newer releases look the host up otherwise, and ask the network.
    const locator = { type: 'catalog', dangerouslyAllowClusterUrls: ['*.example'] };
    const kubernetes = { ...LOCATOR, clusterLocatorMethods: [locator] };
    const backstage = await start({ paletteSync, kubernetes, entities: [...ours, theirs] });

    // The locator finds a Resource with all annotations, so ours are left out because they have one of them only.
    assert.deepEqual(await clustersIn(backstage, 3), ['alpha-1', 'alpha-2', 'theirs']);
    assert.deepEqual((await backstage.health<Health>()).body.duplicates, []);
  });

  test('another module that supplies clusters keeps the extension point, and the remedy is logged', async () => {
    const other = createBackendModule({
      pluginId: 'kubernetes',
      moduleId: 'another',
      register(registration) {
        registration.registerInit({
          deps: { suppliers: kubernetesClusterSupplierExtensionPoint },
          async init({ suppliers }) {
            suppliers.addClusterSupplier({
              getClusters: async () => [{ name: 'theirs', url: 'https://theirs.example', authMetadata: {} }],
            });
          },
        });
      },
    });
    const backstage = await start({ paletteSync, features: [kubernetesPlugin(), other, installed()] });

    assert.deepEqual(await backstage.clusters(), ['theirs']);
    assert.equal(
      backstage.logger.count(/another module already uses the extension point clusterSupplier.*remove that module/),
      1,
    );
    assert.match(
      (await backstage.health<Health>()).body.problems.join(),
      /extension point clusterSupplier .*no cluster of Palette is shown/,
    );
  });
});

/** Modules of others that use one extension point and answer nothing. */
const OTHERS = {
  serviceLocator: createBackendModule({
    pluginId: 'kubernetes',
    moduleId: 'another',
    register(registration) {
      registration.registerInit({
        deps: { point: kubernetesServiceLocatorExtensionPoint },
        async init({ point }) {
          point.addServiceLocator({ getClustersByEntity: async () => ({ clusters: [] }) });
        },
      });
    },
  }),
  objectsProvider: createBackendModule({
    pluginId: 'kubernetes',
    moduleId: 'another',
    register(registration) {
      registration.registerInit({
        deps: { point: kubernetesObjectsProviderExtensionPoint },
        async init({ point }) {
          const nothing = async () => ({ items: [] });
          point.addObjectsProvider({ getKubernetesObjectsByEntity: nothing, getCustomResourcesByEntity: nothing });
        },
      });
    },
  }),
  fetcher: createBackendModule({
    pluginId: 'kubernetes',
    moduleId: 'another',
    register(registration) {
      registration.registerInit({
        deps: { point: kubernetesFetcherExtensionPoint },
        async init({ point }) {
          const nothing = async () => ({ errors: [], responses: [] });
          point.addFetcher({ fetchObjectsForService: nothing, fetchPodMetricsByNamespaces: nothing });
        },
      });
    },
  }),
} as const;

describe('another module that uses the extension point', () => {
  for (const [point, other] of Object.entries(OTHERS)) {
    test(`${point} before this one keeps it, and health says what is missing and how to choose`, async () => {
      const backstage = await start({ paletteSync, features: [kubernetesPlugin(), other, installed()] });

      assert.deepEqual(await clustersIn(backstage, 2), ['alpha-1', 'alpha-2']);
      assert.deepEqual(await backstage.workloads(), []);
      const { status, body } = await backstage.health<Health>();
      assert.equal(status, 200);
      assert.equal(body.status, 'degraded');
      assert.match(body.problems.join(), new RegExp(`${point} .*remove that module, or set .*${point}: false`));
      assert.equal(body.extensionPoints[point as keyof typeof OTHERS], 'taken');
    });

    test(`${point} may have it if the configuration says so`, async () => {
      const backstage = await start({
        paletteSync: { ...paletteSync, extensionPoints: { [point]: false } },
        features: [kubernetesPlugin(), installed(), other],
      });

      assert.deepEqual(await clustersIn(backstage, 2), ['alpha-1', 'alpha-2']);
      assert.deepEqual(await backstage.workloads(), []);
      const { body } = await backstage.health<Health>();
      assert.equal(body.status, 'ok');
      assert.equal(body.extensionPoints[point as keyof typeof OTHERS], 'off');
    });
  }

  test('objectsProvider: OIDC clusters are withheld then, unless their provider is named', async () => {
    const mixed = randomPrefix();
    const auth = { provider: 'oidc', oidc_token_provider: 'corp', issuer_url: 'https://i', client_id: 'c' };
    await new Publisher(redis, 'alpha', mixed).publish({
      put: [ONE, cluster(3, { auth })],
      tokens: { [ONE.uid]: 'canary-token-1' },
    });
    const settings = {
      ...paletteSync,
      redis: { url: valkey.url, prefix: mixed },
      extensionPoints: { objectsProvider: false },
    };
    const careful = await start({ paletteSync: settings });
    assert.deepEqual(await clustersIn(careful, 1), ['alpha-1']);
    assert.equal((await careful.health<Health>()).body.withheld[0]?.reason, 'OidcProviderNotConfigured');

    const named = await start({ paletteSync: { ...settings, oidcTokenProviders: ['corp'] } });
    assert.deepEqual(await clustersIn(named, 2), ['alpha-1', 'alpha-3']);

    const mixing = await start({ paletteSync: { ...settings, extensionPoints: {} } });
    assert.deepEqual(await clustersIn(mixing, 2), ['alpha-1', 'alpha-3']);
  });
});

describe('configuration', () => {
  const WRONG = { redis: { url: 'canary://user:canary-password@x' }, sealKeys: 'k1 canary-key', typo: true };

  function assertExplained(text: string): void {
    for (const problem of [/typo: is not known/, /redis\.url: cannot be understood/, /sealKeys: line 1/]) {
      assert.match(text, problem);
    }
    assert(!text.includes('canary-'));
  }

  test('that is invalid: the backend does not start, and its error has all problems and no secret', async () => {
    const logger = new CapturingLogger();

    const features = [kubernetesPlugin(), installed(), NO_HTTP_SERVER];
    await assert.rejects(
      start({ paletteSync: WRONG, kubernetes: methods(STATIC), logger, features }),
      (error: unknown) => {
        const text = `${(error as Error).message}${inspect(error)}`;
        assertExplained(text);
        return true;
      },
    );
    assert(!logger.text.includes('canary-'));
  });

  test('that is invalid, with onPluginModuleBootFailure: continue: Backstage has its other clusters', async () => {
    const startup = {
      plugins: { kubernetes: { modules: { 'palette-sync': { onPluginModuleBootFailure: 'continue' } } } },
    };
    const backstage = await start({ paletteSync: WRONG, kubernetes: methods(STATIC), startup });

    assert.deepEqual(await backstage.clusters(), ['static']);
    assertExplained(backstage.logger.text);
  });

  test('that is missing: logged once, and Backstage has its other clusters', async () => {
    const backstage = await start({ kubernetes: methods(STATIC) });

    assert.deepEqual(await backstage.clusters(), ['static']);
    assert.equal(backstage.logger.count(/app-config has no section paletteSync.*add paletteSync\.redis\.url/), 1);
  });

  test('the filter leaves clusters out', async () => {
    const backstage = await start({
      paletteSync: { ...paletteSync, filter: { includeProjects: ['Nowhere'] } },
    });
    await until('the snapshot', async () => (await backstage.health<Health>()).body.status === 'ok');

    assert.deepEqual(await backstage.clusters(), []);
    assert.equal((await backstage.health<Health>()).body.instances[0]?.withheld['Filtered'], 2);
  });
});

test('an expired token is not served, and the health route says so', async () => {
  const expired = randomPrefix();
  const past = '2020-01-01T00:00:00Z';
  await new Publisher(redis, 'alpha', expired).publish({
    put: [ONE],
    tokens: { [ONE.uid]: 'canary-token' },
    expiresAt: past,
  });
  const backstage = await start({
    paletteSync: { ...paletteSync, redis: { url: valkey.url, prefix: expired } },
  });
  await until('the snapshot', async () => (await backstage.health<Health>()).body.status === 'degraded');

  assert.deepEqual(await backstage.clusters(), []);
  assert.equal((await backstage.health<Health>()).body.withheld[0]?.reason, 'TokenLapsed');
});

test('a warning is logged once if the daemon has not read Palette for long, and the clusters stay', async () => {
  const backstage = await start({ paletteSync: { ...paletteSync, maxSnapshotAge: { milliseconds: 1 } } });
  await clustersIn(backstage, 2);

  await until('the warning', () => backstage.logger.count(/alpha: the daemon has not read Palette for/) === 1);
  assert.equal((await backstage.health<Health>()).body.status, 'degraded');
  assert.equal((await backstage.clusters()).length, 2);
});

test('stopping the backend closes the connections to Redis', async () => {
  // All connections except the one that runs this command.
  const others = async () => {
    const list = String(await redis.command(['CLIENT', 'LIST']))
      .trim()
      .split('\n');
    return list.filter(line => !line.includes(' cmd=client'));
  };
  await until('no other reader', async () => (await others()).length === 0);
  const backstage = await start({ paletteSync });
  await until('the reader', async () => (await others()).some(line => line.includes(' cmd=xread')));

  await backstage.stop();

  await until('its end', async () => (await others()).length === 0);
});
