import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RedisConnection, RedisReplyError } from '../../src/redis/connection';
import { checkHashSizes } from '../../src/snapshot/bounds';

/** A server that answers MEMORY USAGE with an error. */
function refusing(code: string): Pick<RedisConnection, 'command'> {
  return {
    command: async ([name]) => {
      if (name === 'MEMORY') {
        throw new RedisReplyError(code);
      }
      return 1;
    },
  };
}

test('a server without MEMORY USAGE is read by the other bounds', async () => {
  await checkHashSizes(refusing('ERR'), ['clusters']);
});

test('a user without the right to MEMORY USAGE is not', async () => {
  await assert.rejects(checkHashSizes(refusing('NOPERM'), ['clusters']), { code: 'NOPERM' });
});
