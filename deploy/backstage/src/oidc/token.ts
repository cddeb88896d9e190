/** What an OIDC cluster accepts. An empty string means that it is not known. */
export interface TokenDemand {
  readonly issuerUrl: string;
  readonly clientId: string;
}

/** Why a call does not get a cluster: it brought no token of the provider, or one that the cluster would refuse. */
export type TokenProblem = 'NoToken' | 'IssuerDiffers';

// A token with any other character cannot be put into a header: the request would fail, and with it the whole page.
const TOKEN = /^[\x21-\x7e]+$/;

/** The token of `provider` in the `auth` of a request to the Kubernetes plugin, whose shape nobody has checked yet. */
export function tokenIn(auth: unknown, provider: string): string | undefined {
  const tokens = isObject(auth) ? auth['oidc'] : undefined;
  const token = isObject(tokens) && Object.hasOwn(tokens, provider) ? tokens[provider] : undefined;
  return typeof token === 'string' && TOKEN.test(token) ? token : undefined;
}

/**
 * Whether a token may be sent to a cluster: its `iss` and `aud` must be those that the cluster demands. The signature is
 * not checked, since that is the cluster's task; this only keeps a token from whoever it was not made for.
 */
export function tokenProblem(token: string | undefined, demand: TokenDemand): TokenProblem | undefined {
  if (token === undefined) {
    return 'NoToken';
  }
  const claims = claimsOf(token);
  const audience = Array.isArray(claims?.['aud']) ? claims['aud'] : [claims?.['aud']];
  const issuerFits = demand.issuerUrl === '' || sameIssuer(claims?.['iss'], demand.issuerUrl);
  const audienceFits = demand.clientId === '' || audience.includes(demand.clientId);
  return claims !== undefined && issuerFits && audienceFits ? undefined : 'IssuerDiffers';
}

/** A slash at the end makes no difference to whom the token belongs; the API server still compares to the letter. */
function sameIssuer(issuer: unknown, wanted: string): boolean {
  return typeof issuer === 'string' && issuer.replace(/\/$/, '') === wanted.replace(/\/$/, '');
}

function claimsOf(token: string): Record<string, unknown> | undefined {
  const [, payload, signature] = token.split('.');
  if (payload === undefined || signature === undefined) {
    return undefined;
  }
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
    return isObject(claims) ? claims : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
