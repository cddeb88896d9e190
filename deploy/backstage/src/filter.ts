import { anyMatches, Glob } from './glob';
import type { ClusterRecord } from './snapshot/decode';

/**
 * Names and globs, with the daemon's meaning: an empty include list includes everything, and exclude lists always win.
 * Projects match by name or uid, tags as `key:value` or as the plain tag.
 */
export interface Filter {
  readonly includeProjects: readonly string[];
  readonly excludeProjects: readonly string[];
  readonly includeTags: readonly string[];
  readonly excludeTags: readonly string[];
  readonly excludeTenantScopedClusters: boolean;
}

/** Tests whether any of the globs matches a tag of the cluster. */
export function compileTags(globs: readonly string[]): (record: ClusterRecord) => boolean {
  const compiled = globs.map(glob => new Glob(glob));
  return record => anyMatches(compiled, record.palette.tags);
}

/**
 * Returns the test of a filter. As in the daemon, project lists do not apply to clusters in the tenant's scope, which have
 * a switch of their own. A cluster whose project is unknown is left out wherever projects are selected.
 */
export function compileFilter(filter: Filter): (record: ClusterRecord) => boolean {
  const includesProject = filter.includeProjects.map(glob => new Glob(glob));
  const excludesProject = filter.excludeProjects.map(glob => new Glob(glob));
  const hasIncludedTag = compileTags(filter.includeTags);
  const hasExcludedTag = compileTags(filter.excludeTags);
  const choosesScope = ({ scope, project }: ClusterRecord): boolean => {
    if (scope === 'tenant') {
      return !filter.excludeTenantScopedClusters;
    }
    if (project === undefined) {
      return includesProject.length === 0 && excludesProject.length === 0;
    }
    const names = [project.name, project.uid];
    return !anyMatches(excludesProject, names) && (includesProject.length === 0 || anyMatches(includesProject, names));
  };
  return record =>
    choosesScope(record) && !hasExcludedTag(record) && (filter.includeTags.length === 0 || hasIncludedTag(record));
}
