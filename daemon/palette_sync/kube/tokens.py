"""Issue a token, read one from its Secret, and prove that a token works."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
from datetime import UTC, datetime, timedelta
from enum import Flag, auto
from typing import TYPE_CHECKING, Any

import orjson

from palette_sync.core.actions import Bound
from palette_sync.core.model import YEARS, Credential, Secret
from palette_sync.core.rotation import renew_at, rotate_at
from palette_sync.core.text import one_line
from palette_sync.kube.errors import (
    AccessDenied,
    Forbidden,
    KubeError,
    Malformed,
    NotFound,
    TokenNotFilled,
    TokenRejected,
    TokensTooShort,
    Unauthorized,
)
from palette_sync.kube.objects import created_at, section, time_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from palette_sync.core.model import ClusterKey
    from palette_sync.core.objects import Desired
    from palette_sync.core.policy import TokenPolicy
    from palette_sync.core.rbac import AccessProbe
    from palette_sync.kube.transport import KubeApi

# Seconds. Other API servers and caches may learn of a new token or role a little later.
PROOF_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)
PROOF_SHARE = 0.8  # of the time for the cluster that is left when the proof begins
FILL_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 2.0, 3.0)
LONGEST_TOKEN = 8 * 1024  # characters; sealed it must fit into the 16 KiB that readers accept
LONGEST_VERSION = 64
VERSION_TIMEOUT = 3.0  # seconds: a /version that hangs must not use up the cluster's time


class Patience(Flag):
    """Which refusals are asked about again, because other API servers and caches may not know yet what was written.

    `ALL`: token and objects are new. `RIGHTS`: only the objects are. `TOKEN`: only the token may be. `NONE`: neither.
    """

    NONE = 0
    TOKEN = auto()
    RIGHTS = auto()
    ALL = TOKEN | RIGHTS

    def covers(self, refusal: KubeError) -> bool:
        return (Patience.TOKEN in self and isinstance(refusal, TokenRejected)) or (
            Patience.RIGHTS in self and isinstance(refusal, AccessDenied)
        )


async def request_token(
    api: KubeApi, desired: Desired, secret: str, *, key: ClusterKey, policy: TokenPolicy, now: datetime
) -> Credential:
    """Issue an expiring token that is bound to a Secret of ours. Deleting the Secret revokes it.

    Its life is what the API server granted, counted from `now`, the time just before the request. Raises
    TokensTooShort, other KubeErrors.
    """
    bound = await api.call(f"GET Secret {secret}", api.core.read_namespaced_secret, secret, desired.namespace)
    uid = section(bound, "metadata").get("uid")
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "expirationSeconds": int(policy.validity.total_seconds()),
            "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": secret, "uid": uid},
        },
    }
    try:
        answer = await api.call(
            f"token for {desired.service_account}",
            api.core.create_namespaced_service_account_token,
            desired.service_account,
            desired.namespace,
            body,
        )
    except NotFound as error:
        if f'"{desired.service_account}"' in str(error):  # the account is missing, not the subresource
            raise
        raise NotFound(f'{error}: the API server has no TokenRequest; set token.source = "secret" for it') from None
    status = section(answer, "status")
    token, expires = status.get("token"), status.get("expirationTimestamp")
    if not isinstance(token, str) or not token or not isinstance(expires, str):
        raise Malformed("the API server answered a TokenRequest without a token or its expiry")
    # The cluster's clock may differ from ours: the life follows from the cluster's times, the start from our clock.
    life = _life(_issued_at(token) or now, time_in(expires))
    if life < policy.shortest:
        raise TokensTooShort(
            f"the API server grants tokens for {life.total_seconds():g} s; "
            f"at least {policy.shortest.total_seconds():g} s are needed (token.shortest)"
        )
    expires_at = _after(now, life)
    return Credential(
        token=_token(token),
        issued_at=now,
        renew_at=renew_at(key, issued_at=now, expires_at=expires_at),
        expires_at=expires_at,
    )


def _life(issued_at: datetime, expires_at: datetime) -> timedelta:
    """The granted life by the cluster's clock. Raises Malformed if there is none."""
    if expires_at <= issued_at:
        raise Malformed("the API server granted a token that has already expired")
    return expires_at - issued_at


def _after(now: datetime, life: timedelta) -> datetime:
    """The end of a life. Raises Malformed if it is beyond what can be published."""
    with contextlib.suppress(OverflowError):
        if (end := now + life).year in YEARS:
            return end
    raise Malformed("the API server granted a token that would live for thousands of years")


async def read_secret_token(
    api: KubeApi,
    desired: Desired,
    secret: str,
    *,
    key: ClusterKey,
    rotate_every: timedelta,
    overlap: timedelta,
    now: datetime,
) -> Credential:
    """Read the token that the API server writes into a Secret; wait for it with growing pauses.

    Its age is the Secret's by the cluster's clock, its start is counted back from `now` by ours.
    Raises TokenNotFilled, KubeError.
    """
    for pause in (*FILL_PAUSES, None):
        found = await api.call(f"GET Secret {secret}", api.core.read_namespaced_secret, secret, desired.namespace)
        token = section(found, "data").get("token")
        if isinstance(token, str) and token:
            issued_at = now - _age(created_at(found), api.server_time or now)
            due = rotate_at(key, issued_at=issued_at, rotate_every=rotate_every, overlap=overlap)
            return Credential(token=_token(_decode(token)), issued_at=issued_at, renew_at=due)
        if pause is not None:
            await asyncio.sleep(pause)
    raise TokenNotFilled(f"the API server wrote no token into Secret {secret}")


def _age(created: datetime | None, server_time: datetime) -> timedelta:
    if created is None:
        raise Malformed("a Secret without a creation time")
    return max(server_time - created, timedelta(0))


async def prove(
    api: KubeApi, probe: AccessProbe, *, user: str, within: float, patience: Patience = Patience.ALL
) -> None:
    """Show that the session's token works and that its rules took effect.

    A refusal for which there is `patience` is retried for about 5 s, as long as one more answer is likely to come
    within the caller's time (`within`, seconds): a refusal that was seen must be reported before that is over. Some
    clusters forbid access reviews to everybody: a 403 that names `user`, whose token it is, proves the token too,
    because the API server has authenticated it. Raises TokenRejected, AccessDenied, KubeError.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + within * PROOF_SHARE
    for pause in (*PROOF_PAUSES, None):
        refusal: TokenRejected | AccessDenied
        asked_at = loop.time()
        try:
            if await review(api, probe):
                return
            refusal = AccessDenied(f"the token works but may not {probe.verb} {probe.resource or probe.path}")
        except Unauthorized:
            refusal = TokenRejected("the API server refuses the token")
        except Forbidden as error:
            if error.user == user:
                return
            raise
        answered_at = loop.time()
        in_time = pause is not None and answered_at + pause + (answered_at - asked_at) <= ends_at
        if pause is None or not in_time or not patience.covers(refusal):
            raise refusal
        await asyncio.sleep(pause)


async def review(api: KubeApi, probe: AccessProbe) -> bool:
    """Ask whether the session's token has the right that `probe` names. Raises Unauthorized, KubeError."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": _asked(probe)}
    answer = await api.call("access review", api.authorization.create_self_subject_access_review, body)
    return section(answer, "status").get("allowed") is True


def _asked(probe: AccessProbe) -> dict[str, dict[str, str]]:
    """The spec of the review; a subresource has its own field."""
    if probe.path:
        return {"nonResourceAttributes": {"path": probe.path, "verb": probe.verb}}
    resource, _, subresource = probe.resource.partition("/")
    attributes = {"group": probe.group, "resource": resource, "verb": probe.verb}
    extra = {"subresource": subresource, "name": probe.name}
    return {"resourceAttributes": attributes | {key: value for key, value in extra.items() if value}}


async def kubernetes_version(api: KubeApi) -> str | None:
    """The API server's gitVersion, shortened; None if it cannot be read, because access does not depend on it."""
    try:
        answer = await api.call("GET /version", api.version.get_code, _request_timeout=VERSION_TIMEOUT)
    except KubeError:
        return None
    return version_in(answer)


def version_in(document: dict[str, Any]) -> str | None:
    version = document.get("gitVersion")
    return (one_line(version, LONGEST_VERSION) or None) if isinstance(version, str) else None


def bound_to(token: Secret) -> Bound:
    """The objects that a service-account token names in its claims (kubernetes, `pkg/serviceaccount/claims.go`)."""
    claims = _claims(token.reveal())
    private = claims.get("kubernetes.io")
    if not isinstance(private, dict):
        return Bound(account_uid=_uid(claims, "kubernetes.io/serviceaccount/service-account.uid"))
    account, secret = private.get("serviceaccount"), private.get("secret")
    return Bound(account_uid=_uid(account, "uid"), secret_uid=_uid(secret, "uid"))


def _uid(section: object, key: str) -> str | None:
    found = section.get(key) if isinstance(section, dict) else None
    return found if isinstance(found, str) else None


def _issued_at(token: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(_claims(token)["iat"]), UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


def _claims(token: str) -> dict[str, Any]:
    """The claims of a JWT, or nothing. They are not verified: the API server itself issued the token."""
    parts: Iterator[str] = iter(token.split("."))
    next(parts)
    payload = next(parts, "")
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _token(text: str) -> Secret:
    """Raises Malformed for text that no header can carry: Backstage could not send it."""
    if len(text) > LONGEST_TOKEN or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise Malformed("the API server granted a token that no header can carry")
    return Secret(text)


def _decode(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise Malformed("a Secret's token is not valid base64") from None
