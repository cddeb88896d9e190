import { createRequire } from 'node:module';
import { join } from 'node:path';
import {
  type BackendFeature,
  coreServices,
  createServiceFactory,
  type HttpAuthService,
  type RootHttpRouterService,
} from '@backstage/backend-plugin-api';
import { mockCredentials, mockServices, startTestBackend } from '@backstage/backend-test-utils';
import type { Entity } from '@backstage/catalog-model';
import { type CatalogService, catalogServiceRef } from '@backstage/plugin-catalog-node';
import { catalogServiceMock } from '@backstage/plugin-catalog-node/testUtils';
import type { JsonObject } from '@backstage/types';
import { CapturingLogger } from './logger';
import { ONE_REQUEST } from './processes';
import { packedFolder } from './repository';

/** The packages of this project for the backend. */
export const PACKAGES = {
  kubernetes: 'backstage-plugin-kubernetes-backend-module-palette-sync',
  catalog: 'backstage-plugin-catalog-backend-module-palette-sync',
} as const;

/** Where `npm run packed` unpacks a package as `npm pack` makes it. */
export function unpacked(plugin: keyof typeof PACKAGES): string {
  return join(packedFolder(), 'node_modules', PACKAGES[plugin]);
}

/** What `import(name)` returns from the packed packages. The default is the module of the Kubernetes plugin. */
export async function installed(name: string = PACKAGES.kubernetes): Promise<{ default: BackendFeature }> {
  const from = createRequire(join(packedFolder(), 'package.json'));
  return from(name) as { default: BackendFeature };
}

/**
 * Starts a test backend. A backend ends the process with exit code 0 when nothing is left to do, which would hide failed
 * tests, so that listener is removed.
 */
export async function startedBackend(
  options: Parameters<typeof startTestBackend>[0],
): ReturnType<typeof startTestBackend> {
  const before = process.listeners('beforeExit');
  const backend = await startTestBackend(options);
  for (const listener of process.listeners('beforeExit').filter(one => !before.includes(one))) {
    process.removeListener('beforeExit', listener);
  }
  return backend;
}

/** For a backend whose start fails: its HTTP server would stay open and keep the process alive. */
export const NO_HTTP_SERVER = createServiceFactory({
  service: coreServices.rootHttpRouter,
  deps: {},
  factory: () => ({ use: () => {} }) as unknown as RootHttpRouterService,
});

export async function kubernetesPlugin(): Promise<{ default: BackendFeature }> {
  return (await import('@backstage/plugin-kubernetes-backend')).default;
}

/** Entities that choose pods of the simulated shop by label, as components in a catalog do. */
export const CART = component('cart');

/** A component whose pods are those of the cart. `targets` are the references of what it depends on. */
export function component(name: string, annotations: Record<string, string> = {}, ...targets: string[]): Entity {
  return {
    apiVersion: 'backstage.io/v1alpha1',
    kind: 'Component',
    metadata: { name, annotations: { 'backstage.io/kubernetes-label-selector': 'app=cart', ...annotations } },
    relations: targets.map(targetRef => ({ type: 'dependsOn', targetRef })),
    spec: { type: 'service', owner: 'team', lifecycle: 'production' },
  };
}

/**
 * The mock, but as Backstage's own service it reads the credentials of a request once: the proxy of older releases asks
 * again after it has replaced the request's authorization by that of the cluster.
 */
const HTTP_AUTH = createServiceFactory({
  service: coreServices.httpAuth,
  deps: { plugin: coreServices.pluginMetadata },
  factory({ plugin }) {
    const inner = mockServices.httpAuth({
      pluginId: plugin.getId(),
      defaultCredentials: mockCredentials.none(),
    });
    const known = new WeakMap<object, ReturnType<HttpAuthService['credentials']>>();
    return {
      credentials: ((request, options) => {
        const credentials = known.get(request) ?? inner.credentials(request, options as never);
        known.set(request, credentials as ReturnType<HttpAuthService['credentials']>);
        return credentials;
      }) as HttpAuthService['credentials'],
      issueUserCookie: inner.issueUserCookie,
    };
  },
});

export interface ClusterPods {
  readonly cluster: { readonly name: string; readonly title?: string };
  readonly pods: string[];
  readonly errors: PageError[];
}

export interface PageError {
  readonly errorType: string;
  readonly statusCode?: number;
  readonly message?: string;
}

/** A real Backstage backend with the real Kubernetes plugin. */
export class Backstage {
  readonly logger: CapturingLogger;
  #stopping: Promise<void> | undefined;

  private constructor(
    private readonly backend: Awaited<ReturnType<typeof startTestBackend>>,
    logger: CapturingLogger,
  ) {
    this.logger = logger;
  }

  static async start(options: {
    readonly paletteSync?: unknown;
    readonly kubernetes?: unknown;
    readonly features?: (BackendFeature | Promise<{ default: BackendFeature }>)[];
    readonly permission?: 'ALLOW' | 'DENY';
    readonly logger?: CapturingLogger;
    /** `backend.startup` of the configuration. */
    readonly startup?: JsonObject;
    /** What the catalog holds besides the component cart. */
    readonly entities?: Entity[];
    /** The catalog locator then fails at each call. */
    readonly brokenCatalog?: boolean;
    /** Instead of what the catalog would answer. */
    readonly getEntities?: CatalogService['getEntities'];
  }): Promise<Backstage> {
    const logger = options.logger ?? new CapturingLogger();
    const data = {
      backend: {
        baseUrl: 'http://localhost',
        auth: { dangerouslyDisableDefaultAuthPolicy: false },
        ...(options.startup && { startup: options.startup }),
      },
      kubernetes: options.kubernetes ?? {
        serviceLocatorMethod: { type: 'multiTenant' },
        clusterLocatorMethods: [],
        objectTypes: ['pods'],
      },
      ...(options.paletteSync !== undefined && { paletteSync: options.paletteSync }),
    } as JsonObject;
    const catalog = catalogServiceMock({ entities: [CART, ...(options.entities ?? [])] });
    if (options.getEntities) {
      catalog.getEntities = options.getEntities;
    }
    if (options.brokenCatalog) {
      catalog.getEntities = async () => Promise.reject(new Error('the catalog is away'));
    }
    const backend = await startedBackend({
      features: [
        ...(options.features ?? [kubernetesPlugin(), installed()]),
        mockServices.rootConfig.factory({ data }),
        HTTP_AUTH,
        mockServices.permissions.factory({ result: (options.permission ?? 'ALLOW') as never }),
        createServiceFactory({ service: catalogServiceRef, deps: {}, factory: () => catalog }),
        createServiceFactory({ service: coreServices.rootLogger, deps: {}, factory: () => logger }),
      ],
    });
    return new Backstage(backend, logger);
  }

  /** A request of a user, unless other headers say otherwise. */
  async request(
    method: string,
    path: string,
    options: { body?: unknown; headers?: Record<string, string> } = {},
  ): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.backend.server.port()}${path}`, {
      method,
      headers: {
        authorization: mockCredentials.user.header(),
        'content-type': 'application/json',
        ...ONE_REQUEST,
        ...options.headers,
      },
      ...(options.body !== undefined && { body: JSON.stringify(options.body) }),
    });
  }

  async json<T>(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<T> {
    const response = await this.request(method, path, {
      ...(body !== undefined && { body }),
      ...(headers && { headers }),
    });
    const text = await response.text();
    if (!response.ok) {
      throw new Error(`${method} ${path}: ${response.status} ${text.slice(0, 500)}`);
    }
    return JSON.parse(text) as T;
  }

  async clusters(): Promise<string[]> {
    const { items } = await this.json<{ items: { name: string }[] }>('GET', '/api/kubernetes/clusters');
    return items.map(({ name }) => name).sort();
  }

  /** What the Kubernetes page of a component shows. */
  async workloads(auth: unknown = {}, component = 'cart', headers?: Record<string, string>): Promise<ClusterPods[]> {
    const body = { entityRef: `component:default/${component}`, auth };
    const { items } = await this.json<{ items: WorkloadItem[] }>(
      'POST',
      '/api/kubernetes/resources/workloads/query',
      body,
      headers,
    );
    return items
      .map(({ cluster, resources, errors }) => ({
        cluster,
        pods: resources
          .flatMap(one => (one.type === 'pods' ? one.resources : []))
          .map(pod => pod.metadata.name)
          .sort(),
        errors,
      }))
      .sort((a, b) => (a.cluster.name < b.cluster.name ? -1 : 1));
  }

  async health<T>(): Promise<{ status: number; body: T }> {
    const response = await this.request('GET', '/api/kubernetes/palette-sync/health');
    return { status: response.status, body: (await response.json()) as T };
  }

  async stop(): Promise<void> {
    this.#stopping ??= this.backend.stop();
    await this.#stopping;
  }
}

interface WorkloadItem {
  cluster: { name: string; title?: string };
  resources: { type: string; resources: { metadata: { name: string } }[] }[];
  errors: PageError[];
}
