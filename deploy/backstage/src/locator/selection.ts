import type { Entity } from '@backstage/catalog-model';
import { anyMatches, Glob } from '../glob';

/** Names, lists and globs of clusters, separated by commas. Backstage's `singleTenant` locator reads it as one name. */
export const CLUSTER_ANNOTATION = 'backstage.io/kubernetes-cluster';
/** Names, uids, lists and globs of Palette projects, separated by commas. */
export const PROJECT_ANNOTATION = 'palette-sync.io/project';

/** What the selection has to know of a cluster. */
export interface KnownCluster {
  readonly project?: Project;
}

interface Project {
  readonly uid: string;
  readonly name: string;
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
 * of them. `known` holds the clusters by their name in lower case: letter case does not count, since the catalog lowers it
 * in references. Pure.
 */
export function selectionOf(
  entity: Entity | undefined,
  known: ReadonlyMap<string, KnownCluster>,
  { systems }: { readonly systems: boolean },
): Selection | undefined {
  const annotations = entity?.metadata?.annotations ?? {};
  const clusters = listOf(annotations[CLUSTER_ANNOTATION]);
  if (clusters.length > 0) {
    return { by: 'cluster annotation', names: namesMatching(clusters, known) };
  }
  const related = [...namesOf(entity, 'resource')].filter(name => known.has(name));
  if (related.length > 0) {
    return { by: 'relation', names: new Set(related) };
  }
  const projects = listOf(annotations[PROJECT_ANNOTATION]);
  if (projects.length > 0) {
    const globs = projects.map(project => new Glob(project));
    const names = namesOfProjects(known, ({ name, uid }) => anyMatches(globs, [name.toLowerCase(), uid.toLowerCase()]));
    return { by: 'project annotation', names };
  }
  const inSystem = systems ? namesOf(entity, 'system') : new Set<string>();
  const ofSystem =
    inSystem.size > 0 ? namesOfProjects(known, ({ name }) => inSystem.has(entityName(name))) : new Set<string>();
  return ofSystem.size > 0 ? { by: 'system', names: ofSystem } : undefined;
}

function listOf(annotation: unknown): string[] {
  const text = typeof annotation === 'string' ? annotation.slice(0, MOST_CHARACTERS).toLowerCase() : '';
  return text
    .split(',')
    .map(pattern => pattern.trim())
    .filter(pattern => pattern !== '');
}

function namesMatching(patterns: readonly string[], known: ReadonlyMap<string, KnownCluster>): Set<string> {
  const names = new Set(patterns.filter(pattern => known.has(pattern)));
  const globs = patterns.filter(pattern => /[*?[]/.test(pattern)).map(pattern => new Glob(pattern));
  if (globs.length > 0) {
    for (const name of known.keys()) {
      if (anyMatches(globs, [name])) {
        names.add(name);
      }
    }
  }
  return names;
}

/** The names of the clusters whose project is chosen; each project is judged once. */
function namesOfProjects(
  known: ReadonlyMap<string, KnownCluster>,
  chooses: (project: Project) => boolean,
): Set<string> {
  const verdicts = new Map<string, boolean>();
  const names = new Set<string>();
  for (const [name, { project }] of known) {
    if (project === undefined) {
      continue;
    }
    const key = `${project.uid} ${project.name}`;
    const verdict = verdicts.get(key) ?? chooses(project);
    verdicts.set(key, verdict);
    if (verdict) {
      names.add(name);
    }
  }
  return names;
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
