import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { LeftOut } from '../../src/oidc/leftOut';
import { proxyCallOf } from '../../src/oidc/proxyCall';
import { tokenIn, tokenProblem } from '../../src/oidc/token';
import { tokenWith } from '../support/tokens';

const DEMAND = { issuerUrl: 'https://issuer.example', clientId: 'backstage' };

describe('the token of a provider in a request', () => {
  const auth = { oidc: { corp: 'a.b.c', broken: 'a\nb', number: 5 } };
  for (const [what, given, provider, found] of [
    ['is found', auth, 'corp', 'a.b.c'],
    ['of another provider is not', auth, 'other', undefined],
    ['that no header can carry counts as none', auth, 'broken', undefined],
    ['that is not a string counts as none', auth, 'number', undefined],
    ['is not looked for in what all objects inherit', auth, 'toString', undefined],
    ['is missing without auth', undefined, 'corp', undefined],
    ['is missing where oidc is a list', { oidc: ['corp'] }, 'corp', undefined],
  ] as const) {
    test(what, () => {
      assert.equal(tokenIn(given, provider), found);
    });
  }
});

describe('a token is sent to its issuer only', () => {
  for (const [what, token, problem] of [
    ['its issuer and client', tokenWith({ iss: 'https://issuer.example', aud: 'backstage' }), undefined],
    ['one of several audiences', tokenWith({ iss: 'https://issuer.example', aud: ['x', 'backstage'] }), undefined],
    ['a slash at the end of the issuer', tokenWith({ iss: 'https://issuer.example/', aud: 'backstage' }), undefined],
    ['another issuer', tokenWith({ iss: 'https://evil.example', aud: 'backstage' }), 'IssuerDiffers'],
    ['another client', tokenWith({ iss: 'https://issuer.example', aud: 'other' }), 'IssuerDiffers'],
    ['no claims', tokenWith({}), 'IssuerDiffers'],
    ['no JWT', 'opaque', 'IssuerDiffers'],
    ['no JSON', 'a.b.c', 'IssuerDiffers'],
    ['a list for claims', tokenWith([]), 'IssuerDiffers'],
    ['no token', undefined, 'NoToken'],
  ] as const) {
    test(`${what}: ${problem ?? 'fits'}`, () => {
      assert.equal(tokenProblem(token, DEMAND), problem);
    });
  }

  test('what the record does not know is not compared', () => {
    const token = tokenWith({ iss: 'https://elsewhere.example', aud: 'x' });

    assert.equal(tokenProblem(token, { issuerUrl: '', clientId: '' }), undefined);
    assert.equal(tokenProblem(token, { issuerUrl: '', clientId: 'backstage' }), 'IssuerDiffers');
  });
});

describe('a request through the proxy', () => {
  test('has its tokens in headers, whose names are in lower case', () => {
    const call = proxyCallOf('/proxy/api/v1/pods', { 'backstage-kubernetes-authorization-oidc-corp': 'a.b.c' });

    assert.equal(call?.tokenOf('Corp'), 'a.b.c');
    assert.equal(call?.tokenOf('other'), undefined);
  });

  for (const path of ['/clusters', '/proxyless', '/resources/workloads/query']) {
    test(`is not ${path}`, () => {
      assert.equal(proxyCallOf(path, {}), undefined);
    });
  }
});

test('what was left out is counted by provider, reason and kind of caller, without users', () => {
  const leftOut = new LeftOut();
  const user = { principal: { type: 'user', userEntityRef: 'user:default/canary' } } as never;
  leftOut.add(
    [
      { provider: 'corp', reason: 'NoToken' },
      { provider: 'corp', reason: 'NoToken' },
    ],
    user,
    0,
  );
  leftOut.add(
    [
      { provider: 'corp', reason: 'NoToken' },
      { provider: 'corp', reason: 'IssuerDiffers' },
    ],
    user,
    1_000,
  );
  leftOut.add(
    [{ provider: 'corp', reason: 'NoToken' }],
    { principal: { type: 'service', subject: 'x' } } as never,
    2_000,
  );

  const counts = leftOut.counts.map(({ provider, reason, caller, calls, clusters }) => [
    provider,
    reason,
    caller,
    calls,
    clusters,
  ]);
  assert.deepEqual(counts, [
    ['corp', 'NoToken', 'user', 2, 1],
    ['corp', 'IssuerDiffers', 'user', 1, 1],
    ['corp', 'NoToken', 'service', 1, 1],
  ]);
  assert.equal(leftOut.counts[0]?.lastAt, '1970-01-01T00:00:01.000Z');
  assert(!JSON.stringify(leftOut.counts).includes('canary'));
});
