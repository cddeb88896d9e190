import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { createServiceFactory } from '@backstage/backend-plugin-api';
import { mockServices } from '@backstage/backend-test-utils';
import { loadConfigSchema } from '@backstage/config-loader';
import { catalogServiceRef } from '@backstage/plugin-catalog-node';
import { catalogServiceMock } from '@backstage/plugin-catalog-node/testUtils';
import type { JsonObject } from '@backstage/types';
import { decodeJwt, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { parse } from 'yaml';
import { startedBackend } from '../support/backstage';
import { OidcProvider, type Signer } from '../support/oidcProvider';
import { ONE_REQUEST } from '../support/processes';
import { PACKAGE } from '../support/repository';

// The steps of README.md, with the configuration that is written there, and what happens if one of them is left out.
const BASE_URLS = { app: { baseUrl: 'http://localhost' }, backend: { baseUrl: 'http://localhost' } };
/** What the schemas of other packages of Backstage demand. */
const REQUIRED = {
  ...BASE_URLS,
  backend: { ...BASE_URLS.backend, listen: ':0', database: { client: 'better-sqlite3', connection: ':memory:' } },
};
const CLIENT = { id: 'backstage', secret: 'canary-client-secret' };
const skip = sqliteMissing();
const running: (() => Promise<void>)[] = [];
let provider: OidcProvider;

const { setInterval: repeat } = globalThis;

before(async () => {
  // The auth plugin's database pool outlives a test backend, with a timer that would keep this process alive.
  globalThis.setInterval = ((...args: Parameters<typeof repeat>) => repeat(...args).unref()) as typeof repeat;
  provider = await OidcProvider.start(CLIENT, await rsaSigner());
});

afterEach(async () => {
  await Promise.all(running.splice(0).map(stop => stop()));
  provider.callbacks.clear();
  provider.answers.length = 0;
  provider.isLoggedIn = false;
  provider.refuses = false;
});

after(async () => {
  globalThis.setInterval = repeat;
  await provider?.stop();
});

/** The auth plugin keeps its sessions in a database, and SQLite is compiled by `make test-backstage`, where it can. */
function sqliteMissing(): string | false {
  try {
    new (createRequire(__filename)('better-sqlite3') as new (file: string) => unknown)(':memory:');
    return false;
  } catch {
    return 'better-sqlite3 is not built here: npm rebuild better-sqlite3 needs a C++ compiler';
  }
}

async function rsaSigner(): Promise<Signer> {
  const { privateKey, publicKey } = await generateKeyPair('RS256');
  return {
    algorithm: 'RS256',
    keys: [{ ...(await exportJWK(publicKey)), kid: 'one', use: 'sig' }],
    sign: claims => new SignJWT({ ...claims }).setProtectedHeader({ alg: 'RS256', kid: 'one' }).sign(privateKey),
  };
}

interface AuthConfig {
  session?: { secret: string };
  environment: string;
  providers: { oidc: Record<string, Record<string, unknown>> };
}

/** The block `auth:` of the README, with its variables filled in. */
function documented(): AuthConfig {
  const readme = readFileSync(join(PACKAGE, 'README.md'), 'utf8');
  const block = [...readme.matchAll(/```yaml\n([\s\S]*?)```/g)].find(([, yaml]) => /^ *auth:$/m.test(yaml ?? ''))?.[1];
  const variables: Record<string, string> = {
    AUTH_SESSION_SECRET: 'canary-session-secret',
    OIDC_METADATA_URL: provider.metadataUrl,
    OIDC_CLIENT_ID: CLIENT.id,
    OIDC_CLIENT_SECRET: CLIENT.secret,
  };
  const filled = (block ?? '').replace(/\$\{(\w+)\}/g, (_, name: string) => variables[name] ?? `no ${name}`);
  return (parse(filled) as { auth: AuthConfig }).auth;
}

/** A Backstage with the auth plugin and its stock provider `oidc`, and a browser with its cookies. */
class Site {
  readonly #cookies = new Map<string, string>();

  private constructor(
    private readonly origin: string,
    private readonly environment: string,
  ) {}

  static async start(auth: AuthConfig): Promise<Site> {
    const backend = await startedBackend({
      features: [
        import('@backstage/plugin-auth-backend').then(one => one.default),
        import('@backstage/plugin-auth-backend-module-oidc-provider').then(one => one.default),
        mockServices.rootConfig.factory({
          data: { ...BASE_URLS, auth } as unknown as JsonObject,
        }),
        createServiceFactory({ service: catalogServiceRef, deps: {}, factory: () => catalogServiceMock() }),
      ],
    });
    running.push(() => backend.stop());
    return new Site(`http://localhost:${backend.server.port()}`, auth.environment);
  }

  get callback(): string {
    return `${this.origin}/api/auth/oidc/handler/frame`;
  }

  /** Follows the popup to its end. Returns what it would post to the page, or what stopped it on the way. */
  async logIn(): Promise<{ idToken?: string; error?: string }> {
    let at = `${this.origin}/api/auth/oidc/start?scope=openid&env=${this.environment}`;
    for (;;) {
      const response = await this.#get(at);
      const next = response.headers.get('location');
      if (next === null) {
        const text = await response.text();
        const posted = /decodeURIComponent\('([^']+)'\)/.exec(text)?.[1];
        if (response.status !== 200 || posted === undefined) {
          return { error: text };
        }
        const message = JSON.parse(decodeURIComponent(posted)) as {
          response?: { providerInfo: { idToken: string } };
          error?: { message: string };
        };
        return message.error ? { error: message.error.message } : { idToken: message.response!.providerInfo.idToken };
      }
      at = new URL(next, at).href;
    }
  }

  /** What the frontend does when the page is opened again. */
  async refresh(): Promise<string> {
    const response = await this.#get(`${this.origin}/api/auth/oidc/refresh?env=${this.environment}`);
    const body = (await response.json()) as { providerInfo: { idToken: string } };
    assert.equal(response.status, 200, JSON.stringify(body));
    return body.providerInfo.idToken;
  }

  async #get(url: string): Promise<Response> {
    const mine = url.startsWith(this.origin);
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const headers = { ...ONE_REQUEST, 'x-requested-with': 'XMLHttpRequest', ...(mine && cookie && { cookie }) };
    const response = await fetch(url, { headers, redirect: 'manual' });
    for (const set of mine ? response.headers.getSetCookie() : []) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(set) ?? [];
      this.#cookies.set(name, value);
    }
    return response;
  }
}

test('the documented steps give the page an ID token of the user, again after a reload', { skip }, async () => {
  const site = await Site.start(documented());
  provider.callbacks.add(site.callback);

  const { idToken, error } = await site.logIn();

  assert.equal(error, undefined);
  const { iss, aud, sub } = decodeJwt(idToken!);
  assert.deepEqual({ iss, aud, sub }, { iss: provider.issuer, aud: CLIENT.id, sub: 'jo' });
  assert.equal(decodeJwt(await site.refresh()).sub, 'jo');
});

test('without auth.session.secret the login fails', { skip }, async () => {
  const { session: _, ...auth } = documented();
  const site = await Site.start(auth);
  provider.callbacks.add(site.callback);

  assert.match((await site.logIn()).error ?? '', /authentication requires session support/i);
});

test('without prompt: auto a user who is not logged in with the issuer yet is refused', { skip }, async () => {
  const auth = documented();
  delete auth.providers.oidc[auth.environment]!['prompt'];
  const site = await Site.start(auth);
  provider.callbacks.add(site.callback);

  assert.match((await site.logIn()).error ?? '', /login_required/);
  provider.isLoggedIn = true;
  assert.equal((await site.logIn()).error, undefined);
});

test('without the callback registered the issuer refuses the login', { skip }, async () => {
  const site = await Site.start(documented());

  assert.match((await site.logIn()).error ?? '', /redirect_uri is not registered/);
  assert.deepEqual(provider.answers, ['bad_callback']);
});

test('the client secret is hidden where the configuration is printed, under the name oidc and not under others', async () => {
  const from = createRequire(__filename);
  const packagePaths = ['@backstage/plugin-auth-backend', '@backstage/plugin-auth-backend-module-oidc-provider'].map(
    name => from.resolve(`${name}/package.json`),
  );
  const schema = await loadConfigSchema({ dependencies: [], packagePaths });
  const auth = documented();
  const printed = (providers: unknown) => {
    const data = { ...REQUIRED, auth: { ...auth, providers } } as unknown as JsonObject;
    return JSON.stringify(schema.process([{ data, context: 'test' }], { visibility: ['frontend', 'backend'] }));
  };

  assert(!printed(auth.providers).includes(CLIENT.secret));
  assert(printed({ spectrocloud: auth.providers.oidc }).includes(CLIENT.secret));
});
