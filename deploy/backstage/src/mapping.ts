import {
  ANNOTATION_KUBERNETES_AUTH_PROVIDER,
  ANNOTATION_KUBERNETES_OIDC_TOKEN_PROVIDER,
} from '@backstage/plugin-kubernetes-common';
import type { ClusterDetails } from '@backstage/plugin-kubernetes-node';
import type { DashboardSettings } from './config';
import { dashboardOf } from './dashboard';
import type { ClusterRecord } from './snapshot/decode';
import type { Entry } from './snapshot/snapshot';

/** Why Backstage does not get a cluster. Reasons are stable: they appear on the health route and in metrics. */
export type WithheldReason =
  | 'AccessPending'
  | 'AccessFailed'
  | 'Unreachable'
  | 'NoServer'
  | 'NoCredential'
  | 'TokenLapsed'
  | 'SealKeyUnknown'
  | 'SealBroken'
  | 'OidcProviderNotConfigured'
  | 'ServerNameDiffers'
  | 'InsecureServer'
  | 'DuplicateName'
  | 'Maintenance'
  | 'Filtered'
  | 'Unreadable';

export interface Withheld {
  readonly reason: WithheldReason;
  readonly message: string;
}

/** A cluster that Backstage may have until `expiresAt` (absent = as long as the record exists). */
export interface Offered {
  readonly details: ClusterDetails;
  readonly record: ClusterRecord;
  readonly expiresAt?: number;
}

/** The parts of the configuration that decide which clusters Backstage gets. */
export interface Policy {
  readonly chosen: (record: ClusterRecord) => boolean;
  readonly underMaintenance: (record: ClusterRecord) => boolean;
  readonly servesOidc: (provider: string) => boolean;
  readonly withholdUnreachable: boolean;
  readonly dashboard: DashboardSettings;
}

type Verdict = { readonly offered: Offered } | { readonly withheld: Withheld };

/**
 * Decides whether Backstage gets a cluster, and with which details. Withholds every cluster that would make the Kubernetes
 * plugin hang, answer 500 for all clusters or send a token to the wrong server. The caller checks `expiresAt` at each call.
 */
export function interpret(entry: Entry, policy: Policy): Verdict {
  const { record } = entry;
  if (record === undefined) {
    return withhold('Unreadable', entry.unreadable ?? 'its record cannot be read');
  }
  if (!policy.chosen(record)) {
    return withhold('Filtered', 'paletteSync.filter leaves it out');
  }
  if (policy.underMaintenance(record)) {
    return withhold('Maintenance', 'one of its tags is in paletteSync.maintenanceTags');
  }
  const wrong = accessProblem(record, policy) ?? serverProblem(record);
  if (wrong !== undefined) {
    return { withheld: wrong };
  }
  return record.auth?.provider === 'oidc'
    ? offerOidc(record, record.auth.tokenProvider, policy)
    : offerServiceAccount(record, entry, policy);
}

function accessProblem(record: ClusterRecord, policy: Policy): Withheld | undefined {
  const { state, reason, message } = record.access;
  const text = message ? `${reason}: ${message}` : reason;
  const noAnswer = reason === 'Unreachable' || reason === 'ProxyAnswered';
  if (noAnswer && state !== 'pending' && policy.withholdUnreachable) {
    return { reason: 'Unreachable', message: text };
  }
  if (state === 'pending') {
    return { reason: 'AccessPending', message: text };
  }
  return state === 'failed' ? { reason: 'AccessFailed', message: text } : undefined;
}

function serverProblem(record: ClusterRecord): Withheld | undefined {
  const { server } = record;
  if (server === undefined || record.auth === undefined) {
    return { reason: 'NoServer', message: 'its record has no API server or no way to log in yet' };
  }
  const url = URL.canParse(server.url) ? new URL(server.url) : undefined;
  if (url?.protocol !== 'https:' || url.username || url.password) {
    return { reason: 'InsecureServer', message: 'the address of its API server is not a plain https:// URL' };
  }
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (server.tlsServerName !== undefined && server.tlsServerName.toLowerCase() !== host) {
    return {
      reason: 'ServerNameDiffers',
      message: 'its certificate is for another name than its address, and Backstage cannot check another name',
    };
  }
  return undefined;
}

function offerServiceAccount(record: ClusterRecord, entry: Entry, policy: Policy): Verdict {
  const { credential } = entry;
  if (credential === undefined) {
    return withhold('NoCredential', 'the daemon has not published a token for it yet');
  }
  if (credential.token === undefined) {
    const { reason = 'SealBroken' as const, message = 'its token cannot be read' } = credential.refused ?? {};
    return withhold(reason, message);
  }
  const authMetadata = {
    [ANNOTATION_KUBERNETES_AUTH_PROVIDER]: 'serviceAccount',
    serviceAccountToken: credential.token,
  };
  const offered = { details: detailsOf(record, authMetadata, policy), record };
  return { offered: credential.expiresAt === undefined ? offered : { ...offered, expiresAt: credential.expiresAt } };
}

function offerOidc(record: ClusterRecord, provider: string, policy: Policy): Verdict {
  if (!policy.servesOidc(provider)) {
    return withhold(
      'OidcProviderNotConfigured',
      `it needs a user's token of the provider ${provider}, which is not in paletteSync.oidcTokenProviders`,
    );
  }
  const authMetadata = {
    [ANNOTATION_KUBERNETES_AUTH_PROVIDER]: 'oidc',
    [ANNOTATION_KUBERNETES_OIDC_TOKEN_PROVIDER]: provider,
  };
  return { offered: { details: detailsOf(record, authMetadata, policy), record } };
}

function detailsOf(record: ClusterRecord, authMetadata: Record<string, string>, policy: Policy): ClusterDetails {
  const { server } = record;
  return {
    name: record.name,
    ...(record.title && { title: record.title }),
    url: server?.url ?? '',
    authMetadata,
    skipTLSVerify: false,
    skipMetricsLookup: record.skipMetricsLookup,
    ...(server?.caData !== undefined && { caData: server.caData }),
    ...dashboardOf(record, policy.dashboard),
  };
}

function withhold(reason: WithheldReason, message: string): Verdict {
  return { withheld: { reason, message } };
}
