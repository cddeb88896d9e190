import { OAuth2 } from '@backstage/core-app-api';
import {
  type ConfigApi,
  createApiRef,
  type DiscoveryApi,
  type OAuthApi,
  type OAuthRequestApi,
  type OpenIdConnectApi,
  type ProfileInfoApi,
  type SessionApi,
} from '@backstage/core-plugin-api';
import { KubernetesAuthProviders, type KubernetesAuthProvidersApi } from '@backstage/plugin-kubernetes-react';
import { OptionalOidcAuthProviders } from './optionalOidc.js';

/**
 * The login with Backstage's auth provider `oidc`.
 *
 * @public
 */
export const oidcAuthApiRef = createApiRef<OpenIdConnectApi & ProfileInfoApi & SessionApi>({
  id: 'plugin.kubernetes.palette-sync.oidc',
});

/** What an auth API is made of. A type and not an interface, because API factories need an index signature. */
export type AuthDeps = {
  readonly configApi: ConfigApi;
  readonly discoveryApi: DiscoveryApi;
  readonly oauthRequestApi: OAuthRequestApi;
};

/**
 * Creates the API of an OIDC auth provider of the backend. `id` is its name under `auth.providers`, `title` is shown to the
 * user who is asked to log in.
 */
export function createOidcAuthApi(deps: AuthDeps, id = 'oidc', title = 'OpenID Connect'): OAuth2 {
  const { configApi, discoveryApi, oauthRequestApi } = deps;
  return OAuth2.create({
    configApi,
    discoveryApi,
    oauthRequestApi,
    provider: { id, title, icon: () => null },
    environment: configApi.getOptionalString('auth.environment') ?? 'development',
    defaultScopes: ['openid', 'profile', 'email'],
  });
}

/** The auth APIs that the Kubernetes plugin uses itself. */
export type KnownAuthApis = {
  readonly gitlabAuthApi: OpenIdConnectApi;
  readonly googleAuthApi: OAuthApi & OpenIdConnectApi;
  readonly microsoftAuthApi: OAuthApi & OpenIdConnectApi;
  readonly oktaAuthApi: OpenIdConnectApi;
  readonly oneloginAuthApi: OpenIdConnectApi;
  readonly oidcAuthApi: OpenIdConnectApi;
};

/**
 * Creates what `kubernetesAuthProvidersApiRef` stands for. A provider that is not among `known` gets an API by its name when a
 * cluster first asks for it.
 */
export function createAuthProviders(deps: AuthDeps, known: KnownAuthApis): KubernetesAuthProvidersApi {
  const { googleAuthApi, microsoftAuthApi } = known;
  const apis = new Map<string, OpenIdConnectApi>([
    ['gitlab', known.gitlabAuthApi],
    ['google', googleAuthApi],
    ['microsoft', microsoftAuthApi],
    ['okta', known.oktaAuthApi],
    ['onelogin', known.oneloginAuthApi],
    ['oidc', known.oidcAuthApi],
  ]);
  const apiOf = (provider: string) => {
    const api = apis.get(provider) ?? createOidcAuthApi(deps, provider, provider);
    apis.set(provider, api);
    return api;
  };
  return new OptionalOidcAuthProviders({
    others: new KubernetesAuthProviders({ googleAuthApi, microsoftAuthApi }),
    apiOf,
  });
}
