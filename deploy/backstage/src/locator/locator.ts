import type { Entity } from '@backstage/catalog-model';
import type {
  ClusterDetails,
  KubernetesClustersSupplier,
  KubernetesServiceLocator,
  ServiceLocatorRequestContext,
} from '@backstage/plugin-kubernetes-node';
import { currentCall } from '../call';
import type { Directory } from '../directory';
import { CLUSTER_ANNOTATION, type KnownCluster, type SelectedBy, selectionOf } from './selection';

export interface LocatorOptions {
  /** Backstage's own locator. Absent if its configuration is wrong: then the fallback is all clusters. */
  readonly defaults?: KubernetesServiceLocator;
  readonly clusterSupplier: KubernetesClustersSupplier;
  readonly directory?: Directory;
  readonly fallback: 'all' | 'none';
  readonly fallbackLimit: number;
  readonly systems: boolean;
}

/** How often entities got their clusters in which way. */
export type LocatorCounts = Readonly<Partial<Record<SelectedBy | 'fallback' | 'cut', number>>>;

/**
 * Asks only the clusters that an entity selects (`selectionOf`). An entity that selects none gets what Backstage's own
 * locator returns, up to a limit, or nothing.
 */
export class SelectiveLocator implements KubernetesServiceLocator {
  readonly #counts: Partial<Record<SelectedBy | 'fallback' | 'cut', number>> = {};

  constructor(private readonly options: LocatorOptions) {}

  /** `cut` counts the answers that the limit of the fallback shortened. */
  get counts(): LocatorCounts {
    return { ...this.#counts };
  }

  async getClustersByEntity(
    entity: Entity,
    context: ServiceLocatorRequestContext,
  ): Promise<{ clusters: ClusterDetails[] }> {
    const { clusterSupplier, systems } = this.options;
    const clusters = await clusterSupplier.getClusters({ credentials: context.credentials });
    const selection = selectionOf(entity, this.#known(clusters), { systems });
    if (selection === undefined) {
      return this.#fallback(entity, context, clusters);
    }
    this.#count(selection.by);
    return { clusters: clusters.filter(({ name }) => selection.names.has(name.toLowerCase())) };
  }

  /** Also those of ours that this caller does not get now: an entity that selects one of them must not get all others. */
  #known(clusters: readonly ClusterDetails[]): ReadonlyMap<string, KnownCluster> {
    const ours = this.options.directory?.known ?? new Map<string, KnownCluster>();
    const others = clusters.map(({ name }) => name.toLowerCase()).filter(name => !ours.has(name));
    return others.length === 0 ? ours : new Map([...ours, ...others.map(name => [name, {}] as const)]);
  }

  async #fallback(
    entity: Entity,
    context: ServiceLocatorRequestContext,
    all: ClusterDetails[],
  ): Promise<{ clusters: ClusterDetails[] }> {
    const { defaults, fallback, fallbackLimit } = this.options;
    this.#count('fallback');
    if (fallback === 'none') {
      return { clusters: [] };
    }
    const { clusters } = defaults ? await defaults.getClustersByEntity(entity, context) : { clusters: all };
    if (clusters.length <= fallbackLimit) {
      return { clusters };
    }
    this.#count('cut');
    currentCall()?.notices.push(
      `${clusters.length - fallbackLimit} of ${clusters.length} clusters were not asked, because this entity does not say in ` +
        `which clusters it runs; add the annotation ${CLUSTER_ANNOTATION} with their names`,
    );
    return { clusters: clusters.slice(0, fallbackLimit) };
  }

  #count(what: SelectedBy | 'fallback' | 'cut'): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + 1;
  }
}
