import { setTimeout as sleep } from 'node:timers/promises';
import { backoffMs } from '../backoff';
import { type RedisConnection, RedisReplyError, RedisUnavailable } from '../redis/connection';
import { instancesProblem } from './bounds';
import { Follower, type FollowerOptions, type InstanceState } from './follower';
import { isInstanceName, type Keys } from './keys';
import { connectionProblem } from './remedies';

/** The state of the connection to Redis. */
export interface LinkState {
  readonly connected: boolean;
  readonly since: number;
  readonly error?: string;
}

export interface TailOptions extends FollowerOptions {
  readonly connect: () => Promise<RedisConnection>;
  readonly keys: Keys;
  /** Absent = all published instances. */
  readonly instances?: readonly string[];
  /** Called after each round, for what depends on time. */
  readonly onRound?: () => void;
  /** The clock. Tests set it. */
  readonly now?: () => number;
}

const BLOCK_MS = 5_000;
const BLOCK_REFUSED_MS = 1_000;
const WAIT_WITHOUT_INSTANCES_MS = 1_000;

/**
 * Follows all instances over one connection while the backend runs. Each round reads every head, reads what is new, and
 * waits on the streams of changes for at most five seconds. Reading the heads in each round covers half-open sockets,
 * streams that start again and new instances.
 */
export class SnapshotTail {
  readonly #options: TailOptions;
  readonly #followed = new Map<string, Follower>();
  readonly #ended = new AbortController();
  readonly #now: () => number;
  #link: LinkState;
  #problem: string | undefined;
  #connection: RedisConnection | undefined;
  #running: Promise<void> | undefined;
  /** What was logged during this outage. */
  readonly #logged = new Set<string>();
  #reportedNothing = false;

  constructor(options: TailOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#link = { connected: false, since: this.#now() };
    for (const name of options.instances ?? []) {
      this.#follow(name);
    }
  }

  get link(): LinkState {
    return this.#link;
  }

  /** What is wrong with the set of instances in Redis, so that new ones are not found. */
  get problem(): string | undefined {
    return this.#problem;
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
        do {
          await this.#round(connection);
          failures = 0;
          // A former master may answer for ever, with what it held when another one took over.
        } while (await connection.isMaster());
        await connection.close();
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
        `palette-sync: Redis is back after ${seconds(this.#now() - since)}; the snapshots are read again`,
      );
    }
    this.#link = { connected: true, since: this.#now() };
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
    const text = expected
      ? connectionProblem(error)
      : `unexpected error: ${String((error as Error)?.message ?? error)}`;
    const { logger } = this.#options;
    if (!this.#logged.has(text)) {
      this.#logged.add(text);
      const held = [...this.#followed.values()].some(one => one.state.snapshot !== undefined);
      const meanwhile = held ? 'the last snapshot stays in use' : 'there is no snapshot yet';
      logger.warn(`palette-sync: ${text}; ${meanwhile}; it is tried again every 15 s at the latest`);
    }
    const since = this.#link.error === undefined ? this.#now() : this.#link.since;
    this.#link = { connected: false, since, error: text };
  }

  async #round(connection: RedisConnection): Promise<void> {
    await this.#discover(connection);
    // Wait for all of them even if one fails: none may still run when the next connection is used.
    const looks = await Promise.allSettled([...this.#followed.values()].map(one => one.look(connection)));
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
    const { instances, keys, logger } = this.#options;
    if (instances !== undefined) {
      return;
    }
    const problem = await instancesProblem(connection, keys.instances);
    if (problem !== undefined && this.#problem === undefined) {
      logger.error(`palette-sync: ${problem}; the instances that are known stay in use`);
    }
    this.#problem = problem;
    if (problem !== undefined) {
      return;
    }
    const names = new Set((await connection.command(['SMEMBERS', keys.instances])) as string[]);
    for (const [name, { state }] of this.#followed) {
      // An instance whose clusters are in use is not forgotten: whoever can write to Redis could take them away like that.
      if (!names.has(name) && state.snapshot === undefined) {
        this.#followed.delete(name);
      }
    }
    for (const name of names) {
      if (!this.#followed.has(name) && isInstanceName(name)) {
        this.#follow(name);
      }
    }
  }

  #follow(name: string): void {
    this.#followed.set(name, new Follower(name, this.#options, this.#now));
  }

  /** Returns when a stream has something new, and after five seconds at the latest. */
  async #wait(connection: RedisConnection): Promise<void> {
    const waiting = [...this.#followed.values()].filter(one => !one.isMute);
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
          await one.mute(itsError);
        }
      }
    }
  }

  async #await(connection: RedisConnection, waiting: readonly Follower[], blockMs?: number): Promise<void> {
    const streams = waiting.map(one => this.#options.keys.changes(one.name));
    const positions = waiting.map(one => one.position);
    const block = blockMs === undefined ? [] : ['BLOCK', String(blockMs)];
    const command = ['XREAD', 'COUNT', '1', ...block, 'STREAMS', ...streams, ...positions];
    const reply = (await connection.command(command, BLOCK_MS * 2)) as [string, [string, unknown][]][] | null;
    for (const [stream, entries] of reply ?? []) {
      const one = waiting[streams.indexOf(stream)];
      const id = entries[0]?.[0];
      if (id !== undefined) {
        one?.moved(id);
      }
    }
  }
}

function seconds(ms: number): string {
  return ms < 1000 ? `${ms} ms` : `${Math.round(ms / 1000)} s`;
}
