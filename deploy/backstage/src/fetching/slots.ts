/**
 * A bounded number of slots, shared fairly: whoever waits is served by turns of owners (pages), so that a page with 2,000
 * clusters does not hold up a page with one.
 */
export class Slots {
  readonly #waiting = new Map<unknown, (() => void)[]>();
  #free: number;

  constructor(count: number) {
    this.#free = count;
  }

  /** Runs `work` once there is a slot, which is given back when `work` settles. */
  async run<T>(owner: unknown, work: () => Promise<T>): Promise<T> {
    await this.#take(owner);
    try {
      return await work();
    } finally {
      this.#giveBack();
    }
  }

  async #take(owner: unknown): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    await new Promise<void>(resolve => {
      const queue = this.#waiting.get(owner);
      if (queue === undefined) {
        this.#waiting.set(owner, [resolve]);
      } else {
        queue.push(resolve);
      }
    });
  }

  #giveBack(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free += 1;
      return;
    }
    const [owner, queue] = next;
    const resume = queue.shift();
    this.#waiting.delete(owner);
    if (queue.length > 0) {
      this.#waiting.set(owner, queue); // to the end of the line
    }
    resume?.();
  }
}
