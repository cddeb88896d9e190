import type { ExtensionPointName } from './config';
import type { Directory, WithheldCluster } from './directory';
import type { ExtensionPointState } from './extensionPoints';
import type { OpenCircuit } from './fetching/fetcher';
import type { LocatorCounts } from './locator/locator';
import type { LeftOutCount } from './oidc/leftOut';
import type { InstanceState } from './snapshot/follower';
import type { LinkState } from './snapshot/tail';

/** The answer of the health route. Holds names, reasons and the daemon's messages (which may name a host), and no token. */
export interface Health {
  /** `unavailable`: there is nothing to show. `degraded`: clusters are shown, and a person has to do something. */
  readonly status: 'ok' | 'degraded' | 'unavailable';
  /** What is wrong and what to do about it. */
  readonly problems: readonly string[];
  readonly redis?: { readonly connected: boolean; readonly since: string; readonly error?: string };
  readonly instances: readonly InstanceHealth[];
  readonly withheld: readonly WithheldCluster[];
  /** How many more are withheld than `withheld` lists. */
  readonly withheldNotListed: number;
  /** Names that another cluster locator uses, too; those clusters of Palette are withheld. */
  readonly duplicates: readonly string[];
  /** OIDC clusters that page queries did not ask, because the caller had no token for them. */
  readonly leftOut: readonly LeftOutCount[];
  /** Clusters that missed their deadline twice and are asked again only every 30 s. */
  readonly notAnswering: readonly { readonly cluster: string; readonly since: string }[];
  /** How entities got their clusters. */
  readonly located: LocatorCounts;
  /** Which extension points of the Kubernetes plugin this module has. */
  readonly extensionPoints: Readonly<Partial<Record<ExtensionPointName, ExtensionPointState>>>;
}

export interface InstanceHealth {
  readonly name: string;
  readonly version?: number;
  readonly epoch?: number;
  readonly complete?: boolean;
  readonly changedAt?: string;
  /** When the daemon last read this instance from Palette. */
  readonly checkedAt?: string;
  readonly ageSeconds?: number;
  readonly clusters: number;
  readonly served: number;
  readonly withheld: Readonly<Record<string, number>>;
  readonly reloads: number;
  readonly refused?: { readonly reason: string; readonly message: string; readonly since: string };
}

export interface HealthSources {
  /** Problems of the set-up: a missing configuration, another module in an extension point. */
  readonly setupProblems: readonly string[];
  readonly link?: LinkState;
  readonly instances: readonly InstanceState[];
  readonly directory?: Directory;
  readonly extensions?: HealthExtensions;
  readonly maxSnapshotAgeMs: number;
  readonly now: number;
}

/** What the parts in the extension points report. */
export interface HealthExtensions {
  readonly states: Health['extensionPoints'];
  readonly leftOut: { readonly counts: readonly LeftOutCount[] };
  readonly supplier?: { readonly duplicates: readonly string[] } | undefined;
  readonly locator?: { readonly counts: LocatorCounts } | undefined;
  readonly fetcher?: { readonly openCircuits: readonly OpenCircuit[] } | undefined;
}

const MOST_LISTED = 200;

/** Builds the answer of the health route. Pure. */
export function healthOf(sources: HealthSources): Health {
  const { setupProblems, link, directory, now } = sources;
  const instances = sources.instances.map(state => instanceHealth(state, directory, now));
  // Clusters that the filter leaves out are counted and not listed.
  const withheld = (directory?.withheld(now) ?? []).filter(({ reason }) => reason !== 'Filtered');
  const problems = [
    ...setupProblems,
    ...linkProblems(link),
    ...sources.instances.flatMap(state => instanceProblems(state, sources.maxSnapshotAgeMs, now)),
    ...(withheld.some(({ reason }) => reason === 'SealKeyUnknown')
      ? ['some tokens are sealed with a key that is not configured here; see withheld, and add the key']
      : []),
    ...(withheld.some(({ reason }) => reason === 'TokenLapsed')
      ? ['some tokens have expired and were not replaced; see withheld, and check whether the daemon runs']
      : []),
  ];
  const held = sources.instances.some(({ snapshot }) => snapshot !== undefined);
  return {
    status: problems.length === 0 && held ? 'ok' : held ? 'degraded' : 'unavailable',
    problems:
      held || problems.length > 0
        ? problems
        : ['no instance has been published yet; start the daemon, or check redis.prefix'],
    ...(link && {
      redis: { connected: link.connected, since: iso(link.since), ...(link.error && { error: link.error }) },
    }),
    instances,
    withheld: withheld.slice(0, MOST_LISTED),
    withheldNotListed: Math.max(0, withheld.length - MOST_LISTED),
    ...extensionHealth(sources.extensions),
  };
}

/** For callers who may not see every cluster: counts stay, names go. */
export function withoutNames(health: Health): Health {
  return {
    ...health,
    withheld: [],
    withheldNotListed: health.withheld.length + health.withheldNotListed,
    duplicates: [],
    notAnswering: [],
  };
}

function extensionHealth(
  extensions: HealthExtensions | undefined,
): Pick<Health, 'duplicates' | 'leftOut' | 'notAnswering' | 'located' | 'extensionPoints'> {
  const open = extensions?.fetcher?.openCircuits ?? [];
  return {
    duplicates: extensions?.supplier?.duplicates ?? [],
    leftOut: extensions?.leftOut.counts ?? [],
    notAnswering: open.slice(0, MOST_LISTED).map(({ cluster, since }) => ({ cluster, since: iso(since) })),
    located: extensions?.locator?.counts ?? {},
    extensionPoints: extensions?.states ?? {},
  };
}

/** Milliseconds since the daemon last read Palette; undefined before the first snapshot. */
export function ageOf(state: InstanceState, now: number): number | undefined {
  return state.snapshot === undefined || state.checkedAt === undefined ? undefined : Math.max(0, now - state.checkedAt);
}

function instanceHealth(state: InstanceState, directory: Directory | undefined, now: number): InstanceHealth {
  const { snapshot, refusal } = state;
  const counts = directory?.counts(state.name, now) ?? { served: 0, withheld: {} };
  const age = ageOf(state, now);
  return {
    name: state.name,
    ...(snapshot && {
      version: snapshot.head.version,
      epoch: snapshot.head.epoch,
      complete: snapshot.head.complete,
      changedAt: iso(snapshot.head.changedAt),
    }),
    ...(state.checkedAt !== undefined && { checkedAt: iso(state.checkedAt) }),
    ...(age !== undefined && { ageSeconds: Math.round(age / 1000) }),
    clusters: snapshot ? snapshot.entries.size + snapshot.kept.size : 0,
    served: counts.served,
    withheld: counts.withheld,
    reloads: state.reloads,
    ...(refusal && { refused: { reason: refusal.reason, message: refusal.message, since: iso(refusal.since) } }),
  };
}

function linkProblems(link: LinkState | undefined): string[] {
  return link?.error !== undefined && !link.connected ? [link.error] : [];
}

function instanceProblems(state: InstanceState, maxAgeMs: number, now: number): string[] {
  const problems: string[] = [];
  if (state.refusal !== undefined) {
    problems.push(`${state.name}: ${state.refusal.message}`);
  }
  if (state.snapshot !== undefined && state.checkedAt === undefined) {
    problems.push(
      `${state.name}: Redis holds no authentic time of the daemon's last check, or one that is more than 5 min ahead; check ` +
        'whether the daemon runs, compare its clock with the one here, and find out who else writes to Redis',
    );
  }
  const age = ageOf(state, now);
  if (age !== undefined && age > maxAgeMs) {
    problems.push(
      `${state.name}: the daemon has not read Palette for ${Math.round(age / 60_000)} min; check whether it runs`,
    );
  }
  return problems;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
