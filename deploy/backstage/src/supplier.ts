import type { LoggerService } from '@backstage/backend-plugin-api';
import type { ClusterDetails, KubernetesClustersSupplier } from '@backstage/plugin-kubernetes-node';
import type { Directory } from './directory';

const DEFAULTS_TIMEOUT_MS = 10_000;
const MOST_NAMES = 1_000;

/** What is said of a default supplier's error, at most. */
export function brief(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n', 1)[0]?.slice(0, 300) ?? '';
}

/**
 * The unified view: first the clusters of `kubernetes.clusterLocatorMethods`, then ours. Never rejects: an error of theirs
 * costs their clusters, for this call, and nothing else. Their answer depends on the user, so it is never kept.
 */
export class UnifiedClustersSupplier implements KubernetesClustersSupplier {
  readonly #duplicates = new Set<string>();
  #defaultsFail = false;

  constructor(
    private readonly options: {
      readonly defaults?: KubernetesClustersSupplier;
      /** Absent where the configuration is not valid: then Backstage has its other clusters. */
      readonly directory?: Directory;
      readonly logger: LoggerService;
      readonly defaultsTimeoutMs?: number;
    },
  ) {}

  /** Names of ours that a default supplier uses too. */
  get duplicates(): string[] {
    return [...this.#duplicates].sort();
  }

  async getClusters(options: Parameters<KubernetesClustersSupplier['getClusters']>[0]): Promise<ClusterDetails[]> {
    const theirs = await this.#theirs(options);
    const ours = this.options.directory?.clusters(Date.now()) ?? [];
    // Where theirs are missing, a name of theirs must not lead to another cluster meanwhile.
    const names = theirs === undefined ? this.#duplicates : new Set(theirs.map(cluster => cluster.name));
    return [
      ...(theirs ?? []),
      ...ours.filter(cluster => {
        if (names.has(cluster.name)) {
          this.#tellDuplicate(cluster.name);
          return false;
        }
        return true;
      }),
    ];
  }

  /** Undefined where they failed to answer. */
  async #theirs(
    options: Parameters<KubernetesClustersSupplier['getClusters']>[0],
  ): Promise<ClusterDetails[] | undefined> {
    const { defaults, defaultsTimeoutMs = DEFAULTS_TIMEOUT_MS, logger } = this.options;
    if (defaults === undefined) {
      return [];
    }
    let timer: NodeJS.Timeout | undefined;
    try {
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(
          () => reject(new Error(`no answer within ${defaultsTimeoutMs / 1000} s`)),
          defaultsTimeoutMs,
        );
      });
      const found = await Promise.race([defaults.getClusters(options), late]);
      if (this.#defaultsFail) {
        this.#defaultsFail = false;
        logger.info('palette-sync: the clusters of kubernetes.clusterLocatorMethods are back');
      }
      return Array.isArray(found) ? found : [];
    } catch (error) {
      if (!this.#defaultsFail) {
        this.#defaultsFail = true;
        logger.error(
          `palette-sync: the clusters of kubernetes.clusterLocatorMethods are missing: ${brief(error)}; ` +
            'see that locator; the clusters of Palette are shown meanwhile',
        );
      }
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  #tellDuplicate(name: string): void {
    if (this.#duplicates.has(name) || this.#duplicates.size >= MOST_NAMES) {
      return;
    }
    this.#duplicates.add(name);
    this.options.logger.warn(
      `palette-sync: the name ${name} is taken by a cluster of kubernetes.clusterLocatorMethods, so the one from Palette is ` +
        'withheld; remove the former, or set a name_prefix for the instance in the daemon',
    );
  }
}
