import type { ClusterDetails } from '@backstage/plugin-kubernetes-node';
import { interpret, type Offered, type Policy, type Withheld, type WithheldReason } from './mapping';
import { Slices } from './slices';
import type { ClusterRecord } from './snapshot/decode';
import type { Entry, Snapshot } from './snapshot/snapshot';

/** A cluster that is known and not offered to Backstage. */
export interface WithheldCluster extends Withheld {
  readonly instance: string;
  readonly cluster: string;
}

interface InstanceView {
  readonly offered: readonly Offered[];
  readonly withheld: readonly WithheldCluster[];
  readonly known: readonly ClusterRecord[];
}

/** How many clusters of an instance are offered and withheld at one moment. */
export interface Counts {
  readonly served: number;
  readonly withheld: Readonly<Partial<Record<WithheldReason, number>>>;
}

/** The clusters of all instances as Backstage sees them. Updated in the background, so that requests only copy. */
export class Directory {
  readonly #policy: Policy;
  readonly #snapshots = new Map<string, Snapshot>();
  #views = new Map<string, InstanceView>();
  #known: ReadonlyMap<string, ClusterRecord> = new Map();
  #refreshing: Promise<void> = Promise.resolve();
  // Entries never change, so the verdict on one stays valid.
  readonly #verdicts = new WeakMap<Entry, ReturnType<typeof interpret>>();

  constructor(policy: Policy) {
    this.#policy = policy;
  }

  /** Replaces the snapshot of an instance. */
  async update(instance: string, snapshot: Snapshot): Promise<void> {
    this.#snapshots.set(instance, snapshot);
    // One after the other, because a name in one instance withholds the same name in the next.
    const refresh = () => this.#refresh();
    this.#refreshing = this.#refreshing.then(refresh, refresh);
    await this.#refreshing;
  }

  /** All clusters whose credential is valid at `now`. Callers must not change them; `copyOf` makes a copy for Backstage. */
  offered(now: number): Offered[] {
    const found: Offered[] = [];
    for (const view of this.#views.values()) {
      for (const one of view.offered) {
        if (one.expiresAt === undefined || now < one.expiresAt) {
          found.push(one);
        }
      }
    }
    return found;
  }

  /** Fresh copies of all clusters whose credential is valid at `now`. */
  clusters(now: number): ClusterDetails[] {
    return this.offered(now).map(copyOf);
  }

  /** All clusters that the filter chooses, by name in lower case, also those that are withheld now. */
  get known(): ReadonlyMap<string, ClusterRecord> {
    return this.#known;
  }

  withheld(now: number): WithheldCluster[] {
    const found: WithheldCluster[] = [];
    for (const [instance, view] of this.#views) {
      found.push(...view.withheld);
      for (const { details, expiresAt } of view.offered) {
        if (expiresAt !== undefined && now >= expiresAt) {
          const message = `its token expired at ${new Date(expiresAt).toISOString()} and no newer one was published; check the daemon`;
          found.push({ instance, cluster: details.name, reason: 'TokenLapsed', message });
        }
      }
    }
    return found;
  }

  counts(instance: string, now: number): Counts {
    const view = this.#views.get(instance);
    const withheld: Partial<Record<WithheldReason, number>> = {};
    for (const { reason } of view?.withheld ?? []) {
      withheld[reason] = (withheld[reason] ?? 0) + 1;
    }
    const offered = view?.offered ?? [];
    const expired = offered.filter(({ expiresAt }) => expiresAt !== undefined && now >= expiresAt).length;
    if (expired > 0) {
      withheld.TokenLapsed = expired;
    }
    return { served: offered.length - expired, withheld };
  }

  async #refresh(): Promise<void> {
    const slices = new Slices();
    const taken = new Map<string, string>();
    const views = new Map<string, InstanceView>();
    for (const instance of [...this.#snapshots.keys()].sort()) {
      views.set(instance, await this.#viewOf(instance, taken, slices));
    }
    this.#views = views;
    this.#known = new Map(
      [...views.values()].flatMap(view => view.known.map(record => [record.name.toLowerCase(), record] as const)),
    );
  }

  async #viewOf(instance: string, taken: Map<string, string>, slices: Slices): Promise<InstanceView> {
    const offered: Offered[] = [];
    const withheld: WithheldCluster[] = [];
    const known: ClusterRecord[] = [];
    const snapshot = this.#snapshots.get(instance);
    for (const entry of [...(snapshot?.entries.values() ?? []), ...(snapshot?.kept.values() ?? [])]) {
      const cluster = entry.record?.name ?? entry.uid;
      const verdict = this.#verdictOn(entry);
      if (entry.record !== undefined && this.#policy.chosen(entry.record)) {
        known.push(entry.record);
      }
      if ('withheld' in verdict) {
        withheld.push({ instance, cluster, ...verdict.withheld });
      } else if (taken.has(cluster)) {
        const message = `a cluster of ${taken.get(cluster)} has the same name; give one of the instances another name_prefix`;
        withheld.push({ instance, cluster, reason: 'DuplicateName', message });
      } else {
        taken.set(cluster, instance);
        offered.push(verdict.offered);
      }
      await slices.pause();
    }
    return { offered, withheld, known };
  }

  #verdictOn(entry: Entry): ReturnType<typeof interpret> {
    const known = this.#verdicts.get(entry);
    if (known !== undefined) {
      return known;
    }
    const verdict = interpret(entry, this.#policy);
    this.#verdicts.set(entry, verdict);
    return verdict;
  }
}

/** The Kubernetes plugin changes the details that it receives, so each call gets its own. */
export function copyOf({ details }: Offered): ClusterDetails {
  return { ...details, authMetadata: { ...details.authMetadata } };
}
