import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BackstageCredentials } from '@backstage/backend-plugin-api';
import type { CatalogService } from '@backstage/plugin-catalog-node';
import { decodeRecord } from '../../src/snapshot/decode';
import { CatalogVisibility } from '../../src/visibility';
import { CapturingLogger } from '../support/logger';
import { cluster } from '../support/published';

const [ONE, TWO] = [cluster(1), cluster(2)].map(one => decodeRecord('alpha', one.uid, JSON.stringify(one)));

function user(name: string): BackstageCredentials {
  return { principal: { type: 'user', userEntityRef: `user:default/${name}` } } as unknown as BackstageCredentials;
}

/** A catalog that shows the Resource of cluster 1 to everybody, and counts how often it is asked. */
class Catalog implements Pick<CatalogService, 'getEntities'> {
  readonly asked: unknown[] = [];
  broken = false;
  silent = false;

  getEntities: CatalogService['getEntities'] = async (request, options) => {
    this.asked.push([request, options]);
    if (this.broken) {
      throw new Error('the catalog is away');
    }
    if (this.silent) {
      return new Promise(() => {});
    }
    const annotations = { 'backstage.io/managed-by-location': `palette-sync:alpha/${ONE?.uid}` };
    return { items: [{ apiVersion: '', kind: 'Resource', metadata: { name: 'x', annotations } }] };
  };
}

function visibility(catalog: Catalog, clock = { now: 0 }) {
  const logger = new CapturingLogger();
  const options = { catalog, type: 'kubernetes-cluster', logger, timeoutMs: 10, now: () => clock.now };
  return { visibility: new CatalogVisibility(options), logger };
}

async function seen(one: CatalogVisibility, credentials: BackstageCredentials): Promise<boolean[]> {
  const isVisible = await one.visibleTo(credentials);
  return [isVisible(ONE!), isVisible(TWO!)];
}

test('a user sees the clusters whose Resource the catalog shows with his credentials', async () => {
  const catalog = new Catalog();

  assert.deepEqual(await seen(visibility(catalog).visibility, user('jo')), [true, false]);
  const [[request, options]] = catalog.asked as [[{ filter: unknown }, unknown]];
  assert.deepEqual(request.filter, { kind: 'Resource', 'spec.type': 'kubernetes-cluster' });
  assert.deepEqual(options, { credentials: user('jo') });
});

test('the catalog is asked once in 10 s for each user', async () => {
  const catalog = new Catalog();
  const clock = { now: 0 };
  const { visibility: one } = visibility(catalog, clock);
  await Promise.all([seen(one, user('jo')), seen(one, user('jo')), seen(one, user('al'))]);
  assert.equal(catalog.asked.length, 2);

  clock.now = 10_000;
  await seen(one, user('jo'));
  assert.equal(catalog.asked.length, 3);
});

test('services see all clusters, and callers without a login see none', async () => {
  const catalog = new Catalog();
  const { visibility: one } = visibility(catalog);
  const service = { principal: { type: 'service', subject: 'plugin:kubernetes' } } as unknown as BackstageCredentials;
  const nobody = { principal: { type: 'none' } } as unknown as BackstageCredentials;

  assert.deepEqual(await seen(one, service), [true, true]);
  assert.deepEqual(await seen(one, nobody), [false, false]);
  assert.deepEqual(catalog.asked, []);
});

for (const fault of ['broken', 'silent'] as const) {
  test(`a catalog that is ${fault} shows nothing, is logged once, and is asked again at once`, async () => {
    const catalog = new Catalog();
    const { visibility: one, logger } = visibility(catalog);
    catalog[fault] = true;
    assert.deepEqual(await seen(one, user('jo')), [false, false]);
    assert.deepEqual(await seen(one, user('jo')), [false, false]);
    assert.equal(logger.count(/the catalog does not say which clusters users may see/), 1);
    assert.match(one.problem ?? '', /so they see none/);

    catalog[fault] = false;
    assert.deepEqual(await seen(one, user('jo')), [true, false]);
    assert.equal(one.problem, undefined);
  });
}
