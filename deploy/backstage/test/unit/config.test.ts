import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { ConfigReader, type JsonObject } from '@backstage/config';
import { readSettings, SettingsError } from '../../src/config';
import { temporaryFolder } from '../support/processes';
import { SEAL_LINE } from '../support/published';

const GOOD = { redis: { url: 'redis://:canary-password@cache.example' }, sealKeys: SEAL_LINE };
const CANARIES = ['canary', SEAL_LINE.split(' ')[1] ?? ''];

function read(paletteSync: unknown) {
  return readSettings(new ConfigReader({ paletteSync } as JsonObject));
}

function problemsOf(paletteSync: unknown): readonly string[] {
  try {
    read(paletteSync);
  } catch (error) {
    assert(error instanceof SettingsError, String(error));
    for (const canary of CANARIES) {
      assert(!error.message.includes(canary), error.message);
    }
    return error.problems;
  }
  return [];
}

describe('good configuration', () => {
  test('without the section there are no settings', () => {
    assert.equal(readSettings(new ConfigReader({})), undefined);
  });

  test('the least that is needed, with its defaults', () => {
    const settings = read(GOOD);

    assert.equal(settings?.redisAddress().label, 'cache.example:6379');
    assert.equal(settings?.prefix, 'palette-sync');
    assert.equal(settings?.instances, undefined);
    assert.equal(settings?.oidcTokenProviders, undefined);
    assert.equal(settings?.withholdUnreachable, true);
    assert.equal(settings?.maxSnapshotAgeMs, 3_600_000);
    assert.deepEqual(settings?.dashboard, { links: true });
    assert.deepEqual(settings?.locator, { fallback: 'all', fallbackLimit: 50 });
    assert.deepEqual(settings?.fetching, { clusterTimeoutMs: 5_000, concurrency: 32 });
    assert.equal(settings?.visibility, 'all');
    assert(Object.values(settings?.extensionPoints ?? {}).every(Boolean));
  });

  test('an empty list of instances means all', () => {
    assert.equal(read({ ...GOOD, instances: [] })?.instances, undefined);
  });

  for (const [written, ms] of [
    ['30m', 1_800_000],
    ['PT2H', 7_200_000],
    [{ days: 1 }, 86_400_000],
  ] as const) {
    test(`maxSnapshotAge may be ${JSON.stringify(written)}`, () => {
      assert.equal(read({ ...GOOD, maxSnapshotAge: written })?.maxSnapshotAgeMs, ms);
    });
  }

  test('files instead of values; the URL is read again at each connection', () => {
    const folder = temporaryFolder();
    const [urlFile, sealKeysFile] = [join(folder.path, 'url'), join(folder.path, 'keys')];
    writeFileSync(urlFile, 'redis://one.example\n');
    writeFileSync(sealKeysFile, `${SEAL_LINE}\n`);

    const settings = read({ redis: { urlFile }, sealKeysFile });
    assert.equal(settings?.redisAddress().label, 'one.example:6379');
    writeFileSync(urlFile, 'redis://two.example\n');
    assert.equal(settings?.redisAddress().label, 'two.example:6379');

    folder.remove();
  });
});

describe('an invalid configuration: each problem has its key and remedy, and no secret', () => {
  for (const [what, section, reported] of [
    ['an empty section', {}, [/redis: url is missing/, /sealKeys: is missing; write sealKeys/]],
    [
      'an empty URL, as of a variable that is empty',
      { ...GOOD, redis: { url: '' } },
      [/^paletteSync\.redis\.url: is empty$/],
    ],
    ['an empty file name', { ...GOOD, redis: { urlFile: '' } }, [/redis\.urlFile: is empty/]],
    ['empty keys', { ...GOOD, sealKeys: '' }, [/^paletteSync\.sealKeys: is empty$/]],
    ['an empty name of an instance', { ...GOOD, instances: [''] }, [/instances: holds an empty string/]],
    ['a prefix that no daemon has', { ...GOOD, redis: { ...GOOD.redis, prefix: '{a}' } }, [/prefix: may hold letters/]],
    ['a word instead of the section', 'yes', [/is not a section/]],
    ['a word instead of a part', { ...GOOD, redis: 'redis://canary' }, [/redis: is string, but must be object/]],
    ['an invalid URL', { ...GOOD, redis: { url: 'canary://x' } }, [/redis\.url: cannot be understood; write redis:/]],
    [
      'url and urlFile',
      { ...GOOD, redis: { ...GOOD.redis, urlFile: '/x' } },
      [/not both/, /urlFile: \/x cannot be read \(ENOENT\)/],
    ],
    ['an invalid key', { ...GOOD, sealKeys: 'k canary' }, [/sealKeys: line 1: its second word/]],
    ['seal and sealKeys', { ...GOOD, seal: 'none' }, [/sealKeys and seal exclude each other/]],
    ['another seal', { redis: GOOD.redis, seal: 'canary' }, [/seal: may only be none/]],
    ['a number for a string', { ...GOOD, redis: { url: 5 } }, [/redis\.url: is number, but must be string/]],
    ['a string for a list', { ...GOOD, instances: 'alpha' }, [/instances: is string, but must be string-array/]],
    [
      'an invalid name of an instance',
      { ...GOOD, instances: ['alpha', 'Prod-EU'] },
      [/instances: "Prod-EU": names are/],
    ],
    [
      'a typo',
      { ...GOOD, oidcTokenProvider: ['x'] },
      [/oidcTokenProvider: is not known; known are .*oidcTokenProviders/],
    ],
    ['a typo further in', { ...GOOD, filter: { tags: ['x'] } }, [/filter\.tags: is not known/]],
    ['an invalid duration', { ...GOOD, maxSnapshotAge: 'soon' }, [/maxSnapshotAge: is not a duration; write '1h'/]],
    [
      'a certificate without a key',
      { ...GOOD, redis: { ...GOOD.redis, tls: { certFile: __filename } } },
      [/needs certFile and keyFile together/],
    ],
    ['a flag that is a word', { ...GOOD, dashboardLinks: 'maybe' }, [/dashboardLinks: /]],
    ['an unknown fallback', { ...GOOD, locator: { fallback: 'some' } }, [/locator\.fallback: is not one of all, none/]],
    ['a limit of 0', { ...GOOD, locator: { fallbackLimit: 0 } }, [/fallbackLimit: is not a whole number above 0/]],
    ['an unknown visibility', { ...GOOD, visibility: 'mine' }, [/visibility: is not one of all, catalog/]],
    [
      'a deadline that no cluster meets',
      { ...GOOD, clusterTimeout: '1ms' },
      [/clusterTimeout: is shorter than 100 ms/],
    ],
    [
      'an unknown extension point',
      { ...GOOD, extensionPoints: { router: true } },
      [/extensionPoints\.router: is not known/],
    ],
    [
      'an unknown placeholder',
      { ...GOOD, dashboard: { url: 'https://x/{nmae}' } },
      [/dashboard\.url: \{nmae\} is not a placeholder; known are \{name\}/],
    ],
    [
      'a dashboard without a scheme',
      { ...GOOD, dashboard: { url: '{name}.example' } },
      [/dashboard\.url: is not a URL/],
    ],
    [
      'a list for a dashboard parameter',
      { ...GOOD, dashboard: { parameters: { a: ['b'] } } },
      [/dashboard\.parameters\.a: is not a string, a number, true or false/],
    ],
  ] as const) {
    test(what, () => {
      const problems = problemsOf(section);

      for (const pattern of reported) {
        assert(
          problems.some(problem => pattern.test(problem)),
          `${pattern} in ${JSON.stringify(problems)}`,
        );
      }
      assert(
        problems.every(problem => problem.startsWith('paletteSync')),
        JSON.stringify(problems),
      );
    });
  }

  test('an empty value is reported once', () => {
    assert.equal(problemsOf({ ...GOOD, redis: { url: '' } }).length, 1);
  });

  test('all problems are reported at once', () => {
    assert.equal(problemsOf({ redis: {}, sealKeys: '', instances: ['A'], typo: 1 }).length, 4);
  });
});
