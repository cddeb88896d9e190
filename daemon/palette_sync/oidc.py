"""OpenID Connect issuers: their discovery document and keys, fetched and checked.

The daemon verifies no tokens. It looks whether an issuer is what its cluster's configuration says, so that a broken one
is a reason on a record and not a puzzle in a browser. After OpenID Connect Discovery 1.0 (sections 3 and 4) and, for
keys, RFC 7517; cache headers after RFC 9111. Nothing secret is sent, and no redirect is followed.
"""

from __future__ import annotations

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

    import aiohttp

WELL_KNOWN = "/.well-known/openid-configuration"
BODY_LIMIT = 256 * 1024
SHORTEST_LIFE = timedelta(seconds=60)
TIMEOUT = 10.0  # seconds, for each of the two documents
_Document = Mapping[str, object]


class IssuerError(Exception):
    """Base of all; the text is safe to log."""


class IssuerRefused(IssuerError):
    """The configured issuer is no https URL that could be asked, or its CA is none."""


class IssuerUnreachable(IssuerError):
    """No complete answer came, or TLS does not verify."""


class IssuerUnanswered(IssuerError):
    """It answered, but not with the document: an HTTP error or a redirect."""


class IssuerMismatch(IssuerError):
    """The document is another issuer's."""


class IssuerMalformed(IssuerError):
    """The document or the keys are not what the standard asks for."""


async def fetch_issuer(
    issuer_url: str,
    *,
    ca_pem: str | None,
    now: datetime,
    refresh_interval: timedelta,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - it is per document
) -> IssuerMetadata:
    """Fetch and check an issuer's metadata. `ca_pem` replaces the system's trust. Raises IssuerError.

    It is valid as long as the cache headers of both documents allow, at least 60 s and at most `refresh_interval`.
    """
    host = _check_issuer(issuer_url)
    async with open_session(tls=_trust(ca_pem, host), connections=2, connect_timeout=timeout) as session:
        # A terminating slash is cut for the path, but stays part of the issuer's name.
        document, life = await _get(session, issuer_url.rstrip("/") + WELL_KNOWN, now=now, timeout=timeout)
        if document.get("issuer") != issuer_url:
            raise IssuerMismatch(f"the document at {host} names another issuer than the cluster's configuration")
        keys, keys_life = await _get(session, _https(document, "jwks_uri", host), now=now, timeout=timeout)
    key_ids, key_algorithms = _keys(keys, host)
    return IssuerMetadata(
        issuer=issuer_url,
        authorization_endpoint=_https(document, "authorization_endpoint", host, required=False),
        token_endpoint=_https(document, "token_endpoint", host, required=False),
        jwks_uri=_https(document, "jwks_uri", host),
        key_ids=key_ids,
        algorithms=_algorithms(document, host) or key_algorithms,
        fetched_at=now,
        valid_until=now + min(max(min(life, keys_life), SHORTEST_LIFE), max(refresh_interval, SHORTEST_LIFE)),
    )


def _check_issuer(url: str) -> str:
    """Return host and port. The URL itself is not repeated: it is foreign text and may hold a password."""
    try:
        parsed = URL(url)
    except ValueError:
        raise IssuerRefused("the issuer is no URL") from None
    if parsed.scheme != "https" or not parsed.host_port_subcomponent:
        raise IssuerRefused("the issuer is no https URL")
    if parsed.user is not None or parsed.password is not None or "?" in url or "#" in url:
        raise IssuerRefused("the issuer's URL has a user, a query or a fragment, which no issuer has")
    return parsed.host_port_subcomponent


def _trust(ca_pem: str | None, host: str) -> ssl.SSLContext:
    try:
        return trusting(ca_pem)
    except NotACertificate:
        raise IssuerRefused(f"the CA configured for the issuer {host} is no PEM certificate") from None


async def _get(
    session: aiohttp.ClientSession,
    url: str,
    *,
    now: datetime,
    timeout: float,  # noqa: ASYNC109 - handed on
) -> tuple[_Document, timedelta]:
    """One JSON document and how long it may be kept."""
    host = URL(url).host_port_subcomponent
    headers = {"Accept": "application/json"}
    try:
        reply = await request(session, "GET", url, headers=headers, timeout=timeout, max_body=BODY_LIMIT)
    except TransportError as error:
        raise IssuerUnreachable(str(error)) from None
    if reply.status != HTTPStatus.OK:
        redirect = ", a redirect, which is not followed" if reply.status // 100 == 3 else ""  # noqa: PLR2004 - 3xx
        raise IssuerUnanswered(f"{host} answered HTTP {reply.status}{redirect}")
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise IssuerMalformed(f"the document at {host} is no JSON object")
    return cast("_Document", document), _life(reply.headers, now)


def _https(document: _Document, name: str, host: str, *, required: bool = True) -> str:
    """An endpoint of the document; empty where it is missing and may be."""
    value = document.get(name)
    if value is None and not required:
        return ""
    if isinstance(value, str):
        try:
            parsed = URL(value)
        except ValueError:
            parsed = URL()
        if parsed.scheme == "https" and parsed.host and parsed.user is None:
            return value
    raise IssuerMalformed(f"{name} in the document of {host} is no https URL")


def _keys(document: _Document, host: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and algorithms of the public keys that can sign. Raises IssuerMalformed if there is none.

    A single key needs no id (OpenID Connect Core 1.0, section 10.1); one of several keys without id is passed over.
    """
    listed = document.get("keys")
    ids: set[str] = set()
    algorithms: set[str] = set()
    without_id: list[object] = []  # the algorithm of each such key
    for key in listed if isinstance(listed, list) else ():
        if not isinstance(key, dict) or key.get("use", "sig") != "sig":
            continue
        kid, kty, algorithm = key.get("kid"), key.get("kty"), key.get("alg")
        if not isinstance(kty, str) or kty in {"", "oct"}:
            continue
        if kid is None:
            without_id.append(algorithm)
            continue
        if not isinstance(kid, str) or not kid:
            continue
        ids.add(kid)
        if isinstance(algorithm, str):
            algorithms.add(algorithm)
    if not ids and len(without_id) == 1:
        return (), tuple(one for one in without_id if isinstance(one, str))
    if not ids:
        raise IssuerMalformed(f"the key set of {host} holds no public signing key with kty, and kid if it is not alone")
    return tuple(sorted(ids)), tuple(sorted(algorithms))


def _algorithms(document: _Document, host: str) -> tuple[str, ...]:
    """The signing algorithms of ID tokens, without `none`; empty where the document does not say."""
    listed = document.get("id_token_signing_alg_values_supported")
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise IssuerMalformed(f"the signing algorithms of {host} are no list of names")
    found = tuple(sorted({str(one) for one in listed} - {"none"}))
    if not found:
        raise IssuerMalformed(f"{host} signs its ID tokens with nothing")
    return found


def _life(headers: Mapping[str, str], now: datetime) -> timedelta:
    """How long an answer may be kept by its cache headers; for ever where it does not say."""
    control = _cache_control(headers.get("Cache-Control", ""))
    if control.keys() & {"no-store", "no-cache"}:
        return timedelta(0)
    if "max-age" in control:
        return timedelta(seconds=max(0, _seconds(control["max-age"]) - _seconds(headers.get("Age", ""))))
    if "Expires" in headers:
        expires = http_date(headers["Expires"])
        # An Expires that is no date, such as 0, means "already over".
        return expires - (http_date(headers.get("Date", "")) or now) if expires else timedelta(0)
    return timedelta.max


def _cache_control(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs if name.strip()}


def _seconds(text: str) -> int:
    """Seconds as cache headers have them; 0 for what is no number, and no more than a century."""
    if not text.isascii() or not text.isdigit():
        return 0
    # Ten digits are enough, and thousands of them Python refuses to read.
    return min(int(text.lstrip("0")[:10] or "0"), 10**9)
