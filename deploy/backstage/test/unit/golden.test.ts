import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SealKeys, Unsealed } from '../../src/seal';
import { Slices } from '../../src/slices';
import { CHECK_FIELDS, checkedAtOf } from '../../src/snapshot/checked';
import { decodeChange, unconfirmedOf } from '../../src/snapshot/head';
import type { Place } from '../../src/snapshot/macs';
import { changed, type Snapshot, type Stored, whole } from '../../src/snapshot/snapshot';
import { SnapshotRefused } from '../../src/snapshot/verify';
import { type Golden, type GoldenCluster, golden, goldenNames } from '../support/golden';

function sealerOf({ keys }: Golden) {
  return keys.length > 0 ? SealKeys.fromLines(keys.join('\n')) : new Unsealed();
}

function storedOf({ redis }: Golden): Stored {
  return {
    head: redis.head,
    clusters: new Map(Object.entries(redis.clusters)),
    credentials: new Map(Object.entries(redis.credentials)),
  };
}

function placeOf({ prefix, instance }: Golden): Place {
  return { prefix, instance };
}

async function read(one: Golden, previous?: Snapshot): Promise<Snapshot> {
  return whole(placeOf(one), storedOf(one), previous, sealerOf(one), new Slices());
}

function seen(snapshot: Snapshot): Record<string, GoldenCluster> {
  const found: Record<string, GoldenCluster> = {};
  for (const [uid, { record, credential }] of snapshot.entries) {
    assert(record, `${uid} cannot be read`);
    found[uid] = {
      name: record.name,
      access: record.access.state,
      reason: record.access.reason,
      ...(record.server && { url: record.server.url }),
      ...(record.server?.caData !== undefined && { ca_data: record.server.caData }),
      ...(record.auth && { provider: record.auth.provider }),
      ...(credential && { token: credential.token ?? null }),
    };
  }
  return found;
}

const REASONS = {
  schema: 'Schema',
  head: 'Head',
  uid: 'Uid',
  count: 'Count',
  digest: 'Digest',
  credentials_digest: 'CredentialsDigest',
  mac: 'Mac',
};

test('the golden snapshots are there', () => {
  assert(goldenNames().length >= 28);
});

for (const name of goldenNames()) {
  const one = golden(name);
  test(`${name}: ${one.about}`, async () => {
    const { expected } = one;
    if (!expected.accepted) {
      await assert.rejects(read(one), (error: unknown) => {
        assert(error instanceof SnapshotRefused);
        assert.equal(error.reason, REASONS[expected.reason]);
        return true;
      });
      return;
    }

    const snapshot = await read(one);

    assert.deepEqual(
      { epoch: snapshot.head.epoch, version: snapshot.head.version, complete: snapshot.head.complete },
      { epoch: expected.epoch, version: expected.version, complete: expected.complete },
    );
    assert.deepEqual(seen(snapshot), expected.clusters);
    assert.deepEqual(unconfirmedOf(snapshot.head), expected.unconfirmed);
    const check = CHECK_FIELDS.map(field => one.redis.head[field]);
    const checkedAt = checkedAtOf(placeOf(one), check, sealerOf(one), Date.parse('2027-01-15T09:00:00Z'));
    assert.equal(checkedAt, expected.checked_at === null ? undefined : Date.parse(expected.checked_at));
  });

  test(`${name}: its changes can be read, one for each version`, () => {
    const changes = one.redis.changes.map(({ id, fields }) => decodeChange(id, fields));

    assert.deepEqual(
      changes.map(({ version }) => version),
      [...changes.keys()].map(index => index + 1),
    );
    assert(changes.every(({ epoch }) => String(epoch) === one.redis.head['epoch'] || name === 'long-number'));
    assert(changes.every(({ touched }) => touched.length > 0 || name === 'empty-complete'));
  });
}

test('several versions: the last change leads from the version before to the same snapshot', async () => {
  const one = golden('several-versions');
  const { touched } = decodeChange(one.redis.changes[1]!.id, one.redis.changes[1]!.fields);
  const all = await read(one);
  const before: Snapshot = {
    head: { ...all.head, version: 1 },
    entries: new Map([...all.entries].filter(([uid]) => !touched.includes(uid))),
    kept: new Map(),
  };

  const after = await changed(placeOf(one), before, storedOf(one), touched, sealerOf(one), new Slices());

  assert.deepEqual(seen(after), seen(all));
});

test('a reload reuses what is the same, and opens no token twice', async () => {
  const one = golden('basic');
  const first = await read(one);

  const second = await read(one, first);

  for (const [uid, entry] of second.entries) {
    assert.equal(entry, first.entries.get(uid));
  }
});

test('unconfirmed: a reader that holds other records of those clusters keeps them and their tokens', async () => {
  const one = golden('unconfirmed');
  assert(one.expected.accepted);
  const [uid = ''] = one.expected.unconfirmed;
  const all = await read(one);
  const own = { ...all.entries.get(uid)!, hash: 'another', credential: { raw: '', hash: '', token: 'own' } };
  const held = { ...all, head: { ...all.head, epoch: 1 }, entries: new Map([[uid, own]]) };

  const after = await read(one, held);

  assert.equal(after.entries.get(uid), own);
  assert.equal(after.entries.size, all.entries.size);
});
