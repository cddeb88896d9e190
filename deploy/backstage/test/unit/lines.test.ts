import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { Lines } from '../../src/snapshot/lines';
import { digestOf } from '../support/published';

/** Some uids whose order by bytes differs from that of people, each the beginning of another. */
const UIDS = ['b', 'a', 'B', 'aa', 'a-', 'a_', '9', '_', '-', 'A0', 'A'];

test('the digest is the same whether lines are made at once or by changes, in whatever order', () => {
  let lines = Lines.of([]);
  assert.equal(lines.digest(), digestOf([]));
  const texts = new Map<string, string>();
  for (const [at, uid] of [...UIDS, 'b', 'aa'].entries()) {
    texts.set(uid, `text ${at}`);
    lines = lines.with([[uid, hashOf(`text ${at}`)]]);
    assert.equal(lines.digest(), digestOf(texts));
    assert.equal(lines.digest(), Lines.of([...texts].map(([one, text]) => [one, hashOf(text)])).digest());
  }
  for (const uid of ['nothing', ...UIDS]) {
    texts.delete(uid);
    lines = lines.with([[uid, undefined]]);
    assert.equal(lines.digest(), digestOf(texts));
    assert.equal(lines.size, texts.size);
  }
});

test('several changes at once; the lines before stay as they are', () => {
  const before = Lines.of([
    ['a', '1'],
    ['c', '3'],
  ]);
  const digest = before.digest();

  const after = before.with([
    ['b', '2'],
    ['c', undefined],
    ['d', '4'],
    ['d', '5'],
  ]);

  assert.equal(before.digest(), digest);
  assert.equal(
    after.digest(),
    Lines.of([
      ['d', '5'],
      ['b', '2'],
      ['a', '1'],
    ]).digest(),
  );
});

test('the first uid that is not in other lines', () => {
  const linesOf = (...uids: string[]) => Lines.of(uids.map(uid => [uid, '']));

  assert.equal(linesOf('a', 'c').firstNotIn(linesOf('a', 'b', 'c')), undefined);
  assert.equal(linesOf('a', 'bb', 'c').firstNotIn(linesOf('a', 'b', 'c')), 'bb');
  assert.equal(linesOf('d').firstNotIn(linesOf('a', 'b', 'c')), 'd');
  assert.equal(linesOf('d').firstNotIn(linesOf()), 'd');
  assert.equal(linesOf().firstNotIn(linesOf()), undefined);
});

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
