import { createHash } from 'node:crypto';
import type { ClusterRecord } from './decode';

/** Where an instance is kept in Redis. Bound into every mac and every sealed token. */
export interface Place {
  readonly prefix: string;
  readonly instance: string;
}

/** What the mac of a version covers, with the texts as the head has them. */
export interface HeadFacts {
  readonly epoch: number;
  readonly version: number;
  readonly clusters: number;
  readonly complete: boolean;
  readonly changedAtText: string;
  readonly digest: string;
  readonly credentialsDigest: string;
  readonly unconfirmed: string;
}

/** The text that the mac of a version is made of. No part may hold a line feed; decoding the head makes sure of that. */
export function headText({ prefix, instance }: Place, head: HeadFacts): string {
  return [
    'palette-sync/head/1',
    prefix,
    instance,
    head.epoch,
    head.version,
    head.clusters,
    head.complete ? 1 : 0,
    head.changedAtText,
    head.digest,
    head.credentialsDigest,
    sha256(head.unconfirmed),
  ].join('\n');
}

/** The text that the mac of a check is made of. */
export function checkedText(place: Place, epoch: number, version: number, checkedAt: string): string {
  return ['palette-sync/checked/1', place.prefix, place.instance, epoch, version, checkedAt].join('\n');
}

/**
 * Hex SHA-256 of the API server that a token may be sent to, as the header of a sealed token holds it. A record without a
 * server counts as one whose texts are all empty.
 */
export function serverHash(server: ClusterRecord['server']): string {
  return sha256([server?.url ?? '', server?.caData ?? '', server?.tlsServerName ?? ''].join('\n'));
}

/** Hex SHA-256 of a text's UTF-8 bytes. */
export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
