"""The operations on one cluster that a pass calls, each over one connection that is closed at its end."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from palette_sync.core.plan import Kind, TokenNeed, plan, plan_replace_legacy
from palette_sync.core.rbac import probe_of
from palette_sync.core.reasons import Reason
from palette_sync.http import TransportError, open_session, request
from palette_sync.kube.access import apply, ensure, observe
from palette_sync.kube.errors import AccessDenied, NotFound, TokenRejected, Unauthorized, unreachable
from palette_sync.kube.kubeconfig import BearerToken
from palette_sync.kube.tokens import (
    kubernetes_version,
    prove,
    read_secret_token,
    request_token,
    version_in,
)
from palette_sync.kube.transport import KubeApi, Requests, tls_context

if TYPE_CHECKING:
    from datetime import datetime

    from palette_sync.core.model import ClusterKey, ClusterMemory, Credential, RetiredSecret, Secret, Server
    from palette_sync.core.plan import Action, Desired
    from palette_sync.core.policy import TokenPolicy
    from palette_sync.kube.kubeconfig import AdminAccess

VERSION_ANSWER = 64 * 1024
VERSION = "get_code"  # as the client library calls it


@dataclass(frozen=True, slots=True)
class Granted:
    """What `grant` did. `credential` is None where the published token was to be kept."""

    server: Server
    credential: Credential | None
    kubernetes_version: str | None
    actions: tuple[Action, ...]
    legacy: bool
    generation: str
    retired: tuple[RetiredSecret, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What the published token told. `dead`: it is refused; otherwise `healthy`, or `actions` say what is to be done.

    `unreadable`: kinds other than Secrets that this token may not read, so that only the admin can judge them.
    """

    dead: bool
    denied: bool = False
    actions: tuple[Action, ...] = ()
    unreadable: frozenset[Kind] = frozenset()
    kubernetes_version: str | None = None
    legacy: bool | None = None
    retired: tuple[RetiredSecret, ...] = ()

    @property
    def healthy(self) -> bool:
        return not (self.dead or self.denied or self.actions or self.unreadable)


async def grant(
    admin: AdminAccess,
    desired: Desired,
    *,
    need: TokenNeed,
    memory: ClusterMemory,
    key: ClusterKey,
    now: datetime,
    token_policy: TokenPolicy,
    timeout: float,  # noqa: ASYNC109 - of each request; the caller bounds the whole
    requests: Requests | None = None,
    dry_run: bool = False,
) -> Granted:
    """Bring the objects in line and, if needed, issue a token and prove it before anybody else learns of it.

    `dry_run` only tells the actions. Raises KubeError, KubeconfigError.
    """
    async with KubeApi(admin.server, admin.credential, timeout=timeout, requests=requests) as api:
        ensured = await ensure(
            api, desired, need=need, memory=memory, now=now, overlap=token_policy.overlap, dry_run=dry_run
        )
        decided = ensured.plan
        credential = None
        if decided.issue and not dry_run:
            if desired.token_source == "request":  # noqa: S105 - a mode's name
                credential = await request_token(
                    api, desired, decided.secret, key=key, validity=token_policy.validity, now=now
                )
            else:
                credential = await read_secret_token(
                    api, desired, decided.secret, key=key, rotate_every=token_policy.rotate_every, now=now
                )
    version = None
    if credential is not None:
        async with KubeApi(admin.server, BearerToken(credential.token), timeout=timeout, requests=requests) as api:
            await prove(api, probe_of(desired.rules))
            version = await kubernetes_version(api)
    return Granted(
        server=admin.server,
        credential=credential,
        kubernetes_version=version,
        actions=(*ensured.actions, *_issued(decided.actions, dry_run=dry_run)),
        legacy=decided.legacy,
        generation=decided.secret,
        retired=decided.retired,
    )


def _issued(actions: tuple[Action, ...], *, dry_run: bool) -> tuple[Action, ...]:
    """A dry run's actions hold the token already; else it is told here, now that it was issued."""
    return () if dry_run else tuple(action for action in actions if action.kind is Kind.TOKEN)


async def check(
    server: Server,
    token: Secret,
    desired: Desired,
    *,
    memory: ClusterMemory,
    now: datetime,
    token_policy: TokenPolicy,
    timeout: float,  # noqa: ASYNC109 - of each request; the caller bounds the whole
    requests: Requests | None = None,
) -> Checked:
    """Verify a healthy cluster with its published read-only token: nothing is written, no admin credential is used.

    A refusal on Secrets is fine, for a living token proves the Secret that it is bound to. Raises KubeError.
    """
    async with KubeApi(server, BearerToken(token), timeout=timeout, requests=requests) as api:
        denied = False
        try:
            await prove(api, probe_of(desired.rules))
        except TokenRejected:
            return Checked(dead=True)
        except AccessDenied:
            denied = True
        try:
            version = await kubernetes_version(api)
            observed = await observe(api, desired, lenient=True)
        except Unauthorized:  # it was revoked a moment ago
            return Checked(dead=True)
        need = TokenNeed(issue=False, reason=Reason.VERIFY_DUE)
        decided = plan(desired, observed, need=need, memory=memory, now=now, overlap=token_policy.overlap)
        secrets_unreadable = Kind.SECRET in observed.unreadable
        return Checked(
            dead=False,
            denied=denied or decided.blocked is not None,
            actions=decided.actions,
            unreadable=observed.unreadable - {Kind.SECRET},
            kubernetes_version=version,
            legacy=None if secrets_unreadable else decided.legacy,
            retired=memory.retired if secrets_unreadable else decided.retired,
        )


async def replace_legacy(
    admin: AdminAccess,
    desired: Desired,
    *,
    timeout: float,  # noqa: ASYNC109 - of each request
    dry_run: bool,
) -> tuple[str, ...]:
    """Delete the legacy token Secrets and return their names. Raises KubeError, KubeconfigError."""
    async with KubeApi(admin.server, admin.credential, timeout=timeout) as api:
        actions = plan_replace_legacy(desired, await observe(api, desired))
        for action in () if dry_run else actions:
            with contextlib.suppress(NotFound):  # somebody else deleted it meanwhile
                await apply(api, desired, action)
    return tuple(action.name for action in actions)


async def probe_version(
    server: Server,
    *,
    timeout: float,  # noqa: ASYNC109 - of the one request
    requests: Requests | None = None,
) -> str | None:
    """Ask `/version` without a credential. Any HTTP answer means reachable; a version comes only if it is told.

    Raises Unreachable, KubeconfigError.
    """
    counted = (requests or Requests()).counted(VERSION)
    async with open_session(tls=tls_context(server, None), connections=1, connect_timeout=timeout) as session:
        with counted:
            try:
                reply = await request(
                    session,
                    "GET",
                    f"{server.url}/version",
                    timeout=timeout,
                    max_body=VERSION_ANSWER,
                    server_hostname=server.tls_server_name,
                )
            except TransportError as error:
                raise unreachable(error) from None
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None
    return version_in(document) if isinstance(document, dict) else None
