/**
 * Decodes the documents of the Redis contract, schema 1, strictly. Ignores unknown keys, so that a newer writer of the same
 * schema stays readable. Errors name the document, the field and the reason, and never quote a value.
 */

export const SCHEMA = 1;

/** A document cannot be read. */
export class DocumentError extends Error {
  override readonly name: string = 'DocumentError';

  constructor(what: string, where: string, why: string) {
    super(where ? `${what}: ${where}: ${why}` : `${what}: ${why}`);
  }
}

/** The head names a schema that this version does not know, so the rest of the snapshot must not be read. */
export class UnknownSchemaError extends DocumentError {
  override readonly name = 'UnknownSchemaError';
}

export interface Head {
  readonly epoch: number;
  readonly version: number;
  readonly digest: string;
  readonly mac: string;
  /** How many records the snapshot holds. */
  readonly clusters: number;
  /** False until the daemon has finished its first whole pass over an empty store. */
  readonly complete: boolean;
  /** Milliseconds since 1970, like all times here. */
  readonly changedAt: number;
  readonly checkedAt: number;
}

export type AccessState = 'ready' | 'degraded' | 'failed' | 'pending';

export type RecordAuth =
  | { readonly provider: 'serviceAccount' }
  | {
      readonly provider: 'oidc';
      readonly tokenProvider: string;
      /** The issuer whose tokens the cluster accepts, and the client that they must be for. */
      readonly issuerUrl: string;
      readonly clientId: string;
    };

export interface ClusterRecord {
  readonly uid: string;
  readonly name: string;
  readonly title: string;
  readonly instance: string;
  readonly scope: 'project' | 'tenant';
  readonly project?: { readonly uid: string; readonly name: string };
  readonly server?: { readonly url: string; readonly caData?: string; readonly tlsServerName?: string };
  readonly auth?: RecordAuth;
  readonly palette: {
    readonly state: string;
    readonly health: string;
    readonly cloudType: string;
    readonly tags: readonly string[];
  };
  readonly kubernetesVersion?: string;
  readonly skipMetricsLookup: boolean;
  readonly dashboardUrl?: string;
  readonly access: { readonly state: AccessState; readonly reason: string; readonly message: string };
}

export interface SealedCredential {
  readonly sealed: string;
  /** Absent = the token does not expire. */
  readonly expiresAt?: number;
}

/** An entry of the stream of changes: the clusters that a version changed. */
export interface Change {
  readonly epoch: number;
  readonly version: number;
  readonly touched: readonly string[];
  readonly dropped: readonly string[];
}

type Members = Readonly<Record<string, unknown>>;

/** Reads the members of one JSON object by key and type. */
class Fields {
  constructor(
    private readonly what: string,
    private readonly members: Members,
    private readonly path = '',
  ) {}

  wrong(key: string, why: string): DocumentError {
    return new DocumentError(this.what, this.path + key, why);
  }

  has(key: string): boolean {
    return Object.hasOwn(this.members, key);
  }

  text(key: string): string {
    const value = this.#get(key);
    if (typeof value !== 'string') {
      throw this.wrong(key, 'is not a string');
    }
    return value;
  }

  name(key: string): string {
    const value = this.text(key);
    if (value === '') {
      throw this.wrong(key, 'is empty');
    }
    return value;
  }

  flag(key: string): boolean {
    const value = this.#get(key);
    if (typeof value !== 'boolean') {
      throw this.wrong(key, 'is not true or false');
    }
    return value;
  }

  word<T extends string>(key: string, words: readonly T[]): T {
    const value = this.text(key);
    const found = words.find(word => word === value);
    if (found === undefined) {
      throw this.wrong(key, `is not one of ${words.join(', ')}`);
    }
    return found;
  }

  time(key: string): number {
    const value = this.text(key);
    const moment = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value) ? Date.parse(value) : Number.NaN;
    if (Number.isNaN(moment)) {
      throw this.wrong(key, 'is not a time like 2026-01-31T09:30:00Z');
    }
    return moment;
  }

  number(key: string): number {
    const value = this.text(key);
    if (!/^(0|[1-9]\d{0,17})$/.test(value) || !Number.isSafeInteger(Number(value))) {
      throw this.wrong(key, 'is not a whole number');
    }
    return Number(value);
  }

  texts(key: string): string[] {
    const values = this.#get(key);
    if (!Array.isArray(values) || !values.every(value => typeof value === 'string')) {
      throw this.wrong(key, 'is not a list of strings');
    }
    return values;
  }

  object(key: string): Fields {
    const value = this.#get(key);
    if (!isObject(value)) {
      throw this.wrong(key, 'is not an object');
    }
    return new Fields(this.what, value, `${this.path}${key}.`);
  }

  #get(key: string): unknown {
    if (!this.has(key)) {
      throw this.wrong(key, 'is missing');
    }
    return this.members[key];
  }
}

/** Decodes the record stored under `uid`, which must belong to that cluster. Throws DocumentError. */
export function decodeRecord(instance: string, uid: string, raw: string): ClusterRecord {
  const fields = parseObject('cluster record', raw);
  const record: ClusterRecord = {
    uid: fields.name('uid'),
    name: fields.name('name'),
    title: fields.text('title'),
    instance: fields.name('instance'),
    scope: fields.word('scope', ['project', 'tenant']),
    ...(fields.has('project') && { project: projectOf(fields.object('project')) }),
    ...(fields.has('server') && { server: serverOf(fields.object('server')) }),
    ...(fields.has('auth') && { auth: authOf(fields.object('auth')) }),
    palette: paletteOf(fields.object('palette')),
    ...(fields.has('kubernetes_version') && { kubernetesVersion: fields.text('kubernetes_version') }),
    skipMetricsLookup: fields.flag('skip_metrics_lookup'),
    ...(fields.has('dashboard_url') && { dashboardUrl: fields.text('dashboard_url') }),
    access: accessOf(fields.object('access')),
  };
  if (record.uid !== uid || record.instance !== instance) {
    throw fields.wrong('uid', 'belongs to another cluster');
  }
  return record;
}

function projectOf(fields: Fields): NonNullable<ClusterRecord['project']> {
  return { uid: fields.name('uid'), name: fields.text('name') };
}

function serverOf(fields: Fields): NonNullable<ClusterRecord['server']> {
  return {
    url: fields.name('url'),
    ...(fields.has('ca_data') && { caData: fields.text('ca_data') }),
    ...(fields.has('tls_server_name') && { tlsServerName: fields.text('tls_server_name') }),
  };
}

function authOf(fields: Fields): RecordAuth {
  const provider = fields.word('provider', ['serviceAccount', 'oidc']);
  return provider === 'oidc'
    ? {
        provider,
        tokenProvider: fields.name('oidc_token_provider'),
        issuerUrl: fields.text('issuer_url'),
        clientId: fields.text('client_id'),
      }
    : { provider };
}

function paletteOf(fields: Fields): ClusterRecord['palette'] {
  return {
    state: fields.text('state'),
    health: fields.text('health'),
    cloudType: fields.text('cloud_type'),
    tags: fields.texts('tags'),
  };
}

function accessOf(fields: Fields): ClusterRecord['access'] {
  return {
    state: fields.word('state', ['ready', 'degraded', 'failed', 'pending']),
    reason: fields.text('reason'),
    message: fields.text('message'),
  };
}

/** Throws DocumentError. */
export function decodeCredential(raw: string): SealedCredential {
  const fields = parseObject('credential', raw);
  return { sealed: fields.name('sealed'), ...(fields.has('expires_at') && { expiresAt: fields.time('expires_at') }) };
}

/** Decodes the fields of the head's Redis hash. Throws UnknownSchemaError, DocumentError. */
export function decodeHead(members: Readonly<Record<string, string>>): Head {
  const fields = new Fields('head', members);
  if (fields.number('schema') !== SCHEMA) {
    throw new UnknownSchemaError('head', 'schema', `is not ${SCHEMA}, the only one that this version knows`);
  }
  const complete = fields.word('complete', ['0', '1']);
  return {
    epoch: fields.number('epoch'),
    version: fields.number('version'),
    digest: fields.name('digest'),
    mac: fields.text('mac'),
    clusters: fields.number('clusters'),
    complete: complete === '1',
    changedAt: fields.time('changed_at'),
    checkedAt: fields.time('checked_at'),
  };
}

/** Decodes an entry of the stream of changes; its id is `<version>-0`. Throws DocumentError. */
export function decodeChange(id: string, members: Readonly<Record<string, string>>): Change {
  const fields = new Fields('change', { ...members, id: id.replace(/-0$/, '') });
  const dropped = uidsOf(fields, 'drop');
  const touched = new Set([...uidsOf(fields, 'put'), ...uidsOf(fields, 'rotated'), ...dropped]);
  return { epoch: fields.number('epoch'), version: fields.number('id'), touched: [...touched], dropped };
}

function uidsOf(fields: Fields, key: string): string[] {
  return new Fields('change', { [key]: parseJson(fields.text(key)) }).texts(key);
}

function parseObject(what: string, raw: string): Fields {
  const document = parseJson(raw);
  if (!isObject(document)) {
    throw new DocumentError(what, '', 'is not a JSON object');
  }
  return new Fields(what, document);
}

function parseJson(raw: string): unknown {
  try {
    return JSON.parse(raw);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
