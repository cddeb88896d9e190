import type { LoggerService } from '@backstage/backend-plugin-api';
import type { Config } from '@backstage/config';
import { InputError } from '@backstage/errors';
import { readCatalogSettings } from './catalog/settings';
import { ROOT, SettingsError } from './config';

/**
 * Runs `read` on the configuration. If it returns undefined because the section is missing, logs how to add it and returns
 * the same sentence as `problem`. Throws InputError with all problems and no secrets if the configuration is invalid: as is
 * the convention, Backstage then does not start, unless `onPluginModuleBootFailure: continue` is set for the module.
 */
export function checkedSettings<T>(
  read: () => T | undefined,
  logger: LoggerService,
): { settings?: T; problem?: string } {
  let settings: T | undefined;
  try {
    settings = read();
  } catch (error) {
    if (error instanceof SettingsError) {
      throw new InputError(`palette-sync: the configuration is invalid: ${error.message}`);
    }
    throw error;
  }
  if (settings !== undefined) {
    return { settings };
  }
  const problem = `app-config has no section ${ROOT}, so no cluster of Palette is shown; add ${ROOT}.redis.url and ${ROOT}.sealKeys`;
  logger.warn(`palette-sync: ${problem}`);
  return { problem };
}

/** What the catalog module does with clusters, which this module has to know, too. */
export function catalogFacts(root: Config): { readonly type: string; readonly projectsAreSystems: boolean } {
  try {
    const { type, projectAs } = readCatalogSettings(root);
    return { type, projectsAreSystems: projectAs !== 'tag' };
  } catch {
    // The catalog module, if it is installed, reports what is wrong in its own section.
    return { type: 'kubernetes-cluster', projectsAreSystems: false };
  }
}
