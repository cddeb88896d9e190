import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { loadConfigSchema } from '@backstage/config-loader';
import type { JsonObject } from '@backstage/types';
import { PACKAGE } from '../support/repository';

interface Manifest {
  readonly name: string;
  readonly license: string;
  readonly backstage: Record<string, string>;
  readonly exports: Record<string, string | Record<string, string>>;
  readonly configSchema: string;
  readonly dependencies: Record<string, string>;
}

const UNPACKED = join(PACKAGE, '.packed', 'node_modules', 'backstage-plugin-kubernetes-backend-module-palette-sync');

function manifest(): Manifest {
  return JSON.parse(readFileSync(join(UNPACKED, 'package.json'), 'utf8')) as Manifest;
}

describe('the packed package', () => {
  test('is a backend module of the Kubernetes plugin, under Apache-2.0', () => {
    const { backstage, license } = manifest();

    assert.equal(backstage['role'], 'backend-plugin-module');
    assert.equal(backstage['pluginId'], 'kubernetes');
    assert.equal(license, 'Apache-2.0');
  });

  test('holds what it names, a licence and a README, and nothing of its tests', () => {
    const { exports, configSchema } = manifest();
    const named = Object.values(exports).flatMap(one => (typeof one === 'string' ? [one] : Object.values(one)));

    for (const file of [...named, configSchema, 'LICENSE', 'README.md']) {
      assert(existsSync(join(UNPACKED, file)), file);
    }
    assert.deepEqual(readdirSync(UNPACKED).sort(), ['LICENSE', 'README.md', 'config.d.ts', 'dist', 'package.json']);
  });

  test('imports no package that it does not name', () => {
    const named = Object.keys(manifest().dependencies);
    const files = (readdirSync(join(UNPACKED, 'dist'), { recursive: true }) as string[]).filter(file =>
      /\.(js|d\.ts)$/.test(file),
    );
    assert(files.length > 20);
    for (const file of files) {
      const text = readFileSync(join(UNPACKED, 'dist', file), 'utf8');
      for (const [, asked] of text.matchAll(/(?:require\(|from |import\()['"]([^.'"][^'"]*)['"]/g)) {
        assert(asked?.startsWith('node:') || named.some(one => asked === one), `${file} asks for ${asked}`);
      }
    }
  });
});

test('no registry is named by the lock file', () => {
  const lock = readFileSync(join(PACKAGE, 'package-lock.json'), 'utf8');

  assert(!/"resolved"/.test(lock));
});

/** What the schemas of other packages of Backstage demand. */
const BASE = {
  app: { baseUrl: 'http://app' },
  backend: { baseUrl: 'http://backend', listen: ':0', database: { client: 'better-sqlite3', connection: ':memory:' } },
};

describe('config.d.ts', () => {
  const secret = {
    redis: { url: 'redis://canary', tls: { caFile: '/ca.pem' } },
    sealKeys: 'k1 canary',
    maxSnapshotAge: { hours: 1 },
    filter: { includeTags: ['env:*'] },
    catalog: { projectAs: 'system' },
  };

  async function schema() {
    return loadConfigSchema({ dependencies: [], packagePaths: [join(UNPACKED, 'package.json')] });
  }

  function processed(
    loaded: Awaited<ReturnType<typeof schema>>,
    paletteSync: unknown,
    visibility: 'secret' | 'backend' | 'frontend',
  ) {
    return loaded.process([{ data: { ...BASE, paletteSync } as JsonObject, context: 'test' }], {
      visibility: [visibility],
    });
  }

  test('marks the URL and the keys as secret, and nothing for the frontend', async () => {
    const loaded = await schema();

    assert.deepEqual(processed(loaded, secret, 'secret')[0]?.data?.['paletteSync'], {
      redis: { url: 'redis://canary' },
      sealKeys: 'k1 canary',
    });
    assert(!JSON.stringify(processed(loaded, secret, 'backend')).includes('canary'));
    assert(!JSON.stringify(processed(loaded, secret, 'frontend')).includes('paletteSync'));
  });

  for (const [what, changes] of [
    ['another seal', { seal: 'aes' }],
    ['instances that are no list', { instances: 'alpha' }],
    ['an unknown projectAs', { catalog: { projectAs: 'group' } }],
    ['no redis', { redis: undefined }],
  ] as const) {
    test(`refuses ${what}`, async () => {
      const loaded = await schema();

      assert.throws(
        () => processed(loaded, { ...secret, ...changes }, 'backend'),
        /Config validation failed.* at \/paletteSync/,
      );
    });
  }
});
