import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { loadConfigSchema } from '@backstage/config-loader';
import type { JsonObject } from '@backstage/types';
import { installed, PACKAGES, unpacked } from '../support/backstage';
import { PACKAGE } from '../support/repository';

interface Manifest {
  readonly name: string;
  readonly license: string;
  readonly backstage: { role: string; pluginId: string; pluginPackage: string; features: Record<string, string> };
  readonly exports: Record<string, string | Record<string, string>>;
  readonly configSchema: string;
  readonly dependencies: Record<string, string>;
}

for (const plugin of ['kubernetes', 'catalog'] as const) {
  const folder = unpacked(plugin);
  const manifest = () => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest;
  const built = () => readdirSync(join(folder, 'dist'), { recursive: true }) as string[];

  describe(`the packed package for the ${plugin} plugin`, () => {
    test('is a backend module of that plugin, under Apache-2.0', () => {
      const { backstage, license } = manifest();

      assert.equal(backstage.role, 'backend-plugin-module');
      assert.equal(backstage.pluginId, plugin);
      assert.equal(backstage.pluginPackage, `@backstage/plugin-${plugin}-backend`);
      assert.equal(license, 'Apache-2.0');
    });

    test('exports a feature where it declares one, and nothing else, as discovery needs it', async () => {
      const { backstage, exports } = manifest();
      const declared = Object.keys(backstage.features);

      assert.deepEqual(
        declared,
        Object.keys(exports).filter(path => path !== './package.json'),
      );
      for (const path of declared) {
        const found = await installed(join(PACKAGES[plugin], path));
        assert.deepEqual(Object.keys(found), ['default']);
        assert.equal((found.default as { $$type?: string }).$$type, backstage.features[path]);
      }
    });

    test('holds what it names, a licence and a README, and nothing of its tests', () => {
      const { exports, configSchema } = manifest();
      const named = Object.values(exports).flatMap(one => (typeof one === 'string' ? [one] : Object.values(one)));

      for (const file of [...named, configSchema, 'LICENSE', 'README.md']) {
        assert(existsSync(join(folder, file)), file);
      }
      assert.deepEqual(readdirSync(folder).sort(), ['LICENSE', 'README.md', 'config.d.ts', 'dist', 'package.json']);
    });

    test('imports every package that it names, and no other', () => {
      const asked = new Set<string>();
      for (const file of built().filter(one => /\.(js|d\.ts)$/.test(one))) {
        const text = readFileSync(join(folder, 'dist', file), 'utf8');
        for (const [, name] of text.matchAll(/(?:require\(|from |import\()['"]([^.'"][^'"]*)['"]/g)) {
          asked.add(name ?? '');
        }
      }
      const packages = [...asked].filter(name => !name.startsWith('node:')).sort();
      assert.deepEqual(packages, Object.keys(manifest().dependencies).sort());
    });
  });
}

test('the package for the catalog holds nothing that opens tokens for requests to clusters', () => {
  const files = readdirSync(join(unpacked('catalog'), 'dist')).sort();

  for (const file of ['module.js', 'directory.js', 'mapping.js', 'supplier.js']) {
    assert(!files.includes(file), file);
  }
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
  };

  async function schema() {
    const packagePaths = (['kubernetes', 'catalog'] as const).map(plugin => join(unpacked(plugin), 'package.json'));
    return loadConfigSchema({ dependencies: [], packagePaths });
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
