import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  DefaultNamespaceEntityPolicy,
  type Entity,
  FieldFormatEntityPolicy,
  makeValidator,
  resourceEntityV1alpha1Validator,
} from '@backstage/catalog-model';
import { entitiesOf, entityOf } from '../../src/catalog/entities';
import type { CatalogSettings } from '../../src/catalog/settings';
import { type ClusterRecord, decodeRecord } from '../../src/snapshot/decode';
import { cluster } from '../support/published';

const SETTINGS: CatalogSettings = {
  namespace: 'default',
  type: 'kubernetes-cluster',
  annotationPrefix: 'palette-sync',
  ownerTag: 'owner',
  defaultOwner: 'group:default/platform',
  projectAs: 'tag',
};

function record(changes: Record<string, unknown> = {}): ClusterRecord {
  const one = cluster(1, changes);
  return decodeRecord('alpha', one.uid, JSON.stringify(one));
}

function palette(...tags: string[]): Record<string, unknown> {
  return { palette: { state: 'Running', health: '', cloud_type: 'edge-native', tags } };
}

async function assertValid(entity: Entity): Promise<void> {
  assert.equal(await resourceEntityV1alpha1Validator.check(entity), true);
  await new FieldFormatEntityPolicy(makeValidator()).enforce(
    (await new DefaultNamespaceEntityPolicy().enforce(entity)) as Entity,
  );
}

describe('a cluster in the catalog', () => {
  test('is a Resource that the catalog accepts', async () => {
    const entity = entityOf(record(), SETTINGS);

    await assertValid(entity);
    assert.equal(entity.metadata.name, 'alpha-1');
    assert.deepEqual(entity.spec, { type: 'kubernetes-cluster', owner: 'group:default/team-web' });
    assert.deepEqual(entity.metadata.tags, ['alpha', 'project:shop', 'aws', 'env:prod', 'owner:team-web']);
    assert.equal(entity.metadata.links?.[0]?.url, 'https://console.example/5f3c00000000000000000001');
  });

  test('names the address of its API server, and neither CA nor auth provider', () => {
    const annotations = entityOf(record(), SETTINGS).metadata.annotations ?? {};
    const kubernetes = Object.entries(annotations).filter(([key]) => key.startsWith('kubernetes.io/'));

    assert.deepEqual(kubernetes, [['kubernetes.io/api-server', 'https://c1.example:6443']]);
    for (const server of [undefined, { url: 'javascript:alert(1)', ca_data: '' }]) {
      const without = entityOf(record({ server }), SETTINGS).metadata.annotations ?? {};
      assert.equal(without['kubernetes.io/api-server'], undefined);
    }
  });

  test('has annotations and a type as other cards expect them, if asked for', async () => {
    const entity = entityOf(record(), {
      ...SETTINGS,
      type: 'spectrocloud-cluster',
      annotationPrefix: 'cards.example.com',
    });

    await assertValid(entity);
    assert.equal(entity.spec.type, 'spectrocloud-cluster');
    const own = Object.entries(entity.metadata.annotations ?? {}).filter(
      ([key]) => !/^(backstage|kubernetes)\.io/.test(key),
    );
    assert.deepEqual(Object.fromEntries(own), {
      'cards.example.com/instance': 'alpha',
      'cards.example.com/scope': 'project',
      'cards.example.com/cluster-uid': '5f3c00000000000000000001',
      'cards.example.com/cluster-id': '5f3c00000000000000000001',
      'cards.example.com/project': 'Shop',
      'cards.example.com/project-name': 'Shop',
      'cards.example.com/project-id': '5f3c0000000000000000a001',
      'cards.example.com/state': 'Running',
      'cards.example.com/health': 'Healthy',
      'cards.example.com/cloud-type': 'aws',
      'cards.example.com/kubernetes-version': 'v1.31.2',
    });
  });

  test('has its project as a system, if asked for', async () => {
    const entity = entityOf(record({ project: { uid: 'p', name: 'The Shop (EU)' } }), {
      ...SETTINGS,
      projectAs: 'system',
    });

    await assertValid(entity);
    assert.equal(entity.spec.system, 'system:default/The-Shop-EU');
    assert(!entity.metadata.tags?.some(tag => tag.startsWith('project:')));
  });

  for (const [tags, owner] of [
    [['owner:team-a'], 'group:default/team-a'],
    [['Owner:group:teams/team-a'], 'group:teams/team-a'],
    [['owner:user:jo'], 'user:default/jo'],
    [['owner:Team A & B'], 'group:default/Team-A-B'],
    [['owner:group:--/team-a'], 'group:default/team-a'],
    [['owner:'], 'group:default/platform'],
    [['owner'], 'group:default/platform'],
    [[], 'group:default/platform'],
  ] as const) {
    test(`tagged ${JSON.stringify(tags)} belongs to ${owner}`, async () => {
      const entity = entityOf(record(palette(...tags)), SETTINGS);

      assert.equal(entity.spec.owner, owner);
      await assertValid(entity);
    });
  }

  test('in another namespace keeps its owner and its system in the namespace default', () => {
    const { spec } = entityOf(record(), { ...SETTINGS, namespace: 'clusters', projectAs: 'both' });

    // The catalog completes a reference that names no namespace with that of the entity itself.
    assert.equal(spec.owner, 'group:default/team-web');
    assert.equal(spec.system, 'system:default/Shop');
  });

  test('stays acceptable whatever Palette lets people write', async () => {
    const odd = record({
      title: 'ünï 🛰',
      project: { uid: 'p', name: '--- Ünï / x'.repeat(20) },
      dashboard_url: 'javascript:alert(1)',
      ...palette('Spaces And / slashes', '🛰', '---', 'x'.repeat(200), 'a:b:c', 'env:prod', 'ENV:prod'),
    });

    for (const projectAs of ['tag', 'system', 'both'] as const) {
      const entity = entityOf(odd, { ...SETTINGS, projectAs });
      await assertValid(entity);
      assert.equal(entity.metadata.links, undefined);
    }
  });
});

test('names that differ in case only are one to the catalog: the first stays', () => {
  const { entities, duplicates } = entitiesOf(
    [record(), record({ name: 'ALPHA-1' }), record({ name: '-odd-' })],
    SETTINGS,
  );

  assert.deepEqual(
    entities.map(({ metadata }) => metadata.name),
    ['alpha-1'],
  );
  assert.deepEqual(duplicates, ['ALPHA-1', '-odd-']);
});
