/** How a circuit decides: how many timeouts in a row open it, and for how long it then refuses at once. */
export const TIMEOUTS_TO_OPEN = 2;
export const OPEN_MS = 30_000;

export type Passage = 'pass' | 'probe' | 'refuse';

interface State {
  timeouts: number;
  /** When the next probe may pass; absent while the circuit is closed. */
  retryAt?: number;
  openSince?: number;
}

const MOST_KEYS = 20_000;

/**
 * The circuit breakers of all clusters, by key. After two timeouts in a row a circuit opens: everything is refused at once
 * for 30 s, then one probe passes. If the probe is answered the circuit closes, else it stays open for another 30 s. No I/O
 * and no clock: `now` is in milliseconds.
 */
export class Circuits {
  readonly #states = new Map<string, State>();

  admit(key: string, now: number): Passage {
    const state = this.#states.get(key);
    if (state?.retryAt === undefined) {
      return 'pass';
    }
    if (now < state.retryAt) {
      return 'refuse';
    }
    state.retryAt = now + OPEN_MS; // others are refused while the probe is under way
    return 'probe';
  }

  answered(key: string): void {
    this.#states.delete(key);
  }

  timedOut(key: string, now: number): void {
    if (!this.#states.has(key) && this.#states.size >= MOST_KEYS) {
      return;
    }
    const state = this.#states.get(key) ?? { timeouts: 0 };
    state.timeouts += 1;
    if (state.timeouts >= TIMEOUTS_TO_OPEN) {
      state.retryAt = now + OPEN_MS;
      state.openSince ??= now;
    }
    this.#states.set(key, state);
  }

  /** The open circuits, and since when. */
  get open(): { readonly key: string; readonly since: number }[] {
    return [...this.#states].flatMap(([key, { openSince }]) =>
      openSince === undefined ? [] : [{ key, since: openSince }],
    );
  }
}
