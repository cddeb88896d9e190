import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { compileFilter, compileTags } from '../../src/filter';
import { interpret, type Policy } from '../../src/mapping';
import { decodeRecord } from '../../src/snapshot/decode';
import type { Credential, Entry } from '../../src/snapshot/snapshot';
import { SERVE_ALL } from '../support/following';
import { cluster } from '../support/published';

const CREDENTIAL: Credential = { raw: '{}', hash: '', token: 'canary-token', expiresAt: 2_000 };

function entry(changes: Record<string, unknown> = {}, credential: Credential | undefined = CREDENTIAL): Entry {
  const one = cluster(1, changes);
  const record = decodeRecord('alpha', one.uid, JSON.stringify(one));
  return { uid: one.uid, hash: '', record, ...(credential && { credential }) };
}

function withoutCredential(changes: Record<string, unknown> = {}): Entry {
  const { credential: _none, ...rest } = entry(changes);
  return rest;
}

function reasonOf(one: Entry, policy: Policy = SERVE_ALL): string {
  const verdict = interpret(one, policy);
  return 'withheld' in verdict ? verdict.withheld.reason : 'served';
}

function server(changes: Record<string, unknown>): Record<string, unknown> {
  return { server: { url: 'https://c1.example:6443', ca_data: 'Q0E=', ...changes } };
}

function access(state: string, reason: string): Record<string, unknown> {
  return { access: { state, reason, message: 'by the daemon', since: '2027-01-15T07:00:00Z' } };
}

const OIDC = {
  auth: { provider: 'oidc', oidc_token_provider: 'spectrocloud', issuer_url: 'https://i', client_id: 'c' },
};

describe('what Backstage is handed', () => {
  test('of a cluster with a service account', () => {
    const verdict = interpret(entry(), SERVE_ALL);

    assert('offered' in verdict);
    const { caData, ...rest } = verdict.offered.details;
    assert.deepEqual(rest, {
      name: 'alpha-1',
      title: 'Cluster 1',
      url: 'https://c1.example:6443',
      authMetadata: { 'kubernetes.io/auth-provider': 'serviceAccount', serviceAccountToken: 'canary-token' },
      skipTLSVerify: false,
      skipMetricsLookup: true,
      dashboardUrl: 'https://console.example/5f3c00000000000000000001',
    });
    assert.match(Buffer.from(caData ?? '', 'base64').toString(), /^-----BEGIN CERTIFICATE-----/);
    assert.equal(verdict.offered.expiresAt, 2_000);
  });

  test('of a cluster with OIDC of a provider that is served; the token of its service account is left out', () => {
    const verdict = interpret(entry(OIDC), { ...SERVE_ALL, servesOidc: provider => provider === 'spectrocloud' });

    assert('offered' in verdict);
    assert.deepEqual(verdict.offered.details.authMetadata, {
      'kubernetes.io/auth-provider': 'oidc',
      'kubernetes.io/oidc-token-provider': 'spectrocloud',
    });
    assert.equal(verdict.offered.expiresAt, undefined);
  });

  test('without links, title or CA if there are none', () => {
    const bare = entry({ title: '', ...server({ ca_data: undefined }) });

    const verdict = interpret(bare, { ...SERVE_ALL, dashboard: { links: false } });

    assert('offered' in verdict);
    for (const key of ['title', 'caData', 'dashboardUrl']) {
      assert(!(key in verdict.offered.details), key);
    }
  });
});

describe('what is withheld, and why', () => {
  const unreachable = { ...SERVE_ALL, withholdUnreachable: false };
  for (const [what, one, reason, policy] of [
    ['pending access', entry(access('pending', 'NotRunning')), 'AccessPending'],
    ['failed access', entry(access('failed', 'Forbidden')), 'AccessFailed'],
    ['degraded access is served', entry(access('degraded', 'RenewalFailed')), 'served'],
    ['degraded and unreachable', entry(access('degraded', 'Unreachable')), 'Unreachable'],
    ['degraded, and a proxy answers', entry(access('degraded', 'ProxyAnswered')), 'Unreachable'],
    ['degraded, and a proxy answers, if asked for', entry(access('degraded', 'ProxyAnswered')), 'served', unreachable],
    ['degraded and unreachable, if asked for', entry(access('degraded', 'Unreachable')), 'served', unreachable],
    [
      'failed and unreachable, whatever is asked for',
      entry(access('failed', 'Unreachable')),
      'AccessFailed',
      unreachable,
    ],
    ['no server', entry({ server: undefined }), 'NoServer'],
    ['no auth', entry({ auth: undefined }), 'NoServer'],
    ['no credential', withoutCredential(), 'NoCredential'],
    [
      'a token that did not open',
      entry({}, { raw: '', hash: '', refused: { reason: 'SealKeyUnknown', message: 'no key', kid: 'k' } }),
      'SealKeyUnknown',
    ],
    ['OIDC of a provider that is not configured', withoutCredential(OIDC), 'OidcProviderNotConfigured'],
    ['plain http', entry(server({ url: 'http://c1.example' })), 'InsecureServer'],
    ['a login in the URL', entry(server({ url: 'https://u:p@c1.example' })), 'InsecureServer'],
    ['no URL at all', entry(server({ url: 'c1.example:6443' })), 'InsecureServer'],
    ['another TLS server name', entry(server({ tls_server_name: 'other.example' })), 'ServerNameDiffers'],
    ['the same TLS server name', entry(server({ tls_server_name: 'C1.example' })), 'served'],
    [
      'the same IPv6 address as server name',
      entry(server({ url: 'https://[::1]:1', tls_server_name: '::1' })),
      'served',
    ],
    ['an unreadable record', { uid: 'u', hash: '', unreadable: 'cluster record: name: is empty' }, 'Unreadable'],
    ['a tag of maintenance', entry(), 'Maintenance', { ...SERVE_ALL, underMaintenance: compileTags(['env:*']) }],
    ['what the filter leaves out', entry(), 'Filtered', { ...SERVE_ALL, chosen: () => false }],
  ] as [string, Entry, string, Policy?][]) {
    test(`${what}: ${reason}`, () => {
      assert.equal(reasonOf(one, policy), reason);
    });
  }

  test('messages hold no token and no address', () => {
    const said = [
      entry(server({ url: 'http://u:p@canary' })),
      entry(server({ url: 'https://canary', tls_server_name: 'other.canary' })),
      entry(access('failed', 'Forbidden')),
    ].map(one => JSON.stringify(interpret(one, SERVE_ALL)));

    assert(!said.join().includes('canary'));
  });
});

describe('the filter', () => {
  const none = {
    includeProjects: [],
    excludeProjects: [],
    includeTags: [],
    excludeTags: [],
    excludeTenantScopedClusters: false,
  };
  const record = entry().record!; // of the project Shop, with the tags env:prod and owner:team-web
  const { project: _none, ...ofUnknownProject } = record;
  const ofTenant = { ...ofUnknownProject, scope: 'tenant' } as const;
  for (const [what, filter, one, passes] of [
    ['nothing', {}, record, true],
    ['a project by name', { includeProjects: ['Shop'] }, record, true],
    ['a project by uid', { includeProjects: ['5f3c0000000000000000a001'] }, record, true],
    ['a project by glob', { includeProjects: ['S?o*'] }, record, true],
    ['case counts', { includeProjects: ['shop'] }, record, false],
    ['a set', { includeTags: ['[a-f]nv:[!d]rod'] }, record, true],
    ['a set of others', { includeTags: ['[!a-f]nv:*'] }, record, false],
    ['an excluded set', { excludeTags: ['env:[op]*'] }, record, false],
    ['a range that runs backwards holds nothing', { includeTags: ['[z-a]nv:*', 'e[]nv:*', '[!]nv:*'] }, record, false],
    ['dots are dots', { includeProjects: ['S.op'] }, record, false],
    ['exclusion wins', { includeProjects: ['*'], excludeProjects: ['Sho*'] }, record, false],
    ['a tag', { includeTags: ['env:*'] }, record, true],
    ['no such tag', { includeTags: ['env:dev', 'plain'] }, record, false],
    ['an excluded tag', { excludeTags: ['owner:team-*'] }, record, false],
    ['a cluster of the tenant, where projects are named', { includeProjects: ['Shop'] }, ofTenant, true],
    ['a cluster of the tenant, where projects are excluded', { excludeProjects: ['*'] }, ofTenant, true],
    ['a cluster of the tenant, if those are excluded', { excludeTenantScopedClusters: true }, ofTenant, false],
    ['a cluster of an unknown project, where projects are named', { includeProjects: ['*'] }, ofUnknownProject, false],
    ['a cluster of an unknown project, where some are excluded', { excludeProjects: ['x'] }, ofUnknownProject, false],
  ] as const) {
    test(`${what}: ${passes ? 'passes' : 'is left out'}`, () => {
      assert.equal(compileFilter({ ...none, ...filter })(one), passes);
    });
  }
});
