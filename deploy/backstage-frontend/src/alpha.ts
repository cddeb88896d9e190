/**
 * OIDC logins for the Kubernetes pages of Backstage, for apps with the new frontend system.
 *
 * @packageDocumentation
 */
import { ApiBlueprint, createFrontendModule } from '@backstage/frontend-plugin-api';
import { authProviders, oidcAuth } from './factories.js';

/**
 * Replaces the logins of the Kubernetes plugin.
 *
 * @alpha
 */
const kubernetesModulePaletteSync = createFrontendModule({
  pluginId: 'kubernetes',
  extensions: [
    ApiBlueprint.make({ name: 'palette-sync-oidc', params: defineParams => defineParams(oidcAuth) }),
    // The name of the plugin's own extension, which this one overrides.
    ApiBlueprint.make({ name: 'auth-providers', params: defineParams => defineParams(authProviders) }),
  ],
});

export default kubernetesModulePaletteSync;
