import { DocumentError, Fields, isUid, parseJson, UnknownSchemaError } from './fields';

export const SCHEMA = 1;

export interface Head {
  readonly epoch: number;
  readonly version: number;
  readonly digest: string;
  readonly credentialsDigest: string;
  readonly mac: string;
  /** How many records the snapshot holds. */
  readonly clusters: number;
  /** False until the daemon has finished its first whole pass over an empty store. */
  readonly complete: boolean;
  /** Milliseconds since 1970, like all times here. */
  readonly changedAt: number;
  /** The same as text: the mac is made of it. */
  readonly changedAtText: string;
  /** The clusters that the writer took over without having seen them: a JSON list of uids, or empty. See `unconfirmedOf`. */
  readonly unconfirmed: string;
}

/** When the daemon last confirmed a version, as the head has it. */
export interface Check {
  readonly epoch: number;
  readonly version: number;
  readonly checkedAt: number;
  readonly checkedAtText: string;
  readonly mac: string;
}

/** An entry of the stream of changes: the clusters that a version changed. */
export interface Change {
  readonly epoch: number;
  readonly version: number;
  readonly touched: readonly string[];
  /** Whether the writer has not seen all clusters itself, so that the change must not be applied by itself. */
  readonly hasUnconfirmed: boolean;
}

// 500 uids, the most that one version changes, are half of this.
const MOST_LIST_CHARACTERS = 64 * 1024;

/** Decodes the fields of the head's Redis hash. Throws UnknownSchemaError, DocumentError. */
export function decodeHead(members: Readonly<Record<string, string>>): Head {
  const fields = new Fields('head', members);
  if (fields.number('schema') !== SCHEMA) {
    throw new UnknownSchemaError('head', 'schema', `is not ${SCHEMA}, the only one that this version knows`);
  }
  const complete = fields.word('complete', ['0', '1']);
  return {
    epoch: fields.number('epoch'),
    version: fields.number('version'),
    digest: fields.hash('digest'),
    credentialsDigest: fields.hash('credentials_digest'),
    mac: fields.text('mac'),
    clusters: fields.number('clusters'),
    complete: complete === '1',
    changedAt: fields.time('changed_at'),
    changedAtText: fields.text('changed_at'),
    unconfirmed: fields.text('unconfirmed'),
  };
}

/** The uids of `head.unconfirmed`, which is large only if it is authentic: call this after verifying. Throws DocumentError. */
export function unconfirmedOf({ unconfirmed }: Head): string[] {
  return unconfirmed === '' ? [] : uidsIn('head', 'unconfirmed', unconfirmed);
}

/** Decodes the fields of the head that hold the last check. Undefined if they are missing or malformed. */
export function decodeCheck(members: Readonly<Record<string, string | undefined>>): Check | undefined {
  const fields = new Fields('head', members);
  try {
    return {
      epoch: fields.number('epoch'),
      version: fields.number('version'),
      checkedAt: fields.time('checked_at'),
      checkedAtText: fields.text('checked_at'),
      mac: fields.text('checked_mac'),
    };
  } catch (error) {
    if (error instanceof DocumentError) {
      return undefined;
    }
    throw error;
  }
}

/** Decodes an entry of the stream of changes; its id is `<version>-0`. Throws DocumentError. */
export function decodeChange(id: string, members: Readonly<Record<string, string>>): Change {
  const fields = new Fields('change', { ...members, id: id.replace(/-0$/, '') });
  const touched = new Set(['put', 'rotated', 'drop'].flatMap(key => shortList(fields, key)));
  return {
    epoch: fields.number('epoch'),
    version: fields.number('id'),
    touched: [...touched],
    hasUnconfirmed: fields.text('unconfirmed') !== '',
  };
}

function shortList(fields: Fields, key: string): string[] {
  const text = fields.text(key);
  if (text.length > MOST_LIST_CHARACTERS) {
    throw fields.wrong(key, `is longer than ${MOST_LIST_CHARACTERS} characters`);
  }
  return uidsIn('change', key, text);
}

function uidsIn(what: string, key: string, text: string): string[] {
  const fields = new Fields(what, { [key]: parseJson(text) });
  const uids = fields.texts(key);
  if (!uids.every(isUid)) {
    throw fields.wrong(key, 'holds something that is not the uid of a cluster');
  }
  return uids;
}
