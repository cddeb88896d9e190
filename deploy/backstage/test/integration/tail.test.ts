import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { SealKeys } from '../../src/seal';
import { Following } from '../support/following';
import { until, Valkey } from '../support/processes';
import {
  checkedMac,
  cluster,
  credentialOf,
  Publisher,
  randomPrefix,
  SEAL_LINE,
  sealedFor,
  sealLine,
} from '../support/published';
import { REPOSITORY } from '../support/repository';

/** The ACL rules of deploy/redis/ for a reader, with the prefix of a test. */
function readerRules(): string[] {
  const file = readFileSync(join(REPOSITORY, 'deploy', 'redis', 'users.acl'), 'utf8');
  const line = file.split('\n').find(one => one.startsWith('user palette-sync-reader ')) ?? '';
  const rules = line.replaceAll('palette-sync:', `${prefix}:`).split(/\s+/).slice(2);
  return rules.filter(rule => !rule.startsWith('#'));
}

let valkey: Valkey;
let redis: RedisConnection;
let prefix: string;
let open: Following[] = [];

function follow(options: ConstructorParameters<typeof Following>[2] & { url?: string } = {}): Following {
  const { url = valkey.url, ...rest } = options;
  const following = new Following(url, prefix, rest);
  open.push(following);
  return following;
}

before(async () => {
  valkey = await Valkey.start();
  redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
});

after(async () => {
  await redis.close();
  await valkey.stop();
});

beforeEach(() => {
  prefix = randomPrefix();
});

afterEach(async () => {
  await Promise.all(open.map(one => one.tail.stop()));
  open = [];
});

const [ONE, TWO, THREE] = [cluster(1), cluster(2), cluster(3)];
const tokens = { [ONE.uid]: 'token-1', [TWO.uid]: 'token-2', [THREE.uid]: 'token-3' };

function key(instance: string, what: string): string {
  return `{${prefix}:${instance}}:${what}`;
}

describe('reading changes', () => {
  test('puts, rotations and drops arrive as changes, without reading everything again', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE, TWO], tokens: { [ONE.uid]: 'token-1', [TWO.uid]: 'token-2' } });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);
    assert.deepEqual(reader.names(), ['alpha-1', 'alpha-2']);

    await daemon.publish({ put: [THREE], tokens: { [THREE.uid]: 'token-3', [ONE.uid]: 'token-1b' }, drop: [TWO.uid] });
    await until('the second version', () => reader.version() === 2);

    assert.deepEqual(reader.names(), ['alpha-1', 'alpha-3']);
    assert.equal(reader.token('alpha-1'), 'token-1b');
    assert.equal(reader.state()?.reloads, 1);
  });

  test('a burst of versions arrives completely', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE], tokens: { [ONE.uid]: 'token-0' } });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    // So few that the reader does not give up and read everything, even if each arrives between its two commands.
    for (let round = 1; round <= 18; round += 1) {
      await daemon.publish({ tokens: { [ONE.uid]: `token-${round}` }, put: [cluster(round + 1)] });
    }
    await until('the last version', () => reader.version() === 19);

    assert.equal(reader.token('alpha-1'), 'token-18');
    assert.equal(reader.state()?.snapshot?.entries.size, 19);
    assert.equal(reader.state()?.reloads, 1);

    for (let round = 19; round <= 90; round += 1) {
      await daemon.publish({ tokens: { [ONE.uid]: `token-${round}` }, put: [cluster(round + 1)] });
    }
    await until('the very last version', () => reader.version() === 91);

    assert.equal(reader.token('alpha-1'), 'token-90');
    assert.equal(reader.state()?.snapshot?.entries.size, 91);
  });

  test('a gap in the stream makes it read everything', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE, TWO], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    daemon.version += 5;
    await daemon.publish({ drop: [TWO.uid] });
    await until('the version after the gap', () => reader.version() === 7);

    assert.deepEqual(reader.names(), ['alpha-1']);
    assert.equal(reader.state()?.reloads, 2);
  });

  test('a stream that was deleted, or a head that moved without an entry, is noticed', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE, TWO], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    await daemon.publish({ drop: [TWO.uid] });
    await redis.command(['DEL', key('alpha', 'changes')]);
    await until('the second version', () => reader.version() === 2);

    assert.deepEqual(reader.names(), ['alpha-1']);
  });

  test('a new epoch is read as a whole, from version 1', async () => {
    await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    await redis.command(['DEL', ...['head', 'clusters', 'credentials', 'changes'].map(what => key('alpha', what))]);
    await new Publisher(redis, 'alpha', prefix, 1_800_000_000_001).publish({ put: [TWO], tokens });
    await until('the new epoch', () => reader.names().includes('alpha-2'));

    assert.deepEqual(reader.names(), ['alpha-2']);
  });

  test('a new instance is found without a restart', async () => {
    await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });
    const reader = follow();
    await until('alpha', () => reader.version('alpha') === 1);

    const other = cluster(2, { name: 'bravo-2' });
    await new Publisher(redis, 'bravo', prefix).publish({ put: [other], tokens });
    await until('bravo', () => reader.version('bravo') === 1);

    assert.deepEqual(reader.names(), ['alpha-1', 'bravo-2']);
  });

  test('only the instances that are configured are read', async () => {
    await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });
    await new Publisher(redis, 'bravo', prefix).publish({ put: [cluster(2, { name: 'bravo-2' })], tokens });
    const reader = follow({ instances: ['bravo'] });
    await until('bravo', () => reader.version('bravo') === 1);

    assert.deepEqual(reader.names(), ['bravo-2']);
    assert.equal(reader.state('alpha'), undefined);
  });

  test('the time of the last check moves without a version, and only if it is authentic and not ahead', async () => {
    await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);
    const place = { prefix, instance: 'alpha', epoch: '1800000000000', version: '1' };
    const first = reader.state()?.checkedAt ?? 0;
    const at = (ms: number) => `${new Date(first + ms).toISOString().slice(0, 19)}Z`;
    const write = (checkedAt: string, mac: string) =>
      redis.command(['HSET', key('alpha', 'head'), 'checked_at', checkedAt, 'checked_mac', mac]);
    const looks = reader.looks;

    await write('2099-01-01T00:00:00Z', checkedMac(place, '2099-01-01T00:00:00Z'));
    await until('a look', () => reader.looks > looks + 1);
    await write(at(60_000), checkedMac({ ...place, version: '2' }, at(60_000)));
    const more = reader.looks;
    await until('another look', () => reader.looks > more + 1);
    assert.equal(reader.state()?.checkedAt, first);

    await write(at(120_000), checkedMac(place, at(120_000)));
    await until('the new time', () => reader.state()?.checkedAt === first + 120_000);
    assert.equal(reader.state()?.reloads, 1);
    assert.equal(reader.state()?.refusal, undefined);
  });

  test("a reader's ACL user is enough", async () => {
    const rules = [...readerRules(), '>canary-password'];
    assert(rules.includes('+xread'));
    await redis.command(['ACL', 'SETUSER', 'reader', ...rules]);
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE], tokens });
    const reader = follow({ url: `redis://reader:canary-password@127.0.0.1:${valkey.port}` });
    await until('the first version', () => reader.version() === 1);

    await daemon.publish({ put: [TWO], tokens });
    await until('the second version', () => reader.version() === 2);

    assert.equal(reader.logger.count(/./), 0);
  });

  test('a wrong password is logged once, with the remedy and without the password', async () => {
    const reader = follow({ url: `redis://nobody:canary-password@127.0.0.1:${valkey.port}` });
    await until(
      'the message',
      () => reader.logger.count(/refuses the login \(WRONGPASS\); check user and password/) === 1,
    );

    assert(!reader.logger.text.includes('canary'));
  });

  test('missing rights are logged with the remedy', async () => {
    await redis.command(['ACL', 'SETUSER', 'narrow', 'on', '>canary-password', '~*', '-@all', '+ping', '+select']);
    const reader = follow({ url: `redis://narrow:canary-password@127.0.0.1:${valkey.port}` });

    await until('the message', () => reader.logger.count(/lacks rights \(NOPERM\); a reader needs SMEMBERS/) === 1);
    const tries = async () =>
      Number(/total_connections_received:(\d+)/.exec(String(await redis.command(['INFO', 'stats'])))?.[1]);
    const before = await tries();
    await until('more tries', async () => (await tries()) >= before + 2);
    assert.equal(reader.logger.lines.length, 1);
    assert(!reader.logger.text.includes('canary'));
  });
});

test('rights for the head only are logged with the remedy, for that instance', async () => {
  await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });
  const rules = readerRules().filter(rule => !rule.endsWith(':credentials'));
  await redis.command(['ACL', 'SETUSER', 'partial', ...rules, '>canary-password']);
  const reader = follow({ url: `redis://partial:canary-password@127.0.0.1:${valkey.port}` });

  await until('the refusal', () => reader.state()?.refusal);

  assert.match(reader.state()?.refusal?.message ?? '', /may not read the keys of alpha; give it the reader's rights/);
});

describe('what is refused', () => {
  test('a record changed by someone without the key: the last good snapshot stays, also through a new version', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE, TWO], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    const evil = { ...ONE, server: { ...(ONE['server'] as object), url: 'https://evil.example' } };
    await redis.command(['HSET', key('alpha', 'clusters'), ONE.uid, JSON.stringify(evil)]);
    await daemon.publish({ put: [ONE], tokens: {} });
    await redis.command(['HSET', key('alpha', 'clusters'), ONE.uid, JSON.stringify(evil)]);
    daemon.version += 1; // a gap: everything has to be read again
    await daemon.publish({ put: [THREE], tokens });
    await until('the refusal', () => reader.state()?.refusal?.reason === 'Digest');

    const urls = reader.directory.clusters(Date.now()).map(({ url }) => url);
    assert(!urls.includes('https://evil.example'));
    assert.deepEqual(reader.names(), ['alpha-1', 'alpha-2']);
    assert.equal(reader.logger.count(/refused \(Digest\).*stays in use/), 1);

    await daemon.publish({ put: [ONE], tokens });
    await until('the repaired snapshot', () => reader.state()?.refusal === undefined && reader.names().length === 3);
  });

  test('at the start there is no earlier snapshot, and no cluster of the instance is shown', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE], tokens });
    await new Publisher(redis, 'bravo', prefix).publish({ put: [cluster(2, { name: 'bravo-2' })], tokens });
    await redis.command(['HSET', key('alpha', 'clusters'), ONE.uid, JSON.stringify({ ...ONE, title: 'changed' })]);
    const reader = follow();
    await until('the refusal', () => reader.state()?.refusal?.reason === 'Digest');
    await until('the other instance', () => reader.version('bravo') === 1);

    assert.deepEqual(reader.names(), ['bravo-2']);
    assert.equal(reader.logger.count(/none of its clusters is shown/), 1);
  });

  test('a snapshot sealed with a key that is not known here is refused by its mac', async () => {
    await new Publisher(redis, 'alpha', prefix, undefined, randomBytes(32)).publish({ put: [ONE], tokens });
    const reader = follow();

    await until('the refusal', () => reader.state()?.refusal?.reason === 'Mac');
    assert.match(reader.state()?.refusal?.message ?? '', /compare the keys with the daemon's/);
  });

  test('the second of several keys verifies and opens', async () => {
    await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });
    const reader = follow({ sealer: SealKeys.fromLines(`${sealLine('newer', randomBytes(32))}\n${SEAL_LINE}`) });

    await until('the cluster', () => reader.token('alpha-1') === 'token-1');
  });

  test('an unknown schema is refused with the remedy, and the last good snapshot stays', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    daemon.version += 1;
    await daemon.publish({ put: [TWO], tokens });
    await redis.command(['HSET', key('alpha', 'head'), 'schema', '2', 'version', '4']);
    await until('the refusal', () => reader.state()?.refusal?.reason === 'Schema');

    assert.match(reader.state()?.refusal?.message ?? '', /upgrade this package/);
    assert(reader.names().includes('alpha-1'));
  });

  test('a token moved to another cluster does not open there, and affects that cluster only', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE, TWO], tokens });
    await daemon.publish({ credentials: { [TWO.uid]: await daemon.credential(ONE.uid, 'token-1') } });
    const reader = follow();
    await until('the second version', () => reader.version() === 2);

    assert.deepEqual(reader.names(), ['alpha-1']);
    assert.equal(reader.directory.withheld(Date.now())[0]?.reason, 'SealBroken');
  });

  test('a token sealed with an unknown key affects that cluster only', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE, TWO], tokens });
    const foreign = await credentialOf(sealedFor(TWO, { prefix }), 'x', { kid: 'elsewhere', key: randomBytes(32) });
    await daemon.publish({ credentials: { [TWO.uid]: foreign } });
    const reader = follow();
    await until('the second version', () => reader.version() === 2);

    assert.deepEqual(reader.names(), ['alpha-1']);
    assert.match(
      reader.directory.withheld(Date.now())[0]?.message ?? '',
      /the key elsewhere is not among the seal keys \(tests\)/,
    );
  });

  test('keys of another type affect their instance only', async () => {
    await new Publisher(redis, 'bravo', prefix).publish({ put: [cluster(2, { name: 'bravo-2' })], tokens });
    await redis.command(['SET', key('alpha', 'head'), 'not ours']);
    await redis.command(['SET', key('charlie', 'changes'), 'not ours']);
    await redis.command(['SADD', `${prefix}:instances`, 'alpha', 'charlie', '../../odd name']);
    const reader = follow();
    await until('the refusal', () => reader.state('alpha')?.refusal?.reason === 'WRONGTYPE');
    await until('the other instance', () => reader.names().includes('bravo-2'));

    await until('the other refusal', () => reader.state('charlie')?.refusal?.reason === 'WRONGTYPE');

    assert.deepEqual(
      reader.tail.instances.map(({ name }) => name),
      ['alpha', 'bravo', 'charlie'],
    );
    await until('the end of the first look at all of them', () => reader.tail.link.connected);
    assert.equal(reader.logger.count(/something else uses the prefix/), 2);
  });

  test('entries that somebody adds to the stream change nothing', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    await redis.command(['XADD', key('alpha', 'changes'), '900-0', 'put', 'nonsense']);
    await redis.command(['DEL', key('alpha', 'changes')]);
    await daemon.publish({ put: [TWO], tokens });
    await until('the second version', () => reader.version() === 2);

    assert.deepEqual(reader.names(), ['alpha-1', 'alpha-2']);
  });

  test('a credential that somebody takes away or puts back: the last good snapshot stays', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE, TWO], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    await daemon.publish({ put: [THREE], tokens });
    await redis.command(['HDEL', key('alpha', 'credentials'), ONE.uid]);
    daemon.version += 1; // a gap: everything has to be read again
    await daemon.publish({ put: [THREE] });
    await until('the refusal', () => reader.state()?.refusal?.reason === 'CredentialsDigest');

    assert.equal(reader.token('alpha-1'), 'token-1');
    assert.match(reader.state()?.refusal?.message ?? '', /does not match the credentials/);
  });

  test('clusters that a starting daemon has not confirmed keep what is known here, until it confirms them', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE, TWO], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    await redis.command(['DEL', key('alpha', 'changes')]);
    const next = new Publisher(redis, 'alpha', prefix, daemon.epoch + 1);
    const old = { ...ONE, server: { url: 'https://old.example' } };
    await next.publish({ put: [old, TWO], tokens: { ...tokens, [ONE.uid]: 'old' }, unconfirmed: [ONE.uid] });
    await until('the unconfirmed version', () => reader.state()?.snapshot?.head.epoch === next.epoch);
    assert.equal(reader.token('alpha-1'), 'token-1');
    const restarted = follow();
    await until('its first version', () => restarted.token('alpha-1') === 'old');

    await next.publish({ put: [THREE], tokens: { [THREE.uid]: 'token-3' } });
    await until('the confirmed version', () => reader.token('alpha-1') === 'old' && reader.names().length === 3);
  });

  test('a snapshot that disappears is not an empty snapshot', async () => {
    await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    await redis.command(['DEL', ...['head', 'clusters', 'credentials', 'changes'].map(what => key('alpha', what))]);
    await until('the refusal', () => reader.state()?.refusal?.reason === 'Missing');

    assert.deepEqual(reader.names(), ['alpha-1']);
  });

  test('an empty snapshot empties the list', async () => {
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE], tokens });
    const reader = follow();
    await until('the first version', () => reader.version() === 1);

    await daemon.publish({ drop: [ONE.uid] });
    await until('the second version', () => reader.version() === 2);

    assert.deepEqual(reader.names(), []);
  });
});
