import type { ClusterDetails, KubernetesFetcher, ObjectFetchParams } from '@backstage/plugin-kubernetes-node';
import { brief } from '../brief';
import { currentCall } from '../call';
import type { FetchSettings } from '../config';
import { Circuits, OPEN_MS } from './circuit';
import { Slots } from './slots';

type Answer = Awaited<ReturnType<KubernetesFetcher['fetchObjectsForService']>>;
type Outcome = { readonly answer: Answer } | { readonly error: string } | { readonly late: true };

/** A cluster that did not answer and is therefore not asked at present. */
export interface OpenCircuit {
  readonly cluster: string;
  readonly since: number;
}

/**
 * Wraps Backstage's own fetcher so that no cluster holds up a page: each cluster has a deadline, one that misses it twice
 * is not asked for 30 s, and only so many clusters are asked at the same time. Never rejects: what goes wrong is an error of
 * that cluster, which the page shows beside the answers of the others.
 */
export class GuardedFetcher implements KubernetesFetcher {
  readonly #circuits = new Circuits();
  readonly #slots: Slots;

  constructor(
    private readonly inner: KubernetesFetcher,
    private readonly settings: FetchSettings,
    private readonly now: () => number = Date.now,
  ) {
    this.#slots = new Slots(settings.concurrency);
  }

  get openCircuits(): OpenCircuit[] {
    return this.#circuits.open.map(({ key, since }) => ({ cluster: (JSON.parse(key) as string[])[0] ?? '', since }));
  }

  async fetchObjectsForService(params: ObjectFetchParams): Promise<Answer> {
    const fetchAll = () => this.inner.fetchObjectsForService(params);
    // A cluster that hangs keeps the sockets of what it was asked, so a probe asks for one kind of object only.
    const [first] = params.objectTypesToFetch;
    const probe = first && { ...params, objectTypesToFetch: new Set([first]), customResources: [] };
    return this.#guarded(
      'objects',
      params.clusterDetails,
      fetchAll,
      probe && (() => this.inner.fetchObjectsForService(probe)),
    );
  }

  async fetchPodMetricsByNamespaces(
    ...args: Parameters<KubernetesFetcher['fetchPodMetricsByNamespaces']>
  ): Promise<Answer> {
    return this.#guarded('metrics', args[0], () => this.inner.fetchPodMetricsByNamespaces(...args));
  }

  /** Metrics have a circuit of their own: the metrics server may hang while the API server answers. */
  async #guarded(
    what: 'objects' | 'metrics',
    cluster: ClusterDetails,
    fetch: () => Promise<Answer>,
    probe: () => Promise<Answer> = fetch,
  ): Promise<Answer> {
    const key = JSON.stringify([cluster.name, what, cluster.url]);
    return this.#slots.run(currentCall(), async () => {
      const passage = this.#circuits.admit(key, this.now());
      if (passage === 'refuse') {
        return failed(`${cluster.name} has not answered repeatedly; it is asked again within ${OPEN_MS / 1000} s`);
      }
      if (passage === 'probe') {
        const probed = await this.#inTime(key, probe);
        if ('late' in probed || probe === fetch) {
          return this.#answerOf(cluster, probed);
        }
      }
      return this.#answerOf(cluster, await this.#inTime(key, fetch));
    });
  }

  /** Waits no longer than the deadline. Backstage's fetcher cannot be stopped, so a late answer is dropped. */
  async #inTime(key: string, fetch: () => Promise<Answer>): Promise<Outcome> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<Outcome>(resolve => {
      timer = setTimeout(() => resolve({ late: true }), this.settings.clusterTimeoutMs);
    });
    const fetched = (async () => fetch())().then(
      (answer): Outcome => ({ answer }),
      (error): Outcome => ({ error: brief(error) }),
    );
    const outcome = await Promise.race([fetched, late]);
    clearTimeout(timer);
    if ('late' in outcome) {
      this.#circuits.timedOut(key, this.now());
    } else {
      this.#circuits.answered(key);
    }
    return outcome;
  }

  #answerOf(cluster: ClusterDetails, outcome: Outcome): Answer {
    if ('answer' in outcome) {
      return outcome.answer;
    }
    if ('error' in outcome) {
      return failed(outcome.error);
    }
    return failed(`${cluster.name} did not answer within ${this.settings.clusterTimeoutMs / 1000} s`);
  }
}

function failed(message: string): Answer {
  return { errors: [{ errorType: 'FETCH_ERROR', message }], responses: [] };
}
