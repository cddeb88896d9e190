import type { KubernetesRequestBody } from '@backstage/plugin-kubernetes-common';
import type { KubernetesAuthProvidersApi } from '@backstage/plugin-kubernetes-react';

/**
 * The part of Backstage's OpenIdConnectApi that is needed here.
 *
 * @public
 */
export interface IdTokens {
  /** With `optional`, returns an empty string instead of asking the user to log in. */
  getIdToken(options?: { optional?: boolean }): Promise<string>;
}

const OIDC = 'oidc.';

/**
 * Adds ID tokens to the requests of the Kubernetes pages if the user has them. Without a token it asks the user to log in,
 * once, and does not wait for the answer: clusters that need no login are shown at once, and the page adds the others when it
 * polls after the login. A refused login is not asked for again until the page is reloaded.
 *
 * @public
 */
export class OptionalOidcAuthProviders implements KubernetesAuthProvidersApi {
  readonly #others: KubernetesAuthProvidersApi;
  readonly #apiOf: (provider: string) => IdTokens;
  readonly #asked = new Set<string>();

  /** `others` handles all that is not OIDC. `apiOf` returns the auth API of the OIDC provider with that name. */
  constructor(options: { others: KubernetesAuthProvidersApi; apiOf: (provider: string) => IdTokens }) {
    this.#others = options.others;
    this.#apiOf = options.apiOf;
  }

  /** Returns the body with the user's token, or unchanged if there is none. */
  async decorateRequestBodyForAuth(
    authProvider: string,
    requestBody: KubernetesRequestBody,
  ): Promise<KubernetesRequestBody> {
    const provider = oidcProvider(authProvider);
    if (provider === undefined) {
      return this.#others.decorateRequestBodyForAuth(authProvider, requestBody);
    }
    const token = await this.#tokenWithoutLogin(provider);
    if (token === '') {
      this.#askOnce(provider);
      return requestBody;
    }
    const { auth } = requestBody;
    const tokens = auth?.oidc as Record<string, string> | undefined;
    return { ...requestBody, auth: { ...auth, oidc: { ...tokens, [provider]: token } } };
  }

  /** Called for what a user asks for by a click, such as logs. So it waits for the login. */
  async getCredentials(authProvider: string): Promise<{ token?: string }> {
    const provider = oidcProvider(authProvider);
    if (provider === undefined) {
      return this.#others.getCredentials(authProvider);
    }
    try {
      const token = await this.#apiOf(provider).getIdToken();
      return token === '' ? {} : { token };
    } catch {
      return {}; // refused; the cluster then answers that nobody is logged in
    }
  }

  async #tokenWithoutLogin(provider: string): Promise<string> {
    try {
      return await this.#apiOf(provider).getIdToken({ optional: true });
    } catch {
      return '';
    }
  }

  #askOnce(provider: string): void {
    if (this.#asked.has(provider)) {
      return;
    }
    this.#asked.add(provider);
    this.#apiOf(provider)
      .getIdToken()
      .then(
        () => this.#asked.delete(provider), // asked again once this login has ended
        () => {}, // refused
      );
  }
}

/** The name after `oidc.`, as the Kubernetes plugin writes the auth provider of a cluster. */
function oidcProvider(authProvider: string): string | undefined {
  return authProvider.startsWith(OIDC) ? authProvider.slice(OIDC.length) : undefined;
}
