import type { LoggerService } from '@backstage/backend-plugin-api';
import type { Entity } from '@backstage/catalog-model';
import { stringifyError } from '@backstage/errors';
import type { EntityProvider, EntityProviderConnection } from '@backstage/plugin-catalog-node';
import type { ClusterRecord } from '../snapshot/decode';
import type { InstanceState } from '../snapshot/follower';
import { entitiesOf } from './entities';
import type { CatalogSettings } from './settings';

const NAME = 'palette-sync';

/**
 * Gives the catalog all clusters of all instances. Only a full mutation removes entities. It is made only if every instance
 * was read completely and every record could be decoded; until then clusters are added, and nothing is removed.
 */
export class ClusterEntityProvider implements EntityProvider {
  #connection: EntityProviderConnection | undefined;
  #latest: readonly InstanceState[] = [];
  /** The snapshots that the catalog has, the records that the filter chose from them, and the entities made of those. */
  #emitted: readonly unknown[] = [];
  #records: readonly unknown[] = [];
  #content = '';
  #isRejected = false;
  #emitting: Promise<void> = Promise.resolve();
  readonly #loggedNames = new Set<string>();

  readonly #logger: LoggerService;

  constructor(
    private readonly options: {
      readonly settings: CatalogSettings;
      readonly chosen: (record: ClusterRecord) => boolean;
      readonly logger: LoggerService;
    },
  ) {
    this.#logger = options.logger.child({ target: NAME });
  }

  getProviderName(): string {
    return NAME;
  }

  async connect(connection: EntityProviderConnection): Promise<void> {
    this.#connection = connection;
    await this.update(this.#latest);
  }

  /** Updates the catalog to the present state of all instances. Never throws: a failure is retried with the next call. */
  async update(instances: readonly InstanceState[]): Promise<void> {
    this.#latest = instances;
    this.#emitting = this.#emitting
      .then(() => this.#emit(this.#latest))
      .catch(error =>
        this.#logger.error(
          `palette-sync: the clusters could not be described for the catalog: ${stringifyError(error)}`,
        ),
      );
    await this.#emitting;
  }

  async #emit(instances: readonly InstanceState[]): Promise<void> {
    const known = instances.filter(({ snapshot }) => snapshot !== undefined);
    if (this.#connection === undefined || known.length === 0) {
      return;
    }
    const seen = [instances.length, ...known.map(({ snapshot }) => snapshot)];
    if (areSame(seen, this.#emitted)) {
      return;
    }
    const isWhole = known.length === instances.length && known.every(isUnderstood);
    const records = [...this.#chosen(known)];
    if (areSame([isWhole, ...records], this.#records)) {
      this.#emitted = seen; // only tokens changed
      return;
    }
    const { entities, duplicates } = entitiesOf(records, this.options.settings);
    const content = JSON.stringify([isWhole, entities]);
    if (content === this.#content) {
      this.#emitted = seen; // nothing changed that an entity shows
      this.#records = [isWhole, ...records];
      return;
    }
    try {
      await this.#connection.applyMutation(
        isWhole
          ? { type: 'full', entities: entities.map(deferred) }
          : { type: 'delta', added: entities.map(deferred), removed: [] },
      );
      this.#emitted = seen;
      this.#records = [isWhole, ...records];
      this.#content = content;
      this.#isRejected = false;
      this.#logger.info(
        `palette-sync: ${entities.length} clusters ${isWhole ? 'are now in' : 'were added to'} the catalog`,
      );
    } catch (error) {
      if (!this.#isRejected) {
        this.#isRejected = true;
        this.#logger.warn(
          `palette-sync: the catalog did not accept the clusters: ${firstLine(error)}; this is tried again every few seconds`,
        );
      }
    }
    this.#logLeftOut(duplicates);
  }

  *#chosen(known: readonly InstanceState[]): Generator<ClusterRecord> {
    for (const { snapshot } of known) {
      for (const { record } of [...(snapshot?.entries.values() ?? []), ...(snapshot?.kept.values() ?? [])]) {
        if (record !== undefined && this.options.chosen(record)) {
          yield record;
        }
      }
    }
  }

  #logLeftOut(names: readonly string[]): void {
    for (const name of names.filter(one => !this.#loggedNames.has(one))) {
      this.#loggedNames.add(name);
      this.#logger.warn(
        `palette-sync: the cluster ${name} is not in the catalog: another cluster has that name, or the catalog does not allow it`,
      );
    }
  }
}

/** A database error may quote whole statements. */
function firstLine(error: unknown): string {
  return stringifyError(error).split('\n', 1)[0]?.slice(0, 300) ?? '';
}

function areSame(some: readonly unknown[], others: readonly unknown[]): boolean {
  return some.length === others.length && some.every((one, index) => one === others[index]);
}

/** A record that cannot be decoded does not show whether its cluster is gone. */
function isUnderstood({ snapshot }: InstanceState): boolean {
  return snapshot?.head.complete === true && [...snapshot.entries.values()].every(({ record }) => record !== undefined);
}

function deferred(entity: Entity): { entity: Entity; locationKey: string } {
  return { entity, locationKey: NAME };
}
