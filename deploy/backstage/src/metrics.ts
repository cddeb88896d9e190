import { type BatchObservableCallback, metrics, type Observable } from '@opentelemetry/api';
import type { Health } from './health';

const METER = 'backstage-plugin-kubernetes-backend-module-palette-sync';

/**
 * Reports metrics through OpenTelemetry, like Backstage itself; if OpenTelemetry is not set up, this does nothing. Returns a
 * function that ends it.
 */
export function reportMetrics(health: () => Health): () => void {
  const meter = metrics.getMeter(METER);
  const clusters = meter.createObservableGauge('palette_sync.adapter.clusters', {
    description: 'Clusters by instance and state: served, or the reason why they are withheld',
  });
  const age = meter.createObservableGauge('palette_sync.adapter.snapshot.age', {
    description: 'Time since the daemon last read an instance from Palette',
    unit: 's',
  });
  const refused = meter.createObservableGauge('palette_sync.adapter.snapshot.refused', {
    description: '1 while the snapshot of an instance in Redis is refused',
  });
  const reloads = meter.createObservableCounter('palette_sync.adapter.snapshot.reloads', {
    description: 'How often an instance was read as a whole instead of by its changes',
  });
  const connected = meter.createObservableGauge('palette_sync.adapter.redis.connected', {
    description: '1 while there is a connection to Redis',
  });
  const notAnswering = meter.createObservableGauge('palette_sync.adapter.clusters.not_answering', {
    description: 'Clusters that missed their deadline twice and are asked again only every 30 s',
  });
  const observe: BatchObservableCallback = result => {
    const { instances, notAnswering: silent, redis } = health();
    result.observe(connected, redis?.connected ? 1 : 0);
    result.observe(notAnswering, silent.length);
    for (const one of instances) {
      result.observe(clusters, one.served, { instance: one.name, state: 'served' });
      for (const [reason, count] of Object.entries(one.withheld)) {
        result.observe(clusters, count, { instance: one.name, state: reason });
      }
      if (one.ageSeconds !== undefined) {
        result.observe(age, one.ageSeconds, { instance: one.name });
      }
      result.observe(refused, one.refused ? 1 : 0, { instance: one.name });
      result.observe(reloads, one.reloads, { instance: one.name });
    }
  };
  const instruments: Observable[] = [clusters, age, refused, reloads, connected, notAnswering];
  meter.addBatchObservableCallback(observe, instruments);
  return () => meter.removeBatchObservableCallback(observe, instruments);
}
