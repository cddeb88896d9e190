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
import type { CatalogSettings } from '../../src/config';
import { type ClusterRecord, decodeRecord } from '../../src/snapshot/decode';
import { cluster } from '../support/published';

const SETTINGS: CatalogSettings = {
  namespace: 'default',
  ownerTag: 'owner',
  defaultOwner: 'group:platform',
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
    assert.deepEqual(entity.spec, { type: 'kubernetes-cluster', owner: 'team-web' });
    assert.deepEqual(entity.metadata.tags, ['alpha', 'project:shop', 'aws', 'env:prod', 'owner:team-web']);
    assert.equal(entity.metadata.links?.[0]?.url, 'https://console.example/5f3c00000000000000000001');
  });

  test('has no address, or the catalog locator would list it a second time', () => {
    const keys = Object.keys(entityOf(record(), SETTINGS).metadata.annotations ?? {});

    assert(
      keys.every(key => !key.startsWith('kubernetes.io/')),
      keys.join(),
    );
  });

  test('has its project as a system, if asked for', async () => {
    const entity = entityOf(record({ project: { uid: 'p', name: 'The Shop (EU)' } }), {
      ...SETTINGS,
      projectAs: 'system',
    });

    await assertValid(entity);
    assert.equal(entity.spec.system, 'The-Shop-EU');
    assert(!entity.metadata.tags?.some(tag => tag.startsWith('project:')));
  });

  for (const [tags, owner] of [
    [['owner:team-a'], 'team-a'],
    [['Owner:group:default/team-a'], 'group:default/team-a'],
    [['owner:user:jo'], 'user:jo'],
    [['owner:Team A & B'], 'Team-A-B'],
    [['owner:group:--/team-a'], 'group:team-a'],
    [['owner:'], 'group:platform'],
    [['owner'], 'group:platform'],
    [[], 'group:platform'],
  ] as const) {
    test(`tagged ${JSON.stringify(tags)} belongs to ${owner}`, async () => {
      const entity = entityOf(record(palette(...tags)), SETTINGS);

      assert.equal(entity.spec.owner, owner);
      await assertValid(entity);
    });
  }

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
