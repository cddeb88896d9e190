/**
 * Measures the adapter against a real Valkey that holds generated snapshots. `npm run bench -- --json` prints the rows for
 * programs; the exit code is 1 if a budget is exceeded. `--only=change`, `load` or `page` runs one part.
 */
import { once } from 'node:events';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { parseRedisUrl } from '../src/redis/address';
import { RedisConnection } from '../src/redis/connection';
import { UnifiedClustersSupplier } from '../src/supplier';
import { Following } from '../test/support/following';
import { CapturingLogger } from '../test/support/logger';
import { until, Valkey } from '../test/support/processes';
import { cluster, Publisher, randomPrefix } from '../test/support/published';
import { apiServers, pageCosts } from './page';
import { percentile, type Row, row } from './rows';

const CHANGES = 200;
const CALLS = 2_000;
const LOADS = 5;
const BATCH = 500; // the most changes that the daemon puts into one version

async function fill(publisher: Publisher, count: number): Promise<void> {
  for (let first = 1; first <= count; first += BATCH / 2) {
    const put = Array.from({ length: Math.min(BATCH / 2, count - first + 1) }, (_, index) => cluster(first + index));
    await publisher.publish({ put, tokens: Object.fromEntries(put.map(({ uid }) => [uid, tokenOf(uid, 0)])) });
  }
}

/** About as long as a token of a service account. */
function tokenOf(uid: string, generation: number): string {
  return `${uid}.${generation}.${'x'.repeat(900)}`;
}

/** Writes in another thread, so that writing does not block the event loop that is measured. */
async function writer(): Promise<void> {
  const { url, prefix } = workerData as { url: string; prefix: string };
  const redis = await RedisConnection.open(parseRedisUrl(url), {});
  const publisher = new Publisher(redis, 'alpha', prefix);
  parentPort!.on('message', async (message: { fill: number } | { rotate: number }) => {
    if ('fill' in message) {
      await fill(publisher, message.fill);
      parentPort!.postMessage({ version: publisher.version });
    } else {
      const { uid } = cluster(1 + (message.rotate % 1000));
      await publisher.publish({
        tokens: { [uid]: tokenOf(uid, message.rotate) },
        put: [cluster(1 + (message.rotate % 1000))],
      });
      parentPort!.postMessage({ at: performance.timeOrigin + performance.now(), version: publisher.version });
    }
  });
}

async function ask<T>(worker: Worker, message: unknown): Promise<T> {
  worker.postMessage(message);
  const [answer] = (await once(worker, 'message')) as [T];
  return answer;
}

async function changeToAnswer(url: string): Promise<Row[]> {
  const prefix = randomPrefix();
  const worker = new Worker(__filename, { workerData: { url, prefix } });
  const { version } = await ask<{ version: number }>(worker, { fill: 1000 });
  const reader = new Following(url, prefix);
  const supplier = new UnifiedClustersSupplier({ directory: reader.directory, logger: new CapturingLogger() });
  const user = { credentials: {} as never };
  await until('the load', () => reader.version() === version && reader.names().length === 1000);

  const calls: number[] = [];
  for (let call = 0; call < CALLS; call += 1) {
    const before = performance.now();
    await supplier.getClusters(user);
    calls.push(performance.now() - before);
  }

  const delays: number[] = [];
  for (let change = 1; change <= CHANGES; change += 1) {
    const name = cluster(1 + (change % 1000)).name;
    const { at } = await ask<{ at: number }>(worker, { rotate: change });
    for (;;) {
      const found = (await supplier.getClusters(user)).find(one => one.name === name);
      if (found?.authMetadata['serviceAccountToken']?.split('.')[1] === String(change)) {
        break;
      }
      await sleep(1);
    }
    delays.push(performance.timeOrigin + performance.now() - at);
  }
  await reader.tail.stop();
  await worker.terminate();
  return [
    row(
      `change in Redis to new getClusters answer, p99 of ${CHANGES} at 1,000 clusters`,
      percentile(delays, 0.99),
      'ms',
      100,
    ),
    row(`getClusters at 1,000 clusters, median of ${CALLS}`, percentile(calls, 0.5), 'ms', 1),
    row(`getClusters at 1,000 clusters, p99 of ${CALLS}`, percentile(calls, 0.99), 'ms', 1),
  ];
}

async function fullLoad(url: string): Promise<Row[]> {
  const prefix = randomPrefix();
  const worker = new Worker(__filename, { workerData: { url, prefix } });
  const { version } = await ask<{ version: number }>(worker, { fill: 10_000 });
  const times: number[] = [];
  const lags: number[] = [];
  for (let load = 0; load < LOADS; load += 1) {
    const lag = monitorEventLoopDelay({ resolution: 1 });
    lag.enable();
    const before = performance.now();
    const reader = new Following(url, prefix);
    // Poll rarely, so that polling is not measured.
    while (reader.version() !== version || reader.directory.clusters(0).length < 10_000) {
      await sleep(20);
    }
    times.push(performance.now() - before);
    lag.disable();
    lags.push(lag.max / 1e6);
    await reader.tail.stop();
  }
  await worker.terminate();
  return [
    row(`full load of 10,000 clusters, worst of ${LOADS}`, Math.max(...times), 'ms', 2000),
    row(`longest block of the event loop during a full load, median of ${LOADS}`, percentile(lags, 0.5), 'ms', 50),
    row(`longest block of the event loop during a full load, worst of ${LOADS}`, Math.max(...lags), 'ms', 50),
  ];
}

async function main(): Promise<void> {
  const json = process.argv.includes('--json');
  const valkey = await Valkey.start();
  try {
    const parts = { change: changeToAnswer, load: fullLoad, page: pageCosts };
    const only = process.argv.find(one => one.startsWith('--only='))?.slice('--only='.length);
    const rows: Row[] = [];
    for (const [name, measure] of Object.entries(parts)) {
      if (only === undefined || only === name) {
        rows.push(...(await measure(valkey.url)));
      }
    }
    if (json) {
      process.stdout.write(`${JSON.stringify(rows)}\n`);
    } else {
      for (const { name, value, unit, budget, ok } of rows) {
        process.stdout.write(
          `${ok ? 'ok  ' : 'MISS'}  ${`${value} ${unit}`.padStart(14)}  (budget ${budget} ${unit})  ${name}\n`,
        );
      }
    }
    process.exitCode = rows.every(({ ok }) => ok) ? 0 : 1;
  } finally {
    await valkey.stop();
  }
}

const part = (workerData as { part?: string } | null)?.part;
void (isMainThread ? main() : part === 'api servers' ? apiServers() : writer());
