import type { DashboardSettings } from './config';
import type { ClusterRecord } from './snapshot/decode';

/** The placeholders of the templates `dashboard.url` and `dashboard.parameters`. */
export const PLACEHOLDERS = ['{name}', '{title}', '{uid}', '{instance}', '{project}', '{projectUid}', '{cloudType}'];
const PLACEHOLDER = /\{[^{}]*\}/g;

export function unknownPlaceholders(template: string): string[] {
  return (template.match(PLACEHOLDER) ?? []).filter(one => !PLACEHOLDERS.includes(one));
}

export function isHttpTemplate(template: string): boolean {
  const example = template.replace(PLACEHOLDER, 'x');
  return /^https?:\/\//.test(example) && URL.canParse(example);
}

/** What `ClusterDetails` hold about the dashboard of a cluster; Backstage's frontend makes its links of that. */
export interface DashboardDetails {
  readonly dashboardUrl?: string;
  readonly dashboardApp?: string;
  readonly dashboardParameters?: Record<string, string | number | boolean>;
}

/** Values are percent-encoded in the URL and left as they are in parameters. Pure. */
export function dashboardOf(record: ClusterRecord, settings: DashboardSettings): DashboardDetails {
  if (!settings.links) {
    return {};
  }
  const values = valuesOf(record);
  const url = settings.url === undefined ? record.dashboardUrl : filled(settings.url, values, encodeURIComponent);
  const parameters = Object.entries(settings.parameters ?? {}).map(
    ([key, value]) => [key, typeof value === 'string' ? filled(value, values, one => one) : value] as const,
  );
  return {
    ...(url !== undefined && { dashboardUrl: url }),
    ...(settings.app !== undefined && { dashboardApp: settings.app }),
    ...(parameters.length > 0 && { dashboardParameters: Object.fromEntries(parameters) }),
  };
}

function valuesOf(record: ClusterRecord): Readonly<Record<string, string>> {
  return {
    '{name}': record.name,
    '{title}': record.title,
    '{uid}': record.uid,
    '{instance}': record.instance,
    '{project}': record.project?.name ?? '',
    '{projectUid}': record.project?.uid ?? '',
    '{cloudType}': record.palette.cloudType,
  };
}

function filled(template: string, values: Readonly<Record<string, string>>, encode: (text: string) => string): string {
  return template.replace(PLACEHOLDER, one => encode(values[one] ?? ''));
}
