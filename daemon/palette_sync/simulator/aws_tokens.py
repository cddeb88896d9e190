"""Tokens of EKS in the simulated world: signed as clients sign them, and checked as AWS checks them.

A token is `k8s-aws-v1.` and the base64url of a presigned URL of STS GetCallerIdentity. It is written here once more,
apart from the library that the daemon uses, so that a mistake on one side shows. Source: AWS Signature Version 4, query
parameters; documentation of aws-iam-authenticator.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlsplit

PREFIX = "k8s-aws-v1."
HEADER = "x-k8s-aws-id"
LIFE = timedelta(minutes=15)
_CLOCK_TOLERANCE = timedelta(minutes=5)
_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE = "sts"
_TIME = "%Y%m%dT%H%M%SZ"
_HOST = re.compile(r"sts\.([a-z]{2}(?:-[a-z]+)+-[0-9])\.amazonaws\.com(?:\.cn)?")
_EMPTY_BODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class AwsKey:
    """An access key, and whose it is. Temporary keys have a session token."""

    access_key_id: str
    secret: str = field(repr=False)
    user: str
    session_token: str | None = field(default=None, repr=False)


def sign(key: AwsKey, *, cluster: str, region: str, when: datetime) -> str:
    """Make a token for the cluster of that name."""
    stamp = when.strftime(_TIME)
    host = f"sts.{region}.amazonaws.com"
    query = {
        "Action": "GetCallerIdentity",
        "Version": "2011-06-15",
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{key.access_key_id}/{stamp[:8]}/{region}/{_SERVICE}/aws4_request",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": "60",
        "X-Amz-SignedHeaders": f"host;{HEADER}",
    }
    query["X-Amz-Signature"] = _signature(key, query, {"host": host, HEADER: cluster}, region)
    url = f"https://{host}/?{_canonical_query(query)}"
    return PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def user_of(token: str, keys: dict[str, AwsKey], *, cluster: str, now: datetime) -> str | None:
    """Whose token this is; None unless STS and EKS would accept it for the cluster of that name."""
    query, host = _opened(token)
    found = _HOST.fullmatch(host)
    key = keys.get(query.get("X-Amz-Credential", "").partition("/")[0])
    if found is None or key is None:
        return None
    region = found.group(1)
    if query.get("X-Amz-SignedHeaders") != f"host;{HEADER}" or not _is_fresh(query, now):
        return None
    if (query.get("Action"), query.get("Version")) != ("GetCallerIdentity", "2011-06-15"):
        return None
    if query.get("X-Amz-Security-Token") != key.session_token:
        return None
    given = query.pop("X-Amz-Signature", "")
    expected = _signature(key, query, {"host": host, HEADER: cluster}, region)
    return key.user if hmac.compare_digest(given, expected) else None


def _opened(token: str) -> tuple[dict[str, str], str]:
    """The query and the host of a token's URL; empty for anything else."""
    encoded = token.removeprefix(PREFIX)
    try:
        url = urlsplit(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode())
    except (binascii.Error, ValueError):
        return {}, ""
    if not token.startswith(PREFIX) or (url.scheme, url.path) != ("https", "/"):
        return {}, ""
    return dict(parse_qsl(url.query, keep_blank_values=True)), url.netloc


def _is_fresh(query: dict[str, str], now: datetime) -> bool:
    try:
        signed = datetime.strptime(query.get("X-Amz-Date", ""), _TIME).replace(tzinfo=UTC)
        seconds = int(query.get("X-Amz-Expires", ""))
    except ValueError:
        return False
    return 0 < seconds <= LIFE.total_seconds() and signed - _CLOCK_TOLERANCE <= now < signed + LIFE


def _signature(key: AwsKey, query: dict[str, str], headers: dict[str, str], region: str) -> str:
    stamp = query.get("X-Amz-Date", "")
    scope = f"{stamp[:8]}/{region}/{_SERVICE}/aws4_request"
    lines = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    canonical = "\n".join(["GET", "/", _canonical_query(query), lines, ";".join(sorted(headers)), _EMPTY_BODY])
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing = f"AWS4{key.secret}".encode()
    for word in (stamp[:8], region, _SERVICE, "aws4_request"):
        signing = hmac.new(signing, word.encode(), hashlib.sha256).digest()
    return hmac.new(signing, text.encode(), hashlib.sha256).hexdigest()


def _canonical_query(query: dict[str, str]) -> str:
    return "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
