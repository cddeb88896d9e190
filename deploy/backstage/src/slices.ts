import { setImmediate as nextTurn } from 'node:timers/promises';

/** Long work cut into slices: `pause` lets the event loop turn once the present slice has lasted long enough. */
export class Slices {
  #began = performance.now();

  constructor(private readonly sliceMs = 8) {}

  async pause(): Promise<void> {
    if (performance.now() - this.#began >= this.sliceMs) {
      await nextTurn();
      this.#began = performance.now();
    }
  }
}
