import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type RedisConnection, RedisUnavailable } from '../../src/redis/connection';
import { Keys } from '../../src/snapshot/keys';
import type { Reading, SnapshotReader } from '../../src/snapshot/reader';
import { SnapshotTail, type TailOptions } from '../../src/snapshot/tail';
import { SnapshotRefused } from '../../src/snapshot/verify';
import { CapturingLogger } from '../support/logger';
import { until } from '../support/processes';

const HEAD = {
  epoch: 1,
  version: 1,
  digest: '',
  mac: '',
  clusters: 0,
  complete: true,
  changedAt: 0,
  changedAtText: '',
  credentialsDigest: '',
  unconfirmed: '',
};
const READING: Reading = { snapshot: { head: HEAD, entries: new Map(), kept: new Map() }, whole: true };

/** A connection to a Redis that answers as `command` does. */
function connection(command: (args: string[]) => Promise<unknown>): RedisConnection & { closed: boolean } {
  const made = {
    closed: false,
    command,
    isMaster: async () => true,
    async close() {
      made.closed = true;
    },
  };
  return made as unknown as RedisConnection & { closed: boolean };
}

/** A reader whose looks ask the connection for the head, as the real ones do. */
function readerOf(read: SnapshotReader['read']): SnapshotReader {
  const look: SnapshotReader['look'] = async (made, instance) => {
    const [epoch, version] = (await made.command(['HMGET', `{p:${instance}}:head`])) as unknown[];
    return { order: `${epoch}/${version}` };
  };
  return { look, read } as unknown as SnapshotReader;
}

function optionsOf(options: Pick<TailOptions, 'connect'> & Partial<TailOptions>): TailOptions {
  return {
    reader: readerOf(async () => READING),
    keys: new Keys('p'),
    instances: ['alpha', 'bravo'],
    logger: new CapturingLogger(),
    onChange: async () => {},
    ...options,
  };
}

const open: SnapshotTail[] = [];

function started(options: TailOptions): SnapshotTail {
  const tail = new SnapshotTail(options);
  open.push(tail);
  tail.start();
  return tail;
}

function tailOf(options: Pick<TailOptions, 'connect'> & Partial<TailOptions>): SnapshotTail {
  return started(optionsOf(options));
}

// A failed test would leave a tail that runs forever, and its file would never end.
afterEach(() => {
  for (const tail of open.splice(0)) {
    void tail.stop();
  }
});

test('stopping does not wait for a connection attempt that hangs, and closes a late connection', async () => {
  let connected: (made: RedisConnection) => void = () => {};
  const tail = tailOf({
    connect: () =>
      new Promise(resolve => {
        connected = resolve;
      }),
  });

  await tail.stop();

  const late = connection(async () => null);
  connected(late);
  await until('its end', () => late.closed);
});

test('a read that runs when the connection is lost ends before the next one starts', async () => {
  const opened: { closed: boolean }[] = [];
  let lost = false;
  let reading = false;
  let readBeside = false;
  let finish: (found: Reading) => void = () => {};
  const tail = tailOf({
    connect: async () => {
      readBeside ||= reading;
      const made = connection(async args => {
        if (opened.length === 1 && args.includes('{p:alpha}:head')) {
          await until('the reading of bravo', () => reading);
          lost = true;
          throw new RedisUnavailable('lost');
        }
        return ['1', '1', null];
      });
      opened.push(made);
      return made;
    },
    reader: readerOf(
      () =>
        new Promise<Reading>(resolve => {
          readBeside ||= reading;
          reading = true;
          finish = found => {
            reading = false;
            resolve(found);
          };
        }),
    ),
  });
  await until('the loss', () => lost);
  // A failed round closes its connection at once, without a timer in between.
  await nextTurn();
  assert.equal(opened[0]?.closed, false);

  finish(READING);

  await until('the next connection', () => opened.length === 2);
  assert.equal(opened[0]?.closed, true);
  assert(!readBeside, 'a reading over the former connection still went on');
  await until('its reading', () => reading);
  const stopping = tail.stop();
  finish(READING);
  await stopping;
});

test('a version is shown only after its clusters are served', async () => {
  let made = () => {};
  const tail = tailOf({
    connect: async () =>
      connection(async ([name]) => {
        await nextTurn();
        return name === 'HMGET' ? ['1', '1', null] : null;
      }),
    instances: ['alpha'],
    onChange: () =>
      new Promise(resolve => {
        made = resolve;
      }),
  });
  const before = made;
  await until('the reading', () => made !== before);
  assert.equal(tail.instances[0]?.snapshot, undefined);

  made();

  await until('the version', () => tail.instances[0]?.snapshot === READING.snapshot);
  await tail.stop();
});

test('an empty Redis is logged once, with what may be wrong', async () => {
  for (const [instances, message] of [
    [
      undefined,
      /holds no snapshot yet \(looked at p:instances\); start the daemon, or check paletteSync\.redis\.prefix /,
    ],
    [
      ['alfa'],
      /holds no snapshot of alfa yet \(looked at \{p:alfa\}:head\); start the daemon, or check .*\.prefix and paletteSync\.instances /,
    ],
  ] as const) {
    const logger = new CapturingLogger();
    let rounds = 0;
    const { instances: _all, ...options } = optionsOf({
      connect: async () =>
        connection(async ([name]) => {
          await nextTurn(); // as with a server, the event loop runs meanwhile
          return name === 'SMEMBERS' ? [] : name === 'HMGET' ? [null, null, null] : null;
        }),
      logger,
      onRound: () => {
        rounds += 1;
      },
      reader: readerOf(async () => {
        throw new SnapshotRefused('Missing', 'Redis holds no snapshot of it');
      }),
    });
    const tail = started({ ...options, ...(instances && { instances }) });
    await until('two rounds', () => rounds >= 2);

    assert.equal(logger.lines.length, 1);
    assert.match(logger.lines[0] ?? '', message);
    await tail.stop();
  }
});
