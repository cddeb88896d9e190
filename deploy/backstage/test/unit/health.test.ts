import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { backoffMs } from '../../src/backoff';
import { type HealthSources, healthOf, withoutNames } from '../../src/health';
import type { InstanceState } from '../../src/snapshot/follower';
import type { Snapshot } from '../../src/snapshot/snapshot';

const HOUR = 3_600_000;
const NOW = 1_800_000_000_000;
const HEAD = {
  epoch: 5,
  version: 7,
  digest: '',
  mac: '',
  clusters: 0,
  complete: true,
  changedAt: NOW - HOUR,
  changedAtText: '',
  credentialsDigest: '',
  unconfirmed: '',
};
const SNAPSHOT: Snapshot = { head: HEAD, entries: new Map(), kept: new Map() };
const ALPHA: InstanceState = {
  name: 'alpha',
  reloads: 1,
  checkedAt: NOW - 60_000,
  snapshot: SNAPSHOT,
};
const SOURCES: HealthSources = {
  setupProblems: [],
  link: { connected: true, since: NOW - HOUR },
  instances: [ALPHA],
  maxSnapshotAgeMs: HOUR,
  now: NOW,
};

describe('health', () => {
  test('is ok with a snapshot and a running daemon', () => {
    const health = healthOf(SOURCES);

    assert.equal(health.status, 'ok');
    assert.deepEqual(health.problems, []);
    assert.equal(health.instances[0]?.ageSeconds, 60);
    assert.equal(health.instances[0]?.version, 7);
  });

  test('lists all problems', () => {
    const { problems } = healthOf({
      ...SOURCES,
      setupProblems: ['the configuration is not valid', 'another module supplies clusters'],
      link: { connected: false, since: NOW, error: 'Redis is away' },
    });

    assert.deepEqual(problems, ['the configuration is not valid', 'another module supplies clusters', 'Redis is away']);
  });

  test('shows what the extension points report; without names it keeps the counts', () => {
    const leftOut = { provider: 'corp', reason: 'NoToken', caller: 'user', calls: 2, clusters: 3, lastAt: '' } as const;
    const health = healthOf({
      ...SOURCES,
      extensions: {
        states: { fetcher: 'ours' },
        leftOut: { counts: [leftOut] },
        supplier: { duplicates: ['alpha-1'] },
        locator: { counts: { relation: 4 } },
        fetcher: { openCircuits: [{ cluster: 'alpha-2', since: NOW }] },
      },
    });

    assert.deepEqual(health.notAnswering, [{ cluster: 'alpha-2', since: new Date(NOW).toISOString() }]);
    assert.deepEqual(health.duplicates, ['alpha-1']);
    assert.equal(health.status, 'ok');
    const hidden = withoutNames({
      ...health,
      withheld: [{ instance: 'alpha', cluster: 'alpha-3', reason: 'NoServer', message: '' }],
    });
    assert(!JSON.stringify(hidden).includes('alpha-'));
    assert.equal(hidden.withheldNotListed, 1);
    assert.deepEqual([hidden.leftOut, hidden.located], [[leftOut], { relation: 4 }]);
  });

  for (const [what, changes, status, problem] of [
    ['Redis away', { link: { connected: false, since: NOW, error: 'Redis is away' } }, 'degraded', /^Redis is away$/],
    [
      'a daemon that stopped',
      { now: NOW + 2 * HOUR },
      'degraded',
      /alpha: the daemon has not read Palette for 121 min/,
    ],
    [
      'a refusal',
      { instances: [{ ...ALPHA, refusal: { reason: 'Mac', message: 'compare the keys', since: NOW } }] },
      'degraded',
      /alpha: compare the keys/,
    ],
    [
      'no time of a check that counts',
      { instances: [{ name: 'alpha', reloads: 1, snapshot: SNAPSHOT }] },
      'degraded',
      /alpha: Redis holds no authentic time of the daemon's last check.*compare its clock/,
    ],
    ['nothing published yet', { instances: [] }, 'unavailable', /no instance has been published yet/],
    [
      'nothing read yet',
      { instances: [{ name: 'alpha', reloads: 0 }] },
      'unavailable',
      /no instance has been published yet/,
    ],
    [
      'a configuration that is not valid',
      { instances: [], setupProblems: ['redis.url is missing'] },
      'unavailable',
      /redis.url/,
    ],
  ] as const) {
    test(`with ${what} is ${status}`, () => {
      const health = healthOf({ ...SOURCES, ...changes });

      assert.equal(health.status, status);
      assert.match(health.problems.join(), problem);
    });
  }
});

test('pauses double up to 15 s, and are spread', () => {
  assert.deepEqual(
    [1, 2, 3, 6, 1000].map(failures => backoffMs(failures, 1)),
    [500, 1000, 2000, 15_000, 15_000],
  );
  assert.equal(backoffMs(1, 0), 400);
});
