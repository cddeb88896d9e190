import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { OptionalOidcAuthProviders } from '../src/optionalOidc.js';

/** A user who has a token, or not, and who decides about a login when a test says so. */
class User {
  token = '';
  asked = 0;
  #decide: ((token: string | Error) => void) | undefined;

  async getIdToken(options?: { optional?: boolean }): Promise<string> {
    if (this.token !== '' || options?.optional) {
      return this.token;
    }
    this.asked += 1;
    return new Promise((resolve, reject) => {
      this.#decide = answer => (answer instanceof Error ? reject(answer) : resolve(answer));
    });
  }

  async accept(token: string): Promise<void> {
    this.token = token;
    this.#decide?.(token);
    await settled();
  }

  async refuse(): Promise<void> {
    this.#decide?.(new Error('Login failed, rejected by user'));
    await settled();
  }
}

const entity = { apiVersion: 'backstage.io/v1alpha1', kind: 'Component', metadata: { name: 'cart' } };
let user: User;
let api: OptionalOidcAuthProviders;

beforeEach(() => {
  user = new User();
  api = new OptionalOidcAuthProviders({
    others: {
      decorateRequestBodyForAuth: async (name, body) => ({ ...body, auth: { ...body.auth, [name]: 'theirs' } }),
      getCredentials: async () => ({ token: 'theirs' }),
    },
    apiOf: () => user,
  });
});

async function settled(): Promise<void> {
  await new Promise(resolve => setImmediate(resolve));
}

test('a user with a token: it is added beside the others', async () => {
  user.token = 'id-token';
  const body = { entity, auth: { oidc: { okta: 'another' } } };

  const { auth } = await api.decorateRequestBodyForAuth('oidc.oidc', body);

  assert.deepEqual(auth, { oidc: { okta: 'another', oidc: 'id-token' } });
  assert.equal(user.asked, 0);
});

test('a user without a token: the request goes out without waiting, and the login is asked for once', async () => {
  for (let poll = 0; poll < 3; poll += 1) {
    assert.deepEqual(await api.decorateRequestBodyForAuth('oidc.oidc', { entity }), { entity });
  }
  assert.equal(user.asked, 1);

  await user.accept('id-token');
  const { auth } = await api.decorateRequestBodyForAuth('oidc.oidc', { entity });
  assert.deepEqual(auth, { oidc: { oidc: 'id-token' } });
});

test('a refused login throws nothing and is not asked for again', async () => {
  await api.decorateRequestBodyForAuth('oidc.oidc', { entity });
  await user.refuse();

  assert.deepEqual(await api.decorateRequestBodyForAuth('oidc.oidc', { entity }), { entity });
  assert.equal(user.asked, 1);
});

test('a login that ended is asked for again', async () => {
  await api.decorateRequestBodyForAuth('oidc.oidc', { entity });
  await user.accept('id-token');
  user.token = '';

  await api.decorateRequestBodyForAuth('oidc.oidc', { entity });

  assert.equal(user.asked, 2);
});

test('credentials for a click wait for the login, and are empty if it is refused', async () => {
  const first = api.getCredentials('oidc.oidc');
  await user.refuse();
  assert.deepEqual(await first, {});

  const second = api.getCredentials('oidc.oidc');
  await user.accept('id-token');
  assert.deepEqual(await second, { token: 'id-token' });
});

test('what is not OIDC is handled by the others', async () => {
  assert.deepEqual((await api.decorateRequestBodyForAuth('google', { entity })).auth, { google: 'theirs' });
  assert.deepEqual(await api.getCredentials('aws'), { token: 'theirs' });
});
