/**
 * `make test-backstage-ui`: the Kubernetes tab of an entity, in a headless Chromium, over a whole Backstage with simulated
 * clusters. Not part of `npm test`, because it needs a Backstage app and a browser.
 */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Browser, chromium, type Locator, type Page } from 'playwright-core';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { Keys } from '../../src/snapshot/keys';
import { OidcProvider, type Signer } from '../support/oidcProvider';
import {
  Daemon,
  ownPort,
  type SimulatedCluster,
  type SimulatedInstance,
  Simulation,
  until,
  Valkey,
} from '../support/processes';
import { REPOSITORY } from '../support/repository';
import { App } from './app';

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
const SCREENSHOTS = join(REPOSITORY, 'build', 'backstage-ui');
const SECRET = 'canary-client-secret';
const SHOWN_MS = 60_000;
// Without them Chromium looks for Google's hosts at every start. Root may not use the sandbox.
const FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
  ...['--disable-component-update', '--disable-sync'],
];

// One story over one world, in order: each test leaves it usable for the next.
let simulation: Simulation;
let valkey: Valkey;
let daemon: Daemon;
let alpha: SimulatedInstance;
let accounts: SimulatedCluster[];
let oidc: SimulatedCluster;
let provider: OidcProvider;
let app: App;
let browser: Browser;
let page: Page;

before(async () => {
  [simulation, valkey] = await Promise.all([
    Simulation.start({ instances: 1, projects: 2, clusters: 5 }),
    Valkey.start(),
  ]);
  [alpha] = (await simulation.instances()) as [SimulatedInstance];
  accounts = alpha.clusters.filter(cluster => !cluster.oidc);
  oidc = alpha.clusters.find(cluster => cluster.oidc)!;
  daemon = await Daemon.start(simulation.config, {
    PALETTE_SYNC_REDIS__URL: valkey.url,
    PALETTE_SYNC_DEFAULTS__REFRESH_INTERVAL: '1s',
    PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL: '1h',
    PALETTE_SYNC_DEFAULTS__OIDC__PROVIDER: 'oidc',
  });
  const auth = await until('the record of the OIDC cluster', () => publishedAuth(oidc.uid));
  const client = { id: auth.client_id, secret: SECRET, issuer: auth.issuer_url };
  provider = await OidcProvider.start(client, await signerOf(oidc));
  const port = await ownPort();
  provider.callbacks.add(`http://localhost:${port}/api/auth/oidc/handler/frame`);
  app = await App.start(port, {
    PALETTE_SYNC_REDIS_URL: valkey.url,
    PALETTE_SYNC_SEAL_KEYS_FILE: simulation.sealKeysFile,
    OIDC_METADATA_URL: provider.metadataUrl,
    OIDC_CLIENT_ID: client.id,
    OIDC_CLIENT_SECRET: SECRET,
  });
  browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  page = await browser.newPage({ viewport: { width: 1200, height: 800 } });
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.goto(app.url);
  await page.getByRole('button', { name: 'Enter' }).click(); // as a guest
  await page.getByRole('link', { name: 'Catalog' }).first().waitFor({ timeout: SHOWN_MS });
});

after(async () => {
  await page?.screenshot({ path: join(SCREENSHOTS, 'last.png') });
  await browser?.close();
  await app?.stop();
  await provider?.stop();
  await daemon?.stop();
  await simulation?.stop();
  await valkey?.stop();
});

interface PublishedAuth {
  readonly issuer_url: string;
  readonly client_id: string;
}

async function publishedAuth(uid: string): Promise<PublishedAuth | undefined> {
  const redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
  try {
    const raw = await redis.command(['HGET', new Keys('palette-sync').clusters('alpha'), uid]);
    return raw === null ? undefined : (JSON.parse(String(raw)) as { auth?: PublishedAuth }).auth;
  } finally {
    await redis.close();
  }
}

/** Signs with the key that the simulated cluster trusts. */
async function signerOf(cluster: SimulatedCluster): Promise<Signer> {
  const ask = (claims: object) =>
    simulation.ask<{ token: string; key: object }>('POST', `/clusters/${cluster.uid}/user-token`, {
      name: 'jo',
      groups: ['system:masters'],
      claims,
    });
  const { key } = await ask({});
  return { algorithm: 'ES256', keys: [key], sign: async claims => (await ask(claims)).token };
}

/** Opens the Kubernetes tab of the component cart anew. */
async function open(): Promise<void> {
  await page.goto(`${app.url}/catalog/default/component/cart/kubernetes`);
}

/** The row of a cluster. By CSS, because a dialog hides the rest of the page from roles. */
function row(cluster: SimulatedCluster): Locator {
  return page.locator('[role=button]', { hasText: `${cluster.name} (` });
}

async function waitForRow(cluster: SimulatedCluster, text: string): Promise<void> {
  await row(cluster).filter({ hasText: text }).waitFor({ timeout: SHOWN_MS });
}

async function waitForPods(...clusters: SimulatedCluster[]): Promise<void> {
  for (const cluster of clusters) {
    await waitForRow(cluster, '2 pods');
  }
}

function loginDialog(): Locator {
  return page.getByRole('dialog').filter({ hasText: 'Login Required' });
}

test('a user without an OIDC login sees pods of all other clusters, also while the login is asked for', async () => {
  await open();

  await loginDialog().waitFor({ timeout: SHOWN_MS });
  await waitForPods(...accounts);
  assert.equal(await row(oidc).count(), 0);
});

test('a user who refuses the login keeps them, and is not asked again by the page', async () => {
  await loginDialog().getByRole('button', { name: 'Reject all' }).click();
  await loginDialog().waitFor({ state: 'hidden' });

  const polled = () => page.waitForResponse(response => response.url().includes('/api/kubernetes/services/'));
  await polled();
  await polled();

  assert.equal(await loginDialog().count(), 0);
  await waitForPods(...accounts);
});

test('the row of a cluster opens and lists the workloads', async () => {
  await row(accounts[0]!).click();

  const deployment = page.locator('[role=button]', { hasText: 'cartDeploymentnamespace: shop' });
  await deployment.waitFor({ timeout: SHOWN_MS });
  await row(accounts[0]!).click();
});

test('the clusters are Resources in the catalog', async () => {
  const one = accounts[0]!;
  const known = async () => {
    await page.goto(`${app.url}/catalog/default/resource/alpha-${one.name}`);
    await page
      .getByRole('heading', { name: new RegExp(one.name) })
      .first()
      .waitFor({ timeout: 10_000 });
    return true;
  };
  await until('the page of the Resource', known);
  await page.screenshot({ path: join(SCREENSHOTS, 'resource.png') });
  await open();
  await loginDialog().getByRole('button', { name: 'Reject all' }).click();
});

test('a rotated token is used by the open page', async () => {
  const [, one] = accounts as [SimulatedCluster, SimulatedCluster];
  await simulation.ask('POST', `/clusters/${one.uid}/revoke-tokens`);
  await waitForRow(one, '0 pods');
  await waitForPods(accounts[0]!);

  await daemon.verifyAll(alpha.clusters.length);

  await waitForPods(one);
});

test('a cluster that hangs does not hold the page', async () => {
  const hanging = accounts.at(-1)!;
  await simulation.ask('POST', '/faults', { target: 'kube', kind: 'hang', cluster: hanging.uid });
  const rest = accounts.filter(one => one !== hanging);

  await open();
  await loginDialog().getByRole('button', { name: 'Reject all' }).click();
  await waitForPods(...rest);
  await waitForRow(hanging, '0 pods');

  await simulation.ask('DELETE', '/faults');
  await waitForPods(hanging);
});

test('a user who logs in sees the pods of the OIDC cluster too', async () => {
  await open();
  await loginDialog().waitFor({ timeout: SHOWN_MS });
  const popup = page.waitForEvent('popup');
  await loginDialog().getByRole('button', { name: 'Log in' }).click();
  await popup;

  await waitForPods(oidc, ...accounts);
  assert.deepEqual(provider.answers, ['code']);
  await page.screenshot({ path: join(SCREENSHOTS, 'kubernetes-tab.png') });
});

test('the login holds after a reload, without another question', async () => {
  await open();

  await waitForPods(oidc, ...accounts);
  assert.equal(await loginDialog().count(), 0);
  assert.deepEqual(provider.answers, ['code']);
});
