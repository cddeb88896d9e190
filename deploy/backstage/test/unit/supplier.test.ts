import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { BackstageCredentials } from '@backstage/backend-plugin-api';
import type { ClusterDetails, KubernetesClustersSupplier } from '@backstage/plugin-kubernetes-node';
import { type Call, duringCall } from '../../src/call';
import { Directory } from '../../src/directory';
import { LeftOut } from '../../src/oidc/leftOut';
import { decodeRecord } from '../../src/snapshot/decode';
import type { Entry, Snapshot } from '../../src/snapshot/snapshot';
import { UnifiedClustersSupplier } from '../../src/supplier';
import { SERVE_ALL } from '../support/following';
import { CapturingLogger } from '../support/logger';
import { cluster } from '../support/published';
import { tokenWith } from '../support/tokens';

const USER = { credentials: { principal: { userEntityRef: 'user:default/one' } } as unknown as BackstageCredentials };

function snapshot(numbers: number[], { expiresAt }: { expiresAt?: number } = {}, instance = 'alpha'): Snapshot {
  const entries = new Map<string, Entry>();
  for (const number of numbers) {
    const one = cluster(number, { instance });
    const record = decodeRecord(instance, one.uid, JSON.stringify(one));
    const credential = { raw: '', hash: '', token: `token-${number}`, ...(expiresAt !== undefined && { expiresAt }) };
    entries.set(one.uid, { uid: one.uid, hash: '', record, credential });
  }
  const head = {
    epoch: 1,
    version: 1,
    digest: '',
    mac: '',
    clusters: numbers.length,
    complete: true,
    changedAt: 0,
    changedAtText: '',
    credentialsDigest: '',
    unconfirmed: '',
  };
  return { head, entries, kept: new Map() };
}

async function directory(...numbers: number[]): Promise<Directory> {
  const made = new Directory(SERVE_ALL);
  await made.update('alpha', snapshot(numbers));
  return made;
}

function theirs(...names: string[]): ClusterDetails[] {
  return names.map(name => ({ name, url: 'https://theirs', authMetadata: {} }));
}

function namesOf(clusters: ClusterDetails[]): string[] {
  return clusters.map(({ name }) => name);
}

describe('the unified view', () => {
  test('holds the default clusters first, then ours', async () => {
    const defaults = { getClusters: async () => theirs('static', 'gke') };
    const supplier = new UnifiedClustersSupplier({
      defaults,
      directory: await directory(1, 2),
      logger: new CapturingLogger(),
    });

    assert.deepEqual(namesOf(await supplier.getClusters(USER)), ['static', 'gke', 'alpha-1', 'alpha-2']);
  });

  test('asks the default suppliers at each call, with its credentials', async () => {
    const asked: unknown[] = [];
    const defaults: KubernetesClustersSupplier = {
      getClusters: async options => {
        asked.push(options);
        return theirs(`for-${asked.length}`);
      },
    };
    const supplier = new UnifiedClustersSupplier({ defaults, logger: new CapturingLogger() });

    assert.deepEqual(namesOf(await supplier.getClusters(USER)), ['for-1']);
    assert.deepEqual(namesOf(await supplier.getClusters(USER)), ['for-2']);
    assert.deepEqual(asked, [USER, USER]);
  });

  test('gives fresh copies, all the way down', async () => {
    const supplier = new UnifiedClustersSupplier({ directory: await directory(1), logger: new CapturingLogger() });
    const [first] = await supplier.getClusters(USER);
    first!.url = 'https://changed';
    first!.authMetadata['serviceAccountToken'] = 'changed';

    const [second] = await supplier.getClusters(USER);

    assert.equal(second?.url, 'https://c1.example:6443');
    assert.equal(second?.authMetadata['serviceAccountToken'], 'token-1');
  });

  test('withholds ours if a default cluster has the name, and logs it once', async () => {
    const logger = new CapturingLogger();
    const defaults = { getClusters: async () => theirs('alpha-1') };
    const supplier = new UnifiedClustersSupplier({ defaults, directory: await directory(1, 2), logger });

    for (let call = 0; call < 3; call += 1) {
      const found = await supplier.getClusters(USER);
      assert.deepEqual(namesOf(found), ['alpha-1', 'alpha-2']);
      assert.equal(found[0]?.url, 'https://theirs');
    }

    assert.equal(logger.count(/has the name alpha-1, too/), 1);
    assert.deepEqual(supplier.duplicates, ['alpha-1']);
  });

  test('withholds it also while the default suppliers fail: the name must not lead to another cluster', async () => {
    let broken = false;
    const defaults = {
      getClusters: async () => (broken ? Promise.reject(new Error('no network')) : theirs('alpha-1', 'static')),
    };
    const supplier = new UnifiedClustersSupplier({
      defaults,
      directory: await directory(1, 2),
      logger: new CapturingLogger(),
    });
    await supplier.getClusters(USER);
    broken = true;

    assert.deepEqual(namesOf(await supplier.getClusters(USER)), ['alpha-2']);
  });

  for (const [what, getClusters] of [
    ['rejects', async () => Promise.reject(new Error('no network'))],
    [
      'throws',
      () => {
        throw new Error('no network');
      },
    ],
    ['never answers', () => new Promise<never>(() => {})],
  ] as const) {
    test(`a default supplier that ${what} costs its own clusters, and is logged once`, async () => {
      const logger = new CapturingLogger();
      const supplier = new UnifiedClustersSupplier({
        defaults: { getClusters },
        directory: await directory(1),
        logger,
        defaultsTimeoutMs: 20,
      });

      for (let call = 0; call < 3; call += 1) {
        assert.deepEqual(namesOf(await supplier.getClusters(USER)), ['alpha-1']);
      }

      assert.equal(logger.count(/the clusters of kubernetes.clusterLocatorMethods are missing: no/), 1);
    });
  }

  test('a default supplier that works again is logged, and its next failure, too', async () => {
    const logger = new CapturingLogger();
    let broken = true;
    const defaults = { getClusters: async () => (broken ? Promise.reject(new Error('x')) : theirs('static')) };
    const supplier = new UnifiedClustersSupplier({ defaults, logger });

    for (const state of [true, false, true]) {
      broken = state;
      await supplier.getClusters(USER);
    }

    assert.equal(logger.count(/are missing: x/), 2);
    assert.equal(logger.count(/are back/), 1);
  });
});

describe('the directory', () => {
  test('stops offering a cluster at the moment its token expires', async () => {
    const made = new Directory(SERVE_ALL);
    await made.update('alpha', snapshot([1], { expiresAt: 5_000 }));

    assert.deepEqual(namesOf(made.clusters(4_999)), ['alpha-1']);
    assert.deepEqual(made.clusters(5_000), []);
    assert.deepEqual(made.counts('alpha', 5_000), { served: 0, withheld: { TokenLapsed: 1 } });
    assert.equal(made.withheld(5_000)[0]?.reason, 'TokenLapsed');
  });

  test('withholds the second of two clusters of one name, by the order of instances', async () => {
    const made = new Directory(SERVE_ALL);
    await made.update('bravo', snapshot([1], {}, 'bravo'));
    await made.update('alpha', snapshot([1]));

    assert.deepEqual(namesOf(made.clusters(0)), ['alpha-1']);
    assert.deepEqual(made.counts('bravo', 0), { served: 0, withheld: { DuplicateName: 1 } });
  });
});

describe('during a request', () => {
  const oidc = (issuer: string) => ({
    auth: { provider: 'oidc', oidc_token_provider: 'corp', issuer_url: issuer, client_id: 'backstage' },
  });
  const call = (kind: Call['kind'], token?: string): Call => ({ kind, tokenOf: () => token, notices: [] });
  const good = tokenWith({ iss: 'https://one.example', aud: 'backstage' });

  async function mixed() {
    const made = new Directory({ ...SERVE_ALL, servesOidc: () => true });
    const entries = new Map<string, Entry>();
    for (const one of [cluster(1), cluster(2, oidc('https://one.example')), cluster(3, oidc('https://two.example'))]) {
      const record = decodeRecord('alpha', one.uid, JSON.stringify(one));
      entries.set(one.uid, { uid: one.uid, hash: '', record, credential: { raw: '', hash: '', token: 'token' } });
    }
    await made.update('alpha', { ...snapshot([]), entries });
    const leftOut = new LeftOut();
    const authMetadata = { 'kubernetes.io/auth-provider': 'oidc', 'kubernetes.io/oidc-token-provider': 'corp' };
    const defaults = { getClusters: async () => [{ name: 'static-oidc', url: 'https://theirs', authMetadata }] };
    const supplier = new UnifiedClustersSupplier({ defaults, directory: made, leftOut, logger: new CapturingLogger() });
    const during = (one: Call) => duringCall(one, async () => namesOf(await supplier.getClusters(USER)));
    return { supplier, leftOut, during };
  }

  test('a query gets no OIDC cluster without a token, whoever configured it', async () => {
    const { during, leftOut } = await mixed();

    assert.deepEqual(await during(call('query')), ['alpha-1']);
    assert.deepEqual(
      leftOut.counts.map(({ reason, clusters }) => [reason, clusters]),
      [['NoToken', 3]],
    );
  });

  test('a query gets the OIDC clusters of the issuer of its token, and others whose issuer is not known', async () => {
    const { during, leftOut } = await mixed();

    assert.deepEqual(await during(call('query', good)), ['static-oidc', 'alpha-1', 'alpha-2']);
    assert.deepEqual(
      leftOut.counts.map(({ reason, clusters }) => [reason, clusters]),
      [['IssuerDiffers', 1]],
    );
  });

  test('the proxy gets all clusters but those of other issuers', async () => {
    const { during, leftOut } = await mixed();

    assert.deepEqual(await during(call('proxy')), ['static-oidc', 'alpha-1', 'alpha-2', 'alpha-3']);
    assert.deepEqual(await during(call('proxy', good)), ['static-oidc', 'alpha-1', 'alpha-2']);
    assert.deepEqual(leftOut.counts, []);
  });

  test('the list of clusters holds them all, so that the page asks for the logins', async () => {
    const { supplier } = await mixed();

    assert.equal((await supplier.getClusters(USER)).length, 4);
  });
});
