import type {
  CustomResourcesByEntity,
  KubernetesObjectsByEntity,
  KubernetesObjectsProvider,
} from '@backstage/plugin-kubernetes-node';
import { type Call, duringCall } from '../call';
import { tokenIn } from './token';

type Options = Parameters<KubernetesObjectsProvider['getKubernetesObjectsByEntity']>[1];
type Answer = Awaited<ReturnType<KubernetesObjectsProvider['getKubernetesObjectsByEntity']>>;

/**
 * Runs Backstage's own objects provider so that `getClusters` knows the tokens of the request: `getClusters` receives the
 * caller's credentials only, but this provider receives the tokens. Adds the notices of the call to the answer.
 */
export class CallObjectsProvider implements KubernetesObjectsProvider {
  constructor(private readonly inner: KubernetesObjectsProvider) {}

  async getKubernetesObjectsByEntity(query: KubernetesObjectsByEntity, options: Options): Promise<Answer> {
    return this.#during(query.auth, () => this.inner.getKubernetesObjectsByEntity(query, options));
  }

  async getCustomResourcesByEntity(query: CustomResourcesByEntity, options: Options): Promise<Answer> {
    return this.#during(query.auth, () => this.inner.getCustomResourcesByEntity(query, options));
  }

  async #during(auth: unknown, run: () => Promise<Answer>): Promise<Answer> {
    const call: Call = { kind: 'query', tokenOf: provider => tokenIn(auth, provider), notices: [] };
    const answer = await duringCall(call, run);
    return call.notices.length === 0 ? answer : { ...answer, items: [...answer.items, noticeItem(call.notices)] };
  }
}

/** The page shows errors of clusters, so a notice is the error of an entry that is not a cluster. */
function noticeItem(notices: readonly string[]): Answer['items'][number] {
  return {
    cluster: { name: 'palette-sync' },
    resources: [],
    podMetrics: [],
    errors: notices.map(message => ({ errorType: 'FETCH_ERROR', message })),
  };
}
