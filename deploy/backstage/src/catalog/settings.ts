import { KubernetesValidatorFunctions, parseEntityRef } from '@backstage/catalog-model';
import type { Config } from '@backstage/config';
import { ROOT, readSettings, type Settings, SettingsError, typeProblem } from '../config';

/** How clusters are described in the catalog. */
export interface CatalogSettings {
  readonly namespace: string;
  /** `spec.type` of the Resources. */
  readonly type: string;
  /** What stands before the `/` of this module's own annotations. */
  readonly annotationPrefix: string;
  /** The key of the Palette tag `<key>:<value>` that names the owner. */
  readonly ownerTag: string;
  /** A full reference, such as `group:default/unknown`. */
  readonly defaultOwner: string;
  readonly projectAs: 'tag' | 'system' | 'both';
}

/** Where the settings are read. */
export const PROVIDER = 'catalog.providers.paletteSync';
/** Where they were read before; still read if `PROVIDER` is absent. */
const FORMER = `${ROOT}.catalog`;

const KNOWN = ['namespace', 'type', 'annotationPrefix', 'ownerTag', 'defaultOwner', 'projectAs'];
const TYPE = 'kubernetes-cluster';
const DNS_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/** The settings of the catalog module: those of the connection to Redis, and how clusters are described. */
export interface CatalogModuleSettings {
  readonly common: Settings;
  readonly catalog: CatalogSettings;
}

/** Returns undefined if the section `paletteSync` is missing. Throws SettingsError with the problems of both sections. */
export function readCatalogModuleSettings(root: Config): CatalogModuleSettings | undefined {
  const problems: string[] = [];
  const common = collecting(problems, () => readSettings(root));
  const catalog = collecting(problems, () => readCatalogSettings(root));
  if (problems.length > 0) {
    throw new SettingsError(problems);
  }
  return common && catalog && { common, catalog };
}

/** Throws SettingsError. */
export function readCatalogSettings(root: Config): CatalogSettings {
  const places = [PROVIDER, FORMER].filter(place => isPresent(root, place));
  if (places.length > 1) {
    throw new SettingsError([`${FORMER}: move its keys to ${PROVIDER} and remove it; only one of the two may exist`]);
  }
  const section = new Section(root, places[0] ?? PROVIDER);
  section.refuseUnknownKeys();
  const settings: CatalogSettings = {
    namespace: section.text(
      'namespace',
      'default',
      KubernetesValidatorFunctions.isValidNamespace,
      'is not a namespace; use up to 63 lower-case letters, digits and single - between them',
    ),
    type: section.text('type', TYPE, one => one.trim() !== '', 'is empty'),
    annotationPrefix: section.text(
      'annotationPrefix',
      'palette-sync',
      one => DNS_NAME.test(one),
      'is not a DNS name in lower case, such as palette-sync or example.com',
    ),
    ownerTag: section.text(
      'ownerTag',
      'owner',
      one => !one.includes(':'),
      'is a key of tags, so it may not hold a colon',
    ),
    defaultOwner: fullOwnerRef(
      section.text('defaultOwner', 'unknown', isOwnerRef, 'is no entity reference; write group:NAMESPACE/NAME'),
    ),
    projectAs: section.text(
      'projectAs',
      'tag',
      one => ['tag', 'system', 'both'].includes(one),
      'is none of tag, system, both',
    ) as CatalogSettings['projectAs'],
  };
  section.check();
  return settings;
}

/**
 * Completes the reference of an owner: a bare name is a group in the namespace `default`. Without that, the catalog would
 * look for the owner in the namespace of the cluster's own entity.
 */
export function fullOwnerRef(reference: string): string {
  const { kind, namespace, name } = parseEntityRef(reference, { defaultKind: 'group', defaultNamespace: 'default' });
  return `${kind.toLowerCase()}:${namespace}/${name}`;
}

function isOwnerRef(text: string): boolean {
  return /^([^:/]+:)?([^:/]+\/)?[^:/]+$/.test(text);
}

function isPresent(root: Config, path: string): boolean {
  try {
    return root.has(path);
  } catch {
    return false; // a value above it is not a section; whoever reads that one reports it
  }
}

function collecting<T>(problems: string[], read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof SettingsError)) {
      throw error;
    }
    problems.push(...error.problems);
    return undefined;
  }
}

/** One section of texts. Collects its problems, which name keys and quote no value. */
class Section {
  readonly #problems: string[] = [];

  constructor(
    private readonly root: Config,
    private readonly path: string,
  ) {}

  text(key: string, otherwise: string, isValid: (text: string) => boolean, complaint: string): string {
    const path = `${this.path}.${key}`;
    try {
      const text = this.root.getOptionalString(path) ?? otherwise;
      if (isValid(text)) {
        return text;
      }
      this.#problems.push(`${path}: ${complaint}`);
    } catch (error) {
      this.#problems.push(`${path}: ${typeProblem(error)}`);
    }
    return otherwise;
  }

  refuseUnknownKeys(): void {
    for (const key of this.#keys()) {
      if (!KNOWN.includes(key)) {
        this.#problems.push(`${this.path}.${key}: is not known; known are ${KNOWN.join(', ')}`);
      }
    }
  }

  #keys(): string[] {
    try {
      return isPresent(this.root, this.path) ? this.root.getConfig(this.path).keys() : [];
    } catch {
      throw new SettingsError([`${this.path}: is not a section with keys such as namespace and ownerTag`]);
    }
  }

  /** Throws SettingsError if there were problems. */
  check(): void {
    if (this.#problems.length > 0) {
      throw new SettingsError(this.#problems);
    }
  }
}
