import { parseRedisUrl } from '../../src/redis/address';
import { RedisConnection } from '../../src/redis/connection';
import { ownPort, until, Valkey } from './processes';

const SLOTS = 16_384;
const SERVERS = 3;

/** A Redis Cluster of three Valkey servers on loopback. Each has a third of the slots at first. */
export class RedisCluster {
  private constructor(readonly servers: readonly Valkey[]) {}

  static async start(options: string[] = []): Promise<RedisCluster> {
    const servers: Valkey[] = [];
    try {
      for (let number = 0; number < SERVERS; number += 1) {
        const bus = await ownPort();
        const cluster = ['--cluster-enabled', 'yes', '--cluster-port', `${bus}`, '--cluster-node-timeout', '2000'];
        servers.push(await Valkey.start([...cluster, '--cluster-require-full-coverage', 'no', ...options]));
        await RedisCluster.#join(servers, bus);
      }
      const made = new RedisCluster(servers);
      await made.settle();
      return made;
    } catch (error) {
      await Promise.all(servers.map(one => one.stop()));
      throw error;
    }
  }

  static async #join(servers: readonly Valkey[], bus: number): Promise<void> {
    const number = servers.length - 1;
    const joining = servers[number] as Valkey;
    const [first, last] = [number, number + 1].map(share => Math.floor((share * SLOTS) / SERVERS)) as [number, number];
    await ask(joining, 'CLUSTER', 'ADDSLOTSRANGE', `${first}`, `${last - 1}`);
    await ask(joining, 'CLUSTER', 'SET-CONFIG-EPOCH', `${number + 1}`);
    for (const other of servers.slice(0, number)) {
      await ask(other, 'CLUSTER', 'MEET', '127.0.0.1', `${joining.port}`, `${bus}`);
    }
  }

  get url(): string {
    return `redis+cluster://${this.servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}`;
  }

  /** Waits until every server knows all slots. */
  async settle(): Promise<void> {
    for (const one of this.servers) {
      await until('the cluster', async () => {
        const facts = String(await ask(one, 'CLUSTER', 'INFO'));
        return facts.includes('cluster_state:ok') && facts.includes(`cluster_slots_ok:${SLOTS}`);
      });
    }
  }

  /** The index of the server that has a key at first. */
  async shareOf(key: string): Promise<number> {
    return Math.floor(((await this.#slot(key)) * SERVERS) / SLOTS);
  }

  /** Moves the slot of a key, with its keys, to the server of this index. */
  async move(key: string, from: number, to: number): Promise<void> {
    const slot = `${await this.#slot(key)}`;
    const [source, target] = [this.servers[from], this.servers[to]] as [Valkey, Valkey];
    const [sourceId, targetId] = [await ask(source, 'CLUSTER', 'MYID'), await ask(target, 'CLUSTER', 'MYID')];
    await ask(target, 'CLUSTER', 'SETSLOT', slot, 'IMPORTING', String(sourceId));
    await ask(source, 'CLUSTER', 'SETSLOT', slot, 'MIGRATING', String(targetId));
    const keys = (await ask(source, 'CLUSTER', 'GETKEYSINSLOT', slot, '100')) as string[];
    await ask(source, 'MIGRATE', '127.0.0.1', `${target.port}`, '', '0', '5000', 'KEYS', ...keys);
    for (const one of [target, source, ...this.servers.filter(other => other !== source && other !== target)]) {
      await ask(one, 'CLUSTER', 'SETSLOT', slot, 'NODE', String(targetId));
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.servers.map(one => one.stop()));
  }

  async #slot(key: string): Promise<number> {
    const alive = this.servers[0] as Valkey;
    return Number(await ask(alive, 'CLUSTER', 'KEYSLOT', key));
  }
}

/** Sends a command to one server. */
async function ask(server: Valkey, ...command: string[]): Promise<unknown> {
  const connection = await RedisConnection.open(parseRedisUrl(server.url), {});
  try {
    return await connection.command(command);
  } finally {
    await connection.close();
  }
}
