import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RedisConnection } from '../../src/redis/connection';
import { Follower } from '../../src/snapshot/follower';
import type { Head } from '../../src/snapshot/head';
import { checkOrder } from '../../src/snapshot/order';
import { orderOf, type SnapshotReader } from '../../src/snapshot/reader';
import type { Snapshot } from '../../src/snapshot/snapshot';
import { SnapshotRefused } from '../../src/snapshot/verify';
import { CapturingLogger } from '../support/logger';

const CONNECTION = {} as RedisConnection;
const SECOND = 1_000;

function at(epoch: number, version: number, changedAt: number): Snapshot {
  const texts = { digest: '', credentialsDigest: '', mac: '', changedAtText: '', unconfirmed: '' };
  const head: Head = { ...texts, epoch, version, changedAt, clusters: 0, complete: true };
  return { head, entries: new Map(), kept: new Map() };
}

/** A follower of a Redis that holds `there`; `broken` refuses it by its mac instead. */
function following(there: Snapshot) {
  const world = { there, now: 0, broken: false, reads: 0 };
  const logger = new CapturingLogger();
  const reader: Pick<SnapshotReader, 'look' | 'read'> = {
    look: async () => ({ order: orderOf(world.there) }),
    read: async (_connection, _instance, held, { acceptsLater = false } = {}) => {
      world.reads += 1;
      if (world.broken) {
        throw new SnapshotRefused('Mac', 'not authentic');
      }
      if (held !== undefined) {
        checkOrder(world.there.head, held.head, acceptsLater);
      }
      return { snapshot: world.there, whole: true };
    },
  };
  const options = { reader: reader as SnapshotReader, logger, onChange: async () => {} };
  const follower = new Follower('alpha', options, () => world.now);
  const look = async (seconds: number) => {
    world.now += seconds * SECOND;
    await follower.look(CONNECTION);
  };
  return { world, follower, logger, look };
}

const HELD = at(999, 7, 60 * SECOND);
const LATER = at(5, 1, 61 * SECOND);
const OLDER = at(5, 1, 60 * SECOND);

test('an authentic snapshot of a lower order that was written later is taken after three looks, and that is logged', async () => {
  const { world, follower, logger, look } = following(HELD);
  await look(0);
  world.there = LATER;

  for (const wait of [1, 30]) {
    await look(wait);
    assert.equal(follower.state.snapshot, HELD);
    assert.match(follower.state.refusal?.message ?? '', /nothing has to be done/);
  }
  await look(30);

  assert.equal(follower.state.snapshot, LATER);
  assert.equal(follower.state.refusal, undefined);
  assert.equal(logger.count(/alpha: version 1 of epoch 5 is in use from now on.*version 7 of epoch 999/), 1);
});

test('looks that are less than 30 s apart count once, also if Redis holds another version each time', async () => {
  const { world, follower, look } = following(HELD);
  await look(0);
  for (let version = 1; version <= 20; version += 1) {
    world.there = at(5, version, 61 * SECOND + version);
    await look(1);
  }

  assert.equal(follower.state.snapshot, HELD);
  await look(30);
  await look(30);
  assert.equal(follower.state.snapshot, world.there);
});

for (const [what, disturb] of [
  ['is not authentic', (world: { broken: boolean; there: Snapshot }) => (world.broken = true)],
  ['is older', (world: { broken: boolean; there: Snapshot }) => (world.there = OLDER)],
] as const) {
  test(`the looks are counted anew after one whose snapshot ${what}`, async () => {
    const { world, follower, look } = following(HELD);
    await look(0);
    world.there = LATER;
    await look(30);
    await look(30);
    disturb(world);
    await look(30);
    world.there = LATER;
    world.broken = false;
    await look(30);
    await look(30);
    assert.equal(follower.state.snapshot, HELD);

    await look(30);
    assert.equal(follower.state.snapshot, LATER);
  });
}

test('an older one is never taken, and health says what a person must do', async () => {
  const { world, follower, logger, look } = following(HELD);
  await look(0);
  world.there = OLDER;

  for (let round = 0; round < 10; round += 1) {
    await look(60);
  }

  assert.equal(follower.state.snapshot, HELD);
  assert.match(follower.state.refusal?.message ?? '', /Start or restart the daemon/);
  assert.equal(logger.count(/refused \(Order\)/), 1);
});

test('what was refused is read once in 30 s, whatever is added to the stream, unless another version is there', async () => {
  const { world, follower, look } = following(HELD);
  world.broken = true;
  await look(0);
  for (let round = 0; round < 20; round += 1) {
    follower.moved(`${round}-0`);
    await look(1);
  }
  assert.equal(world.reads, 1);

  await look(10);
  assert.equal(world.reads, 2);
  world.there = at(999, 8, 0);
  await look(1);
  assert.equal(world.reads, 3);
});
