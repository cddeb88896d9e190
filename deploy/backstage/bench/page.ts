/**
 * What a page costs: a real Backstage backend with the real Kubernetes plugin, and one HTTPS server that plays the API
 * servers of all clusters and counts the requests.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import type { Health } from '../src/health';
import { kubernetesModulePaletteSync } from '../src/module';
import { parseRedisUrl } from '../src/redis/address';
import { RedisConnection } from '../src/redis/connection';
import { Backstage, component, kubernetesPlugin } from '../test/support/backstage';
import { CapturingLogger } from '../test/support/logger';
import { until } from '../test/support/processes';
import { cluster, Publisher, randomPrefix, SEAL_LINE } from '../test/support/published';
import { VENV_BIN } from '../test/support/repository';
import { percentile, type Row, row } from './rows';

const OBJECT_TYPES = 13; // what Backstage asks each cluster for by default
const PAGES = 10;
const BATCH = 250;
const PROJECTS = 40;
const PODS = JSON.stringify({
  kind: 'PodList',
  items: ['cart-1', 'cart-2'].map(name => ({ metadata: { name, namespace: 'shop' }, status: { phase: 'Running' } })),
});

const MAKE_CERTIFICATE = `
import json
from palette_sync.simulator.certificates import Authority, key_pem, new_key
authority, key = Authority("bench"), new_key()
certificate = authority.server_certificate(key, host="127.0.0.1").decode()
print(json.dumps({"ca": authority.pem, "cert": certificate, "key": key_pem(key).decode()}))
`;

interface Certificate {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** The worker: API servers that count their requests. */
export async function apiServers(): Promise<void> {
  const { cert, key } = workerData as Certificate;
  let requests = 0;
  const server = createServer({ cert, key }, (_request, response) => {
    requests += 1;
    response.setHeader('content-type', 'application/json').end(PODS);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  parentPort!.on('message', () => parentPort!.postMessage(requests));
  parentPort!.postMessage((server.address() as AddressInfo).port);
}

class ApiServers {
  private constructor(
    private readonly worker: Worker,
    readonly port: number,
    readonly ca: string,
  ) {}

  static async start(): Promise<ApiServers> {
    const certificate = JSON.parse(
      String(execFileSync(join(VENV_BIN, 'python'), ['-c', MAKE_CERTIFICATE])),
    ) as Certificate;
    const worker = new Worker(require.resolve('./bench'), { workerData: { ...certificate, part: 'api servers' } });
    const [port] = (await once(worker, 'message')) as [number];
    return new ApiServers(worker, port, Buffer.from(certificate.ca).toString('base64'));
  }

  async requests(): Promise<number> {
    this.worker.postMessage('count');
    const [count] = (await once(this.worker, 'message')) as [number];
    return count;
  }

  async stop(): Promise<void> {
    await this.worker.terminate();
  }
}

async function publish(url: string, prefix: string, servers: ApiServers, count: number): Promise<void> {
  const redis = await RedisConnection.open(parseRedisUrl(url), {});
  const publisher = new Publisher(redis, 'alpha', prefix);
  for (let first = 1; first <= count; first += BATCH) {
    const put = Array.from({ length: Math.min(BATCH, count - first + 1) }, (_, index) => {
      const number = first + index;
      const project = number % PROJECTS;
      return cluster(number, {
        server: { ca_data: servers.ca, url: `https://127.0.0.1:${servers.port}/c${number}` },
        project: { name: `project-${project}`, uid: `p${project}` },
      });
    });
    await publisher.publish({ put, tokens: Object.fromEntries(put.map(({ uid }) => [uid, `token-${uid}`])) });
  }
  await redis.close();
}

interface Cost {
  /** For each page. */
  readonly requests: number;
  /** The time of a page, relative to that of one with a single cluster by Backstage's own locator. */
  readonly ratio: number;
}

/** Both are measured by turns, so that other work of this machine slows both. */
async function costOf(name: string, ours: Backstage, baseline: Backstage, servers: ApiServers): Promise<Cost> {
  const pageOf = async (backstage: Backstage, entity: string) => {
    const [before, began] = [await servers.requests(), performance.now()];
    await backstage.workloads({}, entity);
    const ms = performance.now() - began;
    return { ms, requests: (await servers.requests()) - before };
  };
  await pageOf(ours, name); // opens the connections
  const [times, baselines, requests]: [number[], number[], number[]] = [[], [], []];
  for (let page = 0; page < PAGES; page += 1) {
    baselines.push((await pageOf(baseline, 'one-named')).ms);
    const own = await pageOf(ours, name);
    times.push(own.ms);
    requests.push(own.requests);
  }
  return { requests: Math.max(...requests), ratio: percentile(times, 0.5) / percentile(baselines, 0.5) };
}

const ENTITIES = [
  component('one-named', { 'backstage.io/kubernetes-cluster': 'alpha-7' }),
  component('ten-by-glob', { 'backstage.io/kubernetes-cluster': 'alpha-1?' }),
  component('one-related', {}, 'resource:default/alpha-7'),
  component('of-project', { 'palette-sync.io/project': 'project-7' }),
  component('none'),
];

async function start(url: string, prefix: string, count: number, changes: object, method: string): Promise<Backstage> {
  const backstage = await Backstage.start({
    features: [kubernetesPlugin(), Promise.resolve({ default: kubernetesModulePaletteSync })],
    kubernetes: { serviceLocatorMethod: { type: method }, clusterLocatorMethods: [] },
    paletteSync: { redis: { url, prefix }, sealKeys: SEAL_LINE, clusterTimeout: '2m', ...changes },
    entities: ENTITIES,
    logger: new CapturingLogger(),
  });
  await until('all clusters', async () => (await backstage.health<Health>()).body.instances[0]?.served === count);
  return backstage;
}

async function pagesAt(url: string, servers: ApiServers, count: number): Promise<Row[]> {
  const prefix = randomPrefix();
  await publish(url, prefix, servers, count);
  const plain = { extensionPoints: { serviceLocator: false, fetcher: false } };
  const baseline = await start(url, prefix, count, plain, 'singleTenant');
  const ours = await start(url, prefix, count, {}, 'multiTenant');
  const at = `at ${count.toLocaleString('en')} clusters`;
  const rows: Row[] = [];
  for (const [name, clusters, what] of [
    ['one-named', 1, 'annotation with one name'],
    ['one-related', 1, 'relation to one cluster'],
    ['ten-by-glob', 10, 'annotation with a glob for ten'],
    ['of-project', count / PROJECTS, `project of ${count / PROJECTS} clusters`],
    ['none', 50, 'nothing selected, the first 50'],
  ] as const) {
    const { requests, ratio } = await costOf(name, ours, baseline, servers);
    rows.push(row(`page ${at}, ${what}`, requests, 'requests', clusters * OBJECT_TYPES));
    // More clusters take longer by at most their number; the selection itself must not count.
    rows.push(row(`page ${at}, ${what}, time relative to singleTenant`, ratio, 'x', 2 * clusters));
  }
  await Promise.all([ours.stop(), baseline.stop()]);
  return rows;
}

export async function pageCosts(url: string): Promise<Row[]> {
  const servers = await ApiServers.start();
  try {
    return [...(await pagesAt(url, servers, 200)), ...(await pagesAt(url, servers, 2_000))];
  } finally {
    await servers.stop();
  }
}
