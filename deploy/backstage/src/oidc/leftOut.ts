import type { BackstageCredentials } from '@backstage/backend-plugin-api';
import type { TokenProblem } from './token';

/** How often OIDC clusters of one provider were left out of a call, for one reason and one kind of caller. */
export interface LeftOutCount {
  readonly provider: string;
  readonly reason: TokenProblem;
  /** `user`, `service` (such as the plugin's own action), `none`. */
  readonly caller: string;
  readonly calls: number;
  /** Clusters in the latest of these calls. */
  readonly clusters: number;
  readonly lastAt: string;
}

const MOST_ROWS = 200;

/** Counts which OIDC clusters calls did not get. Holds no user and no token. */
export class LeftOut {
  readonly #rows = new Map<string, LeftOutCount>();

  /** `problems` holds one entry for each cluster that was left out of one call. */
  add(
    problems: readonly { readonly provider: string; readonly reason: TokenProblem }[],
    credentials: BackstageCredentials | undefined,
    now: number,
  ): void {
    const caller = (credentials?.principal as { type?: string } | undefined)?.type ?? 'none';
    const clusters = new Map<string, { provider: string; reason: TokenProblem; count: number }>();
    for (const { provider, reason } of problems) {
      const key = `${reason} ${caller} ${provider}`;
      const one = clusters.get(key) ?? { provider, reason, count: 0 };
      one.count += 1;
      clusters.set(key, one);
    }
    for (const [key, { provider, reason, count }] of clusters) {
      const calls = (this.#rows.get(key)?.calls ?? 0) + 1;
      if (calls > 1 || this.#rows.size < MOST_ROWS) {
        const lastAt = new Date(now).toISOString();
        this.#rows.set(key, { provider, reason, caller, calls, clusters: count, lastAt });
      }
    }
  }

  get counts(): LeftOutCount[] {
    return [...this.#rows.values()];
  }
}
