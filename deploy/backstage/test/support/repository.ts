import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

function found(marker: string): string {
  let folder = __dirname;
  while (!existsSync(join(folder, marker))) {
    const above = dirname(folder);
    if (above === folder) {
      throw new Error(`no ${marker} above ${__dirname}`);
    }
    folder = above;
  }
  return folder;
}

/** This package. */
export const PACKAGE = found('config.d.ts');
/** Where `npm run packed` unpacks the packages of this project, beside the Backstage that a test uses. */
export function packedFolder(): string {
  return join(found('.packed'), '.packed');
}
/** The repository that holds daemon, simulator and golden snapshots. */
export const REPOSITORY = found('config.example.toml');
/** The Python environment that `make .venv/.dev` made. */
export const VENV_BIN = join(REPOSITORY, '.venv', 'bin');
