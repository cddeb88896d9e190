/**
 * `make demo-backstage`: simulated Palette and clusters, a Valkey, the daemon, and a real Backstage backend with the real
 * Kubernetes plugin; prints what Backstage answers. The exit code is 1 if a cluster does not show its pods.
 */
import type { Health } from '../src/health';
import { Backstage } from '../test/support/backstage';
import { Daemon, Simulation, until, Valkey } from '../test/support/processes';

const CLUSTERS = 12;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function table(head: string[], rows: string[][]): void {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map(cells => cells[column]?.length ?? 0)));
  for (const cells of [head, widths.map(width => '-'.repeat(width)), ...rows]) {
    say(
      `  ${cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd()}`,
    );
  }
}

async function main(): Promise<void> {
  const began = performance.now();
  const ends: (() => Promise<void>)[] = [];
  const end = async () => {
    for (const one of ends.splice(0).reverse()) {
      await one();
    }
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void end().then(() => process.exit(130)));
  }
  try {
    say(`Starting simulated Palette instances with ${CLUSTERS} clusters, and a Valkey server ...`);
    const simulation = await Simulation.start({ instances: 2, projects: 4, clusters: CLUSTERS });
    ends.push(() => simulation.stop());
    const valkey = await Valkey.start();
    ends.push(() => valkey.stop());
    say('Starting a Backstage backend with the Kubernetes plugin and this module ...');
    const backstage = await Backstage.start({
      paletteSync: { redis: { url: valkey.url }, sealKeysFile: simulation.sealKeysFile },
    });
    ends.push(() => backstage.stop());
    say(`  it lists ${(await backstage.clusters()).length} clusters: nothing has been published yet`);
    say('Starting the daemon ...');
    const daemon = await Daemon.start(simulation.config, { PALETTE_SYNC_REDIS__URL: valkey.url });
    ends.push(() => daemon.stop());

    const all = (await simulation.instances()).flatMap(({ clusters }) => clusters);
    const accounts = all.filter(({ oidc }) => !oidc).length;
    const names = await until('all clusters in Backstage', async () => {
      const found = await backstage.clusters();
      return found.length === all.length && found;
    });
    const items = await backstage.workloads();
    say('\nGET /api/kubernetes/clusters and POST /api/kubernetes/resources/workloads/query (component cart) answer:\n');
    table(
      ['CLUSTER', 'PODS', 'ERRORS'],
      names.map(name => {
        const item = items.find(({ cluster }) => cluster.name === name);
        return [name, item?.pods.join(' ') ?? '(needs a login with OIDC)', String(item?.errors.length ?? 0)];
      }),
    );
    const { body } = await backstage.health<Health>();
    say(
      `\nGET /api/kubernetes/palette-sync/health answers "${body.status}"; OIDC clusters that this caller did not get:\n`,
    );
    table(
      ['PROVIDER', 'REASON', 'CLUSTERS'],
      body.leftOut.map(({ provider, reason, clusters }) => [provider, reason, String(clusters)]),
    );
    const good = items.length === accounts && items.every(({ pods, errors }) => pods.length > 0 && errors.length === 0);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    say(
      good
        ? `\nAll ${accounts} clusters with a service account show their pods, over verified TLS, after ${seconds} s. ` +
            `The other ${all.length - accounts} show theirs to users who are logged in with OIDC; see deploy/backstage/README.md.`
        : '\nNot every cluster shows its pods.',
    );
    process.exitCode = good ? 0 : 1;
  } finally {
    await end();
  }
}

void main();
