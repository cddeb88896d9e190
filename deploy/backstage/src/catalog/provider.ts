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
 * been read whole and complete; until then what is known is added, and nothing is removed.
 */
export class ClusterEntityProvider implements EntityProvider {
  #connection: EntityProviderConnection | undefined;
  #latest: readonly InstanceState[] = [];
  /** The snapshots that were emitted, and what was made of them. */
  #emitted: readonly unknown[] = [];
  #content = '';
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
    const isWhole = known.length === instances.length && known.every(({ snapshot }) => snapshot?.head.complete);
    const seen = [instances.length, ...known.map(({ snapshot }) => snapshot)];
    if (seen.length === this.#emitted.length && seen.every((one, index) => one === this.#emitted[index])) {
      return;
    }
    const { entities, duplicates } = entitiesOf(this.#chosen(known), this.options.settings);
    const content = JSON.stringify([isWhole, entities]);
    if (content === this.#content) {
      this.#emitted = seen; // only tokens changed
      return;
    }
    try {
      await this.#connection.applyMutation(
        isWhole
          ? { type: 'full', entities: entities.map(deferred) }
          : { type: 'delta', added: entities.map(deferred), removed: [] },
      );
      this.#emitted = seen;
      this.#content = content;
      this.options.logger.info(
        `palette-sync: ${entities.length} clusters ${isWhole ? 'make up' : 'were added to'} the catalog`,
      );
    } catch (error) {
      this.options.logger.warn(
        `palette-sync: the catalog did not take the clusters: ${brief(error)}; they are offered again`,
      );
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

function deferred(entity: Entity): { entity: Entity; locationKey: string } {
  return { entity, locationKey: NAME };
}
