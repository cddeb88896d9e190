import type { LoggerService } from '@backstage/backend-plugin-api';
import type { Entity } from '@backstage/catalog-model';
import type { EntityProvider, EntityProviderConnection } from '@backstage/plugin-catalog-node';
import type { CatalogSettings } from '../config';
import type { ClusterRecord } from '../snapshot/decode';
import type { InstanceState } from '../snapshot/tail';
import { brief } from '../supplier';
import { entitiesOf } from './entities';

const NAME = 'palette-sync';

/**
 * Emits all clusters of all instances. Only a full mutation removes entities, so it is made only when every instance has
 * been read whole and complete, and every record in it understood; until then what is known is added, and nothing is
 * removed.
 */
export class ClusterEntityProvider implements EntityProvider {
  #connection: EntityProviderConnection | undefined;
  #latest: readonly InstanceState[] = [];
  /** The snapshots that were emitted, the records that were chosen of them, and what was made of these. */
  #emitted: readonly unknown[] = [];
  #records: readonly unknown[] = [];
  #content = '';
  #refused = false;
  #emitting: Promise<void> = Promise.resolve();
  readonly #told = new Set<string>();

  constructor(
    private readonly options: {
      readonly settings: CatalogSettings;
      readonly chosen: (record: ClusterRecord) => boolean;
      readonly logger: LoggerService;
    },
  ) {}

  getProviderName(): string {
    return NAME;
  }

  async connect(connection: EntityProviderConnection): Promise<void> {
    this.#connection = connection;
    await this.update(this.#latest);
  }

  /** Takes over what is known of all instances. Never throws: what fails is tried again with the next call. */
  async update(instances: readonly InstanceState[]): Promise<void> {
    this.#latest = instances;
    this.#emitting = this.#emitting
      .then(() => this.#emit(this.#latest))
      .catch(error =>
        this.options.logger.error('palette-sync: the clusters could not be described for the catalog', error),
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
      this.#emitted = seen; // nothing changed that the catalog shows
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
      this.#refused = false;
      this.options.logger.info(
        `palette-sync: ${entities.length} clusters ${isWhole ? 'make up' : 'were added to'} the catalog`,
      );
    } catch (error) {
      if (!this.#refused) {
        this.#refused = true;
        this.options.logger.warn(
          `palette-sync: the catalog did not take the clusters: ${brief(error)}; they are offered again every few seconds`,
        );
      }
    }
    this.#tellLeftOut(duplicates);
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

  #tellLeftOut(names: readonly string[]): void {
    for (const name of names.filter(one => !this.#told.has(one))) {
      this.#told.add(name);
      this.options.logger.warn(
        `palette-sync: the cluster ${name} is not in the catalog: another one has that name there, or the name does not suit it`,
      );
    }
  }
}

function areSame(some: readonly unknown[], others: readonly unknown[]): boolean {
  return some.length === others.length && some.every((one, index) => one === others[index]);
}

/** A record that cannot be read says nothing about whether its cluster is gone. */
function isUnderstood({ snapshot }: InstanceState): boolean {
  return snapshot?.head.complete === true && [...snapshot.entries.values()].every(({ record }) => record !== undefined);
}

function deferred(entity: Entity): { entity: Entity; locationKey: string } {
  return { entity, locationKey: NAME };
}
