/**
 * Globs as the daemon reads them (Python's `fnmatchcase`): `*`, `?`, `[ab]` and `[!a-c]`. Matching takes at most
 * `pattern length * text length` steps, so no pattern can hold the event loop.
 */

/** One place of a pattern. `any` matches one character, `star` any number of them. */
type Part =
  | { readonly kind: 'star' }
  | { readonly kind: 'any' }
  | { readonly kind: 'one'; readonly character: string }
  | { readonly kind: 'set'; readonly ranges: readonly (readonly [number, number])[]; readonly negated: boolean };

/** A compiled glob. */
export class Glob {
  readonly #parts: readonly Part[];

  constructor(pattern: string) {
    this.#parts = partsOf([...pattern]);
  }

  /** Whether the whole of `text` matches. `onStep` is called once per comparison, for tests of the growth. */
  matches(text: string, onStep?: () => void): boolean {
    const parts = this.#parts;
    const characters = [...text];
    let part = 0;
    let at = 0;
    // Only the last star has to be extended: whatever an earlier one could match more, the last one can match, too.
    let star = -1;
    let starAt = 0;
    while (at < characters.length) {
      onStep?.();
      const current = parts[part];
      if (current?.kind === 'star') {
        star = part;
        starAt = at;
        part += 1;
      } else if (current !== undefined && fits(current, characters[at] ?? '')) {
        part += 1;
        at += 1;
      } else if (star >= 0) {
        starAt += 1;
        at = starAt;
        part = star + 1;
      } else {
        return false;
      }
    }
    while (parts[part]?.kind === 'star') {
      part += 1;
    }
    return part === parts.length;
  }
}

/** Whether any of `globs` matches any of `texts`. */
export function anyMatches(globs: readonly Glob[], texts: readonly string[]): boolean {
  return globs.some(glob => texts.some(text => glob.matches(text)));
}

function partsOf(pattern: readonly string[]): Part[] {
  const parts: Part[] = [];
  for (let at = 0; at < pattern.length; ) {
    const character = pattern[at] ?? '';
    const end = character === '[' ? endOfSet(pattern, at) : -1;
    if (end > 0) {
      parts.push(setOf(pattern.slice(at + 1, end)));
      at = end + 1;
      continue;
    }
    if (character !== '*') {
      parts.push(character === '?' ? { kind: 'any' } : { kind: 'one', character });
    } else if (parts.at(-1)?.kind !== 'star') {
      parts.push({ kind: 'star' });
    }
    at += 1;
  }
  return parts;
}

/** Where the set that begins at `start` ends, or -1: then its `[` is an ordinary character. A leading `]` is a member. */
function endOfSet(pattern: readonly string[], start: number): number {
  const first = pattern[start + 1] === '!' ? start + 2 : start + 1;
  return pattern.indexOf(']', first + 1);
}

function setOf(written: readonly string[]): Part {
  const negated = written[0] === '!';
  const members = negated ? written.slice(1) : written;
  const ranges: [number, number][] = [];
  for (let at = 0; at < members.length; ) {
    const isRange = members[at + 1] === '-' && members[at + 2] !== undefined;
    const first = codePoint(members[at]);
    ranges.push([first, isRange ? codePoint(members[at + 2]) : first]); // a range that runs backwards holds nothing
    at += isRange ? 3 : 1;
  }
  return { kind: 'set', ranges, negated };
}

function fits(part: Part, character: string): boolean {
  switch (part.kind) {
    case 'one':
      return part.character === character;
    case 'set': {
      const point = codePoint(character);
      return part.ranges.some(([first, last]) => first <= point && point <= last) !== part.negated;
    }
    default:
      return true;
  }
}

function codePoint(character: string | undefined): number {
  return character?.codePointAt(0) ?? -1;
}
