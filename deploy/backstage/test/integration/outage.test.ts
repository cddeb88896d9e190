import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { Following } from '../support/following';
import { until, Valkey } from '../support/processes';
import { cluster, Publisher, randomPrefix } from '../support/published';

const [ONE, TWO] = [cluster(1), cluster(2)];
const tokens = { [ONE.uid]: 'token-1', [TWO.uid]: 'token-2' };

/** Stops what a test started, also after a failed one: else this file would never end. */
const ends: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) {
    await end();
  }
});

async function server(starting: Promise<Valkey>): Promise<Valkey> {
  const valkey = await starting;
  ends.push(() => valkey.stop());
  return valkey;
}

function follow(...options: ConstructorParameters<typeof Following>): Following {
  const reader = new Following(...options);
  ends.push(() => reader.tail.stop());
  return reader;
}

async function connected(valkey: Valkey): Promise<RedisConnection> {
  const redis = await RedisConnection.open(parseRedisUrl(valkey.url), {});
  ends.push(() => redis.close());
  return redis;
}

describe('while Redis is down', () => {
  test('killed and restarted: the last snapshot stays, changes are read again, and both are logged once', async () => {
    const valkey = await server(Valkey.start());
    const prefix = randomPrefix();
    let redis = await connected(valkey);
    const daemon = new Publisher(redis, 'alpha', prefix);
    await daemon.publish({ put: [ONE], tokens });
    const reader = follow(valkey.url, prefix);
    await until('the first version', () => reader.version() === 1);

    await valkey.kill();
    await until('the loss', () => !reader.tail.link.connected);
    assert.deepEqual(reader.names(), ['alpha-1']);
    await until('another try', () => (reader.tail.link.error ?? '').includes('ECONNREFUSED'));
    assert.equal(reader.logger.count(/the last snapshot stays in use/), new Set(reader.logger.lines).size);

    await valkey.restart();
    redis = await connected(valkey);
    const again = Object.assign(new Publisher(redis, 'alpha', prefix), { version: 1 });
    await again.publish({ put: [TWO, ONE], tokens });
    await until('the second version', () => reader.version() === 2);
    assert.deepEqual(reader.names(), ['alpha-1', 'alpha-2']);
    assert.equal(reader.state()?.reloads, 1);
    await until('the message', () => reader.logger.count(/Redis is back after/) === 1);
  });

  test('down at the start: no cluster is shown until Redis is up', async () => {
    const valkey = await server(Valkey.start());
    const prefix = randomPrefix();
    const redis = await connected(valkey);
    await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });
    await redis.close();
    await valkey.kill();
    const reader = follow(valkey.url, prefix);
    await until('the message', () => reader.logger.count(/ECONNREFUSED.*there is no snapshot yet/) === 1);
    assert.deepEqual(reader.names(), []);

    await valkey.restart();
    await until('the first version', () => reader.version() === 1);
  });

  test('the connection to a server that stops answering is given up, and opened again', async () => {
    const valkey = await server(Valkey.start());
    const prefix = randomPrefix();
    const redis = await connected(valkey);
    await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });
    const reader = follow(valkey.url, prefix);
    await until('the first version', () => reader.version() === 1);

    valkey.pause();
    await until('the loss', () => /did not answer within/.test(reader.tail.link.error ?? ''));
    assert.deepEqual(reader.names(), ['alpha-1']);
    valkey.resume();
    await until('the connection', () => reader.tail.link.connected);
  });

  for (const instances of [undefined, ['alpha']]) {
    test(`a server that requires a login is logged with the remedy, ${instances ? 'with' : 'without'} configured instances`, async () => {
      const valkey = await server(Valkey.start(['--requirepass', 'canary-password']));
      const reader = follow(valkey.url, randomPrefix(), { ...(instances && { instances }) });

      await until(
        'the message',
        () => reader.logger.count(/refuses the login \(NOAUTH\); check user and password/) === 1,
      );
      assert.equal(reader.tail.link.connected, false);
      assert.equal(reader.state()?.refusal, undefined);
    });
  }

  test('stopping does not wait for Redis', async () => {
    const reader = follow('redis://127.0.0.1:1', randomPrefix());
    await until('the loss', () => reader.tail.link.error !== undefined);

    await reader.tail.stop();
  });

  test('a Sentinel names the master', async () => {
    const valkey = await server(Valkey.start());
    const sentinel = await server(Valkey.sentinel(valkey.port, 'main'));
    const prefix = randomPrefix();
    const redis = await connected(valkey);
    await new Publisher(redis, 'alpha', prefix).publish({ put: [ONE], tokens });

    const reader = follow(`redis+sentinel://127.0.0.1:1,127.0.0.1:${sentinel.port}/main`, prefix);
    await until('the first version', () => reader.version() === 1);
    const lost = follow(`redis+sentinel://127.0.0.1:${sentinel.port}/other`, prefix);
    await until('the message', () => lost.logger.count(/no Sentinel knows a master named other/) === 1);
  });

  test('a failover that leaves the former master running: what the new one holds is read', async () => {
    // It cannot be made a replica: else it would be one some seconds later, and hold the same.
    const stubborn = ['REPLICAOF', 'SLAVEOF', 'CLIENT'].flatMap(name => ['--rename-command', name, '']);
    const former = await server(Valkey.start([...stubborn, '--repl-diskless-sync-delay', '0']));
    const next = await server(Valkey.replica(former.port));
    const sentinel = await server(Valkey.sentinel(former.port, 'main'));
    const prefix = randomPrefix();
    const before = new Publisher(await connected(former), 'alpha', prefix);
    await before.publish({ put: [ONE], tokens });
    const reader = follow(`redis+sentinel://127.0.0.1:${sentinel.port}/main`, prefix);
    await until('the first version', () => reader.version() === 1);

    const watch = await connected(sentinel);
    await until('the order', async () => (await watch.command(['SENTINEL', 'FAILOVER', 'main'])) === 'OK');
    await until('the new master', async () => {
      const named = (await watch.command(['SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'main'])) as string[];
      return named[1] === String(next.port);
    });
    const after = new Publisher(await connected(next), 'alpha', prefix);
    await Object.assign(after, { version: 1 }).publish({ put: [TWO, ONE], tokens });

    await until('the second version', () => reader.version() === 2);
    assert.equal(reader.logger.count(/stays in use/), 0);
  });
});
