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

from palette_sync import kube, oidc, palette
from palette_sync.core.due import has_access
from palette_sync.core.fold import AccessFailed, AccessGained, Verdict
from palette_sync.core.model import AuthMode, OidcAuth, ServiceAccountAuth
from palette_sync.core.plan import TokenNeed
from palette_sync.core.reasons import Reason
from palette_sync.reconcile import access

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from palette_sync.core.due import Candidate, Due
    from palette_sync.core.model import Credential, RetiredSecret, Secret, Server
    from palette_sync.core.plan import Action
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.reconcile.issuers import Issuers

T = TypeVar("T")

LARGE_FILE = 16 * 1024  # characters of a kubeconfig that is parsed off the event loop
log = structlog.get_logger(__name__)

ADMIN_PERMISSION = "cluster.adminKubeconfigDownload"


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
    """The result for a cluster. `credential`: a new one to publish; `revoked`: the published one is to be removed."""

    verdict: Verdict
    credential: Credential | None = None
    revoked: bool = False
    actions: tuple[Action, ...] = ()
    duration_s: float = 0.0


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
        begun = time.monotonic()
        try:
            worked = await self._work(item)
        except Exception as error:
            verdict = explain(error, self._policy)
            if verdict is None:
                raise
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
        except (palette.NotFound, palette.NotPermitted, OidcNotConfigured, kube.KubeconfigError):
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
        text = await palette.kubeconfig(self._client, cluster, frp=policy.oidc.spectro_proxy)
        server = await _off_loop(text, partial(kube.parse_server_only, text, ca_pem=item.candidate.ca_pem))
        await self._issuers.get(spec.issuer_url, spec.ca_pem)
        async with self._slots:
            version = await kube.probe_version(
                server, timeout=policy.cluster_timeout.total_seconds(), requests=self._requests
            )
        record = item.candidate.record
        return ClusterResult(
            AccessGained(
                server=server,
                auth=OidcAuth(policy.oidc.provider, spec.issuer_url, spec.client_id),
                kubernetes_version=version,
                desired=policy.fingerprint(AuthMode.OIDC, item.candidate.ca_pem),
            ),
            revoked=record is not None and isinstance(record.auth, ServiceAccountAuth),
        )

    async def _service_account(self, item: DueCluster) -> ClusterResult:
        """Verify the published token if that is enough; else repair or issue with the admin kubeconfig."""
        record = item.candidate.record
        need = TokenNeed(issue=item.due.issue or item.token is None, reason=item.due.reason)
        if item.token is not None and not need.issue and not item.due.needs_admin:
            assert record is not None
            assert record.server is not None
            try:
                async with self._slots:
                    checked = await self._check(item, record.server, item.token)
            except kube.Unreachable as error:
                # The record's address may be old: compare it with Palette's current file.
                admin = await self._admin(item)
                if admin.server == record.server:
                    raise
                log.info("server_moved", cluster=item.candidate.key.uid, reason=str(error))
            else:
                if checked.healthy:
                    memory = item.candidate.memory
                    return ClusterResult(
                        self._gained(
                            item,
                            record.server,
                            checked.kubernetes_version,
                            # If this token may not read Secrets, what was seen of them before stays true.
                            legacy=memory.legacy if checked.legacy is None else checked.legacy,
                            generation=memory.generation,
                            retired=checked.retired,
                        )
                    )
                if checked.dead:
                    need = TokenNeed(issue=True, reason=Reason.TOKEN_DEAD)
                admin = await self._admin(item)
            return await self._grant(item, admin, need)
        try:
            return await self._grant(item, await self._admin(item), need)
        except Exception as error:
            # The published token stays in use, so find out whether it still works.
            if explain(error, self._policy) is not None and not self._dry_run:
                await self._look_whether_it_lives(item)
            raise

    async def _look_whether_it_lives(self, item: DueCluster) -> None:
        """Note a published token that the API server refuses. Other failures say nothing about the token."""
        record, credential = item.candidate.record, item.candidate.credential
        if item.token is None or record is None or record.server is None or credential is None:
            return
        if not credential.alive(self._now):
            return
        try:
            async with self._slots:
                await self._check(item, record.server, item.token)
        except Exception as error:
            if explain(error, self._policy) is None:
                raise

    async def _grant(self, item: DueCluster, admin: kube.AdminAccess, need: TokenNeed) -> ClusterResult:
        """Repair, and issue if needed. A token that is kept is verified after the repair, and replaced if dead."""
        async with self._slots, asyncio.timeout(self._policy.cluster_timeout.total_seconds()):
            granted = await self._grant_once(item, admin, need)
            actions = granted.actions
            if granted.credential is None and item.token is not None and not self._dry_run:
                checked = await self._check(item, granted.server, item.token)
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
        )
        return ClusterResult(verdict, credential=granted.credential, actions=actions)

    async def _grant_once(self, item: DueCluster, admin: kube.AdminAccess, need: TokenNeed) -> access.Granted:
        # Only looking at the cluster shows whether a token is issued; so nothing is started.
        if not self._dry_run and not self._may_issue():
            raise IssuingSuspended
        policy, candidate = self._policy, item.candidate
        return await access.grant(
            admin,
            policy.desired,
            need=need,
            memory=candidate.memory,
            key=candidate.key,
            # The life of a token starts when it is issued; in a long pass that is later than the start of the pass.
            now=self._now + timedelta(seconds=int(time.monotonic() - self._begun)),
            token_policy=policy.token,
            timeout=policy.cluster_timeout.total_seconds(),
            requests=self._requests,
            dry_run=self._dry_run,
        )

    def _gained(
        self,
        item: DueCluster,
        server: Server,
        kubernetes_version: str | None,
        *,
        legacy: bool,
        generation: str | None,
        retired: tuple[RetiredSecret, ...],
    ) -> AccessGained:
        return AccessGained(
            server=server,
            auth=ServiceAccountAuth(),
            kubernetes_version=kubernetes_version,
            desired=self._policy.fingerprint(AuthMode.SERVICE_ACCOUNT, item.candidate.ca_pem),
            generation=generation,
            retired=retired,
            legacy=legacy,
        )

    async def _admin(self, item: DueCluster) -> kube.AdminAccess:
        text = await palette.admin_kubeconfig(self._client, item.candidate.cluster)
        return await _off_loop(text, partial(kube.parse, text, ca_pem=item.candidate.ca_pem))

    async def _check(self, item: DueCluster, server: Server, token: Secret) -> access.Checked:
        async with asyncio.timeout(self._policy.cluster_timeout.total_seconds()):
            checked = await access.check(
                server,
                token,
                self._policy.desired,
                memory=item.candidate.memory,
                now=self._now,
                token_policy=self._policy.token,
                timeout=self._policy.cluster_timeout.total_seconds(),
                requests=self._requests,
            )
        if checked.dead:
            self._proven_dead.add(item.candidate.key.uid)
        return checked


async def _off_loop(text: Secret, parse: Callable[[], T]) -> T:
    """Parse a kubeconfig, a large one in a thread, so that it does not block the event loop."""
    return parse() if len(text.reveal()) < LARGE_FILE else await asyncio.to_thread(parse)


class OidcNotConfigured(Exception):
    """Palette names no issuer or no client for the cluster."""


def explain(error: Exception, policy: InstancePolicy) -> AccessFailed | None:
    """Turn an error of a cluster, Palette or an issuer into a verdict; None for any other error."""
    match error:
        case palette.NotFound():
            return AccessFailed(
                Reason.KUBECONFIG_NOT_READY, "Palette has no kubeconfig for this cluster yet", pending=True
            )
        case palette.NotPermitted():
            return AccessFailed(
                Reason.KUBECONFIG_FORBIDDEN,
                f"Palette refuses the kubeconfig; the API key's user needs {ADMIN_PERMISSION} "
                "(for OIDC clusters cluster.get) in this project",
            )
        case palette.ProjectUnavailable():
            return AccessFailed(Reason.PROJECT_UNAVAILABLE, str(error))
        case palette.PaletteError():
            return AccessFailed(Reason.PALETTE_UNAVAILABLE, str(error))
        case OidcNotConfigured():
            return AccessFailed(Reason.OIDC_NOT_CONFIGURED, "Palette names no OIDC issuer and client for this cluster")
        case oidc.IssuerError():
            return AccessFailed(Reason.ISSUER_UNAVAILABLE, str(error))
        case kube.KubeconfigError() | kube.Blocked() | kube.KubeError():
            return AccessFailed(error.reason, str(error))
        case TimeoutError():
            return AccessFailed(
                Reason.UNREACHABLE, f"the cluster did not answer within {policy.cluster_timeout.total_seconds():g} s"
            )
    return None
