/**
 * OIDC logins for the Kubernetes pages of Backstage, for apps with the old frontend system.
 *
 * @packageDocumentation
 */
import { type AnyApiFactory, createApiFactory } from '@backstage/core-plugin-api';
import { authProviders, oidcAuth } from './factories.js';

export { oidcAuthApiRef } from './apis.js';
export { type IdTokens, OptionalOidcAuthProviders } from './optionalOidc.js';

/**
 * Add these to the `apis` of the app. They replace the logins of the Kubernetes plugin.
 *
 * @public
 */
export const paletteSyncApis: AnyApiFactory[] = [createApiFactory(oidcAuth), createApiFactory(authProviders)];
