import { ANNOTATION_LOCATION, ANNOTATION_ORIGIN_LOCATION, type ResourceEntity } from '@backstage/catalog-model';
import type { CatalogSettings } from '../config';
import type { ClusterRecord } from '../snapshot/decode';

/** What Backstage calls a cluster among Resources. */
export const CLUSTER_TYPE = 'kubernetes-cluster';
const ANNOTATIONS = 'palette-sync';
const MOST = 63;

/**
 * Describes a cluster as a Resource. Its name is the cluster's, so that the pages of the Kubernetes plugin find it. It has
 * no address annotations: with them the catalog locator would list the cluster a second time.
 */
export function entityOf(record: ClusterRecord, settings: CatalogSettings): ResourceEntity {
  const location = `palette-sync:${record.instance}/${record.uid}`;
  const project = record.project?.name;
  const system = project !== undefined && settings.projectAs !== 'tag' ? entityName(project) : undefined;
  const { palette } = record;
  return {
    apiVersion: 'backstage.io/v1alpha1',
    kind: 'Resource',
    metadata: {
      name: record.name,
      namespace: settings.namespace,
      ...(record.title && { title: record.title }),
      description: describe(record),
      annotations: {
        [ANNOTATION_LOCATION]: location,
        [ANNOTATION_ORIGIN_LOCATION]: location,
        [`${ANNOTATIONS}/instance`]: record.instance,
        [`${ANNOTATIONS}/cluster-uid`]: record.uid,
        ...(project !== undefined && { [`${ANNOTATIONS}/project`]: project }),
        ...(palette.state && { [`${ANNOTATIONS}/state`]: palette.state }),
        ...(palette.health && { [`${ANNOTATIONS}/health`]: palette.health }),
        ...(record.kubernetesVersion && { [`${ANNOTATIONS}/kubernetes-version`]: record.kubernetesVersion }),
      },
      tags: tagsOf(record, settings),
      ...(isHttp(record.dashboardUrl) && {
        links: [{ url: record.dashboardUrl, title: 'Palette', icon: 'dashboard' }],
      }),
    },
    spec: {
      type: CLUSTER_TYPE,
      owner: ownerOf(record, settings),
      ...(system && { system }),
    },
  };
}

/** Entities whose names differ only in case are one to the catalog: the first stays. Returns the names left out, too. */
export function entitiesOf(
  records: Iterable<ClusterRecord>,
  settings: CatalogSettings,
): { entities: ResourceEntity[]; duplicates: string[] } {
  const entities = new Map<string, ResourceEntity>();
  const duplicates: string[] = [];
  for (const record of records) {
    const name = record.name.toLowerCase();
    if (!/^([a-z0-9][-a-z0-9_.]{0,61})?[a-z0-9]$/.test(name) || entities.has(name)) {
      duplicates.push(record.name);
    } else {
      entities.set(name, entityOf(record, settings));
    }
  }
  return { entities: [...entities.values()], duplicates };
}

function describe(record: ClusterRecord): string {
  const place = record.project ? `of the project ${record.project.name}` : 'of the tenant';
  const cloud = record.palette.cloudType ? ` (${record.palette.cloudType})` : '';
  return `A Kubernetes cluster${cloud} ${place} in the Palette instance ${record.instance}`;
}

function ownerOf(record: ClusterRecord, settings: CatalogSettings): string {
  const prefix = `${settings.ownerTag.toLowerCase()}:`;
  const tag = record.palette.tags.find(one => one.toLowerCase().startsWith(prefix));
  return (tag && ownerName(tag.slice(prefix.length))) || settings.defaultOwner;
}

/** A Palette tag cannot hold a whole reference such as group:default/team-a in every version, so a bare name will do. */
function ownerName(value: string): string {
  const reference = /^(?:([a-z]+):)?(?:([^/:]+)\/)?([^/:]+)$/i.exec(value.trim());
  const [, kind, namespace, name] = reference ?? [];
  const clean = name && entityName(name);
  const within = namespace && entityName(namespace);
  return clean ? `${kind ? `${kind}:` : ''}${within ? `${within}/` : ''}${clean}` : '';
}

function tagsOf(record: ClusterRecord, settings: CatalogSettings): string[] {
  const project = record.project && settings.projectAs !== 'system' ? [`project:${record.project.name}`] : [];
  const tags = [record.instance, ...project, record.palette.cloudType, ...record.palette.tags].map(tagName);
  return [...new Set(tags.filter(Boolean))];
}

function tagName(text: string): string {
  const tag = text
    .toLowerCase()
    .replace(/[^a-z0-9:+#]+/g, '-')
    .slice(0, MOST);
  return tag.replace(/^-+|-+$/g, '');
}

function entityName(text: string): string {
  const name = text.replace(/[^A-Za-z0-9_.]+/g, '-').slice(0, MOST);
  return name.replace(/^[-_.]+|[-_.]+$/g, '');
}

function isHttp(url: string | undefined): url is string {
  return url !== undefined && /^https?:\/\//.test(url) && URL.canParse(url);
}
