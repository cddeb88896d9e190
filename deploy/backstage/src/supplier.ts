import type { BackstageCredentials, LoggerService } from '@backstage/backend-plugin-api';
import {
  ANNOTATION_KUBERNETES_AUTH_PROVIDER,
  ANNOTATION_KUBERNETES_OIDC_TOKEN_PROVIDER,
} from '@backstage/plugin-kubernetes-common';
import type { ClusterDetails, KubernetesClustersSupplier } from '@backstage/plugin-kubernetes-node';
import { brief } from './brief';
import { type Call, currentCall } from './call';
import { copyOf, type Directory } from './directory';
import type { Offered } from './mapping';
import type { LeftOut } from './oidc/leftOut';
import { type TokenDemand, type TokenProblem, tokenProblem } from './oidc/token';
import type { Visibility } from './visibility';

const DEFAULTS_TIMEOUT_MS = 10_000;
const MOST_NAMES = 1_000;
const ANY_TOKEN: TokenDemand = { issuerUrl: '', clientId: '' };

type Options = Parameters<KubernetesClustersSupplier['getClusters']>[0];

/**
 * The unified view: first the clusters of `kubernetes.clusterLocatorMethods`, then ours. Never rejects: an error of the
 * others costs their clusters, for this call, and nothing else. Their answer depends on the user, so it is never cached.
 */
export class UnifiedClustersSupplier implements KubernetesClustersSupplier {
  readonly #duplicates = new Set<string>();
  #defaultsFail = false;

  constructor(
    private readonly options: {
      readonly defaults?: KubernetesClustersSupplier;
      /** Absent if the configuration is missing: then Backstage has its other clusters. */
      readonly directory?: Directory;
      /** Absent = everybody sees all clusters. */
      readonly visibility?: Visibility;
      readonly leftOut?: LeftOut;
      readonly logger: LoggerService;
      readonly defaultsTimeoutMs?: number;
    },
  ) {}

  /** Names of ours that a default supplier uses too. */
  get duplicates(): string[] {
    return [...this.#duplicates].sort();
  }

  async getClusters(options: Options): Promise<ClusterDetails[]> {
    const [theirs, ours] = await Promise.all([this.#theirs(options), this.#ours(options.credentials)]);
    // While the default suppliers fail, a name of theirs must not lead to another cluster.
    const names = theirs === undefined ? this.#duplicates : new Set(theirs.map(cluster => cluster.name));
    const unique = ours.filter(({ details }) => {
      if (names.has(details.name)) {
        this.#reportDuplicate(details.name);
        return false;
      }
      return true;
    });
    const call = currentCall();
    if (call === undefined) {
      return [...(theirs ?? []), ...unique.map(copyOf)];
    }
    return this.#fitting(call, theirs ?? [], unique, options.credentials);
  }

  /** Without the OIDC clusters that this call has no token for: one of them would fail the answer for all clusters. */
  #fitting(
    call: Call,
    theirs: readonly ClusterDetails[],
    ours: readonly Offered[],
    credentials: BackstageCredentials,
  ): ClusterDetails[] {
    const leftOut: { provider: string; reason: TokenProblem }[] = [];
    const fits = (details: ClusterDetails, demand: TokenDemand): boolean => {
      const provider = oidcProviderOf(details);
      const reason = provider === undefined ? undefined : problemOf(call, provider, demand);
      if (provider !== undefined && reason !== undefined) {
        leftOut.push({ provider, reason });
      }
      return reason === undefined;
    };
    const found = [
      ...theirs.filter(details => fits(details, ANY_TOKEN)),
      ...ours
        .filter(({ details, record }) => fits(details, record.auth?.provider === 'oidc' ? record.auth : ANY_TOKEN))
        .map(copyOf),
    ];
    if (call.kind === 'query' && leftOut.length > 0) {
      this.options.leftOut?.add(leftOut, credentials, Date.now());
    }
    return found;
  }

  async #ours(credentials: BackstageCredentials): Promise<Offered[]> {
    const { directory, visibility } = this.options;
    const isVisible = await visibility?.visibleTo(credentials);
    const offered = directory?.offered(Date.now()) ?? [];
    return isVisible ? offered.filter(({ record }) => isVisible(record)) : offered;
  }

  /** Undefined if they failed to answer. */
  async #theirs(options: Options): Promise<ClusterDetails[] | undefined> {
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
            'check that locator; the clusters of Palette are still shown',
        );
      }
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  #reportDuplicate(name: string): void {
    if (this.#duplicates.has(name) || this.#duplicates.size >= MOST_NAMES) {
      return;
    }
    this.#duplicates.add(name);
    this.options.logger.warn(
      `palette-sync: a cluster of kubernetes.clusterLocatorMethods has the name ${name}, too, so the cluster of Palette is ` +
        'withheld; remove the other one, or set a name_prefix for the instance in the daemon',
    );
  }
}

/**
 * A query asks all clusters with the tokens that the user has, so a cluster without a token is left out. The proxy asks one
 * cluster, which answers for itself if the token is missing; a token for somebody else is not sent there either.
 */
function problemOf(call: Call, provider: string, demand: TokenDemand): TokenProblem | undefined {
  const problem = tokenProblem(call.tokenOf(provider), demand);
  return call.kind === 'proxy' && problem === 'NoToken' ? undefined : problem;
}

function oidcProviderOf({ authMetadata }: ClusterDetails): string | undefined {
  return authMetadata?.[ANNOTATION_KUBERNETES_AUTH_PROVIDER] === 'oidc'
    ? (authMetadata[ANNOTATION_KUBERNETES_OIDC_TOKEN_PROVIDER] ?? '')
    : undefined;
}
