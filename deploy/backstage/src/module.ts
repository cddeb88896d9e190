import { coreServices, createBackendModule, type LoggerService } from '@backstage/backend-plugin-api';
import { catalogServiceRef } from '@backstage/plugin-catalog-node';
import {
  kubernetesClusterSupplierExtensionPoint,
  kubernetesFetcherExtensionPoint,
  kubernetesObjectsProviderExtensionPoint,
  kubernetesServiceLocatorExtensionPoint,
} from '@backstage/plugin-kubernetes-node';
import { duringCall } from './call';
import { readSettings, type Settings } from './config';
import { Directory } from './directory';
import { Extensions } from './extensionPoints';
import { compileFilter, compileTags } from './filter';
import { follow } from './follow';
import { type Health, healthOf } from './health';
import { healthHandler } from './healthRoute';
import { reportMetrics } from './metrics';
import { proxyCallOf } from './oidc/proxyCall';
import { Reports } from './reports';
import { catalogFacts, checkedSettings } from './setup';
import type { Following } from './snapshot/tail';
import { CatalogVisibility } from './visibility';

/**
 * Adds the clusters that palette-sync publishes to the Kubernetes plugin, beside those of its own locators. An invalid
 * configuration fails the start of this module; any later problem is logged, shown on the health route, and leaves Backstage
 * with its other clusters.
 *
 * @public
 */
export const kubernetesModulePaletteSync = createBackendModule({
  pluginId: 'kubernetes',
  moduleId: 'palette-sync',
  register(registration) {
    registration.registerInit({
      deps: {
        catalog: catalogServiceRef,
        clusterSuppliers: kubernetesClusterSupplierExtensionPoint,
        config: coreServices.rootConfig,
        fetchers: kubernetesFetcherExtensionPoint,
        httpAuth: coreServices.httpAuth,
        httpRouter: coreServices.httpRouter,
        lifecycle: coreServices.lifecycle,
        logger: coreServices.logger,
        objectsProviders: kubernetesObjectsProviderExtensionPoint,
        permissions: coreServices.permissions,
        serviceLocators: kubernetesServiceLocatorExtensionPoint,
      },
      async init(services) {
        const { config, httpRouter, lifecycle, logger } = services;
        const { settings, problem } = checkedSettings(() => readSettings(config), logger);
        if (!config.has('kubernetes')) {
          logger.warn(
            'palette-sync: app-config has no section kubernetes, without which the Kubernetes plugin does not start; add ' +
              "kubernetes: { serviceLocatorMethod: { type: 'multiTenant' }, clusterLocatorMethods: [] }",
          );
        }
        if (settings === undefined) {
          httpRouter.use(healthHandler({ ...services, health: () => healthOf(nothing(problem)) }));
          return;
        }
        const { type, projectsAreSystems } = catalogFacts(config);
        const extensions = new Extensions(settings.extensionPoints, logger);
        extensions.addObjectsProvider(services.objectsProviders);
        extensions.addFetcher(services.fetchers, settings.fetching);
        const { directory, tail } = following(settings, extensions.states.objectsProvider === 'ours', logger);
        const visibility =
          settings.visibility === 'catalog'
            ? new CatalogVisibility({ catalog: services.catalog, type, logger })
            : undefined;
        extensions.addSupplier(services.clusterSuppliers, { directory, ...(visibility && { visibility }) });
        extensions.addLocator(services.serviceLocators, {
          systems: projectsAreSystems,
          ...settings.locator,
          directory,
        });
        const health = (): Health =>
          healthOf({
            setupProblems: [extensions.problems, visibility?.problem ?? [], tail.problem ?? []].flat(),
            link: tail.link,
            directory,
            instances: tail.instances,
            extensions,
            maxSnapshotAgeMs: settings.maxSnapshotAgeMs,
            now: Date.now(),
          });
        httpRouter.use(healthHandler({ ...services, health, hidesNames: visibility !== undefined }));
        httpRouter.use((request, _response, next) => {
          const call = proxyCallOf(request.path, request.headers);
          if (call === undefined) {
            next();
          } else {
            duringCall(call, next);
          }
        });
        tail.start();
        const endMetrics = reportMetrics(health);
        lifecycle.addShutdownHook(async () => {
          endMetrics();
          await tail.stop();
        });
      },
    });
  },
});

function nothing(problem: string | undefined): Parameters<typeof healthOf>[0] {
  return {
    setupProblems: problem === undefined ? [] : [problem],
    instances: [],
    maxSnapshotAgeMs: Number.POSITIVE_INFINITY,
    now: Date.now(),
  };
}

/**
 * What follows Redis, not started yet. `mixesOidc`: calls without a token lose OIDC clusters only. Without that, one such
 * cluster fails the answer for all clusters, so only the providers that the configuration names are served.
 */
function following(
  settings: Settings,
  mixesOidc: boolean,
  logger: LoggerService,
): { readonly directory: Directory; readonly tail: Following } {
  const { oidcTokenProviders } = settings;
  const directory = new Directory({
    chosen: compileFilter(settings.filter),
    underMaintenance: compileTags(settings.maintenanceTags),
    servesOidc: provider => (oidcTokenProviders ? oidcTokenProviders.includes(provider) : mixesOidc),
    withholdUnreachable: settings.withholdUnreachable,
    dashboard: settings.dashboard,
  });
  const reports = new Reports(logger, directory, settings.sealer, settings.maxSnapshotAgeMs);
  const tail: Following = follow(
    settings,
    logger,
    async ({ name, snapshot }) => {
      if (snapshot !== undefined) {
        await directory.update(name, snapshot);
      }
    },
    () => reports.report(tail.instances, Date.now()),
  );
  return { directory, tail };
}
