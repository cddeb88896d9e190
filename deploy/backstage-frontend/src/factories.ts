import {
  configApiRef,
  discoveryApiRef,
  gitlabAuthApiRef,
  googleAuthApiRef,
  microsoftAuthApiRef,
  oauthRequestApiRef,
  oktaAuthApiRef,
  oneloginAuthApiRef,
} from '@backstage/core-plugin-api';
import { kubernetesAuthProvidersApiRef } from '@backstage/plugin-kubernetes-react';
import { type AuthDeps, createAuthProviders, createOidcAuthApi, type KnownAuthApis, oidcAuthApiRef } from './apis.js';

const authDeps = { configApi: configApiRef, discoveryApi: discoveryApiRef, oauthRequestApi: oauthRequestApiRef };

/** The login with the auth provider `oidc`, for an API factory of either frontend system. */
export const oidcAuth = {
  api: oidcAuthApiRef,
  deps: authDeps,
  factory: (deps: AuthDeps) => createOidcAuthApi(deps),
};

/** The logins of the Kubernetes pages, for an API factory of either frontend system. */
export const authProviders = {
  api: kubernetesAuthProvidersApiRef,
  deps: {
    ...authDeps,
    gitlabAuthApi: gitlabAuthApiRef,
    googleAuthApi: googleAuthApiRef,
    microsoftAuthApi: microsoftAuthApiRef,
    oktaAuthApi: oktaAuthApiRef,
    oneloginAuthApi: oneloginAuthApiRef,
    oidcAuthApi: oidcAuthApiRef,
  },
  factory: (deps: AuthDeps & KnownAuthApis) => createAuthProviders(deps, deps),
};
