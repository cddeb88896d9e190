import type { BackstageCredentials, LoggerService } from '@backstage/backend-plugin-api';
import { ANNOTATION_LOCATION } from '@backstage/catalog-model';
import type { CatalogService } from '@backstage/plugin-catalog-node';
import { brief } from './brief';
import type { ClusterRecord } from './snapshot/decode';

const TIMEOUT_MS = 5_000;
// Each open page asks every 10 s. Until then a user whose rights change sees what he saw.
const CACHE_MS = 10_000;
const MOST_USERS = 1_000;

/** Decides which clusters a caller sees. Never rejects. */
export interface Visibility {
  visibleTo(credentials: BackstageCredentials): Promise<(record: ClusterRecord) => boolean>;
  /** What is wrong with it, for the health route. */
  readonly problem: string | undefined;
}

/**
 * `visibility: catalog`: a user sees the clusters whose Resource the catalog shows him. Services, such as the Kubernetes
 * plugin itself, see all. If the catalog does not answer, a user sees none.
 */
export class CatalogVisibility implements Visibility {
  readonly #cache = new Map<string, { readonly until: number; readonly locations: Promise<ReadonlySet<string>> }>();
  #problem: string | undefined;

  constructor(
    private readonly options: {
      readonly catalog: Pick<CatalogService, 'getEntities'>;
      /** `spec.type` of the Resources. */
      readonly type: string;
      readonly logger: LoggerService;
      readonly timeoutMs?: number;
      readonly now?: () => number;
    },
  ) {}

  get problem(): string | undefined {
    return this.#problem;
  }

  async visibleTo(credentials: BackstageCredentials): Promise<(record: ClusterRecord) => boolean> {
    const { type, userEntityRef } = credentials.principal as { type?: string; userEntityRef?: string };
    if (type === 'service') {
      return () => true;
    }
    if (type !== 'user' || userEntityRef === undefined) {
      return () => false;
    }
    const locations = await this.#locationsFor(userEntityRef, credentials);
    return record => locations.has(locationOf(record));
  }

  #locationsFor(user: string, credentials: BackstageCredentials): Promise<ReadonlySet<string>> {
    const now = this.options.now?.() ?? Date.now();
    const cached = this.#cache.get(user);
    if (cached !== undefined && now < cached.until) {
      return cached.locations;
    }
    if (this.#cache.size >= MOST_USERS) {
      this.#cache.clear();
    }
    const locations = this.#read(credentials).catch(error => {
      this.#cache.delete(user);
      this.#failed(error);
      return new Set<string>();
    });
    this.#cache.set(user, { until: now + CACHE_MS, locations });
    return locations;
  }

  async #read(credentials: BackstageCredentials): Promise<ReadonlySet<string>> {
    const { catalog, type, timeoutMs = TIMEOUT_MS } = this.options;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs);
    });
    const query = catalog.getEntities(
      { filter: { kind: 'Resource', 'spec.type': type }, fields: ['metadata.annotations'] },
      { credentials },
    );
    try {
      const { items } = await Promise.race([query, late]);
      this.#problem = undefined;
      return new Set(items.map(({ metadata }) => metadata.annotations?.[ANNOTATION_LOCATION] ?? ''));
    } finally {
      clearTimeout(timer);
    }
  }

  #failed(error: unknown): void {
    const problem = `the catalog does not say which clusters users may see, so they see none: ${brief(error)}`;
    if (this.#problem === undefined) {
      this.options.logger.error(`palette-sync: ${problem}`);
    }
    this.#problem = problem;
  }
}

/** What the catalog module writes as the location of a cluster's Resource; entities from elsewhere cannot claim it. */
function locationOf(record: ClusterRecord): string {
  return `palette-sync:${record.instance}/${record.uid}`;
}
