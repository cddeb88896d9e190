import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createServer, type Server } from 'node:tls';
import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection, type RedisTls, RedisUnavailable } from '../../src/redis/connection';
import { Valkey } from '../support/processes';
import { VENV_BIN } from '../support/repository';

const MAKE_CERTIFICATES = `
import json
from palette_sync.simulator.certificates import Authority, key_pem, new_key
authority, server, client = Authority("tests"), new_key(), new_key()
print(json.dumps({
    "ca": authority.pem,
    "server": {"cert": authority.server_certificate(server, host="127.0.0.1").decode(), "key": key_pem(server).decode()},
    "client": {"cert": authority.client_certificate(client, "reader", "tests").decode(), "key": key_pem(client).decode()},
}))
`;

let valkey: Valkey;
let front: Server;
let certificates: { ca: string; server: { cert: string; key: string }; client: { cert: string; key: string } };

/** A TLS proxy in front of the server, which requires a client certificate. */
before(async () => {
  valkey = await Valkey.start();
  certificates = JSON.parse(String(execFileSync(join(VENV_BIN, 'python'), ['-c', MAKE_CERTIFICATES])));
  front = createServer({ ...certificates.server, ca: certificates.ca, requestCert: true }, socket => {
    const behind = connect(valkey.port, '127.0.0.1');
    socket.pipe(behind).pipe(socket);
    for (const end of [socket, behind]) {
      end.on('error', () => {}).on('close', () => (end === socket ? behind : socket).destroy());
    }
  }).listen(0, '127.0.0.1');
  await once(front, 'listening');
});

after(async () => {
  front?.close();
  await valkey?.stop();
});

async function ping(tls: RedisTls, scheme = 'rediss'): Promise<unknown> {
  const { port } = front.address() as AddressInfo;
  const connection = await RedisConnection.open(parseRedisUrl(`${scheme}://127.0.0.1:${port}`), tls);
  try {
    return await connection.command(['PING']);
  } finally {
    await connection.close();
  }
}

test('with its CA and a client certificate the connection works', async () => {
  assert.equal(await ping({ ca: certificates.ca, ...certificates.client }), 'PONG');
});

test('the name in the certificate may be configured', async () => {
  assert.equal(await ping({ ca: certificates.ca, ...certificates.client, serverName: 'kubernetes' }), 'PONG');
});

for (const [what, tls] of [
  ['without its CA', () => ({ ...certificates.client })],
  ['under another name', () => ({ ca: certificates.ca, ...certificates.client, serverName: 'other.example' })],
  ['without a client certificate', () => ({ ca: certificates.ca })],
] as const) {
  test(`${what} the server is not trusted, or does not answer, and the remedy is logged`, async () => {
    await assert.rejects(ping(tls()), (error: Error) => {
      assert(error instanceof RedisUnavailable);
      assert.match(error.message, /cannot be reached \([A-Z0-9_]+\); see paletteSync\.redis\.tls/);
      return true;
    });
  });
}
