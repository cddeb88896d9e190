import { ANNOTATION_LOCATION, ANNOTATION_ORIGIN_LOCATION, type ResourceEntity } from '@backstage/catalog-model';
import type { ClusterRecord } from '../snapshot/decode';
import { type CatalogSettings, fullOwnerRef } from './settings';

/** What the Kubernetes plugin's cluster page reads (`ANNOTATION_KUBERNETES_API_SERVER` of plugin-kubernetes-common). */
const API_SERVER = 'kubernetes.io/api-server';
const MOST = 63;

/**
 * Describes a cluster as a Resource. Its name is the cluster's, so that the pages of the Kubernetes plugin find it. Of the
 * annotations that a `catalog` cluster locator asks for it has the address only: that locator needs all of address, CA and
 * auth provider, so it does not list the cluster a second time.
 */
export function entityOf(record: ClusterRecord, settings: CatalogSettings): ResourceEntity {
  const location = `palette-sync:${record.instance}/${record.uid}`;
  const system = settings.projectAs === 'tag' ? '' : entityName(record.project?.name ?? '');
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
        ...ownAnnotations(record, settings.annotationPrefix),
        ...(isHttp(record.server?.url) && { [API_SERVER]: record.server.url }),
      },
      tags: tagsOf(record, settings),
      ...(isHttp(record.dashboardUrl) && {
        links: [{ url: record.dashboardUrl, title: 'Palette', icon: 'dashboard' }],
      }),
    },
    spec: {
      type: settings.type,
      owner: ownerOf(record, settings),
      ...(system && { system: `system:default/${system}` }),
    },
  };
}

/** `*-id`, `*-name`, `scope` and `cloud-type` are what cards made for the in-process plugin read. */
function ownAnnotations(record: ClusterRecord, prefix: string): Record<string, string> {
  const { palette, project } = record;
  const values: Record<string, string | undefined> = {
    instance: record.instance,
    scope: record.scope,
    'cluster-uid': record.uid,
    'cluster-id': record.uid,
    project: project?.name,
    'project-name': project?.name,
    'project-id': project?.uid,
    state: palette.state,
    health: palette.health,
    'cloud-type': palette.cloudType,
    'kubernetes-version': record.kubernetesVersion,
  };
  return Object.fromEntries(
    Object.entries(values).flatMap(([key, value]) => (value ? [[`${prefix}/${key}`, value]] : [])),
  );
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

/** A full reference, because the catalog completes a shorter one with the namespace of the cluster's own entity. */
function ownerOf(record: ClusterRecord, settings: CatalogSettings): string {
  const prefix = `${settings.ownerTag.toLowerCase()}:`;
  const tag = record.palette.tags.find(one => one.toLowerCase().startsWith(prefix));
  return (tag && ownerRef(tag.slice(prefix.length))) || settings.defaultOwner;
}

/** Accepts a bare name too: Palette does not accept a whole reference such as group:default/team-a as a tag everywhere. */
function ownerRef(value: string): string {
  const [, kind, namespace, name] = /^(?:([a-z]+):)?(?:([^/:]+)\/)?([^/:]+)$/i.exec(value.trim()) ?? [];
  const cleanName = entityName(name ?? '');
  const cleanNamespace = entityName(namespace ?? '');
  return cleanName && fullOwnerRef(`${kind ?? 'group'}:${cleanNamespace || 'default'}/${cleanName}`);
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
