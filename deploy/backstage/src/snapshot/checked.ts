import type { Sealer } from '../seal';
import { decodeCheck } from './head';
import { checkedText, type Place } from './macs';

// The clocks of the daemon and of this machine may differ by this much.
const MOST_AHEAD_MS = 300_000;

/** The fields of the head that hold the last check, in the order in which `checkedAtOf` takes their values. */
export const CHECK_FIELDS = ['epoch', 'version', 'checked_at', 'checked_mac'] as const;

/**
 * When the daemon last confirmed the snapshot; milliseconds since 1970. Undefined if the time is missing, not authentic or
 * more than five minutes ahead of `now`: the version stays valid all the same.
 */
export function checkedAtOf(
  place: Place,
  values: readonly (string | null | undefined)[],
  sealer: Sealer,
  now: number,
): number | undefined {
  const check = decodeCheck(Object.fromEntries(CHECK_FIELDS.map((field, at) => [field, values[at] ?? undefined])));
  if (check === undefined || check.checkedAt > now + MOST_AHEAD_MS) {
    return undefined;
  }
  const text = checkedText(place, check.epoch, check.version, check.checkedAtText);
  return sealer.isAuthentic(text, check.mac) ? check.checkedAt : undefined;
}
