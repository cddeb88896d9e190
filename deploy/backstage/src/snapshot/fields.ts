/** Reads the fields of documents strictly. Errors name the document, the field and the reason, and never quote a value. */

/** A document cannot be read. */
export class DocumentError extends Error {
  override readonly name: string = 'DocumentError';

  constructor(what: string, where: string, why: string) {
    super(where ? `${what}: ${where}: ${why}` : `${what}: ${why}`);
  }
}

/** The head names a schema that this version does not know, so the rest of the snapshot must not be read. */
export class UnknownSchemaError extends DocumentError {
  override readonly name = 'UnknownSchemaError';
}

/** The uid of a cluster or project. Anything else is refused everywhere: a TAB or a line feed would make digests ambiguous. */
const UID = /^[A-Za-z0-9_-]{1,64}$/;

/** Whether a cluster or a project can have this uid. */
export function isUid(text: string): boolean {
  return UID.test(text);
}

type Members = Readonly<Record<string, unknown>>;

/** Reads the members of one JSON object by key and type. */
export class Fields {
  constructor(
    private readonly what: string,
    private readonly members: Members,
    private readonly path = '',
  ) {}

  wrong(key: string, why: string): DocumentError {
    return new DocumentError(this.what, this.path + key, why);
  }

  has(key: string): boolean {
    return Object.hasOwn(this.members, key);
  }

  text(key: string): string {
    const value = this.#get(key);
    if (typeof value !== 'string') {
      throw this.wrong(key, 'is not a string');
    }
    return value;
  }

  name(key: string): string {
    const value = this.text(key);
    if (value === '') {
      throw this.wrong(key, 'is empty');
    }
    return value;
  }

  /** A text that can be one line of what is hashed or authenticated. */
  line(key: string): string {
    const value = this.text(key);
    if (value.includes('\n')) {
      throw this.wrong(key, 'holds a line feed');
    }
    return value;
  }

  uid(key: string): string {
    const value = this.text(key);
    if (!isUid(value)) {
      throw this.wrong(key, 'is not 1 to 64 letters, digits, _ or -');
    }
    return value;
  }

  hash(key: string): string {
    const value = this.text(key);
    if (!/^[0-9a-f]{64}$/.test(value)) {
      throw this.wrong(key, 'is not a hex SHA-256');
    }
    return value;
  }

  flag(key: string): boolean {
    const value = this.#get(key);
    if (typeof value !== 'boolean') {
      throw this.wrong(key, 'is not true or false');
    }
    return value;
  }

  word<T extends string>(key: string, words: readonly T[]): T {
    const value = this.text(key);
    const found = words.find(word => word === value);
    if (found === undefined) {
      throw this.wrong(key, `is not one of ${words.join(', ')}`);
    }
    return found;
  }

  time(key: string): number {
    const value = this.text(key);
    const moment = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value) ? Date.parse(value) : Number.NaN;
    if (Number.isNaN(moment)) {
      throw this.wrong(key, 'is not a time like 2026-01-31T09:30:00Z');
    }
    return moment;
  }

  number(key: string): number {
    const value = this.text(key);
    if (!/^(0|[1-9]\d{0,14})$/.test(value)) {
      throw this.wrong(key, 'is not a whole number of at most 15 digits');
    }
    return Number(value);
  }

  texts(key: string): string[] {
    const values = this.#get(key);
    if (!Array.isArray(values) || !values.every(value => typeof value === 'string')) {
      throw this.wrong(key, 'is not a list of strings');
    }
    return values;
  }

  object(key: string): Fields {
    const value = this.#get(key);
    if (!isObject(value)) {
      throw this.wrong(key, 'is not an object');
    }
    return new Fields(this.what, value, `${this.path}${key}.`);
  }

  #get(key: string): unknown {
    if (!this.has(key)) {
      throw this.wrong(key, 'is missing');
    }
    return this.members[key];
  }
}

/** Throws DocumentError. */
export function parseObject(what: string, raw: string): Fields {
  const document = parseJson(raw);
  if (!isObject(document)) {
    throw new DocumentError(what, '', 'is not a JSON object');
  }
  return new Fields(what, document);
}

/** Undefined if it is not JSON. */
export function parseJson(raw: string): unknown {
  try {
    return JSON.parse(raw);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
