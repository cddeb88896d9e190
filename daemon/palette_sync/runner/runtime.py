"""One configured instance, ready to be given to a runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from palette_sync.core.model import Discovery
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.palette import PaletteClient
    from palette_sync.reconcile.ongoing import Ongoing
    from palette_sync.reconcile.ports import Ports, Stop, Unpublished
    from palette_sync.store.publisher import Publisher
    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer


class PortsFactory(Protocol):
    """Makes the ports of one pass. The parameters are explained at `Ports`."""

    def __call__(
        self,
        client: PaletteClient,
        *,
        publisher: Publisher,
        may_issue: Callable[[], bool],
        may_write: Callable[[], bool],
        lease_lost: asyncio.Event,
        stop: Stop,
        facts: Callable[[], Mapping[str, object]],
        clock: Callable[[], datetime],
        keep: Callable[[Unpublished], None],
        seen: Callable[[Discovery], None],
        ongoing: Ongoing,
        progress: Callable[[str, int, int], None],
    ) -> Ports: ...


@dataclass(frozen=True, slots=True)
class InstanceRuntime:
    """One configured instance, ready to run. A reload replaces it between two passes.

    `holder` names this process to other processes that want the lease. `lease_ttl` is in seconds. `api_key_name` is
    the name of the API key in Palette, None where the configuration does not give it.
    """

    policy: InstancePolicy
    store: Store
    sealer: Sealer
    holder: str
    lease_ttl: float
    open_client: Callable[[], PaletteClient]
    ports: PortsFactory
    api_key_name: str | None = None
