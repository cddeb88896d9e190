import type { ClusterRecord } from './snapshot/decode';

/**
 * Names and globs (`*`, `?`), as in the daemon's configuration: an empty include list includes everything, exclude lists
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

function compileGlob(glob: string): RegExp {
  const pattern = glob
    .replace(/\*+/g, '*') // adjacent stars mean the same as one and would make matching slow
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '[^]*')
    .replaceAll('?', '[^]');
  return new RegExp(`^${pattern}$`, 'u');
}
