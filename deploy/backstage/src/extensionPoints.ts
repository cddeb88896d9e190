import type { LoggerService } from '@backstage/backend-plugin-api';
import type {
  KubernetesClusterSupplierExtensionPoint,
  KubernetesFetcherExtensionPoint,
  KubernetesObjectsProviderExtensionPoint,
  KubernetesServiceLocator,
  KubernetesServiceLocatorExtensionPoint,
} from '@backstage/plugin-kubernetes-node';
import { brief } from './brief';
import type { ExtensionPointName, FetchSettings, LocatorSettings } from './config';
import type { Directory } from './directory';
import { GuardedFetcher } from './fetching/fetcher';
import { SelectiveLocator } from './locator/locator';
import { LeftOut } from './oidc/leftOut';
import { CallObjectsProvider } from './oidc/objectsProvider';
import { UnifiedClustersSupplier } from './supplier';
import type { Visibility } from './visibility';

/** `ours`: this module has it. `off`: the configuration says no. `taken`: another module had it first. */
export type ExtensionPointState = 'ours' | 'off' | 'taken';

const MISSED: Readonly<Record<ExtensionPointName, string>> = {
  clusterSupplier: 'no cluster of Palette is shown',
  serviceLocator: "annotations and relations of entities do not select this module's clusters",
  objectsProvider: 'OIDC clusters are withheld, except those of the providers in paletteSync.oidcTokenProviders',
  fetcher: 'a cluster that hangs holds up the page',
};

/**
 * Adds this module's parts to the extension points of the Kubernetes plugin. Each extension point accepts one module only:
 * where another module was first, that one stays, and `problems` says what is missing and how to choose.
 */
export class Extensions {
  readonly problems: string[] = [];
  readonly states: Partial<Record<ExtensionPointName, ExtensionPointState>> = {};
  readonly leftOut = new LeftOut();
  supplier: UnifiedClustersSupplier | undefined;
  locator: SelectiveLocator | undefined;
  fetcher: GuardedFetcher | undefined;

  constructor(
    private readonly wanted: Readonly<Record<ExtensionPointName, boolean>>,
    private readonly logger: LoggerService,
  ) {}

  addSupplier(
    point: KubernetesClusterSupplierExtensionPoint,
    parts: { readonly directory?: Directory; readonly visibility?: Visibility },
  ): void {
    this.#add('clusterSupplier', () =>
      point.addClusterSupplier(async ({ getDefault }) => {
        const defaults = await this.#default(getDefault, error => {
          const section = 'kubernetes.clusterLocatorMethods';
          return `${section} cannot be used: ${error}; only clusters of Palette are shown. Correct it, or write ${section}: [] if that is what you want`;
        });
        this.supplier = new UnifiedClustersSupplier({
          ...parts,
          ...(defaults && { defaults }),
          leftOut: this.leftOut,
          logger: this.logger,
        });
        return this.supplier;
      }),
    );
  }

  addLocator(
    point: KubernetesServiceLocatorExtensionPoint,
    parts: Required<LocatorSettings> & { readonly directory?: Directory },
  ): void {
    this.#add('serviceLocator', () =>
      point.addServiceLocator(async ({ getDefault, clusterSupplier }) => {
        const defaults: KubernetesServiceLocator | undefined =
          parts.fallback === 'none'
            ? undefined
            : await this.#default(getDefault, error => {
                const section = 'kubernetes.serviceLocatorMethod';
                return `${section} cannot be used: ${error}; entities that select no cluster get all of them. Correct it, for example ${section}: { type: multiTenant }`;
              });
        this.locator = new SelectiveLocator({ ...parts, ...(defaults && { defaults }), clusterSupplier });
        return this.locator;
      }),
    );
  }

  addObjectsProvider(point: KubernetesObjectsProviderExtensionPoint): void {
    this.#add('objectsProvider', () =>
      point.addObjectsProvider(async ({ getDefault }) => new CallObjectsProvider(await getDefault())),
    );
  }

  addFetcher(point: KubernetesFetcherExtensionPoint, settings: FetchSettings): void {
    this.#add('fetcher', () =>
      point.addFetcher(async ({ getDefault }) => {
        this.fetcher = new GuardedFetcher(await getDefault(), settings);
        return this.fetcher;
      }),
    );
  }

  #add(name: ExtensionPointName, add: () => void): void {
    if (!this.wanted[name]) {
      this.states[name] = 'off';
      return;
    }
    try {
      add();
      this.states[name] = 'ours';
    } catch (error) {
      this.states[name] = 'taken';
      const problem =
        `another module already uses the extension point ${name} of the Kubernetes plugin, which accepts one module only ` +
        `(${brief(error)}), so ${MISSED[name]}; remove that module, or set paletteSync.extensionPoints.${name}: false to accept this`;
      this.problems.push(problem);
      this.logger.error(`palette-sync: ${problem}`);
    }
  }

  /** Makes what Backstage itself would use. It throws if its configuration is missing or wrong. */
  async #default<T>(getDefault: () => Promise<T>, warning: (error: string) => string): Promise<T | undefined> {
    try {
      return await getDefault();
    } catch (error) {
      this.logger.warn(`palette-sync: ${warning(brief(error))}`);
      return undefined;
    }
  }
}
