"""Build the parts from the configuration: the one place that knows both."""

from __future__ import annotations

import math
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from palette_sync.assembly.store import StartError, open_store, sealer_of, utc_now
from palette_sync.core.fold import Presentation
from palette_sync.core.model import AuthMode, Secret
from palette_sync.core.objects import Desired
from palette_sync.core.policy import InstancePolicy, OidcPolicy, TokenPolicy
from palette_sync.core.rbac import PRESETS, PolicyRule
from palette_sync.core.select import AuthRule, Filters
from palette_sync.palette import Limits, PaletteClient, Recorder, UnusableSettings
from palette_sync.reconcile.names import NameBook
from palette_sync.reconcile.ports import Ports
from palette_sync.runner import InstanceRuntime
from palette_sync.store.seal import SealError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.store.redis import Publisher, Store
    from palette_sync.store.seal import Sealer

log = structlog.get_logger(__name__)

LEAST_SHARE = 8

_MODES = {"service-account": AuthMode.SERVICE_ACCOUNT, "oidc": AuthMode.OIDC, "auto": None}


def policy_of(name: str, settings: InstanceSettings) -> InstancePolicy:
    """Translate an instance's settings into the plain values that a pass works with."""
    rbac, token, oidc = settings.rbac, settings.token, settings.oidc
    return InstancePolicy(
        instance=name,
        name_prefix=name if settings.name_prefix is None else settings.name_prefix,
        filters=Filters(
            include_projects=settings.include_projects,
            exclude_projects=settings.exclude_projects,
            include_tags=settings.include_tags,
            exclude_tags=settings.exclude_tags,
            exclude_tenant_scoped_clusters=settings.exclude_tenant_scoped_clusters,
            include_virtual=settings.include_virtual,
        ),
        default_mode=_MODES[settings.auth.mode],
        auth_rules=tuple(
            AuthRule(_MODES[rule.mode], project=rule.project, cluster=rule.cluster, tag=rule.tag)
            for rule in settings.auth.rules
        ),
        oidc=OidcPolicy(oidc.provider, oidc.spectro_proxy, oidc.refresh_interval),
        desired=Desired(
            namespace=rbac.namespace,
            service_account=rbac.service_account,
            secret=rbac.secret,
            cluster_role=rbac.cluster_role,
            cluster_role_binding=rbac.cluster_role_binding,
            rules=rules_of(settings),
            adopt=rbac.adopt,
            token_source=token.source,
            labels=rbac.labels,
            annotations=rbac.annotations,
        ),
        token=TokenPolicy(token.validity, token.rotate_every, token.overlap),
        presentation=Presentation(
            title=settings.title,
            console_url=settings.console_url or _console_of(settings.url),
            skip_metrics_lookup=settings.skip_metrics_lookup,
        ),
        verify_interval=settings.verify_interval,
        cluster_timeout=settings.cluster_timeout,
        tenant=settings.tenant,
    )


def rules_of(settings: InstanceSettings) -> tuple[PolicyRule, ...]:
    """The configured rules, or those of the preset; `core` is the empty API group."""
    if not settings.rbac.rules:
        return PRESETS[settings.rbac.preset]
    return tuple(
        PolicyRule(
            api_groups=tuple("" if group == "core" else group for group in rule.api_groups),
            resources=rule.resources,
            verbs=rule.verbs,
        )
        for rule in settings.rbac.rules
    )


def _console_of(url: str) -> str:
    """Palette's SaaS serves its API and its console on two hosts; elsewhere they are one."""
    return url.replace("https://api.", "https://console.", 1) if url.startswith("https://api.spectrocloud.") else url


def holder() -> str:
    """Who holds a lease: told to whoever finds it taken."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Stop:
    """How a process ends: once `stopping` nothing more is admitted, once `late` what still works is cancelled."""

    stopping: asyncio.Event
    late: asyncio.Event


@dataclass(frozen=True, slots=True)
class Shared:
    """What all instances of one process share: the store, the limits of Palette hosts, the names given."""

    settings: Settings
    store: Store
    sealer: Sealer
    limits: Limits
    names: NameBook


@asynccontextmanager
async def open_shared(settings: Settings) -> AsyncIterator[Shared]:
    """Raises SealKeyError, StoreError."""
    sealer = sealer_of(settings)
    async with open_store(settings, sealer) as store:
        yield Shared(
            settings=settings,
            store=store,
            sealer=sealer,
            limits=Limits(enabled=settings.service.palette_rate_limits),
            names=NameBook(),
        )


def reconfigured(shared: Shared, settings: Settings) -> Shared:
    """What is shared, under other settings. The store stays connected where it is. Raises SealKeyError."""
    before, after = shared.settings.service, settings.service
    limits = shared.limits
    if after.palette_rate_limits != before.palette_rate_limits:
        limits = Limits(enabled=after.palette_rate_limits)
    return replace(shared, settings=settings, sealer=sealer_of(settings), limits=limits)


def runtime_of(
    shared: Shared,
    name: str,
    *,
    recorder: Recorder,
    kube_recorder: Callable[[str, str], None] = lambda _api, _outcome: None,
) -> InstanceRuntime:
    """One instance for its runner. `recorder` and `kube_recorder` count requests to Palette and to clusters.

    Raises StartError where its client cannot be made.
    """
    settings = shared.settings.instances[name]
    ca_pem = _read_ca(name, settings)  # once: a file that vanishes later disturbs nothing
    client_of(name, settings, shared.limits, ca_pem=ca_pem)

    def ports(client: PaletteClient, publisher: Publisher, may_issue: Callable[[], bool]) -> Ports:
        made = ports_of(shared, name, client, publisher=publisher, may_issue=may_issue)
        return replace(made, kube_recorder=kube_recorder)

    return InstanceRuntime(
        policy=policy_of(name, settings),
        store=shared.store,
        sealer=shared.sealer,
        holder=holder(),
        lease_ttl=shared.settings.service.lease_ttl.total_seconds(),
        open_client=lambda: client_of(name, settings, shared.limits, recorder=recorder, ca_pem=ca_pem),
        ports=ports,
        api_key_name=settings.api_key_name,
    )


def client_of(
    name: str,
    settings: InstanceSettings,
    limits: Limits,
    *,
    recorder: Recorder | None = None,
    ca_pem: str | None = None,
) -> PaletteClient:
    """`ca_pem` is the content of the CA file, where it was read before.

    Raises StartError where the CA file cannot be read or is none.
    """
    try:
        return PaletteClient(
            name,
            settings.url,
            Secret(settings.api_key.get_secret_value()),
            limits=limits,
            ca_pem=ca_pem or _read_ca(name, settings),
            proxy=settings.http_proxy,
            recorder=recorder,
        )
    except UnusableSettings as error:
        raise StartError(f"instances.{name}: {error}") from None


def _read_ca(name: str, settings: InstanceSettings) -> str | None:
    if settings.ca_file is None:
        return None
    try:
        return settings.ca_file.read_text(encoding="ascii")
    except OSError as error:
        raise StartError(f"instances.{name}.ca_file: cannot read {settings.ca_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"instances.{name}.ca_file: {settings.ca_file} is not text in PEM form") from None


def share_of(settings: Settings) -> int:
    """How many clusters of one instance are worked on at once.

    The instances share `concurrency` equally, so that one whose clusters all hang delays no other; a few each have in
    any case.
    """
    concurrency = settings.service.concurrency
    return max(math.ceil(concurrency / len(settings.instances)), min(concurrency, LEAST_SHARE))


def ports_of(
    shared: Shared,
    name: str,
    client: PaletteClient,
    *,
    publisher: Publisher | None,
    may_issue: Callable[[], bool] = lambda: True,
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
    clock: Callable[[], datetime] = utc_now,
    stop: Stop | None = None,
) -> Ports:
    """Tie the parts of one instance together for a pass."""

    def open_token(uid: str, sealed: str) -> Secret | None:
        try:
            return shared.sealer.open(name, uid, sealed)
        except SealError as error:
            log.warning("token_not_opened", instance=name, cluster=uid, reason=str(error))
            return None

    return Ports(
        policy=policy_of(name, shared.settings.instances[name]),
        client=client,
        store=shared.store,
        publisher=publisher,
        open_token=open_token,
        concurrency=share_of(shared.settings),
        names=shared.names,
        clock=clock,
        may_issue=may_issue,
        progress=progress,
        stopping=stop.stopping if stop else None,
        late=stop.late if stop else None,
    )
