import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRedisUrl } from '../../src/redis/address';

for (const [url, label, rest] of [
  ['redis://cache.example', 'cache.example:6379', { tls: false, database: 0 }],
  [
    'rediss://user:p%40ss@cache.example:7000/2',
    'cache.example:7000',
    { tls: true, database: 2, username: 'user', password: 'p@ss' },
  ],
  ['redis://:secret@[::1]:6380/', '[::1]:6380', { database: 0, password: 'secret' }],
  ['unix:///run/valkey.sock?db=3', '/run/valkey.sock', { path: '/run/valkey.sock', database: 3 }],
  [
    'redis+sentinel://u:p@a.example,b.example:26380/main/1',
    'main (by Sentinel at a.example:26379, b.example:26380)',
    { service: 'main', database: 1, username: 'u', password: 'p' },
  ],
  [
    'rediss+cluster://u:p@a.example,[::1]:7000/',
    'a.example:6379, [::1]:7000',
    { tls: true, cluster: true, database: 0, username: 'u', password: 'p' },
  ],
  ['rediss+sentinel://a/main\n', 'main (by Sentinel at a:26379)', { tls: true }],
] as const) {
  test(`${url.trim()} is ${label}`, () => {
    const address = parseRedisUrl(url);

    assert.equal(address.label, label);
    for (const [key, value] of Object.entries(rest)) {
      assert.equal(address[key as keyof typeof address], value, key);
    }
  });
}

for (const url of [
  ...['', 'cache.example', 'http://h', 'redis://', 'redis://h:0', 'redis://h:99999', 'redis://h/x', 'redis://h/0/1'],
  ...[
    'redis://h?db=1',
    'unix://relative',
    'unix:///s?x=1',
    'redis+sentinel://h',
    'redis+cluster://',
    'redis+cluster://h/1',
    'redis://u:canary-secret%@h',
    'redis://a b:c:d',
  ],
]) {
  test(`${JSON.stringify(url)} is refused, without quoting it`, () => {
    assert.throws(
      () => parseRedisUrl(url),
      (error: Error) => /cannot be understood; write redis:/.test(error.message) && !error.message.includes('canary'),
    );
  });
}
