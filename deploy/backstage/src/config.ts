import { readFileSync } from 'node:fs';
import { type Config, readDurationFromConfig } from '@backstage/config';
import { durationToMilliseconds } from '@backstage/types';
import type { Filter } from './filter';
import { parseRedisUrl, type RedisAddress } from './redis/address';
import type { RedisTls } from './redis/connection';
import { type Sealer, SealKeys, Unsealed } from './seal';

/** The section `paletteSync` of app-config, checked. */
export interface Settings {
  /** Read anew at each connecting, so that a password in `urlFile` may change. Throws an Error without secrets. */
  readonly redisAddress: () => RedisAddress;
  readonly redisTls: RedisTls;
  readonly prefix: string;
  readonly sealer: Sealer;
  readonly instances?: readonly string[];
  readonly oidcTokenProviders: readonly string[];
  readonly withholdUnreachable: boolean;
  readonly maxSnapshotAgeMs: number;
  readonly filter: Filter;
  readonly dashboardLinks: boolean;
}

/** The configuration cannot be used. Holds every problem, none with a value that may be secret. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';

  constructor(readonly problems: readonly string[]) {
    super(problems.join('; '));
  }
}

export const ROOT = 'paletteSync';

const KNOWN: Record<string, readonly string[]> = {
  '': [
    ...['redis', 'sealKeys', 'sealKeysFile', 'seal', 'instances', 'oidcTokenProviders', 'withholdUnreachable'],
    ...['maxSnapshotAge', 'filter', 'dashboardLinks', 'catalog'],
  ],
  redis: ['url', 'urlFile', 'prefix', 'tls'],
  'redis.tls': ['caFile', 'certFile', 'keyFile', 'serverName'],
  filter: ['includeProjects', 'excludeProjects', 'includeTags', 'excludeTags'],
};
const DEFAULT_MAX_AGE_MS = 3_600_000;

/** Returns undefined where there is no such section. Throws SettingsError. */
export function readSettings(root: Config): Settings | undefined {
  if (!root.has(ROOT)) {
    return undefined;
  }
  const problems: string[] = [];
  try {
    root.getConfig(ROOT);
  } catch {
    throw new SettingsError([`${ROOT}: is not a section with keys such as redis and sealKeys`]);
  }
  const settings = new Reader(root, problems).settings();
  if (problems.length > 0) {
    throw new SettingsError(problems);
  }
  return settings;
}

/**
 * Explains an error of Backstage's configuration reader, which names the type that it found and the one that it expected,
 * and quotes no value.
 */
export function typeProblem(error: unknown): string {
  const [, got, wanted] = /got ([\w-]+), wanted ([\w-]+)/.exec((error as Error).message) ?? [];
  if (got === 'empty-string') {
    return wanted === 'string-array' ? 'holds an empty string' : 'is empty';
  }
  return got ? `is ${got}, but must be ${wanted}` : 'has the wrong type';
}

class Reader {
  constructor(
    private readonly root: Config,
    private readonly problems: string[],
  ) {}

  settings(): Settings {
    this.#refuseUnknownKeys();
    const instances = this.#texts('instances');
    const bad = instances?.filter(name => !/^[a-z][a-z0-9_]*$/.test(name)) ?? [];
    if (bad.length > 0) {
      this.#wrong(
        'instances',
        `${bad.map(name => JSON.stringify(name)).join(', ')}: names are [a-z][a-z0-9_]*, as in the daemon's [instances.NAME]`,
      );
    }
    return {
      redisAddress: this.#redisAddress(),
      redisTls: this.#tls(),
      prefix: this.#prefix(),
      sealer: this.#sealer(),
      ...(instances !== undefined && instances.length > 0 && { instances }),
      oidcTokenProviders: this.#texts('oidcTokenProviders') ?? [],
      withholdUnreachable: this.#flag('withholdUnreachable', true),
      maxSnapshotAgeMs: this.#duration('maxSnapshotAge', DEFAULT_MAX_AGE_MS),
      filter: {
        includeProjects: this.#texts('filter.includeProjects') ?? [],
        excludeProjects: this.#texts('filter.excludeProjects') ?? [],
        includeTags: this.#texts('filter.includeTags') ?? [],
        excludeTags: this.#texts('filter.excludeTags') ?? [],
      },
      dashboardLinks: this.#flag('dashboardLinks', true),
    };
  }

  #wrong(key: string, why: string): void {
    this.problems.push(`${ROOT}.${key}: ${why}`);
  }

  /** Runs one reading of Backstage's configuration; its own errors name key and type, and no value. */
  #read<T>(key: string, read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      this.#wrong(key, typeProblem(error));
      return undefined;
    }
  }

  #has(key: string): boolean {
    try {
      return this.root.has(`${ROOT}.${key}`);
    } catch {
      return false; // something above it is no section, which reading it tells
    }
  }

  #text(key: string): string | undefined {
    return this.#read(key, () => this.root.getOptionalString(`${ROOT}.${key}`));
  }

  #texts(key: string): string[] | undefined {
    return this.#read(key, () => this.root.getOptionalStringArray(`${ROOT}.${key}`));
  }

  #flag(key: string, otherwise: boolean): boolean {
    return this.#read(key, () => this.root.getOptionalBoolean(`${ROOT}.${key}`)) ?? otherwise;
  }

  #duration(key: string, otherwiseMs: number): number {
    if (!this.#has(key)) {
      return otherwiseMs;
    }
    try {
      return durationToMilliseconds(readDurationFromConfig(this.root, { key: `${ROOT}.${key}` }));
    } catch {
      this.#wrong(key, "is not a duration; write '1h', 'PT1H' or { hours: 1 }");
      return otherwiseMs;
    }
  }

  #file(key: string): { path: string; text: string } | undefined {
    const path = this.#text(key);
    if (path === undefined) {
      return undefined;
    }
    try {
      return { path, text: readFileSync(path, 'utf8') };
    } catch (error) {
      this.#wrong(key, `${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`);
      return undefined;
    }
  }

  #redisAddress(): () => RedisAddress {
    const url = this.#text('redis.url');
    const file = this.#file('redis.urlFile');
    const given = this.#has('redis.urlFile');
    if (this.#has('redis.url') === given) {
      this.#wrong(
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
        this.#wrong(key, (error as Error).message);
      }
    }
    return () => parseRedisUrl(file !== undefined ? readFileSync(file.path, 'utf8') : (url ?? ''));
  }

  #prefix(): string {
    const prefix = this.#text('redis.prefix') ?? 'palette-sync';
    if (!/^[a-zA-Z0-9._:-]+$/.test(prefix)) {
      this.#wrong('redis.prefix', "may hold letters, digits and . _ : - only, as the daemon's");
    }
    return prefix;
  }

  #tls(): RedisTls {
    const ca = this.#file('redis.tls.caFile')?.text;
    const cert = this.#file('redis.tls.certFile')?.text;
    const key = this.#file('redis.tls.keyFile')?.text;
    const serverName = this.#text('redis.tls.serverName');
    if ((cert === undefined) !== (key === undefined)) {
      this.#wrong('redis.tls', 'certFile and keyFile belong together');
    }
    return { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }), ...(serverName && { serverName }) };
  }

  #sealer(): Sealer {
    const keys = this.#text('sealKeys');
    const file = this.#file('sealKeysFile');
    const seal = this.#text('seal');
    const given = ['sealKeys', 'sealKeysFile', 'seal'].filter(key => this.#has(key));
    if (given.length !== 1) {
      const remedy =
        "write sealKeys or sealKeysFile with the daemon's seal keys (or seal: none, if the daemon runs without)";
      this.#wrong(
        'sealKeys',
        given.length === 0 ? `is missing; ${remedy}` : `${given.join(' and ')} exclude each other; ${remedy}`,
      );
    }
    if (seal !== undefined) {
      if (seal !== 'none') {
        this.#wrong('seal', 'may only be none');
      }
      return new Unsealed();
    }
    const text = keys ?? file?.text;
    if (text !== undefined) {
      try {
        return SealKeys.fromLines(text);
      } catch (error) {
        this.#wrong(keys !== undefined ? 'sealKeys' : 'sealKeysFile', (error as Error).message);
      }
    }
    return new Unsealed(); // never used: a problem was told
  }

  #refuseUnknownKeys(): void {
    for (const [section, known] of Object.entries(KNOWN)) {
      const path = section === '' ? ROOT : `${ROOT}.${section}`;
      const config = this.#read(section || '', () => this.root.getOptionalConfig(path));
      for (const key of config?.keys() ?? []) {
        if (!known.includes(key)) {
          this.#wrong(section === '' ? key : `${section}.${key}`, `is not known; known are ${known.join(', ')}`);
        }
      }
    }
  }
}
