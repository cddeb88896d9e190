import { setTimeout as sleep } from 'node:timers/promises';
import type { LoggerService } from '@backstage/backend-plugin-api';
import { backoffMs } from '../backoff';
import { type RedisConnection, RedisReplyError, RedisUnavailable } from '../redis/connection';
import { isInstanceName, type Keys } from './keys';
import type { SnapshotReader } from './reader';
import type { Snapshot } from './snapshot';
import { SnapshotRefused } from './verify';

/** What is known about an instance. */
export interface InstanceState {
  readonly name: string;
  /** The last valid snapshot. */
  readonly snapshot?: Snapshot;
  /** When the daemon last read Palette, which it writes without a new version; milliseconds since 1970. */
  readonly checkedAt?: number;
  /** Why the snapshot in Redis is refused or cannot be read now. */
  readonly refusal?: Refusal;
  readonly reloads: number;
}

export interface Refusal {
  readonly reason: string;
  readonly message: string;
  readonly since: number;
}

/** The state of the connection to Redis. */
export interface LinkState {
  readonly connected: boolean;
  readonly since: number;
  readonly error?: string;
}

export interface TailOptions {
  readonly connect: () => Promise<RedisConnection>;
  readonly reader: SnapshotReader;
  readonly keys: Keys;
  /** Absent = all published instances. */
  readonly instances?: readonly string[];
  readonly logger: LoggerService;
  /** Called and awaited after each read that changed or refused something. */
  readonly onChange: (state: InstanceState) => Promise<void>;
  /** Called after each round, for what depends on time. */
  readonly onRound?: () => void;
}

interface Followed {
  state: InstanceState;
  /** The position in the stream of changes to wait from. */
  position: string;
  /** Its stream of changes cannot be read, so only its head is read in each round. */
  mute?: boolean;
  /** The head that was refused, and when, so that it is not read again at once. */
  refused?: { readonly head: string; readonly at: number };
}

const BLOCK_MS = 5_000;
const BLOCK_REFUSED_MS = 1_000;
const WAIT_WITHOUT_INSTANCES_MS = 1_000;
const RETRY_REFUSED_MS = 30_000;

/**
 * Follows all instances over one connection while the backend runs. Each round reads every head, reads what is new, and
 * waits on the streams of changes for at most five seconds. Reading the heads in each round covers half-open sockets,
 * streams that start again and new instances.
 */
export class SnapshotTail {
  readonly #options: TailOptions;
  readonly #followed = new Map<string, Followed>();
  readonly #ended = new AbortController();
  #link: LinkState = { connected: false, since: Date.now() };
  #connection: RedisConnection | undefined;
  #running: Promise<void> | undefined;
  /** What was logged during this outage. */
  readonly #logged = new Set<string>();
  #reportedNothing = false;

  constructor(options: TailOptions) {
    this.#options = options;
    for (const name of options.instances ?? []) {
      this.#follow(name);
    }
  }

  get link(): LinkState {
    return this.#link;
  }

  get instances(): InstanceState[] {
    return [...this.#followed.values()].map(one => one.state).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Stops following and closes the connection. */
  async stop(): Promise<void> {
    this.#ended.abort();
    await this.#connection?.close();
    await this.#running;
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#ended.signal.aborted) {
      try {
        const connection = await this.#connect();
        for (;;) {
          await this.#round(connection);
          failures = 0;
        }
      } catch (error) {
        await this.#connection?.close();
        if (this.#ended.signal.aborted) {
          return;
        }
        failures += 1;
        this.#lost(error);
        this.#reportRound();
        await sleep(backoffMs(failures), undefined, { signal: this.#ended.signal }).catch(() => {});
      }
    }
  }

  /** Connects, and gives up at once when stopped: a server that does not answer must not delay the shutdown of Backstage. */
  async #connect(): Promise<RedisConnection> {
    const { signal } = this.#ended;
    const connecting = this.#options.connect();
    let leave = () => {};
    const stopped = new Promise<never>((_, reject) => {
      leave = () => reject(new Error('stopped'));
      signal.addEventListener('abort', leave);
    });
    try {
      this.#connection = await Promise.race([connecting, stopped]);
      return this.#connection;
    } catch (error) {
      connecting.then(late => late.close()).catch(() => {});
      throw error;
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  /** Called after a round without errors. Only then Redis counts as back: a connection alone does not prove that it answers. */
  #answered(): void {
    const { connected, error, since } = this.#link;
    if (connected) {
      return;
    }
    if (error !== undefined) {
      this.#options.logger.info(
        `palette-sync: Redis is back after ${seconds(Date.now() - since)}; the snapshots are read again`,
      );
    }
    this.#link = { connected: true, since: Date.now() };
    this.#logged.clear();
    this.#reportNothingYet();
  }

  /** An empty Redis may be all right, but a wrong prefix looks the same, so it is logged once. */
  #reportNothingYet(): void {
    const followed = [...this.#followed.values()];
    const isNothing = followed.every(({ state }) => !state.snapshot && state.refusal?.reason === 'Missing');
    if (isNothing && !this.#reportedNothing) {
      this.#reportedNothing = true;
      const { instances, keys, logger } = this.#options;
      const [first] = instances ?? [];
      const whose = instances ? ` of ${instances.join(', ')}` : '';
      const place = first === undefined ? keys.instances : keys.head(first);
      const setting = `paletteSync.redis.prefix${instances ? ' and paletteSync.instances' : ''}`;
      logger.warn(
        `palette-sync: Redis answers, but holds no snapshot${whose} yet (looked at ${place}); start the daemon, or check ${setting}`,
      );
    }
  }

  #lost(error: unknown): void {
    const expected = error instanceof RedisUnavailable || error instanceof RedisReplyError;
    const text = expected ? remedied(error) : `unexpected error: ${String((error as Error)?.message ?? error)}`;
    const { logger } = this.#options;
    if (!this.#logged.has(text)) {
      this.#logged.add(text);
      const held = [...this.#followed.values()].some(one => one.state.snapshot !== undefined);
      const meanwhile = held ? 'the last snapshot stays in use' : 'there is no snapshot yet';
      logger.warn(`palette-sync: ${text}; ${meanwhile}; it is tried again every 15 s at the latest`);
    }
    const since = this.#link.error === undefined ? Date.now() : this.#link.since;
    this.#link = { connected: false, since, error: text };
  }

  async #round(connection: RedisConnection): Promise<void> {
    await this.#discover(connection);
    // Wait for all of them even if one fails: none may still run when the next connection is used.
    const looks = await Promise.allSettled([...this.#followed.values()].map(one => this.#look(connection, one)));
    for (const look of looks) {
      if (look.status === 'rejected') {
        throw look.reason;
      }
    }
    this.#answered();
    this.#reportRound();
    if (this.#ended.signal.aborted) {
      throw new Error('stopped');
    }
    await this.#wait(connection);
  }

  #reportRound(): void {
    try {
      this.#options.onRound?.();
    } catch (error) {
      this.#options.logger.error(
        'palette-sync: reporting failed; please report this to the maintainers',
        error as Error,
      );
    }
  }

  async #discover(connection: RedisConnection): Promise<void> {
    if (this.#options.instances !== undefined) {
      return;
    }
    const names = (await connection.command(['SMEMBERS', this.#options.keys.instances])) as string[];
    for (const name of names) {
      if (!this.#followed.has(name) && isInstanceName(name)) {
        this.#follow(name);
      }
    }
  }

  #follow(name: string): void {
    this.#followed.set(name, { state: { name, reloads: 0 }, position: '0-0' });
  }

  /** Reads an instance's head, and then what is new. A problem of one instance does not affect the others. */
  async #look(connection: RedisConnection, one: Followed): Promise<void> {
    const { keys } = this.#options;
    try {
      const fields = ['epoch', 'version', 'checked_at'];
      const reply = await connection.command(['HMGET', keys.head(one.state.name), ...fields]);
      const [epoch, version, checkedAt] = reply as (string | null)[];
      const there = `${epoch}/${version}`;
      const held = one.state.snapshot?.head;
      const moment = Date.parse(checkedAt ?? '');
      if (!Number.isNaN(moment)) {
        one.state = { ...one.state, checkedAt: moment };
      }
      const isHeld = held !== undefined && there === `${held.epoch}/${held.version}`;
      if (isHeld && one.state.refusal === undefined) {
        return;
      }
      if (one.refused?.head === there && Date.now() - one.refused.at < RETRY_REFUSED_MS && !isHeld) {
        return;
      }
      await this.#read(connection, one, there);
    } catch (error) {
      if (!(error instanceof RedisReplyError)) {
        throw error;
      }
      one.mute = true;
      await this.#refuse(one, error.code, replyRemedy(error.code, one.state.name), '');
    }
  }

  async #read(connection: RedisConnection, one: Followed, there: string): Promise<void> {
    const { name, snapshot } = one.state;
    try {
      const reading = await this.#options.reader.read(connection, name, snapshot);
      one.position = `${reading.snapshot.head.version}-0`;
      delete one.refused;
      delete one.mute;
      const { refusal, ...rest } = one.state;
      const checkedAt = Math.max(reading.snapshot.head.checkedAt, rest.checkedAt ?? 0);
      const reloads = rest.reloads + (reading.whole ? 1 : 0);
      const state = { ...rest, snapshot: reading.snapshot, checkedAt, reloads };
      // Update the clusters before the state, so that the state never shows a version whose clusters are not served yet.
      await this.#options.onChange(state);
      one.state = state;
      if (refusal !== undefined) {
        this.#options.logger.info(`palette-sync: ${name}: the snapshot in Redis is valid again and in use`);
      }
    } catch (error) {
      if (!(error instanceof SnapshotRefused)) {
        throw error;
      }
      await this.#refuse(one, error.reason, error.message, there);
    }
  }

  async #refuse(one: Followed, reason: string, message: string, head: string): Promise<void> {
    const { name, refusal, snapshot } = one.state;
    one.refused = { head, at: Date.now() };
    one.position = '$'; // wait for the next change; earlier ones have been read
    if (refusal?.reason === reason) {
      return;
    }
    one.state = { ...one.state, refusal: { reason, message, since: Date.now() } };
    const nothingYet = reason === 'Missing' && snapshot === undefined;
    if (!nothingYet) {
      const meanwhile = snapshot
        ? `version ${snapshot.head.version}, the last good one, stays in use`
        : 'none of its clusters is shown';
      this.#options.logger.error(
        `palette-sync: ${name}: the snapshot in Redis is refused (${reason}): ${message}; ${meanwhile}`,
      );
    }
    await this.#options.onChange(one.state);
  }

  /** Returns when a stream has something new, and after five seconds at the latest. */
  async #wait(connection: RedisConnection): Promise<void> {
    const waiting = [...this.#followed.values()].filter(one => !one.mute);
    if (waiting.length === 0) {
      await sleep(WAIT_WITHOUT_INSTANCES_MS, undefined, { signal: this.#ended.signal });
      return;
    }
    // A refused snapshot may be repaired or published for the first time without an entry in the stream.
    const refused = waiting.some(one => one.state.refusal !== undefined);
    try {
      await this.#await(connection, waiting, refused ? BLOCK_REFUSED_MS : BLOCK_MS);
    } catch (error) {
      if (!(error instanceof RedisReplyError)) {
        throw error;
      }
      // One unreadable stream fails the command for all of them, so find it and leave it out.
      for (const one of waiting) {
        try {
          await this.#await(connection, [one]);
        } catch (itsError) {
          if (!(itsError instanceof RedisReplyError)) {
            throw itsError;
          }
          one.mute = true;
          await this.#refuse(one, itsError.code, replyRemedy(itsError.code, one.state.name), '');
        }
      }
    }
  }

  async #await(connection: RedisConnection, waiting: readonly Followed[], blockMs?: number): Promise<void> {
    const streams = waiting.map(one => this.#options.keys.changes(one.state.name));
    const positions = waiting.map(one => one.position);
    const block = blockMs === undefined ? [] : ['BLOCK', String(blockMs)];
    const command = ['XREAD', 'COUNT', '1', ...block, 'STREAMS', ...streams, ...positions];
    const reply = (await connection.command(command, BLOCK_MS * 2)) as [string, [string, unknown][]][] | null;
    for (const [stream, entries] of reply ?? []) {
      const one = waiting[streams.indexOf(stream)];
      const id = entries[0]?.[0];
      if (one !== undefined && id !== undefined) {
        one.position = id;
        delete one.refused;
      }
    }
  }
}

function remedied(error: RedisUnavailable | RedisReplyError): string {
  if (error instanceof RedisReplyError && error.code === 'NOPERM') {
    return 'the Redis user lacks rights (NOPERM); a reader needs SMEMBERS, HGETALL, HMGET, XREAD, MULTI and EXEC';
  }
  return error.message;
}

function replyRemedy(code: string, name: string): string {
  if (code === 'NOPERM' || code === 'EXECABORT') {
    // Redis reports a missing right within a MULTI as EXECABORT.
    return `the Redis user may not read the keys of ${name}; give it the reader's rights`;
  }
  if (code === 'WRONGTYPE') {
    return `a key of ${name} in Redis is of another type: something else uses the prefix; check paletteSync.redis.prefix`;
  }
  return `Redis answered ${code} to reading its keys`;
}

function seconds(ms: number): string {
  return ms < 1000 ? `${ms} ms` : `${Math.round(ms / 1000)} s`;
}
