"""Turns settings into the parts of each instance. The only module that builds a Palette client or the Ports of a pass.

The daemon, `once`, `plan`, `check` and `demo` all use the functions below.
"""

from __future__ import annotations

import math
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from palette_sync.assembly.files import read_pem
from palette_sync.assembly.policy import network_of, policy_of
from palette_sync.assembly.store import StartError, open_store, sealer_of, utc_now
from palette_sync.cloud import CloudTokens
from palette_sync.core.model import Secret
from palette_sync.core.snapshot_codec import sealed_for
from palette_sync.palette import Limits, PaletteClient, Recorder, UnusableSettings
from palette_sync.reconcile.names import NameBook
from palette_sync.reconcile.ports import Ports, Stop, Unpublished
from palette_sync.runner import InstanceRuntime
from palette_sync.store.seal import SealError
from palette_sync.telemetry.traces import tracing_installed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime

    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.core.model import ClusterRecord, Discovery, SealedCredential
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.reconcile.ongoing import Ongoing
    from palette_sync.store.publisher import Publisher
    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer

log = structlog.get_logger(__name__)

# Of `lease_ttl`, how long a lease lasts in Redis. What is left is for the others to notice that it has ended, so that
# after a kill another process leads within `lease_ttl`.
LEASE_SHARE = 5 / 6
MIN_CONCURRENCY = 8  # clusters of one instance that are worked on at once, if `concurrency` allows


def holder() -> str:
    """The name of this process as the holder of a lease, shown to whoever finds the lease taken."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Shared:
    """What all instances of one process share. `names` are the published cluster names, `policies` go by instance."""

    settings: Settings
    policies: Mapping[str, InstancePolicy]
    store: Store
    sealer: Sealer
    limits: Limits
    names: NameBook
    cloud: CloudTokens = field(default_factory=CloudTokens)


def policies_of(settings: Settings) -> dict[str, InstancePolicy]:
    return {name: policy_of(name, one) for name, one in settings.instances.items()}


@asynccontextmanager
async def open_shared(settings: Settings) -> AsyncIterator[Shared]:
    """Raises SealKeyError, StartError, StoreError."""
    sealer = sealer_of(settings)
    if settings.otel.endpoint is not None and not tracing_installed():
        raise StartError("otel.endpoint: needs the extra `otel`; install it with: pip install 'palette-sync[otel]'")
    async with open_store(settings, sealer) as store:
        yield Shared(
            settings=settings,
            policies=policies_of(settings),
            store=store,
            sealer=sealer,
            limits=Limits(enabled=settings.service.palette_rate_limits),
            names=NameBook(),
        )


def reconfigured(shared: Shared, settings: Settings) -> Shared:
    """The shared parts under other settings. The connection to the store stays. Raises SealKeyError."""
    before, after = shared.settings.service, settings.service
    limits = shared.limits
    if after.palette_rate_limits != before.palette_rate_limits:
        limits = Limits(enabled=after.palette_rate_limits)
    return replace(shared, settings=settings, policies=policies_of(settings), sealer=sealer_of(settings), limits=limits)


def runtime_of(
    shared: Shared,
    name: str,
    *,
    recorder: Recorder,
    kube_recorder: Callable[[str, str], None] = lambda _api, _outcome: None,
) -> InstanceRuntime:
    """One instance for its runner. `recorder` and `kube_recorder` count requests to Palette and to clusters.

    Raises StartError if the Palette client cannot be made.
    """
    settings = shared.settings.instances[name]
    ca_pem = _read_ca(name, settings)  # read once, so that a file that disappears later has no effect
    open_client = partial(client_of, name, settings, shared.limits, recorder=recorder, ca_pem=ca_pem)
    open_client()  # raises now what would otherwise raise in every pass
    return InstanceRuntime(
        policy=shared.policies[name],
        store=shared.store,
        sealer=shared.sealer,
        holder=holder(),
        lease_ttl=LEASE_SHARE * shared.settings.service.lease_ttl.total_seconds(),
        open_client=open_client,
        ports=partial(ports_of, shared, name, kube_recorder=kube_recorder),
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
    """`ca_pem` is the content of the CA file, if it was read before.

    Raises StartError if the CA file cannot be read, or holds no certificate.
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
    return None if settings.ca_file is None else read_pem(f"instances.{name}.ca_file", settings.ca_file)


def concurrency_of(settings: Settings) -> int:
    """How many clusters of one instance are worked on at once.

    The instances share `service.concurrency` equally, so that an instance whose clusters all hang delays no other. Each
    instance gets `MIN_CONCURRENCY` in any case.
    """
    concurrency = settings.service.concurrency
    return max(math.ceil(concurrency / len(settings.instances)), min(concurrency, MIN_CONCURRENCY))


def ports_of(
    shared: Shared,
    name: str,
    client: PaletteClient,
    *,
    publisher: Publisher | None,
    may_issue: Callable[[], bool] = lambda: True,
    may_write: Callable[[], bool] = lambda: True,
    lease_lost: asyncio.Event | None = None,
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
    clock: Callable[[], datetime] = utc_now,
    stop: Stop | None = None,
    facts: Callable[[], Mapping[str, object]] = dict,
    keep: Callable[[Unpublished], None] = lambda _unpublished: None,
    seen: Callable[[Discovery], None] = lambda _discovery: None,
    ongoing: Ongoing | None = None,
    kube_recorder: Callable[[str, str], None] = lambda _api, _outcome: None,
) -> Ports:
    """Everything that a pass over one instance works with. The parameters are explained at `Ports`."""

    def open_token(record: ClusterRecord, credential: SealedCredential) -> Secret | None:
        try:
            target = sealed_for(shared.store.keys.prefix, record, credential)
            return shared.sealer.open(target, credential.sealed)
        except SealError as error:
            log.warning("token_not_opened", instance=name, cluster=record.uid, reason=str(error))
            return None

    return Ports(
        policy=shared.policies[name],
        client=client,
        store=shared.store,
        publisher=publisher,
        open_token=open_token,
        concurrency=concurrency_of(shared.settings),
        names=shared.names,
        network=network_of(shared.settings),
        cloud=shared.cloud,
        clock=clock,
        may_issue=may_issue,
        may_write=may_write,
        lease_lost=lease_lost,
        facts=facts,
        kube_recorder=kube_recorder,
        progress=progress,
        stopping=stop.stopping if stop else None,
        late=stop.late if stop else None,
        keep=keep,
        owner=shared.settings.service.owner or "",
        seen=seen,
        ongoing=ongoing,
    )
