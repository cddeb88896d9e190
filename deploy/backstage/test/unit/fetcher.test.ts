import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { KubernetesFetcher, ObjectFetchParams } from '@backstage/plugin-kubernetes-node';
import { Circuits, OPEN_MS } from '../../src/fetching/circuit';
import { GuardedFetcher } from '../../src/fetching/fetcher';
import { Slots } from '../../src/fetching/slots';

type Answer = Awaited<ReturnType<KubernetesFetcher['fetchObjectsForService']>>;

const ANSWER: Answer = { errors: [], responses: [] };
const TYPES = ['pods', 'services'].map(
  plural =>
    ({ objectType: plural, group: '', apiVersion: 'v1', plural }) as ObjectFetchParams extends {
      objectTypesToFetch: Set<infer T>;
    }
      ? T
      : never,
);
const never = () => new Promise<Answer>(() => {});

function params(name: string): ObjectFetchParams {
  return {
    serviceId: 'cart',
    clusterDetails: { name, url: `https://${name}.example`, authMetadata: {} },
    credential: { type: 'anonymous' },
    objectTypesToFetch: new Set(TYPES),
    customResources: [],
  };
}

/** A fetcher over `behaviour`, with a clock of its own, and what it was asked. */
function guarded(
  behaviour: (params: ObjectFetchParams) => Promise<Answer>,
  { concurrency = 10, clusterTimeoutMs = 10 } = {},
) {
  const asked: ObjectFetchParams[] = [];
  const clock = { now: 1_000 };
  const fetcher = new GuardedFetcher(
    {
      fetchObjectsForService: one => {
        asked.push(one);
        return behaviour(one);
      },
      fetchPodMetricsByNamespaces: never,
    },
    { clusterTimeoutMs, concurrency },
    () => clock.now,
  );
  return { asked, clock, fetcher };
}

async function messageOf(answer: Promise<Answer>): Promise<string> {
  const { errors, responses } = await answer;
  assert.deepEqual(responses, []);
  assert.deepEqual(
    errors.map(({ errorType }) => errorType),
    ['FETCH_ERROR'],
  );
  return (errors[0] as { message: string }).message;
}

describe('a cluster', () => {
  test('that answers is passed through', async () => {
    const { fetcher } = guarded(async () => ANSWER);

    assert.equal(await fetcher.fetchObjectsForService(params('a')), ANSWER);
  });

  test('that hangs costs its deadline twice, then nothing for 30 s, then one request of one kind', async () => {
    const { asked, clock, fetcher } = guarded(never);
    for (let page = 0; page < 2; page += 1) {
      assert.match(await messageOf(fetcher.fetchObjectsForService(params('a'))), /a did not answer within 0.01 s/);
    }
    assert.deepEqual(fetcher.openCircuits, [{ cluster: 'a', since: 1_000 }]);

    clock.now += OPEN_MS - 1;
    assert.match(await messageOf(fetcher.fetchObjectsForService(params('a'))), /not answered repeatedly.*within 30 s/);
    assert.equal(asked.length, 2);

    clock.now += 1;
    const [probe, other] = await Promise.all([
      messageOf(fetcher.fetchObjectsForService(params('a'))),
      messageOf(fetcher.fetchObjectsForService(params('a'))),
    ]);
    assert.match(probe, /did not answer/);
    assert.match(other, /not answered repeatedly/);
    assert.equal(asked.length, 3);
    assert.equal(asked[2]?.objectTypesToFetch.size, 1);
    assert.deepEqual(fetcher.openCircuits, [{ cluster: 'a', since: 1_000 }]);
  });

  test('that answers again after hanging is asked for everything at once', async () => {
    let hangs = true;
    const { asked, clock, fetcher } = guarded(() => (hangs ? never() : Promise.resolve(ANSWER)));
    await fetcher.fetchObjectsForService(params('a'));
    await fetcher.fetchObjectsForService(params('a'));
    hangs = false;
    clock.now += OPEN_MS;

    assert.equal(await fetcher.fetchObjectsForService(params('a')), ANSWER);
    assert.deepEqual(
      asked.slice(2).map(({ objectTypesToFetch }) => objectTypesToFetch.size),
      [1, 2],
    );
    assert.deepEqual(fetcher.openCircuits, []);
  });

  test('that hangs leaves the others alone, and so does its metrics server', async () => {
    const { fetcher } = guarded(({ clusterDetails }) =>
      clusterDetails.name === 'a' ? never() : Promise.resolve(ANSWER),
    );
    for (let page = 0; page < 3; page += 1) {
      await fetcher.fetchObjectsForService(params('a'));
    }
    const { clusterDetails, credential } = params('b');
    for (let page = 0; page < 3; page += 1) {
      await fetcher.fetchPodMetricsByNamespaces(clusterDetails, credential, new Set(['shop']));
    }

    assert.equal(await fetcher.fetchObjectsForService(params('b')), ANSWER);
  });

  for (const [what, behaviour] of [
    ['rejects', async () => Promise.reject(new Error('certificate has expired\nstack'))],
    [
      'throws',
      () => {
        throw new Error('certificate has expired\nstack');
      },
    ],
  ] as const) {
    test(`whose fetching ${what} is an error of that cluster, and is asked again the next time`, async () => {
      const { asked, fetcher } = guarded(behaviour);

      for (let page = 0; page < 4; page += 1) {
        assert.equal(await messageOf(fetcher.fetchObjectsForService(params('a'))), 'certificate has expired');
      }
      assert.equal(asked.length, 4);
    });
  }
});

describe('concurrency', () => {
  test('is bounded over all clusters, and a cluster that hangs gives its place back at its deadline', async () => {
    let running = 0;
    let most = 0;
    const { fetcher } = guarded(
      async ({ clusterDetails }) => {
        running += 1;
        most = Math.max(most, running);
        await new Promise(resolve => setImmediate(resolve));
        running -= 1;
        return clusterDetails.name === 'c0' ? never() : ANSWER;
      },
      // Long beside what the 19 others need even on a busy machine: a place that a deadline frees is still counted here.
      { concurrency: 3, clusterTimeoutMs: 2_000 },
    );

    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => fetcher.fetchObjectsForService(params(`c${index}`))),
    );

    assert.equal(most, 3);
    assert.equal(answers.filter(answer => answer === ANSWER).length, 19);
  });

  test('is shared by turns: a page with one cluster does not wait for a page with many', async () => {
    const slots = new Slots(1);
    const order: string[] = [];
    const work = (name: string) => async () => {
      order.push(name);
    };
    const big = Array.from({ length: 5 }, (_, index) => slots.run('big page', work(`big ${index}`)));
    const small = slots.run('small page', work('small'));

    await Promise.all([...big, small]);

    assert.deepEqual(order, ['big 0', 'big 1', 'small', 'big 2', 'big 3', 'big 4']);
  });

  test('gives the place back where the work fails', async () => {
    const slots = new Slots(1);

    await assert.rejects(
      slots.run('page', async () => Promise.reject(new Error('x'))),
      /x/,
    );
    assert.equal(await slots.run('page', async () => 'done'), 'done');
  });
});

test('an answer between two timeouts keeps a circuit closed', () => {
  const circuits = new Circuits();
  circuits.timedOut('a', 0);
  circuits.answered('a');
  circuits.timedOut('a', 1);

  assert.equal(circuits.admit('a', 2), 'pass');
});
