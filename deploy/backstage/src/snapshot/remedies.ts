import { RedisReplyError, type RedisUnavailable } from '../redis/connection';

/** Explains why the connection to Redis is of no use now. */
export function connectionProblem(error: RedisUnavailable | RedisReplyError): string {
  if (error instanceof RedisReplyError && error.code === 'NOPERM') {
    return 'the Redis user lacks rights (NOPERM); a reader needs SMEMBERS, SCARD, HGETALL, HMGET, HLEN, HSTRLEN, XREAD, MEMORY USAGE, MULTI and EXEC';
  }
  return error.message;
}

/** Explains an error that Redis answered to reading the keys of an instance. */
export function replyProblem(code: string, name: string): string {
  if (code === 'NOPERM' || code === 'EXECABORT') {
    // Redis reports a missing right within a MULTI as EXECABORT.
    return `the Redis user may not read the keys of ${name}; give it the reader's rights`;
  }
  if (code === 'WRONGTYPE') {
    return `a key of ${name} in Redis is of another type: something else uses the prefix; check paletteSync.redis.prefix`;
  }
  if (code === 'MOVED' || code === 'CROSSSLOT') {
    return 'Redis is a Redis Cluster; in paletteSync.redis.url, write redis+cluster:// instead of redis://';
  }
  return `Redis answered ${code} to reading its keys`;
}
