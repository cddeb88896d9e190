import { createClient, createCluster } from '@redis/client';

/** What sends commands: the client of one server, or of a cluster. It does not reconnect. */
export interface Sender {
  connect(): Promise<unknown>;
  send(args: string[]): Promise<unknown>;
  /** Runs commands as one MULTI. In a cluster, their keys are in one slot. */
  multi(commands: string[][]): Promise<unknown[]>;
  close(): Promise<void>;
}

type ClientOptions = NonNullable<Parameters<typeof createClient>[0]>;
type ClusterOptions = Parameters<typeof createCluster>[0];

export function serverSender(options: ClientOptions): Sender {
  const client = createClient(options);
  client.on('error', () => {}); // every error also rejects a command or the connection attempt
  return {
    connect: () => client.connect(),
    send: args => client.sendCommand(args),
    multi: commands => {
      const multi = client.multi();
      for (const command of commands) {
        multi.addCommand(command);
      }
      return multi.exec() as Promise<unknown[]>;
    },
    close: () => client.disconnect(),
  };
}

/** Connects to a server only when a command is for one of its slots, so that others may be down. */
export function clusterSender(hosts: readonly { host: string; port: number }[], options: ClientOptions): Sender {
  const cluster = createCluster({
    rootNodes: hosts.map(socket => ({ socket })),
    defaults: options,
    minimizeConnections: true,
  } as ClusterOptions);
  let telling: Error | undefined;
  cluster.on('error', (error: NodeJS.ErrnoException) => {
    // Of several servers, what one answered says more than that another is away.
    telling = telling === undefined || error.code === undefined ? error : telling;
  });
  return {
    connect: async () => {
      try {
        await cluster.connect();
      } catch (error) {
        throw telling ?? error; // its own error does not say why
      }
    },
    send: args => cluster.sendCommand(keyOf(args), false, args),
    multi: async commands => {
      // As a pipeline, because its own MULTI reports EXECABORT instead of a redirection, and so does not follow it.
      const pipeline = cluster.multi();
      const key = keyOf(commands[0] ?? []);
      for (const command of [['MULTI'], ...commands, ['EXEC']]) {
        pipeline.addCommand(key, command);
      }
      const replies = ((await pipeline.execAsPipeline()) as unknown[]).at(-1) as unknown[];
      const failed = replies.find(reply => reply instanceof Error);
      if (failed !== undefined) {
        throw failed;
      }
      return replies;
    },
    close: async () => {
      // Its own disconnect() stops at the first server that is gone, and leaves the others connected.
      await Promise.allSettled([...cluster.nodeByAddress.values()].map(async one => (await one.client)?.disconnect()));
    },
  };
}

/** The first key of a command. */
function keyOf(args: string[]): string | undefined {
  const [name] = args;
  if (name === 'XREAD') {
    return args[args.indexOf('STREAMS') + 1];
  }
  return name === 'MEMORY' ? args[2] : args[1];
}
