import { readFileSync } from 'node:fs';
import type { Config } from '@backstage/config';
import { isHttpTemplate, PLACEHOLDERS, unknownPlaceholders } from './dashboard';
import type { Filter } from './filter';
import { parseRedisUrl, type RedisAddress } from './redis/address';
import type { RedisTls } from './redis/connection';
import { type Sealer, SealKeys, Unsealed } from './seal';
import { isInstanceName } from './snapshot/keys';
import { ROOT, SettingsError, Values } from './values';

export { ROOT, SettingsError, typeProblem } from './values';

/** The section `paletteSync` of app-config, checked. */
export interface Settings {
  /** Reads the file again at each connection, so that a password in `urlFile` may change. Throws an Error without secrets. */
  readonly redisAddress: () => RedisAddress;
  readonly redisTls: RedisTls;
  readonly prefix: string;
  readonly sealer: Sealer;
  readonly instances?: readonly string[];
  /** The OIDC providers whose clusters are served. Absent = all. */
  readonly oidcTokenProviders?: readonly string[];
  readonly withholdUnreachable: boolean;
  readonly maxSnapshotAgeMs: number;
  readonly filter: Filter;
  /** Globs of tags that mark a cluster under maintenance. */
  readonly maintenanceTags: readonly string[];
  readonly dashboard: DashboardSettings;
  readonly locator: LocatorSettings;
  readonly fetching: FetchSettings;
  /** `catalog`: a user gets only the clusters whose Resource he may read. */
  readonly visibility: 'all' | 'catalog';
  readonly extensionPoints: Readonly<Record<ExtensionPointName, boolean>>;
}

/** The extension points of the Kubernetes plugin that this module uses. */
export const EXTENSION_POINTS = ['clusterSupplier', 'serviceLocator', 'objectsProvider', 'fetcher'] as const;
export type ExtensionPointName = (typeof EXTENSION_POINTS)[number];

/** What the links from Backstage to a cluster's dashboard look like. */
export interface DashboardSettings {
  readonly links: boolean;
  /** A URL with placeholders such as `{name}`. Absent = the cluster's page in Palette. */
  readonly url?: string;
  /** The dashboard that the frontend formats links for, such as `headlamp`. */
  readonly app?: string;
  readonly parameters?: Readonly<Record<string, string | number | boolean>>;
}

export interface LocatorSettings {
  /** What an entity gets that selects no cluster: what Backstage's own locator returns, or nothing. */
  readonly fallback: 'all' | 'none';
  /** The most clusters that `fallback: all` returns. */
  readonly fallbackLimit: number;
  /** Whether an entity of a System gets the clusters of the Palette project of that name. Absent = if they share a System. */
  readonly systems?: boolean;
}

export interface FetchSettings {
  readonly clusterTimeoutMs: number;
  /** How many clusters are queried at the same time, over all pages. */
  readonly concurrency: number;
}

const KNOWN: Record<string, readonly string[]> = {
  '': [
    ...['redis', 'sealKeys', 'sealKeysFile', 'seal', 'instances', 'oidcTokenProviders', 'withholdUnreachable'],
    ...['maxSnapshotAge', 'filter', 'maintenanceTags', 'dashboardLinks', 'dashboard', 'locator', 'visibility'],
    ...['clusterTimeout', 'clusterConcurrency', 'extensionPoints', 'catalog'],
  ],
  redis: ['url', 'urlFile', 'prefix', 'tls'],
  'redis.tls': ['caFile', 'certFile', 'keyFile', 'serverName'],
  filter: ['includeProjects', 'excludeProjects', 'includeTags', 'excludeTags', 'excludeTenantScopedClusters'],
  dashboard: ['url', 'app', 'parameters'],
  locator: ['fallback', 'fallbackLimit', 'systems'],
  extensionPoints: EXTENSION_POINTS,
};
const DEFAULT_MAX_AGE_MS = 3_600_000;
const DEFAULT_CLUSTER_TIMEOUT_MS = 5_000;
const DEFAULT_CONCURRENCY = 32;
const DEFAULT_FALLBACK_LIMIT = 50;

/** Returns undefined if the section is missing. Throws SettingsError. */
export function readSettings(root: Config): Settings | undefined {
  if (!root.has(ROOT)) {
    return undefined;
  }
  try {
    root.getConfig(ROOT);
  } catch {
    throw new SettingsError([`${ROOT}: is not a section with keys such as redis and sealKeys`]);
  }
  const values = new Values(root);
  const settings = new Reader(values).settings();
  if (values.problems.length > 0) {
    throw new SettingsError(values.problems);
  }
  return settings;
}

class Reader {
  readonly #values: Values;

  constructor(values: Values) {
    this.#values = values;
  }

  settings(): Settings {
    this.#refuseUnknownKeys();
    const instances = this.#values.texts('instances');
    const bad = instances?.filter(name => !isInstanceName(name)) ?? [];
    if (bad.length > 0) {
      this.#values.wrong(
        'instances',
        `${bad.map(name => JSON.stringify(name)).join(', ')}: names are [a-z][a-z0-9_]*, at most 64 characters, as in the daemon's [instances.NAME]`,
      );
    }
    const systems = this.#values.optionalFlag('locator.systems');
    return {
      redisAddress: this.#redisAddress(),
      redisTls: this.#tls(),
      prefix: this.#prefix(),
      sealer: this.#sealer(),
      ...(instances !== undefined && instances.length > 0 && { instances }),
      ...this.#oidcTokenProviders(),
      withholdUnreachable: this.#values.flag('withholdUnreachable', true),
      maxSnapshotAgeMs: this.#values.duration('maxSnapshotAge', DEFAULT_MAX_AGE_MS),
      filter: {
        includeProjects: this.#values.texts('filter.includeProjects') ?? [],
        excludeProjects: this.#values.texts('filter.excludeProjects') ?? [],
        includeTags: this.#values.texts('filter.includeTags') ?? [],
        excludeTags: this.#values.texts('filter.excludeTags') ?? [],
        excludeTenantScopedClusters: this.#values.flag('filter.excludeTenantScopedClusters', false),
      },
      maintenanceTags: this.#values.texts('maintenanceTags') ?? [],
      dashboard: this.#dashboard(),
      locator: {
        fallback: this.#values.word('locator.fallback', ['all', 'none'], 'all'),
        fallbackLimit: this.#values.count('locator.fallbackLimit', DEFAULT_FALLBACK_LIMIT),
        ...(systems !== undefined && { systems }),
      },
      fetching: {
        clusterTimeoutMs: this.#clusterTimeout(),
        concurrency: this.#values.count('clusterConcurrency', DEFAULT_CONCURRENCY),
      },
      visibility: this.#values.word('visibility', ['all', 'catalog'], 'all'),
      extensionPoints: Object.fromEntries(
        EXTENSION_POINTS.map(name => [name, this.#values.flag(`extensionPoints.${name}`, true)]),
      ) as Record<ExtensionPointName, boolean>,
    };
  }

  #clusterTimeout(): number {
    const ms = this.#values.duration('clusterTimeout', DEFAULT_CLUSTER_TIMEOUT_MS);
    if (ms < 100) {
      this.#values.wrong('clusterTimeout', 'is shorter than 100 ms, in which no cluster answers');
    }
    return ms;
  }

  #oidcTokenProviders(): { oidcTokenProviders?: readonly string[] } {
    const oidcTokenProviders = this.#values.texts('oidcTokenProviders');
    return oidcTokenProviders === undefined ? {} : { oidcTokenProviders };
  }

  #dashboard(): DashboardSettings {
    const url = this.#values.text('dashboard.url');
    const app = this.#values.text('dashboard.app');
    const unknown = url === undefined ? [] : unknownPlaceholders(url);
    if (url !== undefined && !isHttpTemplate(url)) {
      this.#values.wrong('dashboard.url', 'is not a URL that begins with http:// or https://');
    }
    if (unknown.length > 0) {
      this.#values.wrong(
        'dashboard.url',
        `${unknown.join(', ')} is not a placeholder; known are ${PLACEHOLDERS.join(', ')}`,
      );
    }
    const parameters = this.#parameters();
    return {
      links: this.#values.flag('dashboardLinks', true),
      ...(url !== undefined && { url }),
      ...(app !== undefined && { app }),
      ...(parameters !== undefined && { parameters }),
    };
  }

  #parameters(): DashboardSettings['parameters'] {
    const section = this.#values.read('dashboard.parameters', () =>
      this.#values.root.getOptionalConfig(`${ROOT}.dashboard.parameters`),
    );
    const found: Record<string, string | number | boolean> = {};
    for (const key of section?.keys() ?? []) {
      const value = section?.getOptional(key);
      if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') {
        found[key] = value;
      } else {
        this.#values.wrong(`dashboard.parameters.${key}`, 'is not a string, a number, true or false');
      }
    }
    return section && found;
  }

  #redisAddress(): () => RedisAddress {
    const url = this.#values.text('redis.url');
    const file = this.#values.file('redis.urlFile');
    const given = this.#values.has('redis.urlFile');
    if (this.#values.has('redis.url') === given) {
      this.#values.wrong(
        'redis',
        given
          ? 'give url or urlFile, not both'
          : 'url is missing; write url or urlFile, the Redis that the daemon writes to',
      );
    }
    const text = url ?? file?.text;
    const key = url !== undefined ? 'redis.url' : 'redis.urlFile';
    if (text !== undefined) {
      try {
        parseRedisUrl(text);
      } catch (error) {
        this.#values.wrong(key, (error as Error).message);
      }
    }
    return () => parseRedisUrl(file !== undefined ? readFileSync(file.path, 'utf8') : (url ?? ''));
  }

  #prefix(): string {
    const prefix = this.#values.text('redis.prefix') ?? 'palette-sync';
    if (!/^[a-zA-Z0-9._-]+$/.test(prefix)) {
      this.#values.wrong('redis.prefix', "may hold letters, digits and . _ - only, as the daemon's");
    }
    return prefix;
  }

  #tls(): RedisTls {
    const ca = this.#values.file('redis.tls.caFile')?.text;
    const cert = this.#values.file('redis.tls.certFile')?.text;
    const key = this.#values.file('redis.tls.keyFile')?.text;
    const serverName = this.#values.text('redis.tls.serverName');
    if ((cert === undefined) !== (key === undefined)) {
      this.#values.wrong('redis.tls', 'needs certFile and keyFile together');
    }
    return { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }), ...(serverName && { serverName }) };
  }

  #sealer(): Sealer {
    const keys = this.#values.text('sealKeys');
    const file = this.#values.file('sealKeysFile');
    const seal = this.#values.text('seal');
    const given = ['sealKeys', 'sealKeysFile', 'seal'].filter(key => this.#values.has(key));
    if (given.length !== 1) {
      const remedy =
        "write sealKeys or sealKeysFile with the daemon's seal keys (or seal: none, if the daemon runs without)";
      this.#values.wrong(
        'sealKeys',
        given.length === 0 ? `is missing; ${remedy}` : `${given.join(' and ')} exclude each other; ${remedy}`,
      );
    }
    if (seal !== undefined) {
      if (seal !== 'none') {
        this.#values.wrong('seal', 'may only be none');
      }
      return new Unsealed();
    }
    const text = keys ?? file?.text;
    if (text !== undefined) {
      try {
        return SealKeys.fromLines(text);
      } catch (error) {
        this.#values.wrong(keys !== undefined ? 'sealKeys' : 'sealKeysFile', (error as Error).message);
      }
    }
    return new Unsealed(); // never used, because a problem was recorded
  }

  #refuseUnknownKeys(): void {
    for (const [section, known] of Object.entries(KNOWN)) {
      const path = section === '' ? ROOT : `${ROOT}.${section}`;
      const config = this.#values.read(section || '', () => this.#values.root.getOptionalConfig(path));
      for (const key of config?.keys() ?? []) {
        if (!known.includes(key)) {
          this.#values.wrong(section === '' ? key : `${section}.${key}`, `is not known; known are ${known.join(', ')}`);
        }
      }
    }
  }
}
