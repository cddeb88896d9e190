/**
 * Decodes the documents of the Redis contract, schema 1, strictly. Ignores unknown keys, so that a newer writer of the same
 * schema stays readable. Errors name the document, the field and the reason, and never quote a value.
 */

import { type Fields, parseObject } from './fields';

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
  /** The times as the document has them, which are sealed in with the token; `expiresAtText` is empty for no end. */
  readonly issuedAtText: string;
  readonly expiresAtText: string;
}

/** Decodes the record stored under `uid`, which must belong to that cluster. Throws DocumentError. */
export function decodeRecord(instance: string, uid: string, raw: string): ClusterRecord {
  const fields = parseObject('cluster record', raw);
  const record: ClusterRecord = {
    uid: fields.uid('uid'),
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
  return { uid: fields.uid('uid'), name: fields.text('name') };
}

function serverOf(fields: Fields): NonNullable<ClusterRecord['server']> {
  fields.name('url');
  return {
    url: fields.line('url'),
    ...(fields.has('ca_data') && { caData: fields.line('ca_data') }),
    ...(fields.has('tls_server_name') && { tlsServerName: fields.line('tls_server_name') }),
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
  fields.time('issued_at');
  return {
    sealed: fields.name('sealed'),
    issuedAtText: fields.text('issued_at'),
    expiresAtText: fields.has('expires_at') ? fields.text('expires_at') : '',
    ...(fields.has('expires_at') && { expiresAt: fields.time('expires_at') }),
  };
}
