import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SealKeys, Unsealed } from '../../src/seal';
import { Slices } from '../../src/slices';
import { decodeChange } from '../../src/snapshot/head';
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

async function read(one: Golden, previous?: Snapshot): Promise<Snapshot> {
  return whole({ prefix: one.prefix, instance: one.instance }, storedOf(one), previous, sealerOf(one), new Slices());
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

const REASONS = { schema: 'Schema', digest: 'Digest', mac: 'Mac', count: 'Count' };

test('the golden snapshots are there', () => {
  assert(goldenNames().length >= 12);
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
  });

  test(`${name}: its changes can be read, one for each version`, () => {
    const changes = one.redis.changes.map(({ id, fields }) => decodeChange(id, fields));

    assert.deepEqual(
      changes.map(({ version }) => version),
      [...changes.keys()].map(index => index + 1),
    );
    assert(changes.every(({ epoch }) => String(epoch) === one.redis.head['epoch']));
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

  const after = await changed(
    { prefix: one.prefix, instance: one.instance },
    before,
    storedOf(one),
    touched,
    sealerOf(one),
    new Slices(),
  );

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
