import { coreServices, createBackendModule } from '@backstage/backend-plugin-api';
import { catalogProcessingExtensionPoint } from '@backstage/plugin-catalog-node';
import { readSettings } from '../config';
import { compileFilter } from '../filter';
import { follow } from '../follow';
import { settingsOrProblem } from '../module';
import type { SnapshotTail } from '../snapshot/tail';
import { ClusterEntityProvider } from './provider';

/** Adds the clusters that palette-sync publishes to the catalog, as Resources of type kubernetes-cluster. */
export const catalogModulePaletteSync = createBackendModule({
  pluginId: 'catalog',
  moduleId: 'palette-sync',
  register(registration) {
    registration.registerInit({
      deps: {
        catalog: catalogProcessingExtensionPoint,
        config: coreServices.rootConfig,
        lifecycle: coreServices.lifecycle,
        logger: coreServices.logger,
      },
      async init({ catalog, config, lifecycle, logger }) {
        const { settings } = settingsOrProblem(() => readSettings(config), logger);
        if (settings === undefined) {
          return;
        }
        const chosen = compileFilter(settings.filter);
        const provider = new ClusterEntityProvider({ settings: settings.catalog, chosen, logger });
        catalog.addEntityProvider(provider);
        const tail: SnapshotTail = follow(
          settings,
          logger,
          async () => {},
          () => {
            void provider.update(tail.instances);
          },
        );
        tail.start();
        lifecycle.addShutdownHook(() => tail.stop());
      },
    });
  },
});
