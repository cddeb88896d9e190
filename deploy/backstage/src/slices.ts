import { setImmediate as nextTurn } from 'node:timers/promises';

/** Cuts long work into slices: `pause` lets the event loop run once the current slice has lasted `sliceMs`. */
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
