import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection, RedisUnavailable } from '../../src/redis/connection';
import { Following } from '../support/following';
import { until, Valkey } from '../support/processes';
import { cluster, Publisher, randomPrefix } from '../support/published';

const ONE = cluster(1);
const TWO = cluster(2);
const tokens = { [ONE.uid]: 'token-1', [TWO.uid]: 'token-2' };
const MIB = 1024 * 1024;

const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) {
    await end();
  }
});

/** A reader that has read version 1 of alpha and bravo. */
async function following(): Promise<{
  readonly redis: RedisConnection;
  readonly daemon: Publisher;
  readonly other: Publisher;
  readonly prefix: string;
  readonly reader: Following;
}> {
  const valkey = await Valkey.start(['--appendonly', 'no']);
  ends.push(() => valkey.stop());
  const redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
  ends.push(() => redis.close());
  const prefix = randomPrefix();
  const daemon = new Publisher(redis, 'alpha', prefix);
  await daemon.publish({ put: [ONE], tokens });
  const other = new Publisher(redis, 'bravo', prefix);
  await other.publish({ put: [{ ...TWO, name: 'bravo-2' }], tokens });
  const reader = new Following(valkey.url, prefix);
  ends.push(() => reader.tail.stop());
  await until('the first versions', () => reader.version() === 1 && reader.version('bravo') === 1);
  return { redis, daemon, other, prefix, reader };
}

/** Makes a field of a hash that long without sending it. */
function grow(redis: RedisConnection, key: string, field: string, bytes: number): Promise<unknown> {
  const script = "return redis.call('HSET', KEYS[1], ARGV[1], string.rep('x', tonumber(ARGV[2])))";
  return redis.command(['EVAL', script, '1', key, field, String(bytes)]);
}

describe('what somebody makes too large in Redis is not read, and the other instance goes on', () => {
  for (const [what, spoil, message] of [
    [
      'a field of 70 MiB in the head',
      (redis: RedisConnection, p: string) => grow(redis, `{${p}:alpha}:head`, 'version', 70 * MIB),
      /:head holds [78]\d MiB, more than 4 MiB/,
    ],
    [
      'a stream of changes with an entry of 70 MiB',
      (redis: RedisConnection, p: string) =>
        redis.command([
          ...['EVAL', "return redis.call('XADD', KEYS[1], '*', 'put', string.rep('x', 70 * 1024 * 1024))", '1'],
          `{${p}:alpha}:changes`,
        ]),
      /:changes holds [78]\d MiB, more than 64 MiB/,
    ],
    [
      'a record of 70 MiB',
      (redis: RedisConnection, p: string) => grow(redis, `{${p}:alpha}:clusters`, 'huge', 70 * MIB),
      /:clusters holds [78]\d MiB, more than 64 MiB/,
    ],
    [
      'a record of 65 KiB',
      (redis: RedisConnection, p: string) => grow(redis, `{${p}:alpha}:clusters`, ONE.uid, 65 * 1024),
      /a field of .*:clusters has 66560 bytes, more than 65536/,
    ],
    [
      'a credential of 17 KiB',
      (redis: RedisConnection, p: string) => grow(redis, `{${p}:alpha}:credentials`, ONE.uid, 17 * 1024),
      /a field of .*:credentials has 17408 bytes, more than 16384/,
    ],
    [
      '20,001 records',
      (redis: RedisConnection, p: string) =>
        redis.command([
          ...['EVAL', "for i = 1, 20001 do redis.call('HSET', KEYS[1], 'f' .. i, 'x') end", '1'],
          `{${p}:alpha}:clusters`,
        ]),
      /:clusters has 2000\d fields, more than 20000/,
    ],
  ] as const) {
    test(what, async () => {
      const { redis, daemon, other, prefix, reader } = await following();

      await spoil(redis, prefix);
      // A gap, so that everything would be read. A giant field of the head or the stream is seen without it.
      daemon.version += 1;
      if (!message.source.startsWith(':head') && !message.source.startsWith(':changes')) {
        await daemon.publish({});
      }
      await until('the refusal', () => reader.state()?.refusal?.reason === 'TooLarge');
      await other.publish({ put: [{ ...TWO, name: 'bravo-2', title: 'newer' }], tokens });
      await until('the other instance', () => reader.version('bravo') === 2);

      assert.match(reader.state()?.refusal?.message ?? '', message);
      assert.deepEqual(reader.names(), ['alpha-1', 'bravo-2']);
      assert.equal(reader.logger.count(/alpha: .*refused \(TooLarge\).*stays in use/), 1);
    });
  }

  test('once it is gone, the instance is read again', async () => {
    const { redis, daemon, prefix, reader } = await following();
    await grow(redis, `{${prefix}:alpha}:head`, 'junk', 5 * MIB);
    await until('the refusal', () => reader.state()?.refusal?.reason === 'TooLarge');

    await redis.command(['HDEL', `{${prefix}:alpha}:head`, 'junk']);
    await daemon.publish({ put: [TWO], tokens });

    await until('the next version', () => reader.version() === 2);
    assert.equal(reader.state()?.refusal, undefined);
  });
});

describe('the names of instances', () => {
  test('more than 1,000: the known ones are read on, and the problem is reported once', async () => {
    const { redis, daemon, prefix, reader } = await following();
    await redis.command([
      ...['EVAL', "for i = 1, 1001 do redis.call('SADD', KEYS[1], 'junk' .. i) end", '1'],
      `${prefix}:instances`,
    ]);
    await until('the problem', () => reader.tail.problem);

    await daemon.publish({ put: [TWO], tokens });
    await until('the next version', () => reader.version() === 2);

    assert.match(
      reader.tail.problem ?? '',
      /holds 1003 names of instances, more than 1000.*SREM.*paletteSync\.instances/,
    );
    assert.equal(reader.tail.instances.length, 2);
    assert.equal(reader.logger.count(/names of instances/), 1);
    await redis.command([
      'EVAL',
      "for i = 1, 1001 do redis.call('SREM', KEYS[1], 'junk' .. i) end",
      '1',
      `${prefix}:instances`,
    ]);
    await daemon.publish({ put: [ONE], tokens });
    await until('the end of the problem', () => reader.tail.problem === undefined);
  });

  test('one name of 2 MiB is not read', async () => {
    const { redis, daemon, prefix, reader } = await following();
    const script = "return redis.call('SADD', KEYS[1], string.rep('x', 2 * 1024 * 1024))";
    await redis.command(['EVAL', script, '1', `${prefix}:instances`]);
    await daemon.publish({ put: [TWO], tokens });

    await until('the problem', () => /holds \d MiB, more than 1 MiB/.test(reader.tail.problem ?? ''));
    assert.equal(reader.version(), 2);
  });

  test('a name that is gone is forgotten, unless its clusters are in use', async () => {
    const { redis, daemon, prefix, reader } = await following();
    const names = () => reader.tail.instances.map(({ name }) => name);
    await redis.command(['SADD', `${prefix}:instances`, 'charlie', 'a'.repeat(65)]);
    await daemon.publish({ put: [TWO], tokens });
    await until('the new name', () => names().includes('charlie'));
    assert.deepEqual(names(), ['alpha', 'bravo', 'charlie']);

    await redis.command(['SREM', `${prefix}:instances`, 'bravo', 'charlie']);
    await daemon.publish({ put: [ONE], tokens });
    await until('its end', () => !names().includes('charlie'));

    assert.deepEqual(names(), ['alpha', 'bravo']);
    assert(reader.names().includes('bravo-2'));
  });
});

test('an answer that is larger than any reader asks for closes the connection, and does not end the process', async () => {
  const valkey = await Valkey.start(['--appendonly', 'no']);
  ends.push(() => valkey.stop());
  const redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
  ends.push(() => redis.close());
  // 512 MiB is more than a JavaScript string can hold.
  await redis.command(['EVAL', "return redis.call('SETRANGE', KEYS[1], 512 * 1024 * 1024 - 1, 'x')", '1', 'huge']);

  await assert.rejects(
    redis.command(['GET', 'huge']),
    (error: unknown) => error instanceof RedisUnavailable && /sent more than 160 MiB at once/.test(error.message),
  );
  await assert.rejects(redis.command(['PING']));
});

test('many answers that are small are not counted together', async () => {
  const valkey = await Valkey.start(['--appendonly', 'no']);
  ends.push(() => valkey.stop());
  const redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
  ends.push(() => redis.close());
  await redis.command(['EVAL', "return redis.call('SETRANGE', KEYS[1], 60 * 1024 * 1024, 'x')", '1', 'large']);

  for (let round = 0; round < 4; round += 1) {
    assert.equal(String(await redis.command(['GET', 'large'])).length, 60 * MIB + 1);
  }
});
