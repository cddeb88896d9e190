"""The work on one cluster: gain or prove access, and return the result as a value.

One task works on a cluster, so that a cluster is never touched twice at once. Palette's files are fetched before a slot
is taken: waiting for Palette's rate limit delays no other cluster.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from palette_sync import cloud, kube, oidc, palette
from palette_sync.core.due import asks_again, has_access
from palette_sync.core.fold import AccessFailed, AccessGained, Verdict
from palette_sync.core.issuers import issuer_problem
from palette_sync.core.model import AuthMode, OidcAuth, ServiceAccountAuth
from palette_sync.core.plan import TokenNeed
from palette_sync.core.reasons import Reason
from palette_sync.core.ways import Way, to_remember, ways
from palette_sync.reconcile import access
from palette_sync.reconcile.explain import IssuerNotAllowed, OidcNotConfigured, explain, objects_stay, token_lives
from palette_sync.reconcile.release import release
from palette_sync.reconcile.server_ways import FIRST_FOR_USERS, AdminWays, server_for_users
from palette_sync.tracing import span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from palette_sync.core.due import Candidate, Due
    from palette_sync.core.model import ClusterRecord, Credential, RetiredSecret, Secret, Server
    from palette_sync.core.plan import Action
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.reconcile.issuers import Issuers

T = TypeVar("T")

log = structlog.get_logger(__name__)

# What one way to a cluster may fail with while another may work.
_FILE_UNUSABLE = (palette.NotFound, palette.NotPermitted, kube.KubeconfigError, cloud.CloudError)
_WAY_FAILED = (
    *(kube.Unreachable, kube.ChainIncomplete, kube.AdminCredentialRefused, kube.KubeconfigError),
    *(cloud.CloudError, TimeoutError),
)


@dataclass(frozen=True, slots=True)
class DueCluster:
    """One cluster that is due, and its published token, opened (None if there is none)."""

    candidate: Candidate
    due: Due
    token: Secret | None

    def __str__(self) -> str:
        return str(self.candidate.key)


@dataclass(frozen=True, slots=True)
class ClusterResult:
    """The result for a cluster. `credential`: a new one to publish; `revoked`: the published one is to be removed.

    `left` says that a token of a cluster that turned to OIDC lives on, and until when; "" where none does.
    """

    verdict: Verdict
    credential: Credential | None = None
    revoked: bool = False
    actions: tuple[Action, ...] = ()
    duration_s: float = 0.0
    left: str = ""


class IssuingSuspended(Exception):
    """No token may be issued, because it could not be published."""


class ClusterWorker:
    """Works on one cluster per call. It asks `may_issue` before anything that may issue a token (invariant 3,
    docs/architecture.md). `proven_dead` collects the uids whose published token was refused.
    """

    def __init__(
        self,
        *,
        policy: InstancePolicy,
        client: palette.PaletteClient,
        cloud: cloud.CloudTokens,
        issuers: Issuers,
        slots: AbstractAsyncContextManager[None],
        may_issue: Callable[[], bool],
        now: datetime,
        requests: kube.Requests,
        proven_dead: set[str],
        dry_run: bool = False,
    ) -> None:
        self._policy = policy
        self._client = client
        self._cloud = cloud
        self._issuers = issuers
        self._slots = slots
        self._may_issue = may_issue
        self._now = now
        self._begun = time.monotonic()
        self._requests = requests
        self._proven_dead = proven_dead
        self._dry_run = dry_run

    async def __call__(self, item: DueCluster) -> ClusterResult:
        """Errors of Palette, a cluster or an issuer become a verdict; anything else is raised."""
        key = item.candidate.key
        with span("cluster", instance=key.instance, cluster=key.uid, due=item.due.reason) as traced:
            worked = await self._worked(item)
            if isinstance(worked.verdict, AccessFailed):
                traced.failed(worked.verdict.reason)
        return worked

    async def _worked(self, item: DueCluster) -> ClusterResult:
        begun = time.monotonic()
        try:
            worked = await self._work(item)
        except Exception as error:
            verdict = explain(error, self._policy)
            if verdict is None:
                raise
            if detail := getattr(error, "detail", ""):
                key = item.candidate.key
                log.info("cluster_not_reached", instance=key.instance, cluster=key.uid, reason=detail)
            worked = ClusterResult(verdict)
            record = item.candidate.record
            if item.due.reason is Reason.ISSUER_DUE and record is not None and isinstance(record.auth, OidcAuth):
                self._issuers.put_off(record.auth.issuer_url, verdict.message)
        return replace(worked, duration_s=round(time.monotonic() - begun, 3))

    async def _work(self, item: DueCluster) -> ClusterResult:
        candidate = item.candidate
        if candidate.mode is AuthMode.SERVICE_ACCOUNT:
            return await self._service_account(item)
        if candidate.mode is AuthMode.OIDC:
            return await self._oidc(item)
        return await self._auto(item)

    async def _auto(self, item: DueCluster) -> ClusterResult:
        """Use OIDC if the cluster has a working OIDC configuration, else a service account.

        While that cannot be decided, a cluster keeps the kind of access that it has.
        """
        try:
            return await self._oidc(item)
        except (palette.NotFound, palette.NotPermitted, OidcNotConfigured, IssuerNotAllowed, kube.KubeconfigError):
            return await self._service_account(item)
        except (palette.PaletteError, oidc.IssuerError):
            record = item.candidate.record
            if record is not None and isinstance(record.auth, OidcAuth):
                raise
            if has_access(item.candidate):
                return await self._service_account(item)
            raise

    async def _oidc(self, item: DueCluster) -> ClusterResult:
        cluster, policy = item.candidate.cluster, self._policy
        spec = await palette.oidc_spec(self._client, cluster)
        if spec is None:
            raise OidcNotConfigured
        if problem := issuer_problem(spec.issuer_url, spec.client_id):
            raise oidc.IssuerRefused(problem)
        if not policy.oidc.issuers.allows(spec.issuer_url, spec.client_id):
            raise IssuerNotAllowed(spec.issuer_url, spec.client_id)
        timeout = policy.cluster_timeout.total_seconds()

        async def probe(server: Server) -> tuple[Server, str | None]:
            return server, await kube.probe_version(server, timeout=timeout, requests=self._requests)

        async def use(server: Server) -> tuple[Server, str | None]:
            await self._issuers.get(spec.issuer_url, spec.ca_pem)
            async with self._slots:
                return await kube.as_reader(server, probe, timeout=timeout, network=self._requests.network)

        (server, version), way = await server_for_users(item.candidate, policy, self._client, use)
        record = item.candidate.record
        leaves = record is not None and isinstance(record.auth, ServiceAccountAuth)
        left = await self.leave(item.candidate) if leaves else ""
        return ClusterResult(
            AccessGained(
                server=server,
                auth=OidcAuth(policy.oidc.provider, spec.issuer_url, spec.client_id),
                kubernetes_version=version,
                desired=self._fingerprint(item, AuthMode.OIDC),
                way=to_remember(way, first=FIRST_FOR_USERS),
            ),
            revoked=leaves,
            left=left,
        )

    async def leave(self, candidate: Candidate) -> str:
        """Revoke the tokens of a cluster that is not served with a service account any more; return why not, or "".

        With `release_deselected` all objects of ours go.
        """
        if self._dry_run:
            return ""
        policy = self._policy
        if policy.release_deselected:
            return await self._release_deselected(candidate)
        timeout = policy.cluster_timeout.total_seconds()

        async def revoke(admin: kube.AdminAccess, _way: Way) -> tuple[str, ...]:
            async with self._slots, asyncio.timeout(timeout):
                return await access.revoke(
                    admin, policy.desired, memory=candidate.memory, timeout=timeout, requests=self._requests
                )

        try:
            await self._as_admin(candidate, revoke)
        except Exception as error:
            failed = explain(error, policy)
            if failed is None:
                raise
            return token_lives(candidate, policy, failed.message)
        return ""

    async def _release_deselected(self, candidate: Candidate) -> str:
        """Release a cluster that left the selection, or turned to OIDC. Return what stays in it, or ""."""
        released, key = await self.release(candidate), candidate.key
        if isinstance(released, AccessFailed):
            return objects_stay(candidate, self._policy, released.message)
        done = [f"{action.verb} {action.kind} {action.name}" for action in released]
        log.info("cluster_released", instance=key.instance, cluster=key.uid, done=done)
        return ""

    async def release(self, candidate: Candidate, *, keep_adopted: bool = False) -> tuple[Action, ...] | AccessFailed:
        """Delete or hand back every object of ours in a cluster; return what was done, or why it could not be done.

        A dry run returns what would be done. `keep_adopted` leaves adopted objects as they are.
        """
        policy = self._policy
        timeout = policy.cluster_timeout.total_seconds()

        async def work(admin: kube.AdminAccess, _way: Way) -> tuple[Action, ...]:
            async with self._slots, asyncio.timeout(timeout):
                return await release(
                    admin,
                    policy.desired,
                    timeout=timeout,
                    dry_run=self._dry_run,
                    keep_adopted=keep_adopted,
                    requests=self._requests,
                )

        try:
            return await self._as_admin(candidate, work)
        except Exception as error:
            failed = explain(error, policy)
            if failed is None:
                raise
            return failed

    async def _service_account(self, item: DueCluster) -> ClusterResult:
        """Verify the published token if that is enough; else repair or issue with the admin kubeconfig."""
        record = item.candidate.record
        bound = kube.bound_to(item.token) if item.token is not None else None
        rotates = item.due.reason is Reason.ROTATION_ASKED
        need = TokenNeed(
            issue=item.due.issue or item.token is None,
            reason=item.due.reason,
            bound=bound,
            fresh=item.due.revoke or (rotates and self._policy.desired.token_in_secret),
            revoke=item.due.revoke,
        )
        if item.token is not None and not need.issue and not item.due.needs_admin and _is_known(record):
            assert record is not None
            assert record.server is not None
            try:
                async with self._slots:
                    checked = await self._check(item, record.server, item.token, kube.Patience.TOKEN)
            except (kube.Unreachable, TimeoutError) as error:
                # The record's address or CA may be old: look for others in Palette's current files.
                refused = isinstance(error, kube.Unreachable) and error.reason is Reason.CERTIFICATE_REFUSED
                work = partial(self._grant, item, need=need)
                return await self._as_admin(item.candidate, work, dead=None if refused else record.server, before=error)
            else:
                if checked.healthy:
                    return await self._healthy(item, record.server, checked)
                if checked.dead:
                    need = TokenNeed(issue=True, reason=Reason.TOKEN_DEAD)
            return await self._as_admin(item.candidate, partial(self._grant, item, need=need))
        try:
            return await self._as_admin(item.candidate, partial(self._grant, item, need=need))
        except Exception as error:
            # The published token stays in use, so find out whether it still works.
            if explain(error, self._policy) is not None and not self._dry_run:
                await self._look_whether_it_lives(item)
            raise

    async def _as_admin(
        self,
        candidate: Candidate,
        work: Callable[[kube.AdminAccess, Way], Awaitable[T]],
        *,
        dead: Server | None = None,
        before: Exception | None = None,
    ) -> T:
        """Work on a cluster as its administrator, by the first way that works.

        `dead` is a server that did not answer, with the error `before`; it is not tried again. Raises what the first
        way failed with if none works.
        """
        opening = AdminWays(candidate, self._policy, self._client, self._cloud)
        tried: list[tuple[Server, kube.Credential]] = []
        failure: Exception | None = None
        for way in ways(self._policy.spectro_proxy, first=Way.DIRECT, remembered=candidate.memory.way):
            try:
                admin = await opening.open(way)
                if dead is not None and _same_place(admin.server, dead):
                    failure = failure or before
                elif (admin.server, admin.credential) not in tried:
                    tried.append((admin.server, admin.credential))
                    return await self._with_token_if_refused(opening, admin, way, work)
            except (*_FILE_UNUSABLE, *_WAY_FAILED) as error:
                log.debug(
                    "way_failed",
                    cluster=candidate.key.uid,
                    way=way.value,
                    reason=getattr(error, "detail", "") or str(error),
                )
                failure = failure or error
        assert failure is not None
        raise failure

    async def _with_token_if_refused(
        self,
        opening: AdminWays,
        admin: kube.AdminAccess,
        way: Way,
        work: Callable[[kube.AdminAccess, Way], Awaitable[T]],
    ) -> T:
        """Do the work; if the credential of the file is refused, again with a token of the cluster's cloud."""
        try:
            return await work(admin, way)
        except kube.AdminCredentialRefused:
            with_token = await opening.with_token(admin)
            if with_token is None:
                raise
        return await work(with_token, way)

    async def _healthy(self, item: DueCluster, server: Server, checked: access.Checked) -> ClusterResult:
        """The result of a verification without objections. The token may not be allowed to read Secrets."""
        memory = item.candidate.memory
        if checked.legacy is None and memory.legacy:
            # Only the admin sees whether the legacy Secret is still there; without the admin it counts as there.
            try:
                need = TokenNeed(issue=False, reason=item.due.reason)
                return await self._as_admin(item.candidate, partial(self._grant, item, need=need))
            except Exception as error:
                if explain(error, self._policy) is None:
                    raise
        return ClusterResult(
            self._gained(
                item,
                server,
                checked.kubernetes_version,
                legacy=memory.legacy if checked.legacy is None else checked.legacy,
                generation=memory.generation,
                retired=checked.retired,
                way=memory.way,
                recheck=asks_again(item.due, secrets_seen=checked.secrets_seen),
            )
        )

    async def _look_whether_it_lives(self, item: DueCluster) -> None:
        """Note a published token that the API server refuses. Other failures say nothing about the token."""
        record, credential = item.candidate.record, item.candidate.credential
        if item.token is None or record is None or record.server is None or credential is None:
            return
        if not credential.alive(self._now):
            return
        try:
            async with self._slots:
                await self._check(item, record.server, item.token, kube.Patience.TOKEN)
        except Exception as error:
            if explain(error, self._policy) is None:
                raise

    async def _grant(self, item: DueCluster, admin: kube.AdminAccess, way: Way, *, need: TokenNeed) -> ClusterResult:
        """Repair, and issue if needed. A token that is kept is verified after the repair, and replaced if dead."""
        async with self._slots, asyncio.timeout(self._policy.cluster_timeout.total_seconds()):
            granted = await self._grant_once(item, admin, need)
            actions = granted.actions
            if granted.credential is None and item.token is not None and not self._dry_run:
                checked = await self._check(item, granted.server, item.token, kube.Patience.ALL)
                if checked.dead:
                    granted = await self._grant_once(item, admin, TokenNeed(issue=True, reason=Reason.TOKEN_DEAD))
                    actions += granted.actions
                elif not checked.healthy:
                    return ClusterResult(
                        AccessFailed(Reason.NOT_REPAIRED, "the cluster still differs from what is configured"),
                        actions=actions,
                    )
        verdict = self._gained(
            item,
            granted.server,
            granted.kubernetes_version,
            legacy=granted.legacy,
            generation=granted.generation,
            retired=granted.retired,
            way=to_remember(way, first=Way.DIRECT),
            issued=granted.credential is not None,
        )
        return ClusterResult(verdict, credential=granted.credential, actions=actions)

    async def _grant_once(self, item: DueCluster, admin: kube.AdminAccess, need: TokenNeed) -> access.Granted:
        """A token goes only to the server for which it was issued: another server gets one of its own."""
        # Only looking at the cluster shows whether a token is issued; so nothing is started.
        if not self._dry_run and not self._may_issue():
            raise IssuingSuspended
        policy, candidate = self._policy, item.candidate
        timeout = policy.cluster_timeout.total_seconds()

        async def work(server: Server) -> access.Granted:
            moved = candidate.record is None or server != candidate.record.server
            return await access.grant(
                replace(admin, server=server),
                policy.desired,
                need=TokenNeed(issue=True, reason=Reason.SERVER_REPLACED) if moved and not need.issue else need,
                memory=candidate.memory,
                key=candidate.key,
                # The life of a token starts when it is issued; in a long pass that is later than the start of the pass.
                now=self._now + timedelta(seconds=int(time.monotonic() - self._begun)),
                token_policy=policy.token,
                timeout=timeout,
                requests=self._requests,
                dry_run=self._dry_run,
            )

        return await kube.as_reader(admin.server, work, timeout=timeout, network=self._requests.network)

    def _gained(
        self,
        item: DueCluster,
        server: Server,
        kubernetes_version: str | None,
        *,
        legacy: bool,
        generation: str | None,
        retired: tuple[RetiredSecret, ...],
        way: Way | None,
        issued: bool = False,
        recheck: bool = False,
    ) -> AccessGained:
        return AccessGained(
            server=server,
            auth=ServiceAccountAuth(),
            kubernetes_version=kubernetes_version,
            desired=self._fingerprint(item, AuthMode.SERVICE_ACCOUNT),
            generation=generation,
            retired=retired,
            legacy=legacy,
            way=way,
            validity=self._policy.token.validity if issued else item.candidate.memory.validity,
            recheck=recheck,
        )

    def _fingerprint(self, item: DueCluster, mode: AuthMode) -> str:
        return self._policy.fingerprint(mode, item.candidate.ca_pem, auto=item.candidate.auto)

    async def _check(self, item: DueCluster, server: Server, token: Secret, patience: kube.Patience) -> access.Checked:
        async with asyncio.timeout(self._policy.cluster_timeout.total_seconds()):
            checked = await access.check(
                server,
                token,
                self._policy.desired,
                memory=item.candidate.memory,
                now=self._now,
                token_policy=self._policy.token,
                patience=kube.Patience.NONE if self._dry_run else patience,
                timeout=self._policy.cluster_timeout.total_seconds(),
                requests=self._requests,
            )
        if checked.dead:
            self._proven_dead.add(item.candidate.key.uid)
        return checked


def _is_known(record: ClusterRecord | None) -> bool:
    """Whether a record holds all that a reader needs. One without a CA was verified with this host's trust only."""
    return record is not None and record.server is not None and record.server.ca_data is not None


def _same_place(one: Server, other: Server) -> bool:
    return (one.url, one.tls_server_name) == (other.url, other.tls_server_name)
