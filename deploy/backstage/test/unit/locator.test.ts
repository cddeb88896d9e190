import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Entity } from '@backstage/catalog-model';
import type { ClusterDetails, KubernetesServiceLocator } from '@backstage/plugin-kubernetes-node';
import { duringCall } from '../../src/call';
import { type LocatorOptions, SelectiveLocator } from '../../src/locator/locator';
import { type KnownCluster, selectionOf } from '../../src/locator/selection';

const CLUSTERS: (KnownCluster & { name: string })[] = [
  { name: 'prod-EU', project: { uid: 'p1', name: 'Web Shop' } },
  { name: 'prod-us', project: { uid: 'p1', name: 'Web Shop' } },
  { name: 'dev-1', project: { uid: 'p2', name: 'Lab' } },
  { name: 'tenant-1' },
];
const KNOWN = new Map(CLUSTERS.map(one => [one.name.toLowerCase(), one]));

function entity(annotations: Record<string, string>, relations: [type: string, targetRef: string][] = []): Entity {
  return {
    apiVersion: 'backstage.io/v1alpha1',
    kind: 'Component',
    metadata: { name: 'cart', annotations },
    relations: relations.map(([type, targetRef]) => ({ type, targetRef })),
  };
}

function selected(one: Entity, systems = true): string[] | undefined {
  const selection = selectionOf(one, KNOWN, { systems });
  return selection && [`by ${selection.by}`, ...[...selection.names].sort()];
}

describe('an entity selects clusters', () => {
  const cluster = (value: string) => entity({ 'backstage.io/kubernetes-cluster': value });
  const project = (value: string) => entity({ 'palette-sync.io/project': value });
  for (const [what, one, wanted] of [
    ['by name', cluster('dev-1'), ['by cluster annotation', 'dev-1']],
    ['by name in other letter case', cluster('PROD-eu'), ['by cluster annotation', 'prod-eu']],
    ['by a list', cluster(' dev-1 , prod-us,, '), ['by cluster annotation', 'dev-1', 'prod-us']],
    ['by a glob', cluster('prod-*'), ['by cluster annotation', 'prod-eu', 'prod-us']],
    ['by a name that no cluster has', cluster('gone'), ['by cluster annotation']],
    [
      'by a relation in another namespace and letter case',
      entity({}, [['dependsOn', 'Resource:clusters/Prod-eu']]),
      ['by relation', 'prod-eu'],
    ],
    ['not by a relation to something else', entity({}, [['dependsOn', 'resource:default/orders-db']]), undefined],
    ['not by what depends on it', entity({}, [['dependencyOf', 'resource:default/dev-1']]), undefined],
    ['by a project', project('web shop'), ['by project annotation', 'prod-eu', 'prod-us']],
    ['by the uid of a project, and another', project('p2, lab'), ['by project annotation', 'dev-1']],
    ['by a glob of projects', project('*'), ['by project annotation', 'dev-1', 'prod-eu', 'prod-us']],
    [
      'by the System of a project',
      entity({}, [['partOf', 'system:default/web-shop']]),
      ['by system', 'prod-eu', 'prod-us'],
    ],
    ['not by another System', entity({}, [['partOf', 'system:default/other']]), undefined],
    ['by nothing', entity({}), undefined],
    ['by an empty annotation, which counts for nothing', cluster(' '), undefined],
    [
      'by the annotation before the relation',
      entity({ 'backstage.io/kubernetes-cluster': 'dev-1' }, [['dependsOn', 'resource:default/prod-us']]),
      ['by cluster annotation', 'dev-1'],
    ],
    [
      'by the relation before the project',
      entity({ 'palette-sync.io/project': 'Lab' }, [['dependsOn', 'resource:default/prod-us']]),
      ['by relation', 'prod-us'],
    ],
  ] as const) {
    test(what, () => {
      assert.deepEqual(selected(one), wanted);
    });
  }

  test('by a System only if projects are Systems', () => {
    assert.equal(selected(entity({}, [['partOf', 'system:default/web-shop']]), false), undefined);
  });

  test('not at all without an entity, as older releases may pass', () => {
    assert.equal(selectionOf(undefined, KNOWN, { systems: true }), undefined);
  });
});

describe('the locator', () => {
  const clusters: ClusterDetails[] = CLUSTERS.map(({ name }) => ({ name, url: 'https://x', authMetadata: {} }));
  const context = { objectTypesToFetch: new Set<never>(), customResources: [], credentials: {} as never };
  const defaults: KubernetesServiceLocator = { getClustersByEntity: async () => ({ clusters: clusters.slice(0, 3) }) };

  function locator(changes: Partial<LocatorOptions> = {}): SelectiveLocator {
    return new SelectiveLocator({
      defaults,
      clusterSupplier: { getClusters: async () => clusters },
      fallback: 'all',
      fallbackLimit: 50,
      systems: false,
      ...changes,
    });
  }

  async function namesFor(one: Entity, changes: Partial<LocatorOptions> = {}): Promise<string[]> {
    return (await locator(changes).getClustersByEntity(one, context)).clusters.map(({ name }) => name);
  }

  test('returns what the entity selects', async () => {
    assert.deepEqual(await namesFor(entity({ 'backstage.io/kubernetes-cluster': 'prod-*' })), ['prod-EU', 'prod-us']);
  });

  test("falls back to Backstage's own locator", async () => {
    assert.deepEqual(await namesFor(entity({})), ['prod-EU', 'prod-us', 'dev-1']);
  });

  test('falls back to all clusters if that one cannot be made, or to none', async () => {
    const { defaults: _none, ...options } = { ...{ defaults }, fallback: 'all' as const };
    const bare = new SelectiveLocator({
      ...options,
      clusterSupplier: { getClusters: async () => clusters },
      fallbackLimit: 50,
      systems: false,
    });

    assert.equal((await bare.getClustersByEntity(entity({}), context)).clusters.length, 4);
    assert.deepEqual(await namesFor(entity({}), { fallback: 'none' }), []);
  });

  test('cuts the fallback at its limit, and the page says so', async () => {
    const notices: string[] = [];
    const made = locator({ fallbackLimit: 2 });

    const found = await duringCall({ kind: 'query', tokenOf: () => undefined, notices }, () =>
      made.getClustersByEntity(entity({}), context),
    );

    assert.deepEqual(
      found.clusters.map(({ name }) => name),
      ['prod-EU', 'prod-us'],
    );
    assert.match(
      notices.join(),
      /1 of 3 clusters were not asked.*add the annotation backstage\.io\/kubernetes-cluster/,
    );
    assert.deepEqual(made.counts, { fallback: 1, cut: 1 });
  });

  test('does not cut what an entity selects', async () => {
    const one = entity({ 'backstage.io/kubernetes-cluster': '*' });

    assert.equal((await namesFor(one, { fallbackLimit: 1 })).length, 4);
  });
});
