"""Access to one cluster with a service account: observe, plan, apply, prove. `core.plan` decides what is written."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync import kube
from palette_sync.core.objects import Kind
from palette_sync.core.plan import TokenNeed, plan, plan_replace_legacy
from palette_sync.core.rbac import probe_of
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime, timedelta

    from palette_sync.core.model import ClusterKey, ClusterMemory, Credential, RetiredSecret, Secret, Server
    from palette_sync.core.objects import Desired
    from palette_sync.core.plan import Action, Plan
    from palette_sync.core.policy import TokenPolicy

ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Granted:
    """The result of `grant`. `credential` is None if the published token is kept."""

    server: Server
    credential: Credential | None
    kubernetes_version: str | None
    actions: tuple[Action, ...]
    legacy: bool
    generation: str
    retired: tuple[RetiredSecret, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What verifying the published token showed. `dead`: it is refused; otherwise `healthy`, or `actions` are needed.

    `unreadable`: kinds other than Secrets that this token may not read, so that only the admin can check them.
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
    admin: kube.AdminAccess,
    desired: Desired,
    *,
    need: TokenNeed,
    memory: ClusterMemory,
    key: ClusterKey,
    now: datetime,
    token_policy: TokenPolicy,
    timeout: float,  # noqa: ASYNC109 - of each request; the caller bounds the whole
    requests: kube.Requests | None = None,
    dry_run: bool = False,
) -> Granted:
    """Bring the objects in line and, if needed, issue a token and prove it before it is published.

    `dry_run` only returns the actions. Raises AdminCredentialRefused, other KubeErrors, KubeconfigError.
    """
    async with (
        _refusals_of(admin),
        kube.KubeApi(admin.server, admin.credential, timeout=timeout, requests=requests) as api,
    ):
        decided, done = await ensure(
            api, desired, need=need, memory=memory, now=now, overlap=token_policy.overlap, dry_run=dry_run
        )
        credential = None
        if decided.issue and not dry_run:
            if desired.token_source == "request":  # noqa: S105 - a mode's name
                credential = await kube.request_token(
                    api, desired, decided.secret, key=key, validity=token_policy.validity, now=now
                )
            else:
                credential = await kube.read_secret_token(
                    api, desired, decided.secret, key=key, rotate_every=token_policy.rotate_every, now=now
                )
    version = None
    if credential is not None:
        async with kube.KubeApi(
            admin.server, kube.BearerToken(credential.token), timeout=timeout, requests=requests
        ) as api:
            await kube.prove(api, probe_of(desired.rules), user=desired.user)
            version = await kube.kubernetes_version(api)
    return Granted(
        server=admin.server,
        credential=credential,
        kubernetes_version=version,
        actions=(*done, *_issued(decided.actions, dry_run=dry_run)),
        legacy=decided.legacy,
        generation=decided.secret,
        retired=decided.retired,
    )


@contextlib.asynccontextmanager
async def _refusals_of(admin: kube.AdminAccess) -> AsyncIterator[None]:
    """Turn a 401 into an error that names whose credential was refused."""
    try:
        yield
    except kube.Unauthorized:
        if admin.from_cloud:
            raise kube.CloudIdentityRefused("the cluster refused the token of the cloud identity") from None
        raise kube.AdminCredentialRefused("Palette's admin credential was refused") from None


def _issued(actions: tuple[Action, ...], *, dry_run: bool) -> tuple[Action, ...]:
    """The issue action, once the token was issued; the actions of a dry run contain it already."""
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
    requests: kube.Requests | None = None,
) -> Checked:
    """Verify a healthy cluster with its published read-only token: nothing is written, no admin credential is used.

    A refusal on Secrets is fine: a working token proves the Secret that it is bound to. Raises KubeError.
    """
    async with kube.KubeApi(server, kube.BearerToken(token), timeout=timeout, requests=requests) as api:
        denied = False
        try:
            await kube.prove(api, probe_of(desired.rules), user=desired.user)
        except kube.TokenRejected:
            return Checked(dead=True)
        except kube.AccessDenied:
            denied = True
        try:
            version = await kube.kubernetes_version(api)
            observed = await kube.observe(api, desired, lenient=True)
        except kube.Unauthorized:  # it was revoked just now
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
    admin: kube.AdminAccess,
    desired: Desired,
    *,
    timeout: float,  # noqa: ASYNC109 - of each request
    dry_run: bool,
) -> tuple[str, ...]:
    """Delete the legacy token Secrets and return their names. Raises KubeError, KubeconfigError."""
    async with _refusals_of(admin), kube.KubeApi(admin.server, admin.credential, timeout=timeout) as api:
        actions = plan_replace_legacy(desired, await kube.observe(api, desired))
        for action in () if dry_run else actions:
            with contextlib.suppress(kube.NotFound):  # somebody else deleted it
                await kube.write(api, action, namespace=desired.namespace)
    return tuple(action.name for action in actions)


async def ensure(
    api: kube.KubeApi,
    desired: Desired,
    *,
    need: TokenNeed,
    memory: ClusterMemory,
    now: datetime,
    overlap: timedelta,
    dry_run: bool = False,
) -> tuple[Plan, tuple[Action, ...]]:
    """Observe, plan, apply. If another writer was faster, start again, at most `ROUNDS` times.

    Returns the final plan and every action that was performed; the caller issues the token. Raises Blocked if the plan
    forbids writing, Conflict if others kept writing, and other KubeErrors.
    """
    done: list[Action] = []
    taken: set[str] = set()
    for attempt in range(ROUNDS):
        observed = await kube.observe(api, desired, also=taken)
        decided = plan(desired, observed, need=need, memory=memory, now=now, overlap=overlap)
        if decided.blocked is not None:
            raise kube.Blocked(decided.blocked)
        if dry_run:
            return decided, decided.actions
        try:
            for action in decided.actions:
                if action.kind is not Kind.TOKEN:
                    await kube.write(api, action, namespace=desired.namespace)
                    done.append(action)
        except (kube.Conflict, kube.NotFound, kube.NamespaceTerminating):
            if attempt == ROUNDS - 1:
                raise
            if action.kind is Kind.SECRET and action.verb == "create":
                taken.add(action.name)  # perhaps by a Secret without our label, which the listing does not show
            if decided.issue and not need.issue:
                # The cause of the dead token may be repaired already, so that the next plan would not see it.
                need = TokenNeed(issue=True, reason=Reason.TOKEN_DEAD)
            continue
        return decided, tuple(done)
    raise AssertionError("unreachable")
