import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Client {
  readonly id: string;
  readonly secret: string;
  /** What ID tokens and metadata name as the issuer. Default: the address of this server. */
  readonly issuer?: string;
}

/** Signs ID tokens. `claims` hold issuer, audience and nonce. */
export interface Signer {
  readonly keys: readonly object[];
  readonly algorithm: string;
  sign(claims: Readonly<Record<string, unknown>>): Promise<string>;
}

interface Grant {
  readonly nonce?: string;
}

/**
 * An OpenID provider on loopback, as strict as Palette's: it accepts only registered callbacks, answers `prompt=none` with
 * `login_required` while nobody is logged in, and consents at once otherwise.
 */
export class OidcProvider {
  readonly #grants = new Map<string, Grant>();
  readonly callbacks = new Set<string>();
  /** What `/authorize` answered, latest last: `code`, `login_required`, `access_denied` or `bad_callback`. */
  readonly answers: string[] = [];
  isLoggedIn = false;
  /** The user refuses to log in. */
  refuses = false;

  private constructor(
    private readonly server: Server,
    private readonly client: Client,
    private readonly signer: Signer,
  ) {}

  static async start(client: Client, signer: Signer): Promise<OidcProvider> {
    const server = createServer();
    const provider = new OidcProvider(server, client, signer);
    server.on('request', (request, response) => {
      provider.#answer(request, response).catch(error => response.writeHead(500).end(String(error)));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return provider;
  }

  get issuer(): string {
    return this.client.issuer ?? this.#address;
  }

  get #address(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  get metadataUrl(): string {
    return `${this.#address}/.well-known/openid-configuration`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.#address);
    const json = (status: number, body: unknown) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (url.pathname === '/.well-known/openid-configuration') {
      json(200, this.#metadata());
    } else if (url.pathname === '/jwks') {
      json(200, { keys: this.signer.keys });
    } else if (url.pathname === '/authorize') {
      this.#authorize(url, response);
    } else if (url.pathname === '/token' && request.method === 'POST') {
      const [status, body] = await this.#token(request);
      json(status, body);
    } else if (url.pathname === '/userinfo') {
      json(200, { sub: 'jo', name: 'Jo', email: 'jo@example.com', email_verified: true });
    } else {
      json(404, {});
    }
  }

  #metadata(): object {
    return {
      issuer: this.issuer,
      authorization_endpoint: `${this.#address}/authorize`,
      token_endpoint: `${this.#address}/token`,
      userinfo_endpoint: `${this.#address}/userinfo`,
      jwks_uri: `${this.#address}/jwks`,
      response_types_supported: ['code'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: [this.signer.algorithm],
    };
  }

  #authorize({ searchParams }: URL, response: ServerResponse): void {
    const callback = searchParams.get('redirect_uri') ?? '';
    if (searchParams.get('client_id') !== this.client.id || !this.callbacks.has(callback)) {
      this.answers.push('bad_callback');
      response.writeHead(400).end('the redirect_uri is not registered');
      return;
    }
    const back = new URL(callback);
    back.searchParams.set('state', searchParams.get('state') ?? '');
    const error = this.refuses
      ? 'access_denied'
      : searchParams.get('prompt') === 'none' && !this.isLoggedIn
        ? 'login_required'
        : undefined;
    if (error === undefined) {
      this.isLoggedIn = true;
      const nonce = searchParams.get('nonce');
      back.searchParams.set('code', this.#grant(nonce === null ? {} : { nonce }));
    } else {
      back.searchParams.set('error', error);
    }
    this.answers.push(error ?? 'code');
    response.writeHead(302, { location: back.href }).end();
  }

  async #token(request: IncomingMessage): Promise<[number, object]> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) {
      chunks.push(chunk as Buffer);
    }
    const form = new URLSearchParams(Buffer.concat(chunks).toString());
    const basic = Buffer.from(`${this.client.id}:${this.client.secret}`).toString('base64');
    if (request.headers.authorization !== `Basic ${basic}`) {
      return [401, { error: 'invalid_client' }];
    }
    const given = form.get('code') ?? form.get('refresh_token') ?? '';
    const grant = this.#grants.get(given);
    if (grant === undefined) {
      return [400, { error: 'invalid_grant' }];
    }
    this.#grants.delete(given);
    const issued = form.has('code') && grant.nonce !== undefined ? { nonce: grant.nonce } : {};
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: this.issuer, aud: this.client.id, sub: 'jo', iat: now, exp: now + 3600, ...issued };
    return [
      200,
      {
        access_token: randomBytes(16).toString('hex'),
        refresh_token: this.#grant({}),
        token_type: 'bearer',
        expires_in: 3600,
        scope: 'openid profile email',
        id_token: await this.signer.sign(claims),
      },
    ];
  }

  #grant(grant: Grant): string {
    const code = randomBytes(16).toString('hex');
    this.#grants.set(code, grant);
    return code;
  }
}
