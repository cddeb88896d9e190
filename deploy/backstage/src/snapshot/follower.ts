import type { LoggerService } from '@backstage/backend-plugin-api';
import { type RedisConnection, RedisReplyError } from '../redis/connection';
import { areEnough, counted, isOlder, type LaterLooks } from './order';
import { orderOf, type Reading, type SnapshotReader } from './reader';
import { replyProblem } from './remedies';
import type { Snapshot } from './snapshot';
import { SnapshotRefused } from './verify';

/** What is known about an instance. */
export interface InstanceState {
  readonly name: string;
  /** The last valid snapshot. */
  readonly snapshot?: Snapshot;
  /** When the daemon last read Palette, which it writes without a new version. Only authentic times count. */
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

export interface FollowerOptions {
  readonly reader: SnapshotReader;
  readonly logger: LoggerService;
  /** Called and awaited after each read that changed or refused something. */
  readonly onChange: (state: InstanceState) => Promise<void>;
}

/** What was refused in Redis is not read again before this, unless another version is there. */
const RETRY_REFUSED_MS = 30_000;

/** Follows one instance: looks at its head, and reads what is new. A problem of one instance does not affect the others. */
export class Follower {
  #state: InstanceState;
  #position = '0-0';
  #isMute = false;
  #refused: { readonly order: string; readonly at: number } | undefined;
  #later: LaterLooks | undefined;

  constructor(
    readonly name: string,
    private readonly options: FollowerOptions,
    private readonly now: () => number,
  ) {
    this.#state = { name, reloads: 0 };
  }

  get state(): InstanceState {
    return this.#state;
  }

  /** The position in its stream of changes to wait from. */
  get position(): string {
    return this.#position;
  }

  /** Its stream of changes cannot be read, so only its head is read in each round. */
  get isMute(): boolean {
    return this.#isMute;
  }

  /** Its stream of changes has an entry with this id. */
  moved(id: string): void {
    this.#position = id;
  }

  /** Reads the head, and then what is new. Throws RedisUnavailable. */
  async look(connection: RedisConnection): Promise<void> {
    const { snapshot } = this.#state;
    try {
      const { order, checkedAt } = await this.options.reader.look(connection, this.name, this.now());
      if (checkedAt !== undefined) {
        this.#state = { ...this.#state, checkedAt: Math.max(checkedAt, this.#state.checkedAt ?? 0) };
      }
      if (this.#state.refusal === undefined && snapshot !== undefined && order === orderOf(snapshot)) {
        return;
      }
      if (this.#refused?.order === order && this.now() - this.#refused.at < RETRY_REFUSED_MS) {
        return;
      }
      await this.#read(connection, order);
    } catch (error) {
      if (!(error instanceof RedisReplyError || error instanceof SnapshotRefused)) {
        throw error;
      }
      await this.mute(error);
    }
  }

  /** Refuses what is in Redis, and does not wait on the stream until a read succeeds: the stream may be what is wrong. */
  async mute(error: RedisReplyError | SnapshotRefused): Promise<void> {
    this.#isMute = true;
    if (error instanceof RedisReplyError) {
      await this.#refuse(error.code, replyProblem(error.code, this.name), '');
    } else {
      await this.#refuse(error.reason, error.message, '');
    }
  }

  async #read(connection: RedisConnection, order: string, acceptsLater = false): Promise<void> {
    let reading: Reading;
    try {
      reading = await this.options.reader.read(connection, this.name, this.#state.snapshot, { acceptsLater });
    } catch (error) {
      if (!(error instanceof SnapshotRefused)) {
        throw error;
      }
      this.#later = error.isLater ? counted(this.#later, this.now()) : undefined;
      if (this.#later !== undefined && areEnough(this.#later)) {
        await this.#read(connection, order, true);
      } else {
        await this.#refuse(error.reason, error.message, order);
      }
      return;
    }
    await this.#accept(reading);
  }

  async #accept({ snapshot, whole }: Reading): Promise<void> {
    const { refusal, ...rest } = this.#state;
    const former = rest.snapshot;
    const state = { ...rest, snapshot, reloads: rest.reloads + (whole ? 1 : 0) };
    // Update the clusters before the state, so that the state never shows a version whose clusters are not served yet.
    await this.options.onChange(state);
    this.#state = state;
    this.#position = `${snapshot.head.version}-0`;
    this.#isMute = false;
    this.#refused = undefined;
    this.#later = undefined;
    if (former !== undefined && isOlder(snapshot.head, former.head)) {
      this.options.logger.warn(
        `palette-sync: ${this.name}: version ${snapshot.head.version} of epoch ${snapshot.head.epoch} is in use from now on. Its order ` +
          `is lower than that of version ${former.head.version} of epoch ${former.head.epoch} before, but it is authentic and was ` +
          "written later: the daemon's epochs ran backwards",
      );
    } else if (refusal !== undefined) {
      this.options.logger.info(`palette-sync: ${this.name}: the snapshot in Redis is valid again and in use`);
    }
  }

  /** `order` is the version that was refused; empty if none was read. */
  async #refuse(reason: string, message: string, order: string): Promise<void> {
    const { refusal, snapshot } = this.#state;
    this.#refused = { order, at: this.now() };
    this.#position = '$'; // wait for the next change; earlier ones have been read
    if (refusal?.reason === reason) {
      this.#state = { ...this.#state, refusal: { ...refusal, message } };
      return;
    }
    this.#state = { ...this.#state, refusal: { reason, message, since: this.now() } };
    const nothingYet = reason === 'Missing' && snapshot === undefined;
    if (!nothingYet) {
      const meanwhile = snapshot
        ? `version ${snapshot.head.version}, the last good one, stays in use`
        : 'none of its clusters is shown';
      this.options.logger.error(
        `palette-sync: ${this.name}: the snapshot in Redis is refused (${reason}): ${message}; ${meanwhile}`,
      );
    }
    await this.options.onChange(this.#state);
  }
}
