import type { OnReadOpts, Socket } from 'node:net';
import { createClient } from '@redis/client';
import type { RedisAddress } from './address';

/** PEM texts for rediss://: the trusted authorities (absent = the system's), and a client certificate. */
export interface RedisTls {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly serverName?: string;
}

/** Redis cannot be reached or used. The text says what to do and holds no secret. */
export class RedisUnavailable extends Error {
  override readonly name = 'RedisUnavailable';
}

/** Redis answered a command with an error. `code` is its first word; the rest may quote data and is dropped. */
export class RedisReplyError extends Error {
  override readonly name = 'RedisReplyError';

  constructor(readonly code: string) {
    super(`Redis answered ${code}`);
  }
}

const CONNECT_TIMEOUT_MS = 5_000;
const COMMAND_TIMEOUT_MS = 15_000;
// Readers ask for sizes first, so more than this comes only from somebody who wrote in between. Without a bound, a field of
// 512 MiB, which no JavaScript string can hold, would end the process.
const MOST_RECEIVED_MIB = 160;
const RECEIVE_BYTES = 64 * 1024;
// After one of these answers the server recovers by itself, or after a repair by the operator.
const PASSING = new Set(['LOADING', 'MASTERDOWN', 'UNBLOCKED', 'BUSY', 'TRYAGAIN', 'CLUSTERDOWN', 'MISCONF', 'OOM']);

type Client = ReturnType<typeof createClient>;

/** Passes on what a socket receives, and closes the socket if that is too much. */
class Received {
  #bytes = 0;
  readonly onread: OnReadOpts;

  constructor(label: string) {
    const add = (bytes: number): boolean => {
      this.#bytes += bytes;
      return this.#bytes <= MOST_RECEIVED_MIB * 1024 * 1024;
    };
    this.onread = {
      buffer: Buffer.alloc(RECEIVE_BYTES),
      callback(this: Socket, bytes: number, buffer: Uint8Array): boolean {
        if (add(bytes)) {
          this.emit('data', Buffer.from(buffer.subarray(0, bytes)));
          return true;
        }
        const problem = `Redis at ${label} sent more than ${MOST_RECEIVED_MIB} MiB at once; find out who else writes to these keys`;
        this.destroy(new RedisUnavailable(problem));
        return false;
      },
    };
  }

  /** Counts from 0 again: everything was answered. */
  reset(): void {
    this.#bytes = 0;
  }
}

/**
 * One connection, which does not reconnect: its user opens the next one. A command without an answer in time closes it,
 * because on a half-open socket all later commands would get no answer either.
 */
export class RedisConnection {
  readonly #client: Client;
  readonly #label: string;
  readonly #received: Received;
  #unanswered = 0;
  #isMaster: () => Promise<boolean> = async () => true;

  private constructor(client: Client, label: string, received: Received) {
    this.#client = client;
    this.#label = label;
    this.#received = received;
  }

  /** Throws RedisUnavailable. */
  static async open(address: RedisAddress, tls: RedisTls): Promise<RedisConnection> {
    if (address.service === undefined) {
      return RedisConnection.#connect(address, address.hosts[0], tls);
    }
    const { service } = address;
    const master = await masterOf(address, service, tls);
    const connection = await RedisConnection.#connect(address, master, tls);
    connection.#isMaster = async () => {
      const now = await masterOf(address, service, tls).catch(() => master);
      return now.host === master.host && now.port === master.port;
    };
    return connection;
  }

  /**
   * Asks the Sentinels whether they still name this server. Without Sentinels, and while none of them answers, it counts
   * as the master.
   */
  async isMaster(): Promise<boolean> {
    return this.#isMaster();
  }

  /** Connects to one server, without asking a Sentinel. Throws RedisUnavailable. */
  static async direct(
    address: RedisAddress,
    host: { host: string; port: number },
    tls: RedisTls,
  ): Promise<RedisConnection> {
    return RedisConnection.#connect(address, host, tls);
  }

  static async #connect(
    address: RedisAddress,
    host: { host: string; port: number } | undefined,
    tls: RedisTls,
  ): Promise<RedisConnection> {
    const secure = address.tls && {
      tls: true as const,
      ...(tls.ca && { ca: tls.ca }),
      ...(tls.cert && { cert: tls.cert }),
      ...(tls.key && { key: tls.key }),
      ...(tls.serverName && { servername: tls.serverName }),
    };
    const received = new Received(address.label);
    const client = createClient({
      socket: {
        onread: received.onread,
        ...(address.path !== undefined ? { path: address.path } : host),
        ...secure,
        connectTimeout: CONNECT_TIMEOUT_MS,
        reconnectStrategy: false,
      } as NonNullable<Parameters<typeof createClient>[0]>['socket'] & object,
      ...(address.username !== undefined && { username: address.username }),
      ...(address.password !== undefined && { password: address.password }),
      database: address.database,
      disableOfflineQueue: true,
      disableClientInfo: true, // CLIENT SETINFO would need one more right in the ACL
    });
    client.on('error', () => {}); // every error also rejects a command or the connection attempt
    const connection = new RedisConnection(client as Client, address.label, received);
    try {
      await connection.#inTime(client.connect(), CONNECT_TIMEOUT_MS * 2);
    } catch (error) {
      await connection.close();
      throw error instanceof RedisReplyError ? new RedisUnavailable(refusal(address.label, error.code)) : error;
    }
    return connection;
  }

  /** Throws RedisUnavailable, RedisReplyError. */
  async command(args: string[], timeoutMs: number = COMMAND_TIMEOUT_MS): Promise<unknown> {
    return this.#inTime(this.#client.sendCommand(args), timeoutMs);
  }

  /** Runs the commands as one MULTI and returns their replies. Throws RedisUnavailable, RedisReplyError. */
  async transaction(commands: string[][]): Promise<unknown[]> {
    const multi = this.#client.multi();
    for (const command of commands) {
      multi.addCommand(command);
    }
    return this.#inTime(multi.exec(), COMMAND_TIMEOUT_MS) as Promise<unknown[]>;
  }

  async close(): Promise<void> {
    try {
      await this.#client.disconnect();
    } catch {
      // already closed
    }
  }

  async #inTime<T>(answer: Promise<T>, timeoutMs: number): Promise<T> {
    this.#unanswered += 1;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new RedisUnavailable(`Redis at ${this.#label} did not answer within ${timeoutMs / 1000} s`));
        void this.close();
      }, timeoutMs);
    });
    try {
      return await Promise.race([answer, late]);
    } catch (error) {
      throw this.#meaning(error);
    } finally {
      clearTimeout(timer);
      this.#unanswered -= 1;
      if (this.#unanswered === 0) {
        this.#received.reset();
      }
    }
  }

  /** Some answers concern the whole connection, the others one command. */
  #replied(code: string): Error {
    if (code === 'NOAUTH' || code === 'WRONGPASS') {
      return new RedisUnavailable(refusal(this.#label, code));
    }
    if (PASSING.has(code)) {
      return new RedisUnavailable(`Redis at ${this.#label} is not ready (${code})`);
    }
    return new RedisReplyError(code);
  }

  #meaning(error: unknown): Error {
    if (error instanceof RedisUnavailable || error instanceof RedisReplyError) {
      return error;
    }
    // A transaction's error holds the replies of its commands.
    const failed = (error as { replies?: unknown[] } | undefined)?.replies?.find(reply => reply instanceof Error);
    const {
      name = '',
      message = '',
      code,
    } = (failed ?? error ?? {}) as { name?: string; message?: string; code?: string };
    const word = /^[A-Z][A-Z0-9]{1,30}(?=\s|$)/.exec(message)?.[0];
    if (word !== undefined && code === undefined) {
      return this.#replied(word);
    }
    const cause = code ?? (/^\w{1,60}$/.test(name) && name !== 'Error' ? name : (error as Error)?.constructor?.name);
    const hint = /CERT|ALTNAME|SSL|PEM/.test(cause ?? '') ? '; see paletteSync.redis.tls' : '';
    return new RedisUnavailable(`Redis at ${this.#label} cannot be reached (${cause ?? 'unknown error'})${hint}`);
  }
}

async function masterOf(
  address: RedisAddress,
  service: string,
  tls: RedisTls,
): Promise<{ host: string; port: number }> {
  // User and password are for the servers, as in the daemon; Sentinels are asked without them.
  const { username: _user, password: _password, ...bare } = address;
  let last: unknown;
  for (const sentinel of address.hosts) {
    let connection: RedisConnection | undefined;
    try {
      connection = await RedisConnection.direct({ ...bare, database: 0 }, sentinel, tls);
      const reply = await connection.command(['SENTINEL', 'get-master-addr-by-name', service]);
      if (Array.isArray(reply) && reply.length === 2) {
        return { host: String(reply[0]), port: Number(reply[1]) };
      }
      last = new RedisUnavailable(
        `no Sentinel knows a master named ${service}; check the name in paletteSync.redis.url`,
      );
    } catch (error) {
      last = error;
    } finally {
      await connection?.close();
    }
  }
  throw last instanceof RedisUnavailable
    ? last
    : new RedisUnavailable(`the Sentinels of ${address.label} do not answer`);
}

function refusal(label: string, code: string): string {
  if (code === 'WRONGPASS' || code === 'NOAUTH' || code === 'ERR') {
    return `Redis at ${label} refuses the login (${code}); check user and password in paletteSync.redis.url`;
  }
  if (code === 'NOPERM') {
    return `Redis at ${label} denies it (NOPERM); give the user the reader's rights`;
  }
  return `Redis at ${label} answered ${code} when connecting`;
}
