import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Glob } from '../../src/glob';
import { VENV_BIN } from '../support/repository';

/** Numbers that are the same in each run. */
function* numbers(seed: number): Generator<number> {
  for (let state = seed; ; ) {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    yield state;
  }
}

function words(alphabet: string, count: number, longest: number, seed: number): string[] {
  const source = numbers(seed);
  const next = (below: number) => Math.floor(((source.next().value as number) / 2_147_483_648) * below);
  return Array.from({ length: count }, () =>
    Array.from({ length: next(longest + 1) }, () => alphabet[next(alphabet.length)]).join(''),
  );
}

function steps(glob: string, text: string): number {
  let count = 0;
  new Glob(glob).matches(text, () => {
    count += 1;
  });
  return count;
}

describe('globs', () => {
  test('mean what they mean in the daemon', () => {
    const patterns = [
      ...words('ab*?[]!-', 400, 7, 1),
      '[]a]',
      '[!]]',
      '[a-',
      '[',
      '[!',
      '[a-b-]',
      '**',
      '?*?',
      'é*',
      '[à-ï]x',
    ];
    const texts = [...words('ab-]![', 60, 6, 2), '', 'éx', 'ab\nab'];
    const judge = [
      'import sys, json, warnings; from fnmatch import fnmatchcase',
      'warnings.simplefilter("ignore")',
      'patterns, texts = json.load(sys.stdin)',
      'print(json.dumps([[fnmatchcase(text, pattern) for text in texts] for pattern in patterns]))',
    ].join('\n');
    const input = JSON.stringify([patterns, texts]);
    const wanted = JSON.parse(String(execFileSync(join(VENV_BIN, 'python'), ['-c', judge], { input }))) as boolean[][];

    for (const [row, pattern] of patterns.entries()) {
      const glob = new Glob(pattern);
      for (const [column, text] of texts.entries()) {
        assert.equal(
          glob.matches(text),
          wanted[row]?.[column],
          `${JSON.stringify(pattern)} on ${JSON.stringify(text)}`,
        );
      }
    }
  });

  for (const [glob, text] of [
    ['*a*b*c*', 'ab'],
    ['*a*a*a*a*a*a*a*b', 'a'],
    ['*ab*ab*ab*?c', 'ab'],
  ] as const) {
    test(`${glob} takes twice the steps for twice the text, however it ends`, () => {
      const [short, long] = [steps(glob, text.repeat(2_000)), steps(glob, text.repeat(4_000))];

      assert(short > 0 && long <= 2.2 * short, `${short} steps, then ${long}`);
      assert(long <= (glob.length + 1) * text.length * 4_000, `${long} steps`);
    });
  }
});
