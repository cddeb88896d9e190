/** The names of the Redis keys that a reader needs. All keys of an instance share one hash tag. */
export class Keys {
  constructor(readonly prefix: string) {}

  get instances(): string {
    return `${this.prefix}:instances`;
  }

  head(instance: string): string {
    return this.#of(instance, 'head');
  }

  clusters(instance: string): string {
    return this.#of(instance, 'clusters');
  }

  credentials(instance: string): string {
    return this.#of(instance, 'credentials');
  }

  changes(instance: string): string {
    return this.#of(instance, 'changes');
  }

  #of(instance: string, what: string): string {
    return `{${this.prefix}:${instance}}:${what}`;
  }
}

/** Whether palette-sync can have written this name into the set of instances. */
export function isInstanceName(name: string): boolean {
  return /^[a-z][a-z0-9_]{0,63}$/.test(name);
}
