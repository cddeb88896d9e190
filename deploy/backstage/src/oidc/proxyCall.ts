import type { IncomingHttpHeaders } from 'node:http';
import type { Call } from '../call';
import { tokenIn } from './token';

const PROXY = /^\/proxy(\/|$)/;
// How the frontend sends a user's token to the proxy: backstage-kubernetes-authorization-oidc-<provider>.
const HEADER = 'backstage-kubernetes-authorization-oidc-';

/** The call of a request through the Kubernetes plugin's proxy; undefined for other requests. Pure. */
export function proxyCallOf(path: string, headers: IncomingHttpHeaders): Call | undefined {
  if (!PROXY.test(path)) {
    return undefined;
  }
  return {
    kind: 'proxy',
    tokenOf: provider => tokenIn({ oidc: { [provider]: headers[`${HEADER}${provider.toLowerCase()}`] } }, provider),
    notices: [],
  };
}
