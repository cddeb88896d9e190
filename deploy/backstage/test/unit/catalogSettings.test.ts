import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConfigReader, type JsonObject } from '@backstage/config';
import { readCatalogModuleSettings, readCatalogSettings } from '../../src/catalog/settings';
import { SettingsError } from '../../src/config';

function read(catalog: unknown, former?: unknown) {
  const data = { catalog: { providers: { paletteSync: catalog } }, paletteSync: { catalog: former } };
  return readCatalogSettings(new ConfigReader(data as JsonObject));
}

function problemsOf(readIt: () => unknown): string {
  try {
    readIt();
  } catch (error) {
    assert(error instanceof SettingsError, String(error));
    return error.problems.join('\n');
  }
  return '';
}

describe('the settings of the catalog module', () => {
  test('have defaults', () => {
    assert.deepEqual(read(undefined), {
      namespace: 'default',
      type: 'kubernetes-cluster',
      annotationPrefix: 'palette-sync',
      ownerTag: 'owner',
      defaultOwner: 'group:default/unknown',
      projectAs: 'tag',
    });
  });

  test('are read from catalog.providers.paletteSync, or from the former place', () => {
    assert.equal(read({ namespace: 'clusters' }).namespace, 'clusters');
    assert.equal(read(undefined, { namespace: 'clusters' }).namespace, 'clusters');
  });

  for (const [written, owner] of [
    ['platform', 'group:default/platform'],
    ['user:jo', 'user:default/jo'],
    ['group:teams/platform', 'group:teams/platform'],
  ]) {
    test(`complete the owner ${written} to ${owner}`, () => {
      assert.equal(read({ defaultOwner: written }).defaultOwner, owner);
    });
  }

  for (const [what, section, pattern] of [
    ['a bad namespace', { namespace: 'My_NS' }, /\.namespace: is not a namespace/],
    ['a bad owner', { defaultOwner: 'a/b/c' }, /\.defaultOwner: is no entity reference/],
    ['an unknown projectAs', { projectAs: 'group' }, /\.projectAs: is none of tag, system, both/],
    ['a prefix with a slash', { annotationPrefix: 'a/b' }, /\.annotationPrefix: is not a DNS name/],
    ['a tag key with a colon', { ownerTag: 'owner:' }, /\.ownerTag: .* may not hold a colon/],
    ['a blank type', { type: ' ' }, /\.type: is empty/],
    ['a number', { type: 5 }, /\.type: is number, but must be string/],
    ['a typo', { owner: 'x' }, /\.owner: is not known; known are .*ownerTag/],
    ['a word for a section', 'yes', /is not a section with keys/],
  ] as const) {
    test(`refuse ${what}, by key`, () => {
      assert.match(
        problemsOf(() => read(section)),
        pattern,
      );
      assert.match(
        problemsOf(() => read(section)),
        /^catalog\.providers\.paletteSync/,
      );
    });
  }

  test('refuse both places at once', () => {
    assert.match(
      problemsOf(() => read({ namespace: 'one' }, { namespace: 'two' })),
      /^paletteSync\.catalog: move its keys to catalog\.providers\.paletteSync and remove it/,
    );
  });

  test('are reported together with the problems of paletteSync', () => {
    const config = new ConfigReader({ catalog: { providers: { paletteSync: { typo: 1 } } }, paletteSync: {} });

    const problems = problemsOf(() => readCatalogModuleSettings(config));
    assert.match(problems, /redis: url is missing/);
    assert.match(problems, /paletteSync\.typo: is not known/);
  });
});
