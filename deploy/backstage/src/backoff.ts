const FIRST_MS = 500;
const MOST_MS = 15_000;

/** How long to wait after `failures` in a row: the pause doubles up to 15 s, and is randomly up to a fifth shorter. */
export function backoffMs(failures: number, random: number = Math.random()): number {
  const full = Math.min(MOST_MS, FIRST_MS * 2 ** Math.min(failures - 1, 16));
  return Math.round(full * (0.8 + 0.2 * random));
}
