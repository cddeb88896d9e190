"""Fetches and checks the discovery document and the keys of OpenID Connect issuers.

The daemon verifies no tokens. It checks that the issuer of a cluster works, so that a broken issuer becomes a reason in
the record instead of a failed login in a browser. Sources: OpenID Connect Discovery 1.0 (sections 3 and 4), RFC 7517
for keys, RFC 9111 for cache headers. Nothing secret is sent, and no redirect is followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import orjson
from yarl import URL

from palette_sync.core.model import IssuerMetadata
from palette_sync.http import TransportError, http_date, open_session, request
from palette_sync.tls import NotACertificate, trusting

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    import aiohttp

    from palette_sync.core.network import NetworkPolicy

WELL_KNOWN = "/.well-known/openid-configuration"
BODY_LIMIT = 256 * 1024
# A JSON Web Key Set holds a handful of keys; what is published of a document has a length.
MOST_KEYS = 64
MOST_ALGORITHMS = 32
LONGEST_KEY_ID = 256
LONGEST_ALGORITHM = 32
LONGEST_URL = 2048
SHORTEST_LIFE = timedelta(seconds=60)
TIMEOUT = 10.0  # seconds, for each of the two documents
# The names of RFC 7518, section 3.1, and what resembles them.
_ALGORITHM = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_ALGORITHM}}}")
_Document = Mapping[str, object]


class IssuerError(Exception):
    """Base of the issuer errors; the text is safe to log and to publish. `detail` is for the log only."""

    detail: str = ""


class IssuerRefused(IssuerError):
    """The configured issuer is not a usable https URL, or its CA is invalid."""


class IssuerUnreachable(IssuerError):
    """No complete answer arrived, the certificate is not trusted, or the address is refused."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class IssuerUnanswered(IssuerError):
    """The issuer answered with an HTTP error or a redirect instead of the document."""


class IssuerMismatch(IssuerError):
    """The document belongs to another issuer."""


class IssuerMalformed(IssuerError):
    """The document or the keys do not follow the standard."""


async def fetch_issuer(
    issuer_url: str,
    *,
    ca_pem: str | None,
    now: datetime,
    refresh_interval: timedelta,
    network: NetworkPolicy,
    keys_allowed: Callable[[str], bool],
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - it is per document
) -> IssuerMetadata:
    """Fetch and check an issuer's metadata. `ca_pem` replaces the system's trust. Raises IssuerError.

    `network` judges the addresses; `keys_allowed` judges the URL at which the document says that the keys are.
    The result is valid as long as the cache headers of both documents allow: at least 60 s, at most `refresh_interval`.
    """
    host = _check_issuer(issuer_url)
    trust = _trust(ca_pem, host)
    async with open_session(tls=trust, connections=2, connect_timeout=timeout, network=network) as session:
        # The path is built without the trailing slash, which stays part of the issuer's name.
        document, life = await _get(session, issuer_url.rstrip("/") + WELL_KNOWN, now=now, timeout=timeout)
        if document.get("issuer") != issuer_url:
            raise IssuerMismatch(f"the document at {host} names another issuer than the cluster's OIDC configuration")
        jwks_uri = _https(document, "jwks_uri", host)
        if not keys_allowed(jwks_uri):
            raise IssuerMalformed(
                f"jwks_uri in the document of {host} names another host; if it is right, allow it in [...oidc] issuers"
            )
        keys, keys_life = await _get(session, jwks_uri, now=now, timeout=timeout)
    key_ids, key_algorithms = _keys(keys, host)
    return IssuerMetadata(
        issuer=issuer_url,
        authorization_endpoint=_https(document, "authorization_endpoint", host, required=False),
        token_endpoint=_https(document, "token_endpoint", host, required=False),
        jwks_uri=jwks_uri,
        key_ids=key_ids,
        algorithms=_algorithms(document, host) or key_algorithms,
        fetched_at=now,
        valid_until=now + min(max(min(life, keys_life), SHORTEST_LIFE), max(refresh_interval, SHORTEST_LIFE)),
    )


def _check_issuer(url: str) -> str:
    """Return host and port. Errors do not repeat the URL: it is foreign text and may hold a password."""
    try:
        parsed = URL(url)
    except ValueError:
        raise IssuerRefused("the issuer is not a URL") from None
    if parsed.scheme != "https" or not parsed.host_port_subcomponent:
        raise IssuerRefused("the issuer is not an https URL")
    if parsed.user is not None or parsed.password is not None or "?" in url or "#" in url:
        raise IssuerRefused("the issuer's URL has a user, a query or a fragment, which the standard forbids")
    return parsed.host_port_subcomponent


def _trust(ca_pem: str | None, host: str) -> ssl.SSLContext:
    try:
        return trusting(ca_pem)
    except NotACertificate:
        raise IssuerRefused(f"the CA configured for the issuer {host} is not a PEM certificate") from None


async def _get(
    session: aiohttp.ClientSession,
    url: str,
    *,
    now: datetime,
    timeout: float,  # noqa: ASYNC109 - handed on
) -> tuple[_Document, timedelta]:
    """Fetch a JSON document. Returns it and how long it may be cached."""
    host = URL(url).host_port_subcomponent
    headers = {"Accept": "application/json"}
    try:
        reply = await request(session, "GET", url, headers=headers, timeout=timeout, max_body=BODY_LIMIT)
    except TransportError as error:
        raise IssuerUnreachable(str(error), detail=error.detail) from None
    if reply.status != HTTPStatus.OK:
        redirect = " (a redirect, which is not followed)" if reply.status // 100 == 3 else ""  # noqa: PLR2004 - 3xx
        raise IssuerUnanswered(f"{host} answered HTTP {reply.status}{redirect}")
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise IssuerMalformed(f"the document at {host} is not a JSON object")
    return cast("_Document", document), _life(reply.headers, now)


def _https(document: _Document, name: str, host: str, *, required: bool = True) -> str:
    """Return an endpoint from the document; empty if it is missing and optional."""
    value = document.get(name)
    if value is None and not required:
        return ""
    if isinstance(value, str) and len(value) <= LONGEST_URL and value.isascii() and value.isprintable():
        try:
            parsed = URL(value)
        except ValueError:
            parsed = URL()
        if parsed.scheme == "https" and parsed.host and parsed.user is None:
            return value
    raise IssuerMalformed(f"{name} in the document of {host} is not an https URL")


def _keys(document: _Document, host: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return ids and algorithms of the public signing keys. Raises IssuerMalformed if there are none.

    A single key needs no id (OpenID Connect Core 1.0, section 10.1); one of several keys without an id is skipped.
    """
    listed = document.get("keys")
    ids: set[str] = set()
    algorithms: set[str] = set()
    without_id: list[str | None] = []  # the algorithm of each such key
    if isinstance(listed, list) and len(listed) > MOST_KEYS:
        raise IssuerMalformed(f"the key set of {host} has more than {MOST_KEYS} keys")
    for key in listed if isinstance(listed, list) else ():
        if not isinstance(key, dict) or not _signs(key):
            continue
        kid, algorithm = key.get("kid"), key.get("alg")
        if not _is_algorithm(algorithm):
            algorithm = None
        if kid is None:
            without_id.append(algorithm)
        elif isinstance(kid, str) and 0 < len(kid) <= LONGEST_KEY_ID and kid.isprintable():
            ids.add(kid)
            algorithms |= {algorithm} if algorithm is not None else set()
    if not ids and len(without_id) == 1:
        return (), tuple(one for one in without_id if one is not None)
    if not ids:
        raise IssuerMalformed(f"the key set of {host} has no public signing key with kty, and kid if there are several")
    return tuple(sorted(ids)), tuple(sorted(algorithms))


def _algorithms(document: _Document, host: str) -> tuple[str, ...]:
    """Return the signing algorithms of ID tokens, without `none`; empty if the document does not list them."""
    listed = document.get("id_token_signing_alg_values_supported")
    if listed is None:
        return ()
    if not isinstance(listed, list) or len(listed) > MOST_ALGORITHMS or not all(map(_is_algorithm, listed)):
        raise IssuerMalformed(f"the signing algorithms of {host} are not a list of names")
    found = tuple(sorted({str(one) for one in listed} - {"none"}))
    if not found:
        raise IssuerMalformed(f"{host} lists no algorithm for signing ID tokens")
    return found


def _signs(key: dict[str, object]) -> bool:
    """Whether a key is a public one for signatures."""
    kty = key.get("kty")
    return key.get("use", "sig") == "sig" and isinstance(kty, str) and kty not in {"", "oct"}


def _is_algorithm(value: object) -> bool:
    return isinstance(value, str) and _ALGORITHM.fullmatch(value) is not None


def _life(headers: Mapping[str, str], now: datetime) -> timedelta:
    """Return how long an answer may be cached; `timedelta.max` without cache headers."""
    control = _cache_control(headers.get("Cache-Control", ""))
    if control.keys() & {"no-store", "no-cache"}:
        return timedelta(0)
    if "max-age" in control:
        return timedelta(seconds=max(0, _seconds(control["max-age"]) - _seconds(headers.get("Age", ""))))
    if "Expires" in headers:
        expires = http_date(headers["Expires"])
        # An Expires that is not a date, such as 0, means "already expired" (RFC 9111, 5.3).
        return expires - (http_date(headers.get("Date", "")) or now) if expires else timedelta(0)
    return timedelta.max


def _cache_control(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs if name.strip()}


def _seconds(text: str) -> int:
    """Parse the seconds of a cache header; 0 if it is not a number, at most 10^9."""
    if not text.isascii() or not text.isdigit():
        return 0
    # Ten digits are enough; Python refuses to parse thousands of digits.
    return min(int(text.lstrip("0")[:10] or "0"), 10**9)
