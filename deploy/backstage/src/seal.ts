import { createDecipheriv, createHmac, createSecretKey, hkdfSync, type KeyObject, timingSafeEqual } from 'node:crypto';

const KEY_BYTES = 32;
const MAC_INFO = 'palette-sync/mac/1';
const BARE = 'none:';
const TAG_BYTES = 16;
// Header, no encrypted key, 12 bytes of initialization vector, text, 16 bytes of tag; all of them base64url.
const SEALED = /^[\w-]+\.\.[\w-]{16}\.[\w-]+\.[\w-]{22}$/;
const KID = /^[A-Za-z0-9._-]{1,64}$/;
// What an HTTP header can hold: a token with a line break would make Backstage answer 500 for every cluster.
const TOKEN = /^[\x21-\x7e]+$/;
const REMEDY = 'make one with `palette-sync seal-key`, or copy the line that the daemon uses';

/** What it means if a member of a sealed token's header is not the one of the place where the token was found. */
const ELSEWHERE: readonly (readonly [keyof SealedFor, string])[] = [
  ['prefix', 'it was sealed for another prefix; somebody copied it in Redis'],
  ['instance', 'it was sealed for another instance; somebody copied it in Redis'],
  ['uid', 'it was sealed for another cluster; somebody moved it in Redis'],
  ['server', "it was sealed for another API server than the record's; it must not be sent there"],
  ['issued_at', 'it was sealed with another issued_at than the one beside it; somebody changed that in Redis'],
  ['expires_at', 'it was sealed with another expires_at than the one beside it; somebody changed that in Redis'],
];

/** Why a sealed token was not opened. `kid` is the id of the missing key, if that is the reason. */
export interface NotOpened {
  readonly reason: 'SealKeyUnknown' | 'SealBroken';
  readonly message: string;
  readonly kid?: string;
}

export type Opened = { readonly token: string } | { readonly refused: NotOpened };

/** What a token was sealed for, as the header of the sealed token has it. A token opens only where all of it matches. */
export interface SealedFor {
  readonly prefix: string;
  readonly instance: string;
  readonly uid: string;
  /** The hash of the API server in the cluster's record (`serverHash`). */
  readonly server: string;
  /** The times of the credential document, as texts; `expires_at` is empty if the token does not expire. */
  readonly issued_at: string;
  readonly expires_at: string;
}

/** Opens tokens, and checks that the writer of a snapshot has a seal key. */
export interface Sealer {
  /** The ids of the keys, for messages. */
  readonly keys: string;
  open(wanted: SealedFor, sealed: string): Opened;
  /** Whether `mac` is the hex HMAC of `text` with one of the keys. */
  isAuthentic(text: string, mac: string): boolean;
}

/** The configured keys. Each of them may open a token or verify a snapshot; the daemon decides which one seals. */
export class SealKeys implements Sealer {
  readonly #keys: ReadonlyMap<string, { seal: KeyObject; mac: Buffer }>;

  private constructor(keys: ReadonlyMap<string, { seal: KeyObject; mac: Buffer }>) {
    this.#keys = keys;
  }

  /**
   * Reads one key per line, `<kid> <base64url of 32 bytes>`; ignores empty lines and `#` comments. Throws an Error that
   * names the line and never a key.
   */
  static fromLines(text: string): SealKeys {
    const keys = new Map<string, { seal: KeyObject; mac: Buffer }>();
    for (const [index, line] of text.split(/\r?\n/).entries()) {
      const words = (line.split('#', 1)[0] ?? '').trim().split(/\s+/).filter(Boolean);
      if (words.length === 0) {
        continue;
      }
      const { kid, key } = parseLine(index + 1, words);
      if (keys.has(kid)) {
        throw new Error(`line ${index + 1}: the key id ${kid} is used twice; rename one of them`);
      }
      const mac = Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), MAC_INFO, KEY_BYTES));
      keys.set(kid, { seal: createSecretKey(key), mac });
    }
    if (keys.size === 0) {
      throw new Error(`there is no key; ${REMEDY}`);
    }
    return new SealKeys(keys);
  }

  get keys(): string {
    return [...this.#keys.keys()].join(', ');
  }

  open(wanted: SealedFor, sealed: string): Opened {
    const header = headerOf(sealed);
    if (header === undefined) {
      return broken('it is not a sealed token (not a JWE); the daemon may run with seal = "none"');
    }
    const kid = header.kid;
    const key = typeof kid === 'string' ? this.#keys.get(kid) : undefined;
    if (typeof kid !== 'string' || key === undefined) {
      return unknownKey(kid, this.keys);
    }
    for (const [member, message] of ELSEWHERE) {
      if (header[member] !== wanted[member]) {
        return broken(message);
      }
    }
    const token = decrypted(sealed, key.seal);
    return token === undefined
      ? broken(`it does not open with the key ${kid}; the daemon has another key of that id, or it was changed`)
      : checked(token);
  }

  isAuthentic(text: string, mac: string): boolean {
    const given = Buffer.from(mac);
    let matches = false;
    for (const key of this.#keys.values()) {
      const wanted = Buffer.from(createHmac('sha256', key.mac).update(text).digest('hex'));
      matches = (wanted.length === given.length && timingSafeEqual(wanted, given)) || matches;
    }
    return matches;
  }
}

/** For `seal: none`: Redis holds tokens in clear, and nothing is authenticated. */
export class Unsealed implements Sealer {
  readonly keys = 'none';

  open(_wanted: SealedFor, sealed: string): Opened {
    if (!sealed.startsWith(BARE)) {
      const kid = headerOf(sealed)?.kid;
      return unknownKey(kid, 'seal: none is configured, so there is no key');
    }
    return checked(sealed.slice(BARE.length));
  }

  isAuthentic(): boolean {
    return true;
  }
}

function checked(token: string): Opened {
  return TOKEN.test(token) ? { token } : broken('it has characters that no token has');
}

function broken(message: string): Opened {
  return { refused: { reason: 'SealBroken', message } };
}

function unknownKey(kid: unknown, known: string): Opened {
  const named = typeof kid === 'string' && KID.test(kid) ? kid : 'without an id';
  return {
    refused: {
      reason: 'SealKeyUnknown',
      kid: named,
      message: `the key ${named} is not among the seal keys (${known})`,
    },
  };
}

/** The protected header of a sealed token, not authenticated yet. Undefined if it has not the form of one. */
function headerOf(sealed: string): Readonly<Record<string, unknown>> | undefined {
  if (!SEALED.test(sealed)) {
    return undefined;
  }
  try {
    const header = JSON.parse(Buffer.from(sealed.slice(0, sealed.indexOf('.')), 'base64url').toString());
    return header?.alg === 'dir' && header.enc === 'A256GCM' ? header : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Opens a JWE of the form that `headerOf` has checked. The additional authenticated data are the header as it is encoded
 * (RFC 7516, section 5.2). Undefined if it is not authentic.
 */
function decrypted(sealed: string, key: KeyObject): string | undefined {
  const [header = '', , iv = '', text = '', tag = ''] = sealed.split('.');
  try {
    const opening = createDecipheriv('aes-256-gcm', key, Buffer.from(iv, 'base64url'), { authTagLength: TAG_BYTES });
    opening.setAAD(Buffer.from(header)).setAuthTag(Buffer.from(tag, 'base64url'));
    return Buffer.concat([opening.update(Buffer.from(text, 'base64url')), opening.final()]).toString();
  } catch {
    return undefined;
  }
}

function parseLine(number: number, words: string[]): { kid: string; key: Buffer } {
  const [kid = '', text = '', ...more] = words;
  if (more.length > 0 || text === '') {
    throw new Error(`line ${number}: a line is a key id, a space and a key; ${REMEDY}`);
  }
  if (!KID.test(kid)) {
    throw new Error(`line ${number}: the key id may hold 1 to 64 letters, digits and . _ -`);
  }
  const key = /^[A-Za-z0-9_-]+={0,2}$/.test(text) ? Buffer.from(text, 'base64url') : Buffer.alloc(0);
  if (key.length !== KEY_BYTES) {
    // The key id is not quoted: if the two words are in the wrong order, it is the key.
    throw new Error(`line ${number}: its second word is not base64url of ${KEY_BYTES} bytes; ${REMEDY}`);
  }
  return { kid, key };
}
