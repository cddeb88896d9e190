import { createHash, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { CompactEncrypt } from 'jose';
import type { RedisConnection } from '../../src/redis/connection';
import { Keys } from '../../src/snapshot/keys';

export const SEAL_KEY = createHash('sha256').update('a key of the tests').digest();
export const SEAL_LINE = sealLine('tests', SEAL_KEY);

export function sealLine(kid: string, key: Buffer): string {
  return `${kid} ${key.toString('base64url')}`;
}

export interface TestCluster {
  readonly uid: string;
  readonly name: string;
  readonly [key: string]: unknown;
}

/** A record as the daemon publishes it, with `changes`. */
export function cluster(number: number, changes: Record<string, unknown> = {}): TestCluster {
  const uid = `5f3c${String(number).padStart(20, '0')}`;
  return {
    access: { message: '', reason: 'Verified', since: '2027-01-15T07:00:00Z', state: 'ready' },
    auth: { provider: 'serviceAccount' },
    dashboard_url: `https://console.example/${uid}`,
    instance: 'alpha',
    kubernetes_version: 'v1.31.2',
    name: `alpha-${number}`,
    palette: { cloud_type: 'aws', health: 'Healthy', state: 'Running', tags: ['env:prod', 'owner:team-web'] },
    project: { name: 'Shop', uid: '5f3c0000000000000000a001' },
    scope: 'project',
    server: { ca_data: CA, url: `https://c${number}.example:6443` },
    skip_metrics_lookup: true,
    title: `Cluster ${number}`,
    uid,
    ...changes,
  };
}

/** About as long as a real CA. */
const CA = Buffer.from(
  `-----BEGIN CERTIFICATE-----\n${createHash('sha512').update('ca').digest('hex').repeat(9)}\n-----END CERTIFICATE-----\n`,
).toString('base64');

export async function sealed(
  instance: string,
  uid: string,
  token: string,
  { kid = 'tests', key = SEAL_KEY }: { kid?: string; key?: Buffer } = {},
): Promise<string> {
  return new CompactEncrypt(Buffer.from(token))
    .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', kid, instance, uid })
    .encrypt(key);
}

export function macOf(
  instance: string,
  epoch: number,
  version: number,
  digest: string,
  key: Buffer = SEAL_KEY,
): string {
  const macKey = Buffer.from(hkdfSync('sha256', key, '', 'palette-sync/mac/1', 32));
  return createHmac('sha256', macKey).update(`1|${instance}|${epoch}|${version}|${digest}`).digest('hex');
}

export interface Version {
  readonly put?: readonly TestCluster[];
  readonly drop?: readonly string[];
  /** Tokens by uid of the cluster. */
  readonly tokens?: Readonly<Record<string, string>>;
  readonly expiresAt?: string;
  readonly complete?: boolean;
}

/** Writes versions of one instance as the daemon does, in one transaction each. For tests and the benchmark. */
export class Publisher {
  readonly #hashes = new Map<string, string>();
  readonly #keys: Keys;
  version = 0;
  complete = true;

  constructor(
    private readonly connection: RedisConnection,
    readonly instance: string,
    prefix: string,
    public epoch = 1_800_000_000_000,
    private readonly key: Buffer = SEAL_KEY,
  ) {
    this.#keys = new Keys(prefix);
  }

  async publish({ put = [], drop = [], tokens = {}, expiresAt, complete }: Version): Promise<void> {
    const keys = this.#keys;
    this.version += 1;
    this.complete = complete ?? this.complete;
    const records = put.map(one => [one.uid, JSON.stringify({ ...one, instance: this.instance })] as const);
    for (const [uid, raw] of records) {
      this.#hashes.set(uid, createHash('sha256').update(raw).digest('hex'));
    }
    for (const uid of drop) {
      this.#hashes.delete(uid);
    }
    const digest = this.digest();
    const credentials: string[] = [];
    for (const [uid, token] of Object.entries(tokens)) {
      credentials.push(uid, await this.credential(uid, token, expiresAt));
    }
    const now = `${new Date().toISOString().slice(0, 19)}Z`;
    const mac = macOf(this.instance, this.epoch, this.version, digest, this.key);
    await this.connection.transaction([
      ['SADD', keys.instances, this.instance],
      ...(records.length > 0 ? [['HSET', keys.clusters(this.instance), ...records.flat()]] : []),
      ...(credentials.length > 0 ? [['HSET', keys.credentials(this.instance), ...credentials]] : []),
      ...(drop.length > 0
        ? [
            ['HDEL', keys.clusters(this.instance), ...drop],
            ['HDEL', keys.credentials(this.instance), ...drop],
          ]
        : []),
      [
        ...['HSET', keys.head(this.instance), 'schema', '1', 'epoch', `${this.epoch}`, 'version', `${this.version}`],
        ...['digest', digest, 'mac', mac, 'clusters', `${this.#hashes.size}`, 'complete', this.complete ? '1' : '0'],
        ...['changed_at', now, 'checked_at', now, 'writer', 'tests:1'],
      ],
      [
        ...['XADD', keys.changes(this.instance), 'MAXLEN', '~', '10000', `${this.version}-0`],
        ...['epoch', `${this.epoch}`, 'digest', digest, 'mac', mac, 'at', now],
        ...['put', JSON.stringify(put.map(({ uid }) => uid)), 'drop', JSON.stringify(drop)],
        ...['rotated', JSON.stringify(Object.keys(tokens))],
      ],
    ]);
  }

  async credential(uid: string, token: string, expiresAt?: string): Promise<string> {
    return JSON.stringify({
      ...(expiresAt !== undefined && { expires_at: expiresAt }),
      issued_at: '2027-01-15T07:00:00Z',
      renew_at: '2027-01-15T20:00:00Z',
      sealed: await sealed(this.instance, uid, token, { key: this.key }),
    });
  }

  digest(): string {
    const lines = [...this.#hashes].map(([uid, hash]) => `${uid}\t${hash}`).sort();
    return createHash('sha256').update(lines.join('\n')).digest('hex');
  }
}

export function randomPrefix(): string {
  return `test-${randomBytes(6).toString('hex')}`;
}
