import { coreServices, createBackendModule } from '@backstage/backend-plugin-api';
import { catalogProcessingExtensionPoint } from '@backstage/plugin-catalog-node';
import { compileFilter } from '../filter';
import { follow } from '../follow';
import { checkedSettings } from '../setup';
import type { Following } from '../snapshot/tail';
import { ClusterEntityProvider } from './provider';
import { readCatalogModuleSettings } from './settings';

/**
 * Adds the clusters that palette-sync publishes to the catalog, as Resources. It reads the records of clusters only: it never
 * asks Redis for their credentials. An invalid configuration fails the start of this module.
 *
 * @public
 */
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
        const { settings } = checkedSettings(() => readCatalogModuleSettings(config), logger);
        if (settings === undefined) {
          return;
        }
        const chosen = compileFilter(settings.common.filter);
        const provider = new ClusterEntityProvider({ settings: settings.catalog, chosen, logger });
        catalog.addEntityProvider(provider);
        const tail: Following = follow(
          settings.common,
          logger,
          async () => {},
          () => {
            void provider.update(tail.instances);
          },
          { credentials: false },
        );
        tail.start();
        lifecycle.addShutdownHook(() => tail.stop());
      },
    });
  },
});
