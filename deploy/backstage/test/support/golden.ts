import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { REPOSITORY } from './repository';

/** A golden snapshot, shared with the daemon's tests: an instance as stored in Redis, and what a reader must find. */
export interface Golden {
  readonly about: string;
  readonly prefix: string;
  readonly instance: string;
  readonly keys: string[];
  readonly redis: {
    readonly head: Record<string, string>;
    readonly clusters: Record<string, string>;
    readonly credentials: Record<string, string>;
    readonly changes: { id: string; fields: Record<string, string> }[];
  };
  readonly expected:
    | {
        accepted: false;
        reason: 'schema' | 'head' | 'uid' | 'count' | 'digest' | 'credentials_digest' | 'mac';
      }
    | {
        accepted: true;
        epoch: number;
        version: number;
        complete: boolean;
        unconfirmed: string[];
        /** Null: there is no time that counts. */
        checked_at: string | null;
        clusters: Record<string, GoldenCluster>;
      };
}

export interface GoldenCluster {
  readonly name: string;
  readonly access: string;
  readonly reason: string;
  readonly url?: string;
  readonly ca_data?: string;
  readonly provider?: string;
  /** Absent: no credential. Null: a credential that must not open. */
  readonly token?: string | null;
}

const DIRECTORY = join(REPOSITORY, 'tests', 'contract', 'snapshots');

export function goldenNames(): string[] {
  return readdirSync(DIRECTORY)
    .filter(name => name.endsWith('.json'))
    .map(name => name.replace(/\.json$/, ''))
    .sort();
}

export function golden(name: string): Golden {
  return JSON.parse(readFileSync(join(DIRECTORY, `${name}.json`), 'utf8')) as Golden;
}
