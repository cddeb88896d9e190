import type { InstanceState } from './follower';
import { type Following, type LinkState, SnapshotTail, type TailOptions } from './tail';

/**
 * Follows the instances of a Redis Cluster, each over a connection of its own: their keys are on different servers, so one
 * may be away while the others answer, and no command waits on the streams of several slots.
 */
export class ClusterTail implements Following {
  readonly #options: TailOptions;
  /** Looks for published instances. Absent if the configuration names them. */
  readonly #search: SnapshotTail | undefined;
  readonly #tails = new Map<string, SnapshotTail>();
  readonly #leaving = new Set<Promise<void>>();
  #isStarted = false;

  constructor(options: TailOptions) {
    this.#options = options;
    for (const name of options.instances ?? []) {
      this.#follow(name);
    }
    if (options.instances === undefined) {
      this.#search = new SnapshotTail({ ...options, onNames: names => this.#found(names) });
    }
  }

  /** Connected if all connections are; `error` names the servers that are not, and the instances that they have. */
  get link(): LinkState {
    const links = this.#all.map(one => one.link);
    const lost = links.filter(({ connected }) => !connected);
    const errors = [...new Set(lost.flatMap(({ error }) => (error === undefined ? [] : [error])))];
    return {
      connected: lost.length === 0,
      since: Math.max(...(lost.length > 0 ? lost : links).map(({ since }) => since)),
      ...(errors.length > 0 && { error: errors.join('; ') }),
    };
  }

  get problem(): string | undefined {
    return this.#search?.problem;
  }

  get instances(): InstanceState[] {
    return [...this.#tails.values()].flatMap(one => one.instances).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  start(): void {
    this.#isStarted = true;
    for (const one of this.#all) {
      one.start();
    }
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#all.map(one => one.stop()), ...this.#leaving]);
  }

  get #all(): SnapshotTail[] {
    return [...(this.#search ? [this.#search] : []), ...this.#tails.values()];
  }

  #found(names: ReadonlySet<string>): void {
    for (const [name, tail] of this.#tails) {
      // An instance whose clusters are in use is not forgotten: whoever can write to Redis could take them away like that.
      if (!names.has(name) && tail.instances.every(({ snapshot }) => snapshot === undefined)) {
        this.#tails.delete(name);
        const leaving: Promise<void> = tail.stop().finally(() => this.#leaving.delete(leaving));
        this.#leaving.add(leaving);
      }
    }
    for (const name of names) {
      if (!this.#tails.has(name)) {
        this.#follow(name);
      }
    }
  }

  #follow(name: string): void {
    const tail = new SnapshotTail({ ...this.#options, instances: [name], whose: name });
    this.#tails.set(name, tail);
    if (this.#isStarted) {
      tail.start();
    }
  }
}
