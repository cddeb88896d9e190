import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection, RedisUnavailable } from '../../src/redis/connection';
import { Keys } from '../../src/snapshot/keys';
import { Following } from '../support/following';
import { until, Valkey } from '../support/processes';
import { cluster, Publisher, randomPrefix } from '../support/published';
import { RedisCluster } from '../support/redisCluster';

const [ONE, TWO] = [cluster(1), cluster(2)];
const tokens = { [ONE.uid]: 'token-1', [TWO.uid]: 'token-2' };

let servers: RedisCluster;
const ends: (() => Promise<void>)[] = [];

before(async () => {
  servers = await RedisCluster.start();
});

after(() => servers?.stop());

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) {
    await end();
  }
});

function follow(...options: ConstructorParameters<typeof Following>): Following {
  const reader = new Following(...options);
  ends.push(() => reader.tail.stop());
  return reader;
}

async function connected(url: string): Promise<RedisConnection> {
  const redis = await RedisConnection.open(parseRedisUrl(url), {});
  ends.push(() => redis.close());
  return redis;
}

/** A prefix whose set of instances is on the first server, and two instances on the others. */
async function placed(): Promise<{ prefix: string; second: string; third: string }> {
  for (;;) {
    const prefix = randomPrefix();
    if ((await servers.shareOf(new Keys(prefix).instances)) === 0) {
      const found = ['', '', ''];
      for (let number = 0; number < 40; number += 1) {
        const name = `i${number}`;
        found[await servers.shareOf(new Keys(prefix).head(name))] ||= name;
      }
      return { prefix, second: found[1] as string, third: found[2] as string };
    }
  }
}

describe('in a Redis Cluster', () => {
  test('instances on different servers are found, read and followed', async () => {
    const { prefix, second, third } = await placed();
    const redis = await connected(servers.url);
    const daemons = [second, third].map(name => new Publisher(redis, name, prefix)) as [Publisher, Publisher];
    await daemons[0].publish({ put: [ONE], tokens });
    const reader = follow(servers.url, prefix);
    await until('the first instance', () => reader.version(second) === 1);
    assert.equal(reader.token('alpha-1'), 'token-1');

    await daemons[1].publish({ put: [TWO], tokens });
    await until('the other one', () => reader.version(third) === 1);
    await daemons[0].publish({ put: [ONE], tokens: { [ONE.uid]: 'token-3' } });
    await until('the change', () => reader.version(second) === 2);
    assert.equal(reader.token('alpha-1'), 'token-3');
    assert.equal(reader.state(second)?.reloads, 1);
    await until('all connections', () => reader.tail.link.connected);
  });

  test('a slot that moves is followed', async () => {
    const { prefix, second } = await placed();
    const redis = await connected(servers.url);
    const daemon = new Publisher(redis, second, prefix);
    await daemon.publish({ put: [ONE], tokens });
    const reader = follow(servers.url, prefix, { instances: [second] });
    await until('the first version', () => reader.version(second) === 1);

    const key = new Keys(prefix).head(second);
    await servers.move(key, 1, 0);
    await daemon.publish({ put: [ONE, TWO], tokens });
    await until('the second version', () => reader.version(second) === 2);
    await servers.move(key, 0, 1);
    await daemon.publish({ drop: [TWO.uid] });
    await until('the third version', () => reader.version(second) === 3);
    assert.deepEqual(reader.names(), ['alpha-1']);
    assert.equal(reader.state(second)?.refusal, undefined);
  });

  test('a server that dies is named, keeps the last snapshot of its instance, and disturbs no other', async () => {
    const { prefix, second, third } = await placed();
    const redis = await connected(servers.url);
    await new Publisher(redis, third, prefix).publish({ put: [TWO], tokens });
    const daemon = new Publisher(redis, second, prefix);
    await daemon.publish({ put: [ONE], tokens });
    const reader = follow(servers.url, prefix);
    await until('both', () => reader.version(second) === 1 && reader.version(third) === 1);
    const dead = servers.servers[2] as Valkey;

    await dead.kill();
    await until('the loss', () => (reader.tail.link.error ?? '').includes(`${third}: Redis at 127.0.0.1:${dead.port}`));
    await daemon.publish({ put: [ONE], tokens: { [ONE.uid]: 'token-3' } });
    await until('the change', () => reader.token('alpha-1') === 'token-3');
    assert.deepEqual(reader.names(), ['alpha-1', 'alpha-2']);
    const late = follow(servers.url, prefix);
    await until('the living instance', () => late.version(second) === 2);
    assert.equal(late.version(third), undefined);

    await dead.restart();
    await servers.settle();
    await until('its return', () => reader.tail.link.connected && late.version(third) === 1);
  });

  test('an answer of any server is read up to a bound', async () => {
    const { prefix, third } = await placed();
    const redis = await connected(servers.url);
    const key = new Keys(prefix).head(third);
    await redis.command(['SETRANGE', key, `${170 * 1024 * 1024}`, 'x']);
    const reading = await connected(servers.url);

    await assert.rejects(
      reading.command(['GET', key]),
      (error: Error) => error instanceof RedisUnavailable && /sent more than 160 MiB at once/.test(error.message),
    );
    await redis.command(['DEL', key]);
  });

  test('a URL for a single server is explained', async () => {
    const { prefix, second } = await placed();
    const redis = await connected(servers.url);
    await new Publisher(redis, second, prefix).publish({ put: [ONE], tokens });

    const reader = follow((servers.servers[0] as Valkey).url, prefix, { instances: [second] });

    await until('the refusal', () => /write redis\+cluster:\/\//.test(reader.state(second)?.refusal?.message ?? ''));
  });
});

test('a single server is explained where a cluster is configured', async () => {
  const valkey = await Valkey.start();
  ends.push(() => valkey.stop());
  const opening = RedisConnection.open(parseRedisUrl(`redis+cluster://127.0.0.1:1,127.0.0.1:${valkey.port}`), {});

  await assert.rejects(
    opening,
    (error: Error) => error instanceof RedisUnavailable && /no Redis Cluster; .* write redis:\/\//.test(error.message),
  );
});

test('a cluster asks for user and password, and neither is shown', async () => {
  const closed = await RedisCluster.start();
  ends.push(() => closed.stop());
  for (const one of closed.servers) {
    const redis = await RedisConnection.open(parseRedisUrl(one.url), {});
    await redis.command(['CONFIG', 'SET', 'requirepass', 'canary-password']);
    await redis.close();
  }

  await assert.rejects(RedisConnection.open(parseRedisUrl(closed.url), {}), (error: Error) =>
    /refuses the login \(NOAUTH\)/.test(error.message),
  );
  const redis = await connected(closed.url.replace('://', '://:canary-password@'));
  assert.equal(await redis.command(['SCARD', 'p:instances']), 0);
});

test('servers that are away are unavailable', async () => {
  await assert.rejects(
    RedisConnection.open(parseRedisUrl('redis+cluster://127.0.0.1:1'), {}),
    (error: Error) => error instanceof RedisUnavailable && /127\.0\.0\.1:1 cannot be reached/.test(error.message),
  );
});
