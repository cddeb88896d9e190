import type { Entity } from '@backstage/catalog-model';
import { anyMatches, Glob } from '../glob';

/** Names, lists and globs of clusters, separated by commas. Backstage's `singleTenant` locator reads it as one name. */
export const CLUSTER_ANNOTATION = 'backstage.io/kubernetes-cluster';
/** Names, uids, lists and globs of Palette projects, separated by commas. */
export const PROJECT_ANNOTATION = 'palette-sync.io/project';

/** What the selection has to know of a cluster. */
export interface KnownCluster {
  readonly name: string;
  readonly project?: { readonly uid: string; readonly name: string };
}

export type SelectedBy = 'cluster annotation' | 'relation' | 'project annotation' | 'system';

export interface Selection {
  readonly by: SelectedBy;
  /** Names in lower case. May hold none: the entity selects clusters, and none of them is known. */
  readonly names: ReadonlySet<string>;
}

// No sensible list is longer, and the time that matching takes grows with it.
const MOST_CHARACTERS = 2_000;
// Of the Resource's own relations this one points at what uses it.
const INVERSE = 'dependencyOf';

/**
 * Which clusters an entity selects, by the first of these that it has: the cluster annotation, relations to the Resources
 * of clusters, the project annotation, and (with `systems`) a System named like a Palette project. Undefined if it has none
 * of them. Letter case does not count, since the catalog lowers it in references. Pure.
 */
export function selectionOf(
  entity: Entity | undefined,
  known: Iterable<KnownCluster>,
  { systems }: { readonly systems: boolean },
): Selection | undefined {
  const annotations = entity?.metadata?.annotations ?? {};
  const clusters = [...known];
  const named = annotations[CLUSTER_ANNOTATION];
  if (typeof named === 'string' && named.trim() !== '') {
    return select(
      'cluster annotation',
      clusters,
      matcher(named, ({ name }) => [name]),
    );
  }
  const related = namesOf(entity, 'resource');
  const isRelated = ({ name }: KnownCluster) => related.has(name.toLowerCase());
  if (clusters.some(isRelated)) {
    return select('relation', clusters, isRelated);
  }
  const project = annotations[PROJECT_ANNOTATION];
  if (typeof project === 'string' && project.trim() !== '') {
    return select('project annotation', clusters, matcher(project, projectNames));
  }
  const inSystem = systems ? namesOf(entity, 'system') : new Set<string>();
  const isOfSystem = (one: KnownCluster) => one.project !== undefined && inSystem.has(entityName(one.project.name));
  return clusters.some(isOfSystem) ? select('system', clusters, isOfSystem) : undefined;
}

function select(by: SelectedBy, clusters: readonly KnownCluster[], fits: (one: KnownCluster) => boolean): Selection {
  return { by, names: new Set(clusters.filter(fits).map(({ name }) => name.toLowerCase())) };
}

function matcher(
  list: string,
  textsOf: (cluster: KnownCluster) => readonly string[],
): (cluster: KnownCluster) => boolean {
  const patterns = list.slice(0, MOST_CHARACTERS).toLowerCase().split(',');
  const globs = patterns
    .map(pattern => pattern.trim())
    .filter(pattern => pattern !== '')
    .map(pattern => new Glob(pattern));
  return cluster =>
    anyMatches(
      globs,
      textsOf(cluster).map(text => text.toLowerCase()),
    );
}

function projectNames({ project }: KnownCluster): string[] {
  return project === undefined ? [] : [project.name, project.uid];
}

/** The names of the entities of one kind that `entity` has relations to, in whatever namespace, in lower case. */
function namesOf(entity: Entity | undefined, kind: string): Set<string> {
  const names = new Set<string>();
  for (const { type, targetRef } of entity?.relations ?? []) {
    const [, ofKind, name] = /^([^:/]+):[^:/]+\/([^:/]+)$/.exec(targetRef.toLowerCase()) ?? [];
    if (ofKind === kind && name !== undefined && type !== INVERSE) {
      names.add(name);
    }
  }
  return names;
}

/** The name that the catalog module gives to the System of a project, in lower case. */
function entityName(project: string): string {
  const name = project.replace(/[^A-Za-z0-9_.]+/g, '-').slice(0, 63);
  return name.replace(/^[-_.]+|[-_.]+$/g, '').toLowerCase();
}
