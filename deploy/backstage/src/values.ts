import { readFileSync } from 'node:fs';
import { type Config, readDurationFromConfig } from '@backstage/config';
import { durationToMilliseconds } from '@backstage/types';

/** The section of app-config. */
export const ROOT = 'paletteSync';

/** The configuration is invalid. Holds every problem, and no value that may be secret. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';

  constructor(readonly problems: readonly string[]) {
    super(problems.join('; '));
  }
}

/**
 * Explains an error of Backstage's configuration reader, which names the type that it found and the one that it expected,
 * and quotes no value.
 */
export function typeProblem(error: unknown): string {
  const [, got, wanted] = /got ([\w-]+), wanted ([\w-]+)/.exec((error as Error).message) ?? [];
  if (got === 'empty-string') {
    return wanted === 'string-array' ? 'holds an empty string' : 'is empty';
  }
  return got ? `is ${got}, but must be ${wanted}` : 'has the wrong type';
}

/** Reads single values of the section by their key below it, and collects what is wrong with them. */
export class Values {
  readonly problems: string[] = [];

  constructor(readonly root: Config) {}

  wrong(key: string, why: string): void {
    this.problems.push(`${ROOT}.${key}: ${why}`);
  }

  /** Runs one read of Backstage's configuration and records its error, which names key and type and no value. */
  read<T>(key: string, read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      this.wrong(key, typeProblem(error));
      return undefined;
    }
  }

  has(key: string): boolean {
    try {
      return this.root.has(`${ROOT}.${key}`);
    } catch {
      return false; // a value above it is not a section, which is reported when it is read
    }
  }

  text(key: string): string | undefined {
    return this.read(key, () => this.root.getOptionalString(`${ROOT}.${key}`));
  }

  texts(key: string): string[] | undefined {
    return this.read(key, () => this.root.getOptionalStringArray(`${ROOT}.${key}`));
  }

  optionalFlag(key: string): boolean | undefined {
    return this.read(key, () => this.root.getOptionalBoolean(`${ROOT}.${key}`));
  }

  flag(key: string, otherwise: boolean): boolean {
    return this.optionalFlag(key) ?? otherwise;
  }

  word<T extends string>(key: string, words: readonly T[], otherwise: T): T {
    const text = this.text(key) ?? otherwise;
    const found = words.find(word => word === text);
    if (found === undefined) {
      this.wrong(key, `is not one of ${words.join(', ')}`);
    }
    return found ?? otherwise;
  }

  count(key: string, otherwise: number): number {
    const count = this.read(key, () => this.root.getOptionalNumber(`${ROOT}.${key}`)) ?? otherwise;
    if (!Number.isInteger(count) || count < 1) {
      this.wrong(key, 'is not a whole number above 0');
      return otherwise;
    }
    return count;
  }

  duration(key: string, otherwiseMs: number): number {
    if (!this.has(key)) {
      return otherwiseMs;
    }
    try {
      return durationToMilliseconds(readDurationFromConfig(this.root, { key: `${ROOT}.${key}` }));
    } catch {
      this.wrong(key, "is not a duration; write '1h', 'PT1H' or { hours: 1 }");
      return otherwiseMs;
    }
  }

  file(key: string): { path: string; text: string } | undefined {
    const path = this.text(key);
    if (path === undefined) {
      return undefined;
    }
    try {
      return { path, text: readFileSync(path, 'utf8') };
    } catch (error) {
      this.wrong(key, `${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`);
      return undefined;
    }
  }
}
