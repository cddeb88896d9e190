"""Access to one cluster with a service account: observe, plan, apply, prove. `core.plan` decides what is written."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from palette_sync import kube
from palette_sync.core.objects import Kind
from palette_sync.core.plan import TokenNeed, plan, plan_replace_legacy, plan_revocation
from palette_sync.core.rbac import probe_of
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
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

    `secrets_seen`: the Secret behind it was looked at. If not, a token may pass for about 10 s after its Secret was
    deleted, because API servers cache what they accepted.

    `unreadable`: kinds other than Secrets that this token may not read, so that only the admin can check them.
    """

    dead: bool
    denied: bool = False
    actions: tuple[Action, ...] = ()
    unreadable: frozenset[Kind] = frozenset()
    kubernetes_version: str | None = None
    legacy: bool | None = None
    retired: tuple[RetiredSecret, ...] = ()
    secrets_seen: bool = True

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
    timeout: float,  # noqa: ASYNC109 - of each request, and of the whole, which the caller bounds
    requests: kube.Requests | None = None,
    dry_run: bool = False,
) -> Granted:
    """Bring the objects in line and, if needed, issue a token and prove it before it is published.

    A token of a Secret that the API server refuses is replaced by the next generation's.
    `dry_run` only returns the actions, after the API server was asked whether it would take them. Raises
    AdminCredentialRefused, other KubeErrors, KubeconfigError.
    """
    version = None
    actions: list[Action] = []
    ends_at = asyncio.get_running_loop().time() + timeout
    async with kube.KubeApi(admin.server, admin.credential, timeout=timeout, requests=requests) as api:
        while True:
            async with refusals_of(admin):
                decided, done = await ensure(
                    api, desired, need=need, memory=memory, now=now, overlap=token_policy.overlap, dry_run=dry_run
                )
                actions += done
                if dry_run or not decided.issue:
                    credential = None
                    break
                credential = await _issue(api, desired, decided.secret, key=key, now=now, token_policy=token_policy)
            # The token of a Secret that was there before is known to every API server by now.
            fresh = not desired.token_in_secret or any(action.kind is Kind.SECRET for action in done)
            patience = kube.Patience.ALL if fresh else kube.Patience.RIGHTS
            try:
                version = await _prove(admin.server, credential, desired, patience, ends_at=ends_at, requests=requests)
            except kube.TokenRejected:
                if not desired.token_in_secret or decided.secret in need.rejected:
                    raise
                need = TokenNeed(True, Reason.TOKEN_DEAD, rejected=need.rejected | {decided.secret}, revoke=need.revoke)
            else:
                break
    return Granted(
        server=admin.server,
        credential=credential,
        kubernetes_version=version,
        actions=(*actions, *_issued(decided.actions, dry_run=dry_run)),
        legacy=decided.legacy,
        generation=decided.secret,
        retired=decided.retired,
    )


@contextlib.asynccontextmanager
async def refusals_of(admin: kube.AdminAccess) -> AsyncIterator[None]:
    """Turn a 401 into an error that names whose credential was refused."""
    try:
        yield
    except kube.Unauthorized:
        if admin.from_cloud:
            raise kube.CloudIdentityRefused("the cluster refused the token of the cloud identity") from None
        raise kube.AdminCredentialRefused("Palette's admin credential was refused") from None


async def _issue(
    api: kube.KubeApi, desired: Desired, secret: str, *, key: ClusterKey, now: datetime, token_policy: TokenPolicy
) -> Credential:
    """Issue a token that is bound to a Secret, or read the one that the Secret holds. Raises KubeError."""
    if not desired.token_in_secret:
        return await kube.request_token(api, desired, secret, key=key, policy=token_policy, now=now)
    return await kube.read_secret_token(
        api,
        desired,
        secret,
        key=key,
        rotate_every=token_policy.rotate_every,
        overlap=token_policy.overlap,
        now=now,
    )


async def _prove(
    server: Server,
    credential: Credential,
    desired: Desired,
    patience: kube.Patience,
    *,
    ends_at: float,
    requests: kube.Requests | None,
) -> str | None:
    """Prove a token before the event loop's time is `ends_at`, and return the server's version. Raises KubeError."""
    timeout = max(ends_at - asyncio.get_running_loop().time(), 0.1)
    async with kube.KubeApi(server, kube.BearerToken(credential.token), timeout=timeout, requests=requests) as api:
        await kube.prove(api, probe_of(desired.rules), user=desired.user, within=timeout, patience=patience)
        return await kube.kubernetes_version(api)


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
    patience: kube.Patience = kube.Patience.TOKEN,
    timeout: float,  # noqa: ASYNC109 - of each request; the caller bounds the whole
    requests: kube.Requests | None = None,
) -> Checked:
    """Verify a healthy cluster with its published read-only token: nothing is written, no admin credential is used.

    A refusal on Secrets is fine: a working token proves the Secret that it is bound to. Raises KubeError.
    """
    async with kube.KubeApi(server, kube.BearerToken(token), timeout=timeout, requests=requests) as api:
        denied = False
        try:
            await kube.prove(api, probe_of(desired.rules), user=desired.user, within=timeout, patience=patience)
        except kube.TokenRejected:
            return Checked(dead=True)
        except kube.AccessDenied:
            denied = True
        try:
            version = await kube.kubernetes_version(api)
            observed = await kube.observe(api, desired, lenient=True)
        except kube.Unauthorized:  # it was revoked just now
            return Checked(dead=True)
        need = TokenNeed(issue=False, reason=Reason.VERIFY_DUE, bound=kube.bound_to(token))
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
            secrets_seen=not secrets_unreadable,
        )


async def replace_legacy(
    admin: kube.AdminAccess,
    desired: Desired,
    *,
    timeout: float,  # noqa: ASYNC109 - of each request
    dry_run: bool,
    requests: kube.Requests | None = None,
) -> tuple[str, ...]:
    """Delete the legacy token Secrets and return their names. Raises KubeError, KubeconfigError."""
    requests = requests or kube.Requests()

    async def work(server: Server) -> tuple[str, ...]:
        async with (
            refusals_of(admin),
            kube.KubeApi(server, admin.credential, timeout=timeout, requests=requests) as api,
        ):
            actions = plan_replace_legacy(desired, await kube.observe(api, desired))
            if not dry_run:
                await _delete(api, actions, desired)
            return tuple(action.name for action in actions)

    return await kube.as_reader(admin.server, work, timeout=timeout, network=requests.network)


async def revoke(
    admin: kube.AdminAccess,
    desired: Desired,
    *,
    memory: ClusterMemory,
    timeout: float,  # noqa: ASYNC109 - of each request
    requests: kube.Requests | None = None,
) -> tuple[str, ...]:
    """Delete the Secrets of ours behind tokens, which revokes the tokens, and return their names.

    The other objects stay. Raises KubeError, KubeconfigError.
    """
    requests = requests or kube.Requests()

    async def work(server: Server) -> tuple[str, ...]:
        async with (
            refusals_of(admin),
            kube.KubeApi(server, admin.credential, timeout=timeout, requests=requests) as api,
        ):
            observed = await kube.observe(api, desired)
            return await _delete(api, plan_revocation(desired, observed, memory), desired)

    return await kube.as_reader(admin.server, work, timeout=timeout, network=requests.network)


async def _delete(api: kube.KubeApi, actions: Iterable[Action], desired: Desired) -> tuple[str, ...]:
    for action in actions:
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
        try:
            if dry_run:
                await kube.rehearse(api, decided.actions, desired)
                return decided, decided.actions
            for action in decided.actions:
                if action.kind is not Kind.TOKEN:
                    await kube.write(api, action, namespace=desired.namespace)
                    done.append(action)
        except (kube.Conflict, kube.NotFound, kube.NamespaceTerminating):
            if attempt == ROUNDS - 1:
                raise
            # Perhaps by a Secret without our label, which the listing does not show.
            taken |= {one.name for one in decided.actions if one.kind is Kind.SECRET and one.verb == "create"}
            if decided.issue and not need.issue:
                # The cause of the dead token may be repaired already, so that the next plan would not see it.
                need = replace(need, issue=True, reason=Reason.TOKEN_DEAD)
            continue
        return decided, tuple(done)
    raise AssertionError("unreachable")
