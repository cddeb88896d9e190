/** The address of Redis. `label` may be logged; user and password may not. */
export interface RedisAddress {
  readonly label: string;
  readonly tls: boolean;
  /** A unix socket; then `hosts` is empty. */
  readonly path?: string;
  /** `hosts` are servers of a Redis Cluster. */
  readonly cluster?: true;
  readonly hosts: readonly { host: string; port: number }[];
  /** The name of the master that the Sentinels at `hosts` know. */
  readonly service?: string;
  readonly database: number;
  readonly username?: string;
  readonly password?: string;
}

const REDIS_PORT = 6379;
const SENTINEL_PORT = 26379;
const SCHEMES: Record<string, { tls: boolean; kind: 'server' | 'sentinel' | 'cluster' }> = {
  redis: { tls: false, kind: 'server' },
  rediss: { tls: true, kind: 'server' },
  'redis+sentinel': { tls: false, kind: 'sentinel' },
  'rediss+sentinel': { tls: true, kind: 'sentinel' },
  'redis+cluster': { tls: false, kind: 'cluster' },
  'rediss+cluster': { tls: true, kind: 'cluster' },
};

/** Reads the same URLs as the daemon. Throws an Error that never quotes the URL, because it may hold a password. */
export function parseRedisUrl(url: string): RedisAddress {
  try {
    return parse(url.trim());
  } catch {
    throw new Error(
      'cannot be understood; write redis://[user:password@]host[:port][/db], rediss://..., ' +
        'unix:///path/to/socket[?db=0], redis+sentinel://host[:port],host2[:port]/service[/db] or ' +
        'redis+cluster://host[:port],host2[:port]',
    );
  }
}

function parse(url: string): RedisAddress {
  const [scheme, rest] = cut(url, '://');
  const at = rest.lastIndexOf('@');
  const login = loginOf(at < 0 ? '' : rest.slice(0, at));
  const place = rest.slice(at + 1);
  if (scheme === 'unix') {
    return { ...unixSocket(place), ...login };
  }
  const known = SCHEMES[scheme];
  if (known === undefined || /[?#]/.test(place)) {
    throw new Error('unknown scheme or option');
  }
  const { tls, kind } = known;
  const [location = '', ...path] = place.split('/');
  if (kind === 'server') {
    const host = hostOf(location, REDIS_PORT);
    return { label: labelOf(host), tls, hosts: [host], database: databaseOf(path), ...login };
  }
  if (kind === 'cluster') {
    return { ...cluster(location, path), tls, ...login };
  }
  const [service, ...more] = path;
  if (!service) {
    throw new Error('no service name');
  }
  const hosts = location.split(',').map(one => hostOf(one, SENTINEL_PORT));
  const label = `${service} (by Sentinel at ${hosts.map(labelOf).join(', ')})`;
  return { label, tls, hosts, service, database: databaseOf(more), ...login };
}

function cluster(location: string, path: string[]): Omit<RedisAddress, 'tls'> {
  if (databaseOf(path) !== 0) {
    throw new Error('a cluster has no other databases');
  }
  const hosts = location.split(',').map(one => hostOf(one, REDIS_PORT));
  return { label: hosts.map(labelOf).join(', '), hosts, cluster: true, database: 0 };
}

function unixSocket(place: string): RedisAddress {
  const [path, query] = place.split('?', 2) as [string, string?];
  const options = new URLSearchParams(query ?? '');
  if (!path.startsWith('/') || [...options.keys()].some(key => key !== 'db')) {
    throw new Error('no path, or an unknown option');
  }
  const socket = decodeURIComponent(path);
  return { label: socket, tls: false, path: socket, hosts: [], database: databaseOf([options.get('db') ?? '']) };
}

function loginOf(login: string): { username?: string; password?: string } {
  const colon = login.indexOf(':');
  const username = decodeURIComponent(colon < 0 ? login : login.slice(0, colon));
  const password = colon < 0 ? '' : decodeURIComponent(login.slice(colon + 1));
  return { ...(username && { username }), ...(password && { password }) };
}

function hostOf(text: string, defaultPort: number): { host: string; port: number } {
  const parts = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text);
  const host = parts?.[1] ?? parts?.[2];
  const port = Number(parts?.[3] ?? defaultPort);
  if (!host || port < 1 || port > 65535) {
    throw new Error('no host, or no port');
  }
  return { host, port };
}

function labelOf({ host, port }: { host: string; port: number }): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

function databaseOf(path: string[]): number {
  const text = path[0] ?? '';
  if (path.length > 1 || !/^\d*$/.test(text)) {
    throw new Error('no database number');
  }
  return Number(text);
}

function cut(text: string, separator: string): [string, string] {
  const place = text.indexOf(separator);
  if (place < 0) {
    throw new Error(`no ${separator}`);
  }
  return [text.slice(0, place), text.slice(place + separator.length)];
}
