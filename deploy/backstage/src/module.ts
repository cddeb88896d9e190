import { coreServices, createBackendModule, type LoggerService } from '@backstage/backend-plugin-api';
import {
  type KubernetesClusterSupplierExtensionPoint,
  type KubernetesClustersSupplier,
  kubernetesClusterSupplierExtensionPoint,
} from '@backstage/plugin-kubernetes-node';
import { readSettings, type Settings } from './config';
import { Directory } from './directory';
import { compileFilter } from './filter';
import { follow } from './follow';
import { type Health, healthOf } from './health';
import { healthHandler } from './healthRoute';
import { reportMetrics } from './metrics';
import { Reports } from './reports';
import { checkedSettings } from './setup';
import type { SnapshotTail } from './snapshot/tail';
import { brief, UnifiedClustersSupplier } from './supplier';

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
        clusterSuppliers: kubernetesClusterSupplierExtensionPoint,
        config: coreServices.rootConfig,
        httpAuth: coreServices.httpAuth,
        httpRouter: coreServices.httpRouter,
        lifecycle: coreServices.lifecycle,
        logger: coreServices.logger,
        permissions: coreServices.permissions,
      },
      async init({ clusterSuppliers, config, httpAuth, httpRouter, lifecycle, logger, permissions }) {
        const { settings, problem } = checkedSettings(() => readSettings(config), logger);
        if (!config.has('kubernetes')) {
          logger.warn(
            'palette-sync: app-config has no section kubernetes, without which the Kubernetes plugin does not start; add ' +
              "kubernetes: { serviceLocatorMethod: { type: 'multiTenant' }, clusterLocatorMethods: [] }",
          );
        }
        const following = settings && startFollowing(settings, logger);
        const suppliers = addSupplier(clusterSuppliers, following?.directory, logger);
        const health = (): Health =>
          healthOf({
            setupProblems: [problem, suppliers.problem].filter(one => one !== undefined),
            ...(following && { link: following.tail.link, directory: following.directory }),
            instances: following?.tail.instances ?? [],
            duplicates: suppliers.supplier?.duplicates ?? [],
            maxSnapshotAgeMs: settings?.maxSnapshotAgeMs ?? Number.POSITIVE_INFINITY,
            now: Date.now(),
          });
        httpRouter.use(healthHandler({ health, httpAuth, permissions }));
        if (following) {
          const endMetrics = reportMetrics(health);
          lifecycle.addShutdownHook(async () => {
            endMetrics();
            await following.tail.stop();
          });
        }
      },
    });
  },
});

interface Following {
  readonly directory: Directory;
  readonly tail: SnapshotTail;
}

/** Begins to follow Redis without waiting for it. */
function startFollowing(settings: Settings, logger: LoggerService): Following {
  const directory = new Directory({
    chosen: compileFilter(settings.filter),
    oidcTokenProviders: new Set(settings.oidcTokenProviders),
    withholdUnreachable: settings.withholdUnreachable,
    dashboardLinks: settings.dashboardLinks,
  });
  const reports = new Reports(logger, directory, settings.sealer, settings.maxSnapshotAgeMs);
  const tail: SnapshotTail = follow(
    settings,
    logger,
    async ({ name, snapshot }) => {
      if (snapshot !== undefined) {
        await directory.update(name, snapshot);
      }
    },
    () => reports.tell(tail.instances, Date.now()),
  );
  tail.start();
  return { directory, tail };
}

function addSupplier(
  extensionPoint: KubernetesClusterSupplierExtensionPoint,
  directory: Directory | undefined,
  logger: LoggerService,
): { supplier?: UnifiedClustersSupplier; problem?: string } {
  const added: { supplier?: UnifiedClustersSupplier; problem?: string } = {};
  try {
    extensionPoint.addClusterSupplier(async ({ getDefault }) => {
      const defaults = await defaultSupplier(getDefault, logger);
      added.supplier = new UnifiedClustersSupplier({
        ...(defaults && { defaults }),
        ...(directory && { directory }),
        logger,
      });
      return added.supplier;
    });
  } catch (error) {
    added.problem =
      `another module already supplies clusters, and Backstage takes one supplier only (${brief(error)}); remove the other ` +
      'module from the backend, so that the clusters of Palette are shown';
    logger.error(`palette-sync: ${added.problem}`);
  }
  return added;
}

/** The Kubernetes plugin's own locators, which fail to be made if the configuration of one of them is wrong or missing. */
async function defaultSupplier(
  getDefault: () => Promise<KubernetesClustersSupplier>,
  logger: LoggerService,
): Promise<KubernetesClustersSupplier | undefined> {
  try {
    return await getDefault();
  } catch (error) {
    logger.warn(
      `palette-sync: kubernetes.clusterLocatorMethods cannot be used: ${brief(error)}; only clusters of Palette are shown. ` +
        'Correct it, or write kubernetes.clusterLocatorMethods: [] if that is what you want',
    );
    return undefined;
  }
}
