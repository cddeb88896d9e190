import { type ChildProcess, execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ended, started } from '../support/processes';
import { PACKAGE } from '../support/repository';

const ROOT = join(PACKAGE, '..', 'backstage-ui');
const run = promisify(execFile);

/** A whole Backstage, frontend and backend, with the packages of this project as `npm pack` makes them. */
export class App {
  private constructor(
    private readonly child: ChildProcess,
    readonly url: string,
  ) {}

  /** Builds the frontend and starts the backend, which serves it. `variables` fill app-config.yaml. */
  static async start(port: number, variables: Record<string, string>): Promise<App> {
    const url = `http://localhost:${port}`;
    const env = {
      ...process.env,
      ...variables,
      PORT: String(port),
      BASE_URL: url,
      ENTITIES_FILE: join(ROOT, 'entities.yaml'),
      AUTH_SESSION_SECRET: 'canary-session-secret',
      NODE_ENV: 'production',
    };
    const config = ['--config', join(ROOT, 'app-config.yaml')];
    await run(join(ROOT, 'node_modules', '.bin', 'backstage-cli'), ['package', 'build', ...config], {
      cwd: join(ROOT, 'packages', 'app'),
      env,
    });
    const backend = join(ROOT, 'packages', 'backend', 'src', 'index.js');
    const { child } = await started(process.execPath, [backend, ...config], /Plugin initialization complete/, env);
    return new App(child, url);
  }

  async stop(): Promise<void> {
    await ended(this.child, 'SIGTERM');
  }
}
