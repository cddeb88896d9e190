import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SealKeys, Unsealed } from '../../src/seal';
import { checkedAtOf } from '../../src/snapshot/checked';
import { checkedMac, SEAL_LINE } from '../support/published';

const SEALER = SealKeys.fromLines(SEAL_LINE);
const PLACE = { prefix: 'tests', instance: 'alpha' };
const AT = '2027-01-15T08:00:00Z';
const NOW = Date.parse(AT);
const MAC = checkedMac({ ...PLACE, epoch: '5', version: '7' }, AT);

test('the time of a check counts with its mac, up to five minutes ahead of the clock here', () => {
  assert.equal(checkedAtOf(PLACE, ['5', '7', AT, MAC], SEALER, NOW), NOW);
  assert.equal(checkedAtOf(PLACE, ['5', '7', AT, MAC], SEALER, NOW - 300_000), NOW);
  assert.equal(checkedAtOf(PLACE, ['5', '7', AT, MAC], SEALER, NOW - 300_001), undefined);
  assert.equal(checkedAtOf(PLACE, ['5', '7', AT, ''], new Unsealed(), NOW), NOW);
});

for (const [what, place, values] of [
  ['another epoch', PLACE, ['6', '7', AT, MAC]],
  ['another version', PLACE, ['5', '8', AT, MAC]],
  ['another time', PLACE, ['5', '7', '2027-01-15T07:59:59Z', MAC]],
  ['another prefix', { ...PLACE, prefix: 'other' }, ['5', '7', AT, MAC]],
  ['another instance', { ...PLACE, instance: 'bravo' }, ['5', '7', AT, MAC]],
  ['no mac', PLACE, ['5', '7', AT, null]],
  ['no time', PLACE, ['5', '7', null, MAC]],
  ['no version', PLACE, ['5', null, AT, MAC]],
  ['a time that is none', PLACE, ['5', '7', 'soon', MAC]],
  ['nothing', PLACE, [null, null, null, null]],
] as const) {
  test(`it does not count with ${what}`, () => {
    assert.equal(checkedAtOf(place, values, SEALER, NOW), undefined);
  });
}
