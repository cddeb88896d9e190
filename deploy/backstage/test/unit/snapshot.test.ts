import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { type Sealer, SealKeys } from '../../src/seal';
import { Slices } from '../../src/slices';
import { changed, type Snapshot, type Stored, whole } from '../../src/snapshot/snapshot';
import { digestOf, SnapshotRefused } from '../../src/snapshot/verify';
import { cluster, macOf, SEAL_LINE, sealed, type TestCluster } from '../support/published';

const SEALER = SealKeys.fromLines(SEAL_LINE);
const EPOCH = 1_800_000_000_000;

interface Publication {
  readonly clusters: TestCluster[];
  readonly epoch?: number;
  readonly version?: number;
  readonly complete?: boolean;
  readonly credentials?: Record<string, string>;
}

function stored({ clusters, epoch = EPOCH, version = 1, complete = true, credentials = {} }: Publication): Stored {
  const records = new Map(clusters.map(one => [one.uid, JSON.stringify(one)]));
  const hashes = [...records].map(([uid, raw]) => [uid, createHash('sha256').update(raw).digest('hex')] as const);
  const digest = digestOf(hashes);
  return {
    head: {
      schema: '1',
      epoch: String(epoch),
      version: String(version),
      digest,
      mac: macOf('alpha', epoch, version, digest),
      clusters: String(records.size),
      complete: complete ? '1' : '0',
      changed_at: '2027-01-15T08:00:00Z',
      checked_at: '2027-01-15T08:00:00Z',
      writer: 'tests:1',
    },
    clusters: records,
    credentials: new Map(Object.entries(credentials)),
  };
}

function load(publication: Publication, previous?: Snapshot, sealer: Sealer = SEALER): Promise<Snapshot> {
  return whole('alpha', stored(publication), previous, sealer, new Slices());
}

function names(snapshot: Snapshot): string[] {
  return [...snapshot.entries.values(), ...snapshot.kept.values()].map(({ record }) => record?.name ?? '?').sort();
}

function refusedAs(reason: string) {
  return (error: unknown) => error instanceof SnapshotRefused && error.reason === reason;
}

const [ONE, TWO, THREE] = [cluster(1), cluster(2), cluster(3)];

describe('the order is (epoch, version)', () => {
  test('an older version of the same epoch is refused', async () => {
    const held = await load({ clusters: [ONE], version: 7 });

    await assert.rejects(load({ clusters: [ONE, TWO], version: 6 }, held), refusedAs('Order'));
  });

  test('an older epoch is refused, even with a higher version', async () => {
    const held = await load({ clusters: [ONE], version: 7 });

    await assert.rejects(load({ clusters: [TWO], epoch: EPOCH - 1, version: 99 }, held), refusedAs('Order'));
  });

  test('a higher epoch is accepted, even with a lower version', async () => {
    const held = await load({ clusters: [ONE], version: 7 });

    assert.deepEqual(names(await load({ clusters: [TWO], epoch: EPOCH + 1 }, held)), ['alpha-2']);
  });
});

describe('while a snapshot is not complete', () => {
  test('known clusters that it does not list yet are kept, and go when it is complete', async () => {
    const held = await load({ clusters: [ONE, TWO] });
    const begun = await load({ clusters: [THREE], epoch: EPOCH + 1, complete: false }, held);
    assert.deepEqual(names(begun), ['alpha-1', 'alpha-2', 'alpha-3']);

    const over = await load({ clusters: [ONE, THREE], epoch: EPOCH + 1, version: 2 }, begun);

    assert.deepEqual(names(over), ['alpha-1', 'alpha-3']);
  });

  test('a known cluster that it lists is taken from it', async () => {
    const held = await load({ clusters: [ONE] });

    const begun = await load({ clusters: [cluster(1, { title: 'newer' })], epoch: EPOCH + 1, complete: false }, held);

    assert.equal(begun.entries.get(ONE.uid)?.record?.title, 'newer');
    assert.equal(begun.kept.size, 0);
  });

  test('a dropped cluster is not kept', async () => {
    const begun = await load({ clusters: [ONE, TWO], complete: false });
    const next = stored({ clusters: [ONE], version: 2, complete: false });

    const after = await changed(
      'alpha',
      begun,
      { ...next, clusters: new Map() },
      [TWO.uid],
      [TWO.uid],
      SEALER,
      new Slices(),
    );

    assert.deepEqual(names(after), ['alpha-1']);
  });
});

describe('what is refused as a whole', () => {
  test('no head', async () => {
    const nothing = { head: {}, clusters: new Map(), credentials: new Map() };

    await assert.rejects(whole('alpha', nothing, undefined, SEALER, new Slices()), refusedAs('Missing'));
  });

  for (const [field, value] of [
    ['epoch', 'many'],
    ['version', '1e3'],
    ['complete', '2'],
    ['changed_at', 'yesterday'],
    ['clusters', '-1'],
    ['digest', ''],
  ] as const) {
    test(`a head whose ${field} is ${JSON.stringify(value)}`, async () => {
      const good = stored({ clusters: [ONE] });

      await assert.rejects(
        whole('alpha', { ...good, head: { ...good.head, [field]: value } }, undefined, SEALER, new Slices()),
        refusedAs('Head'),
      );
    });
  }

  for (const [what, forged] of [
    ['another epoch', { epoch: String(EPOCH + 1) }],
    ['another version', { version: '2' }],
    ['no mac', { mac: '' }],
    ['the mac of another key', { mac: macOf('alpha', EPOCH, 1, '', randomBytes(32)) }],
  ] as const) {
    test(`a head with ${what}, whole and as a change`, async () => {
      const good = stored({ clusters: [ONE] });
      const evil = { ...good, head: { ...good.head, ...forged } };
      const before = await load({ clusters: [], epoch: EPOCH - 1 });

      await assert.rejects(whole('alpha', evil, undefined, SEALER, new Slices()), refusedAs('Mac'));
      await assert.rejects(changed('alpha', before, evil, [ONE.uid], [], SEALER, new Slices()), refusedAs('Mac'));
      assert.equal((await changed('alpha', before, good, [ONE.uid], [], SEALER, new Slices())).entries.size, 1);
    });
  }

  test('a snapshot of another instance, copied over', async () => {
    await assert.rejects(
      whole('bravo', stored({ clusters: [ONE] }), undefined, SEALER, new Slices()),
      refusedAs('Mac'),
    );
  });
});

describe('what costs one cluster only', () => {
  for (const [what, changes] of [
    ['no name', { name: '' }],
    ['another uid', { uid: '5f3c9' }],
    ['another instance', { instance: 'bravo' }],
    ['an unknown access state', { access: { state: 'fine', reason: '', message: '' } }],
    ['tags that are no list', { palette: { state: '', health: '', cloud_type: '', tags: 'x' } }],
  ] as const) {
    test(`a record with ${what} is unreadable, and the others are not`, async () => {
      const odd = { ...cluster(2, changes) };
      const good = stored({ clusters: [ONE] });
      const records = new Map([...good.clusters, [TWO.uid, JSON.stringify(odd)]]);
      const hashes = [...records].map(([uid, raw]) => [uid, createHash('sha256').update(raw).digest('hex')] as const);
      const digest = digestOf(hashes);
      const head = { ...good.head, digest, mac: macOf('alpha', EPOCH, 1, digest), clusters: '2' };

      const snapshot = await whole('alpha', { ...good, head, clusters: records }, undefined, SEALER, new Slices());

      assert.equal(snapshot.entries.get(ONE.uid)?.record?.name, 'alpha-1');
      assert.match(snapshot.entries.get(TWO.uid)?.unreadable ?? '', /^cluster record: /);
    });
  }

  test('a token sealed with an unknown key names the kid', async () => {
    const foreign = await sealed('alpha', TWO.uid, 'token-two', { kid: 'older', key: randomBytes(32) });
    const credentials = {
      [ONE.uid]: JSON.stringify({ sealed: await sealed('alpha', ONE.uid, 'token-one') }),
      [TWO.uid]: JSON.stringify({ sealed: foreign }),
    };

    const snapshot = await load({ clusters: [ONE, TWO], credentials });

    assert.equal(snapshot.entries.get(ONE.uid)?.credential?.token, 'token-one');
    assert.equal(snapshot.entries.get(TWO.uid)?.credential?.refused?.reason, 'SealKeyUnknown');
    assert.equal(snapshot.entries.get(TWO.uid)?.credential?.refused?.kid, 'older');
  });
});

test('the digest sorts by bytes, where the order of code units differs', () => {
  const [astral, high] = ['\u{1f6f0}', '\uffee'];
  assert(astral < high, 'by code units the astral one comes first');
  const wanted = createHash('sha256').update(`${high}\tb\n${astral}\ta`).digest('hex');

  assert.equal(
    digestOf([
      [astral, 'a'],
      [high, 'b'],
    ]),
    wanted,
  );
});
