import type { LoggerService, RootLoggerService } from '@backstage/backend-plugin-api';

/** Keeps every line, so that a test can search them, secrets included. */
export class CapturingLogger implements RootLoggerService {
  constructor(readonly lines: string[] = []) {}

  error(message: string, meta?: unknown): void {
    this.#keep('error', message, meta);
  }

  warn(message: string, meta?: unknown): void {
    this.#keep('warn', message, meta);
  }

  info(message: string, meta?: unknown): void {
    this.#keep('info', message, meta);
  }

  debug(message: string, meta?: unknown): void {
    this.#keep('debug', message, meta);
  }

  child(): LoggerService & this {
    return this as LoggerService & this;
  }

  async addStream(): Promise<void> {}

  get text(): string {
    return this.lines.join('\n');
  }

  /** How many lines of this project match. */
  count(pattern: RegExp): number {
    return this.lines.filter(line => line.includes('palette-sync: ') && pattern.test(line)).length;
  }

  #keep(level: string, message: string, meta: unknown): void {
    const shown = meta instanceof Error ? (meta.stack ?? meta.message) : JSON.stringify(meta ?? '');
    this.lines.push(`${level} ${message} ${shown}`);
  }
}
