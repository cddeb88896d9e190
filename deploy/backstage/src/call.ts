import { AsyncLocalStorage } from 'node:async_hooks';

/** One request for a page, or one through the proxy, as far as `getClusters` has to know it. */
export interface Call {
  /** `query`: several clusters are asked at once. `proxy`: one cluster, which the request names. */
  readonly kind: 'query' | 'proxy';
  /** The user's token of an OIDC provider, if the request has one. */
  readonly tokenOf: (provider: string) => string | undefined;
  /** Sentences that the page shows beside the clusters' answers. */
  readonly notices: string[];
}

const calls = new AsyncLocalStorage<Call>();

/** The call that the running code belongs to. Undefined for everything else, such as the list of clusters. */
export function currentCall(): Call | undefined {
  return calls.getStore();
}

export function duringCall<T>(call: Call, run: () => T): T {
  return calls.run(call, run);
}
