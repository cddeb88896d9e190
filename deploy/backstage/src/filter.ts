import type { ClusterRecord } from './snapshot/decode';

/**
 * Names and globs (`*`, `?`, `[ab]`, `[!a-c]`), as in the daemon's configuration: an empty include list includes everything, exclude lists
 * always win. Projects match by name or uid, tags as `key:value` or as the plain tag.
 */
export interface Filter {
  readonly includeProjects: readonly string[];
  readonly excludeProjects: readonly string[];
  readonly includeTags: readonly string[];
  readonly excludeTags: readonly string[];
}

/** Returns the test of a filter. A cluster of no project passes only where projects are not chosen by name. */
export function compileFilter(filter: Filter): (record: ClusterRecord) => boolean {
  const [inProjects, outProjects, inTags, outTags] = [
    filter.includeProjects,
    filter.excludeProjects,
    filter.includeTags,
    filter.excludeTags,
  ].map(globs => globs.map(compileGlob)) as [RegExp[], RegExp[], RegExp[], RegExp[]];
  return record => {
    const projects = record.project ? [record.project.name, record.project.uid] : [];
    const { tags } = record.palette;
    return (
      (inProjects.length === 0 || anyMatches(inProjects, projects)) &&
      (inTags.length === 0 || anyMatches(inTags, tags)) &&
      !anyMatches(outProjects, projects) &&
      !anyMatches(outTags, tags)
    );
  };
}

function anyMatches(globs: readonly RegExp[], names: readonly string[]): boolean {
  return globs.some(glob => names.some(name => glob.test(name)));
}

// One star however many there are (more would make matching slow), one character, one of a set, or itself.
const GLOB_PART = /\*+|\?|\[(?:!(?:\][^\]]*|[^\]]+)|(?!!)(?:\][^\]]*|[^\]]+))\]|./gsu;

function compileGlob(glob: string): RegExp {
  const pattern = glob.replace(GLOB_PART, part => {
    if (part.startsWith('*')) {
      return '[^]*';
    }
    if (part === '?') {
      return '[^]';
    }
    return part.length > 2 && part.startsWith('[') ? compileSet(part.slice(1, -1)) : part.replace(SYNTAX, '\\$&');
  });
  return new RegExp(`^${pattern}$`, 'u');
}

const SYNTAX = /[.+*?^${}()|[\]\\]/g;

function compileSet(written: string): string {
  const [negated, members] = written.startsWith('!') ? ['^', [...written.slice(1)]] : ['', [...written]];
  let set = '';
  for (let at = 0; at < members.length; ) {
    const [first = '', dash, last] = members.slice(at, at + 3);
    const isRange = dash === '-' && last !== undefined;
    if (!isRange) {
      set += escaped(first);
    } else if ((first.codePointAt(0) ?? 0) <= (last.codePointAt(0) ?? 0)) {
      set += `${escaped(first)}-${escaped(last)}`; // a range that runs backwards holds nothing
    }
    at += isRange ? 3 : 1;
  }
  return `[${negated}${set}]`;
}

function escaped(member: string): string {
  return member.replace(/[\\[\]^-]/, '\\$&');
}
