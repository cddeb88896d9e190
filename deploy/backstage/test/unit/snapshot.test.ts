import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { type Sealer, SealKeys } from '../../src/seal';
import { Slices } from '../../src/slices';
import { changed, type Snapshot, type Stored, whole } from '../../src/snapshot/snapshot';
import { SnapshotRefused } from '../../src/snapshot/verify';
import { cluster, credentialOf, digestOf, headOf, SEAL_LINE, sealedFor, type TestCluster } from '../support/published';

const SEALER = SealKeys.fromLines(SEAL_LINE);
const EPOCH = 1_800_000_000_000;
const PLACE = { prefix: 'tests', instance: 'alpha' };

interface Publication {
  readonly clusters: TestCluster[];
  readonly epoch?: number;
  readonly version?: number;
  readonly complete?: boolean;
  readonly credentials?: Record<string, string>;
  readonly changedAt?: string;
  readonly unconfirmed?: string;
  readonly prefix?: string;
  readonly key?: Buffer;
}

function stored({ clusters, credentials = {}, ...more }: Publication): Stored {
  return storedOf(
    new Map(clusters.map(one => [one.uid, JSON.stringify(one)])),
    new Map(Object.entries(credentials)),
    more,
  );
}

function storedOf(
  clusters: Map<string, string>,
  credentials: Map<string, string>,
  {
    epoch = EPOCH,
    version = 1,
    complete = true,
    changedAt = '2027-01-15T08:00:00Z',
    unconfirmed = '',
    ...place
  }: Omit<Publication, 'clusters' | 'credentials'> = {},
): Stored {
  const fields = {
    epoch: String(epoch),
    version: String(version),
    clusters: String(clusters.size),
    complete: complete ? '1' : '0',
    changed_at: changedAt,
    digest: digestOf(clusters),
    credentials_digest: digestOf(credentials),
    unconfirmed,
    checked_at: '2027-01-15T08:00:00Z',
  };
  return { head: headOf(fields, place), clusters, credentials };
}

function load(publication: Publication, previous?: Snapshot, sealer: Sealer = SEALER): Promise<Snapshot> {
  return read(stored(publication), previous, sealer);
}

function read(found: Stored, previous?: Snapshot, sealer: Sealer = SEALER): Promise<Snapshot> {
  return whole(PLACE, found, previous, sealer, new Slices());
}

function apply(base: Snapshot, found: Stored, touched: string[]): Promise<Snapshot> {
  return changed(PLACE, base, found, touched, SEALER, new Slices());
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

    const after = await apply(begun, { ...next, clusters: new Map() }, [TWO.uid]);

    assert.deepEqual(names(after), ['alpha-1']);
  });
});

describe('the order, where an authentic snapshot comes before the one in use', () => {
  const held = { clusters: [ONE], version: 7, changedAt: '2027-01-15T08:00:00Z' };

  for (const [what, changedAt] of [
    ['an hour before', '2027-01-15T07:00:00Z'],
    ['in the same second', '2027-01-15T08:00:00Z'],
  ] as const) {
    test(`written ${what}: it is never taken, and the message says what a person must do`, async () => {
      const previous = await load(held);
      const older = stored({ clusters: [TWO], epoch: EPOCH - 1, version: 3, changedAt });

      for (const acceptsLater of [false, true]) {
        await assert.rejects(
          whole(PLACE, older, previous, SEALER, new Slices(), { acceptsLater }),
          (error: unknown) =>
            refusedAs('Order')(error) &&
            !(error as SnapshotRefused).isLater &&
            /older than the one in use.*[Ss]tart or restart the daemon.*restart this backend only if/.test(
              (error as Error).message,
            ),
        );
      }
    });
  }

  test('written later: it is marked as such, and taken if the caller accepts that', async () => {
    const previous = await load(held);
    const later = stored({ clusters: [TWO], epoch: EPOCH - 1, version: 3, changedAt: '2027-01-15T08:00:01Z' });

    await assert.rejects(
      read(later, previous),
      (error: unknown) => refusedAs('Order')(error) && (error as SnapshotRefused).isLater,
    );
    const taken = await whole(PLACE, later, previous, SEALER, new Slices(), { acceptsLater: true });
    assert.deepEqual(names(taken), ['alpha-2']);
  });

  test('not authentic: it is refused for that', async () => {
    const later = stored({
      clusters: [TWO],
      epoch: EPOCH - 1,
      changedAt: '2027-01-15T09:00:00Z',
      key: randomBytes(32),
    });

    await assert.rejects(read(later, await load(held)), refusedAs('Mac'));
  });
});

describe('clusters that the writer has not confirmed', () => {
  const newer = { ...cluster(1, { title: 'newer', server: { url: 'https://newer.example' } }) };

  test('a reader that holds one keeps its own record and credential', async () => {
    const own = await credentialOf(sealedFor(newer), 'token-new');
    const old = await credentialOf(sealedFor(ONE), 'token-old');
    const held = await load({ clusters: [newer, TWO], version: 7, credentials: { [ONE.uid]: own } });

    const after = await load(
      {
        clusters: [ONE, THREE],
        epoch: EPOCH + 1,
        credentials: { [ONE.uid]: old },
        unconfirmed: JSON.stringify([ONE.uid, THREE.uid]),
      },
      held,
    );

    assert.equal(after.entries.get(ONE.uid), held.entries.get(ONE.uid));
    assert.equal(after.entries.get(ONE.uid)?.credential?.token, 'token-new');
    assert.deepEqual(names(after), ['alpha-1', 'alpha-3']);
  });

  test('a reader that holds none takes the published one, and the next confirmed one replaces its own', async () => {
    const first = await load({ clusters: [ONE], unconfirmed: JSON.stringify([ONE.uid]) });
    assert.deepEqual(names(first), ['alpha-1']);

    const after = await load({ clusters: [newer], version: 2 }, first);

    assert.equal(after.entries.get(ONE.uid)?.record?.title, 'newer');
  });

  test('a change with such clusters is not applied by itself', async () => {
    const held = await load({ clusters: [ONE] });
    const next = stored({ clusters: [ONE, TWO], version: 2, unconfirmed: JSON.stringify([ONE.uid]) });

    await assert.rejects(apply(held, next, [TWO.uid]), /all of it has to be read/);
  });

  for (const list of ['nonsense', '{}', '["a b"]', '[1]']) {
    test(`${list} is no list of them`, async () => {
      await assert.rejects(load({ clusters: [ONE], unconfirmed: list }), refusedAs('Head'));
    });
  }

  test('the list is authentic, too', async () => {
    const good = stored({ clusters: [ONE] });
    const head = { ...good.head, unconfirmed: JSON.stringify([ONE.uid]) };

    await assert.rejects(read({ ...good, head }), refusedAs('Mac'));
  });
});

describe('what is refused as a whole', () => {
  test('no head', async () => {
    const nothing = { head: {}, clusters: new Map(), credentials: new Map() };

    await assert.rejects(read(nothing), refusedAs('Missing'));
  });

  for (const [field, value] of [
    ['epoch', 'many'],
    ['epoch', '1000000000000000'],
    ['version', '1e3'],
    ['version', '9'.repeat(400)],
    ['complete', '2'],
    ['changed_at', 'yesterday'],
    ['changed_at', '2027-01-15T08:00:00Z\n'],
    ['clusters', '-1'],
    ['clusters', '007'],
    ['digest', ''],
    ['credentials_digest', ''],
    ['credentials_digest', `${'0'.repeat(64)}\n`],
  ] as const) {
    test(`a head whose ${field} is ${JSON.stringify(value.slice(0, 80))}`, async () => {
      const good = stored({ clusters: [ONE] });

      await assert.rejects(read({ ...good, head: { ...good.head, [field]: value } }), refusedAs('Head'));
    });
  }

  const foreign = stored({ clusters: [ONE], key: randomBytes(32) }).head['mac'] ?? '';
  for (const [what, forged] of [
    ['another epoch', { epoch: String(EPOCH + 1) }],
    ['another version', { version: '2' }],
    ['another time', { changed_at: '2027-01-15T08:00:01Z' }],
    ['complete unset', { complete: '0' }],
    ['no mac', { mac: '' }],
    ['the mac of another key', { mac: foreign }],
  ] as const) {
    test(`a head with ${what}, whole and as a change`, async () => {
      const good = stored({ clusters: [ONE] });
      const evil = { ...good, head: { ...good.head, ...forged } };
      const before = await load({ clusters: [], epoch: EPOCH - 1 });

      await assert.rejects(read(evil), refusedAs('Mac'));
      await assert.rejects(apply(before, evil, [ONE.uid]), refusedAs('Mac'));
      assert.equal((await apply(before, good, [ONE.uid])).entries.size, 1);
    });
  }

  test('a head that counts other records', async () => {
    const good = stored({ clusters: [ONE] });

    await assert.rejects(read({ ...good, head: { ...good.head, clusters: '2' } }), refusedAs('Count'));
  });

  for (const [what, place] of [
    ['instance', { ...PLACE, instance: 'bravo' }],
    ['prefix', { ...PLACE, prefix: 'other' }],
  ] as const) {
    test(`a snapshot that was copied to another ${what}`, async () => {
      await assert.rejects(
        whole(place, stored({ clusters: [ONE] }), undefined, SEALER, new Slices()),
        refusedAs('Mac'),
      );
    });
  }

  test('credentials that are not those of the version: taken away, replaced, added, without a record', async () => {
    const [one, two] = [await credentialOf(sealedFor(ONE), 'one'), await credentialOf(sealedFor(TWO), 'two')];
    const good = stored({ clusters: [ONE, TWO], credentials: { [ONE.uid]: one } });
    const older = await credentialOf(sealedFor(ONE), 'an older one');
    for (const credentials of [{}, { [ONE.uid]: older }, { [ONE.uid]: one, [TWO.uid]: two }]) {
      const evil = { ...good, credentials: new Map(Object.entries(credentials)) };

      await assert.rejects(read(evil), refusedAs('CredentialsDigest'));
      await assert.rejects(
        apply(await load({ clusters: [ONE, TWO] }), evil, [ONE.uid, TWO.uid]),
        refusedAs('CredentialsDigest'),
      );
    }
    await assert.rejects(load({ clusters: [TWO], credentials: { [ONE.uid]: one } }), refusedAs('CredentialsDigest'));
  });

  for (const uid of ['', 'a b', 'a\tb', 'a\nb', 'é', 'a'.repeat(65), '../x']) {
    test(`a field ${JSON.stringify(uid.slice(0, 8))} of length ${uid.length}, among records or credentials`, async () => {
      const odd = new Map([[uid, JSON.stringify({ ...ONE, uid })]]);

      await assert.rejects(read(storedOf(odd, new Map())), refusedAs('Uid'));
      await assert.rejects(read(storedOf(new Map(), odd)), refusedAs('Uid'));
    });
  }

  test('many records that are folded into one field, whose digest is the same', async () => {
    const good = stored({ clusters: [ONE, TWO] });
    const [first, second] = [...good.clusters];
    assert(first && second);
    const line = `${first[0]}\t${createHash('sha256').update(first[1]).digest('hex')}`;
    const folded = new Map([[`${line}\n${second[0]}`, second[1]]]);
    assert.equal(digestOf(folded), good.head['digest'], 'the digest alone does not show it');

    await assert.rejects(read({ ...good, clusters: folded, head: { ...good.head, clusters: '1' } }), refusedAs('Uid'));
  });
});

describe('what costs one cluster only', () => {
  for (const [what, changes] of [
    ['no name', { name: '' }],
    ['another uid', { uid: '5f3c9' }],
    ['another instance', { instance: 'bravo' }],
    ['an unknown access state', { access: { state: 'fine', reason: '', message: '' } }],
    ['tags that are no list', { palette: { state: '', health: '', cloud_type: '', tags: 'x' } }],
    ['a project whose uid is none', { project: { uid: 'a b', name: 'Shop' } }],
    ['a line feed in its URL', { server: { url: 'https://a\nb' } }],
    ['a line feed in its CA', { server: { url: 'https://a', ca_data: 'a\nb' } }],
    ['a line feed in its server name', { server: { url: 'https://a', tls_server_name: 'a\nb' } }],
  ] as const) {
    test(`a record with ${what} is unreadable, and the others are not`, async () => {
      const odd = JSON.stringify(cluster(2, changes));
      const records = new Map([...stored({ clusters: [ONE] }).clusters, [TWO.uid, odd]]);

      const snapshot = await read(storedOf(records, new Map()));

      assert.equal(snapshot.entries.get(ONE.uid)?.record?.name, 'alpha-1');
      assert.match(snapshot.entries.get(TWO.uid)?.unreadable ?? '', /^cluster record: /);
    });
  }

  test('a token sealed with an unknown key names the kid', async () => {
    const credentials = {
      [ONE.uid]: await credentialOf(sealedFor(ONE), 'token-one'),
      [TWO.uid]: await credentialOf(sealedFor(TWO), 'token-two', { kid: 'older', key: randomBytes(32) }),
    };

    const snapshot = await load({ clusters: [ONE, TWO], credentials });

    assert.equal(snapshot.entries.get(ONE.uid)?.credential?.token, 'token-one');
    assert.equal(snapshot.entries.get(TWO.uid)?.credential?.refused?.reason, 'SealKeyUnknown');
    assert.equal(snapshot.entries.get(TWO.uid)?.credential?.refused?.kid, 'older');
  });

  test('a live token beside a record with another address, even if both are authentic', async () => {
    const former = cluster(1, { server: { url: 'https://former.example' } });
    const current = await credentialOf(sealedFor(ONE), 'live-token');

    const { entries } = await load({ clusters: [former], credentials: { [ONE.uid]: current } });

    assert.equal(entries.get(ONE.uid)?.credential?.token, undefined);
    assert.match(entries.get(ONE.uid)?.credential?.refused?.message ?? '', /another API server/);
  });

  test('a token whose record changes to another address without a new token', async () => {
    const credentials = { [ONE.uid]: await credentialOf(sealedFor(ONE), 'live-token') };
    const held = await load({ clusters: [ONE], credentials });
    assert.equal(held.entries.get(ONE.uid)?.credential?.token, 'live-token');
    const moved = stored({
      clusters: [cluster(1, { server: { url: 'https://moved.example' } })],
      version: 2,
      credentials,
    });
    const renamed = stored({ clusters: [cluster(1, { title: 'renamed' })], version: 3, credentials });

    const after = await apply(held, moved, [ONE.uid]);
    const back = await apply(after, renamed, [ONE.uid]);

    assert.equal(after.entries.get(ONE.uid)?.credential?.token, undefined);
    assert.equal((await read(moved, held)).entries.get(ONE.uid)?.credential?.token, undefined);
    assert.equal(back.entries.get(ONE.uid)?.credential?.token, 'live-token');
  });

  test('a live token beside a record without an API server, or beside one that cannot be read', async () => {
    const { server: _none, ...bare } = ONE;
    const credentials = { [ONE.uid]: await credentialOf(sealedFor(ONE), 'token') };

    for (const one of [bare as TestCluster, { ...ONE, name: '' }]) {
      const { entries } = await load({ clusters: [one], credentials });

      assert.equal(entries.get(ONE.uid)?.credential?.token, undefined);
      assert.equal(entries.get(ONE.uid)?.credential?.refused?.reason, 'SealBroken');
    }
  });

  test('times beside a token that it was not sealed with', async () => {
    const sealedUntil = await credentialOf(sealedFor(ONE, { expiresAt: '2027-01-15T09:00:00Z' }), 'token');
    for (const [found, wanted] of [
      ['"expires_at":"2027-01-15T09:00:00Z"', '"expires_at":"2099-01-15T09:00:00Z"'],
      ['"expires_at":"2027-01-15T09:00:00Z",', ''],
      ['"issued_at":"2027-01-15T07:00:00Z"', '"issued_at":"2027-01-15T07:00:01Z"'],
    ] as const) {
      const changedTimes = sealedUntil.replace(found, wanted);
      assert.notEqual(changedTimes, sealedUntil);

      const { entries } = await load({ clusters: [ONE], credentials: { [ONE.uid]: changedTimes } });

      assert.equal(entries.get(ONE.uid)?.credential?.token, undefined);
    }
  });
});

test('without credentials, as for the catalog, their digest is taken as given and is still authentic', async () => {
  const { head, clusters } = stored({
    clusters: [ONE],
    credentials: { [ONE.uid]: await credentialOf(sealedFor(ONE), 'token') },
  });

  const snapshot = await read({ head, clusters });
  assert.equal(snapshot.entries.get(ONE.uid)?.credential, undefined);
  const next = stored({ clusters: [ONE, TWO], version: 2, credentials: { [TWO.uid]: 'x' } });
  assert.equal((await apply(snapshot, { head: next.head, clusters: next.clusters }, [TWO.uid])).entries.size, 2);

  const evil = { head: { ...head, credentials_digest: '0'.repeat(64) }, clusters };
  await assert.rejects(read(evil), refusedAs('Mac'));
});
