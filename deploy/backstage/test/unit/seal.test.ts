import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { CompactEncrypt } from 'jose';
import { type SealedFor, SealKeys, Unsealed } from '../../src/seal';
import { cluster, sealed, sealedFor, sealLine } from '../support/published';

const KEY = randomBytes(32);
const PLACE = sealedFor(cluster(1), { expiresAt: '2027-01-15T20:00:00Z' });
const CANARY = KEY.toString('base64url');
const keys = SealKeys.fromLines(`# the first one seals\n\nk1 ${CANARY}  # 2027\n${sealLine('k0', randomBytes(32))}\n`);

describe('a sealed token', () => {
  test('opens in its own place', async () => {
    const text = await sealed(PLACE, 'secret-token', { kid: 'k1', key: KEY });

    assert.deepEqual(keys.open(PLACE, text), { token: 'secret-token' });
  });

  for (const [member, message] of [
    ['prefix', /another prefix/],
    ['instance', /another instance/],
    ['uid', /another cluster/],
    ['server', /another API server/],
    ['issued_at', /another issued_at/],
    ['expires_at', /another expires_at/],
  ] as const) {
    test(`does not open where ${member} is another one, or if its header has none`, async () => {
      const text = await sealed(PLACE, 'secret-token', { kid: 'k1', key: KEY });
      const { [member]: _left, ...rest } = PLACE;
      const without = await sealed(rest as SealedFor, 'secret-token', { kid: 'k1', key: KEY });

      for (const opened of [
        keys.open({ ...PLACE, [member]: '' }, text),
        keys.open({ ...PLACE, [member]: `${PLACE[member]}x` }, text),
        keys.open(PLACE, without),
      ]) {
        assert('refused' in opened);
        assert.equal(opened.refused.reason, 'SealBroken');
        assert.match(opened.refused.message, message);
      }
    });
  }

  test('does not open if one bit of it is changed', async () => {
    const parts = (await sealed(PLACE, 'secret-token', { kid: 'k1', key: KEY })).split('.');
    parts[3] = (parts[3]![0] === 'A' ? 'B' : 'A') + parts[3]!.slice(1);

    const opened = keys.open(PLACE, parts.join('.'));

    assert('refused' in opened && opened.refused.reason === 'SealBroken');
  });

  test('is refused if another key of the same id sealed it', async () => {
    const opened = keys.open(PLACE, await sealed(PLACE, 'x', { kid: 'k1', key: randomBytes(32) }));

    assert('refused' in opened && opened.refused.reason === 'SealBroken');
  });

  test('is refused in another algorithm or form, even with the right key', async () => {
    const header = { kid: 'k1', ...PLACE };
    const text = () => new CompactEncrypt(Buffer.from('secret-token'));
    const good = await sealed(PLACE, 'secret-token', { kid: 'k1', key: KEY });
    const [first, , iv, content, tag] = good.split('.');
    for (const other of [
      await text()
        .setProtectedHeader({ alg: 'dir', enc: 'A128CBC-HS256', ...header })
        .encrypt(KEY),
      await text()
        .setProtectedHeader({ alg: 'A256GCMKW', enc: 'A256GCM', ...header })
        .encrypt(KEY),
      await text()
        .setProtectedHeader({ alg: 'A256KW', enc: 'A256GCM', ...header })
        .encrypt(KEY),
      [first, 'AA', iv, content, tag].join('.'),
      [first, '', iv, content, tag?.slice(0, 6)].join('.'), // a tag of 4 bytes would be guessed soon
      [first, '', `${iv}AAAA`, content, tag].join('.'),
      `${good}.`,
    ]) {
      assert('refused' in keys.open(PLACE, other), other);
    }
    assert.deepEqual(keys.open(PLACE, good), { token: 'secret-token' });
  });

  for (const nonsense of [
    '',
    'none:bare',
    'a.b.c.d.e',
    '{}',
    `${Buffer.from('{"kid":7}').toString('base64url')}....`,
  ]) {
    test(`is not ${JSON.stringify(nonsense)}`, async () => {
      assert('refused' in keys.open(PLACE, nonsense));
    });
  }

  test('with a line break is refused, because it would break the requests to all clusters', async () => {
    const opened = keys.open(PLACE, await sealed(PLACE, 'a\nb', { kid: 'k1', key: KEY }));

    assert('refused' in opened && opened.refused.reason === 'SealBroken');
  });
});

describe('seal keys', () => {
  for (const [what, lines, message] of [
    ['nothing', '\n# only this\n', /there is no key/],
    ['a key without an id', CANARY, /line 1: a line is a key id/],
    ['a short key', `k1 ${CANARY.slice(4)}`, /line 1: its second word/],
    ['a key that is no base64url', `k1 ${'!'.repeat(43)}`, /line 1: its second word/],
    ['the two words the wrong way round', `${CANARY} k1`, /line 1: its second word/],
    ['a kid of odd characters', `k/1 ${CANARY}`, /line 1: the key id/],
    ['the same kid twice', `k1 ${CANARY}\nk1 ${CANARY}`, /line 2: the key id k1 is used twice/],
    ['three words', `k1 ${CANARY} k2`, /line 1: a line is a key id/],
  ] as const) {
    test(`${what}: refused by line, without the key`, () => {
      assert.throws(
        () => SealKeys.fromLines(lines),
        (error: Error) => message.test(error.message) && !error.message.includes(CANARY.slice(4)),
      );
    });
  }

  test('show their ids only', () => {
    assert.equal(keys.keys, 'k1, k0');
    assert(!JSON.stringify(keys).includes(CANARY));
  });
});

describe('with seal: none', () => {
  test('bare tokens are read, and sealed ones are refused with their key id', async () => {
    const unsealed = new Unsealed();

    assert.deepEqual(unsealed.open(PLACE, 'none:token'), { token: 'token' });
    const opened = unsealed.open(PLACE, await sealed(PLACE, 'x', { kid: 'k1', key: KEY }));
    assert('refused' in opened && opened.refused.kid === 'k1');
  });
});
