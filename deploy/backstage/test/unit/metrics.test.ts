import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type BatchObservableCallback, createNoopMeter, metrics } from '@opentelemetry/api';
import type { Health } from '../../src/health';
import { reportMetrics } from '../../src/metrics';

after(() => metrics.disable());

test('counts, ages and the connection are reported until it is ended', () => {
  const callbacks = new Set<BatchObservableCallback>();
  const names = new Map<unknown, string>();
  const meter = Object.assign(createNoopMeter(), {
    createObservableGauge: (name: string) => named(name),
    createObservableCounter: (name: string) => named(name),
    addBatchObservableCallback: (callback: BatchObservableCallback) => callbacks.add(callback),
    removeBatchObservableCallback: (callback: BatchObservableCallback) => callbacks.delete(callback),
  });
  function named(name: string) {
    const instrument = { addCallback: () => {}, removeCallback: () => {} };
    names.set(instrument, name);
    return instrument;
  }
  metrics.setGlobalMeterProvider({ getMeter: () => meter });
  const health: Health = {
    status: 'ok',
    problems: [],
    redis: { connected: true, since: '' },
    instances: [
      { name: 'alpha', clusters: 3, served: 2, withheld: { AccessPending: 1 }, reloads: 4, ageSeconds: 60 },
      {
        name: 'bravo',
        clusters: 0,
        served: 0,
        withheld: {},
        reloads: 0,
        refused: { reason: 'Mac', message: '', since: '' },
      },
    ],
    withheld: [],
    withheldNotListed: 0,
    duplicates: [],
    leftOut: [],
    notAnswering: [{ cluster: 'alpha-1', since: '' }],
    located: {},
    extensionPoints: {},
  };

  const end = reportMetrics(() => health);
  const seen: string[] = [];
  for (const callback of callbacks) {
    void callback({
      observe: (instrument, value, attributes) => {
        const name = names.get(instrument)?.replace('palette_sync.adapter.', '');
        seen.push(`${name} ${Object.values(attributes ?? {}).join('/')} ${value}`);
      },
    });
  }
  end();

  assert.deepEqual(seen, [
    'redis.connected  1',
    'clusters.not_answering  1',
    'clusters alpha/served 2',
    'clusters alpha/AccessPending 1',
    'snapshot.age alpha 60',
    'snapshot.refused alpha 0',
    'snapshot.reloads alpha 4',
    'clusters bravo/served 0',
    'snapshot.refused bravo 1',
    'snapshot.reloads bravo 0',
  ]);
  assert.equal(callbacks.size, 0);
});
