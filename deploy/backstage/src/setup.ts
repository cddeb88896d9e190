import type { LoggerService } from '@backstage/backend-plugin-api';
import { InputError } from '@backstage/errors';
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
