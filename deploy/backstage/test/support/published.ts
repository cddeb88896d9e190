import { createHash, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { CompactEncrypt } from 'jose';
import type { RedisConnection } from '../../src/redis/connection';
import type { SealedFor } from '../../src/seal';
import { Keys } from '../../src/snapshot/keys';

export const SEAL_KEY = createHash('sha256').update('a key of the tests').digest();
const ISSUED_AT = '2027-01-15T07:00:00Z';
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

/** What a token of `one` is sealed for, with the times that `Publisher` and the tests use. */
export function sealedFor(
  one: TestCluster,
  {
    prefix = 'tests',
    instance = 'alpha',
    expiresAt = '',
  }: { prefix?: string; instance?: string; expiresAt?: string } = {},
): SealedFor {
  const { url, ca_data = '', tls_server_name = '' } = (one['server'] ?? { url: '' }) as Record<string, string>;
  const server = createHash('sha256').update([url, ca_data, tls_server_name].join('\n')).digest('hex');
  return { prefix, instance, uid: one.uid, server, issued_at: ISSUED_AT, expires_at: expiresAt };
}

export async function sealed(
  wanted: SealedFor,
  token: string,
  { kid = 'tests', key = SEAL_KEY }: { kid?: string; key?: Buffer } = {},
): Promise<string> {
  return new CompactEncrypt(Buffer.from(token))
    .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', kid, ...wanted })
    .encrypt(key);
}

/** A credential as stored, whose token is sealed for `wanted`. */
export async function credentialOf(
  wanted: SealedFor,
  token: string,
  key: { kid?: string; key?: Buffer } = {},
): Promise<string> {
  return JSON.stringify({
    ...(wanted.expires_at !== '' && { expires_at: wanted.expires_at }),
    issued_at: wanted.issued_at,
    renew_at: '2027-01-15T20:00:00Z',
    sealed: await sealed(wanted, token, key),
  });
}

/** The digest of records or credentials, by uid. */
export function digestOf(texts: Iterable<readonly [uid: string, raw: string]>): string {
  const lines = [...texts].map(([uid, raw]) => `${uid}\t${hashOf(raw)}`).sort();
  return createHash('sha256').update(lines.join('\n')).digest('hex');
}

/** Remembered, because the benchmark publishes 10,000 clusters in many versions. */
const hashes = new Map<string, string>();

function hashOf(raw: string): string {
  const known = hashes.get(raw) ?? createHash('sha256').update(raw).digest('hex');
  hashes.set(raw, known);
  return known;
}

function macWith(key: Buffer, text: string): string {
  const macKey = Buffer.from(hkdfSync('sha256', key, '', 'palette-sync/mac/1', 32));
  return createHmac('sha256', macKey).update(text).digest('hex');
}

/** The fields of a head but its macs. */
export interface HeadFields {
  readonly epoch: string;
  readonly version: string;
  readonly clusters: string;
  readonly complete: string;
  readonly changed_at: string;
  readonly digest: string;
  readonly credentials_digest: string;
  readonly unconfirmed: string;
  readonly checked_at: string;
}

/** A head with its macs, for the instance `alpha` under the prefix `tests` unless said otherwise. */
export function headOf(
  fields: HeadFields,
  { prefix = 'tests', instance = 'alpha', key = SEAL_KEY }: { prefix?: string; instance?: string; key?: Buffer } = {},
): Record<string, string> {
  const { epoch, version, clusters, complete, changed_at, digest, credentials_digest, unconfirmed } = fields;
  const text = [
    ...[
      'palette-sync/head/1',
      prefix,
      instance,
      epoch,
      version,
      clusters,
      complete,
      changed_at,
      digest,
      credentials_digest,
    ],
    createHash('sha256').update(unconfirmed).digest('hex'),
  ].join('\n');
  return {
    ...fields,
    schema: '1',
    mac: macWith(key, text),
    checked_mac: checkedMac({ prefix, instance, epoch, version }, fields.checked_at, key),
    writer: 'tests:1',
  };
}

export function checkedMac(
  { prefix, instance, epoch, version }: { prefix: string; instance: string; epoch: string; version: string },
  checkedAt: string,
  key: Buffer = SEAL_KEY,
): string {
  return macWith(key, ['palette-sync/checked/1', prefix, instance, epoch, version, checkedAt].join('\n'));
}

export interface Version {
  readonly put?: readonly TestCluster[];
  readonly drop?: readonly string[];
  /** Tokens by uid of the cluster. */
  readonly tokens?: Readonly<Record<string, string>>;
  readonly expiresAt?: string;
  /** Credentials as stored, by uid of the cluster. */
  readonly credentials?: Readonly<Record<string, string>>;
  readonly complete?: boolean;
  readonly changedAt?: string;
  readonly unconfirmed?: readonly string[];
}

/** Writes versions of one instance as the daemon does, in one transaction each. For tests and the benchmark. */
export class Publisher {
  readonly #records = new Map<string, string>();
  readonly #credentials = new Map<string, string>();
  readonly #clusters = new Map<string, TestCluster>();
  readonly #keys: Keys;
  version = 0;
  complete = true;

  constructor(
    private readonly connection: RedisConnection,
    readonly instance: string,
    private readonly prefix: string,
    public epoch = 1_800_000_000_000,
    private readonly key: Buffer = SEAL_KEY,
  ) {
    this.#keys = new Keys(prefix);
  }

  async publish({ put = [], drop = [], tokens = {}, complete, ...more }: Version): Promise<void> {
    this.version += 1;
    this.complete = complete ?? this.complete;
    for (const one of put) {
      this.#records.set(one.uid, JSON.stringify({ ...one, instance: this.instance }));
      this.#clusters.set(one.uid, one);
    }
    for (const uid of drop) {
      this.#records.delete(uid);
      this.#credentials.delete(uid);
    }
    for (const [uid, token] of Object.entries(tokens)) {
      if (this.#records.has(uid)) {
        this.#credentials.set(uid, await this.credential(uid, token, more.expiresAt));
      }
    }
    for (const [uid, raw] of Object.entries(more.credentials ?? {})) {
      this.#credentials.set(uid, raw);
    }
    const rotated = [...Object.keys(tokens), ...Object.keys(more.credentials ?? {})].filter(uid =>
      this.#credentials.has(uid),
    );
    await this.#write(put, drop, rotated, more);
  }

  async #write(
    put: readonly TestCluster[],
    drop: readonly string[],
    rotated: readonly string[],
    { changedAt = now(), unconfirmed = [] }: Pick<Version, 'changedAt' | 'unconfirmed'>,
  ): Promise<void> {
    const { instance, prefix, key } = this;
    const keys = this.#keys;
    const fields: HeadFields = {
      epoch: `${this.epoch}`,
      version: `${this.version}`,
      clusters: `${this.#records.size}`,
      complete: this.complete ? '1' : '0',
      changed_at: changedAt,
      digest: digestOf(this.#records),
      credentials_digest: digestOf(this.#credentials),
      unconfirmed: unconfirmed.length === 0 ? '' : JSON.stringify(unconfirmed),
      checked_at: now(),
    };
    const head = headOf(fields, { prefix, instance, key });
    const { epoch, clusters, complete, digest, credentials_digest } = fields;
    const lists = {
      put: JSON.stringify(put.map(({ uid }) => uid)),
      drop: JSON.stringify(drop),
      rotated: JSON.stringify(rotated),
    };
    const entry = {
      at: changedAt,
      epoch,
      clusters,
      complete,
      digest,
      credentials_digest,
      unconfirmed: fields.unconfirmed,
    };
    const records = put.flatMap(({ uid }) => [uid, this.#records.get(uid) ?? '']);
    const credentials = rotated.flatMap(uid => [uid, this.#credentials.get(uid) ?? '']);
    await this.connection.command(['SADD', keys.instances, instance]); // in a cluster it is on another server
    await this.connection.transaction([
      ...(records.length > 0 ? [['HSET', keys.clusters(instance), ...records]] : []),
      ...(credentials.length > 0 ? [['HSET', keys.credentials(instance), ...credentials]] : []),
      ...(drop.length > 0
        ? [
            ['HDEL', keys.clusters(instance), ...drop],
            ['HDEL', keys.credentials(instance), ...drop],
          ]
        : []),
      ['HSET', keys.head(instance), ...Object.entries(head).flat()],
      [
        ...['XADD', keys.changes(instance), 'MAXLEN', '~', '10000', `${this.version}-0`],
        ...Object.entries({ ...entry, mac: head['mac'] ?? '', ...lists }).flat(),
      ],
    ]);
  }

  async credential(uid: string, token: string, expiresAt?: string): Promise<string> {
    const one = this.#clusters.get(uid) ?? { uid, name: '' };
    const { prefix, instance, key } = this;
    return credentialOf(sealedFor(one, { prefix, instance, ...(expiresAt && { expiresAt }) }), token, { key });
  }
}

function now(): string {
  return `${new Date().toISOString().slice(0, 19)}Z`;
}

export function randomPrefix(): string {
  return `test-${randomBytes(6).toString('hex')}`;
}
