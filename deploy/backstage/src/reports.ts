import type { LoggerService } from '@backstage/backend-plugin-api';
import type { Directory } from './directory';
import { ageOf } from './health';
import type { Sealer } from './seal';
import type { InstanceState } from './snapshot/follower';

/** Logs changes that concern an operator, once each: counts, unknown seal keys, a daemon that stopped reading Palette. */
export class Reports {
  readonly #counts = new Map<string, string>();
  readonly #kids = new Set<string>();
  readonly #stale = new Set<string>();

  constructor(
    private readonly logger: LoggerService,
    private readonly directory: Directory,
    private readonly sealer: Sealer,
    private readonly maxSnapshotAgeMs: number,
  ) {}

  report(instances: readonly InstanceState[], now: number): void {
    for (const state of instances) {
      if (state.snapshot !== undefined) {
        this.#reportCounts(state, now);
        this.#reportUnknownKeys(state);
        this.#reportAge(state, now);
      }
    }
  }

  #reportCounts({ name, snapshot }: InstanceState, now: number): void {
    const { served, withheld } = this.directory.counts(name, now);
    const reasons = Object.entries(withheld).map(([reason, count]) => `${count} ${reason}`);
    const text = `${served} clusters served${reasons.length > 0 ? `, withheld: ${reasons.join(', ')}` : ''}`;
    if (this.#counts.get(name) !== text) {
      this.#counts.set(name, text);
      this.logger.info(`palette-sync: ${name}: ${text} (version ${snapshot?.head.version})`);
    }
  }

  #reportUnknownKeys({ name, snapshot }: InstanceState): void {
    const counts = new Map<string, number>();
    for (const { credential } of snapshot?.entries.values() ?? []) {
      const kid = credential?.refused?.kid;
      if (kid !== undefined) {
        counts.set(kid, (counts.get(kid) ?? 0) + 1);
      }
    }
    for (const [kid, count] of counts) {
      if (!this.#kids.has(`${name}/${kid}`)) {
        this.#kids.add(`${name}/${kid}`);
        this.logger.error(
          `palette-sync: ${name}: ${count} tokens are sealed with the key ${kid}, which is not among the seal keys here ` +
            `(${this.sealer.keys}); their clusters are withheld until its line is added to paletteSync.sealKeys or the daemon renews them`,
        );
      }
    }
  }

  #reportAge(state: InstanceState, now: number): void {
    const { name } = state;
    const isStale = (ageOf(state, now) ?? 0) > this.maxSnapshotAgeMs;
    if (isStale && !this.#stale.has(name)) {
      this.#stale.add(name);
      const minutes = Math.round((ageOf(state, now) ?? 0) / 60_000);
      this.logger.warn(
        `palette-sync: ${name}: the daemon has not read Palette for ${minutes} min; check whether it runs. The clusters stay until their tokens expire`,
      );
    } else if (!isStale && this.#stale.delete(name)) {
      this.logger.info(`palette-sync: ${name}: the daemon reads Palette again`);
    }
  }
}
