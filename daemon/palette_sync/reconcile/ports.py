"""What a pass works with, and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.model import Cluster

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from datetime import datetime

    from palette_sync.cloud import CloudTokens
    from palette_sync.core.model import ClusterMemory, ClusterRecord, Credential, Discovery, SealedCredential, Secret
    from palette_sync.core.network import NetworkPolicy
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.palette import PaletteClient
    from palette_sync.reconcile.names import NameBook
    from palette_sync.reconcile.ongoing import Ongoing
    from palette_sync.store.publisher import Publisher
    from palette_sync.store.redis import Store

Rows = Mapping[str, Cluster]  # clusters as Palette listed them last, by uid


@dataclass(frozen=True, slots=True)
class Unpublished:
    """Results of a pass, by uid, that could not be published because the store failed. None in `rotated` removes."""

    put: Mapping[str, ClusterRecord]
    rotated: Mapping[str, Credential | None]
    memory: Mapping[str, ClusterMemory | None]


@dataclass(frozen=True, slots=True)
class Stop:
    """How a process ends. Once `stopping` is set, nothing more is admitted; once `late` is set, work is cancelled."""

    stopping: asyncio.Event
    late: asyncio.Event


@dataclass(frozen=True, slots=True)
class Ports:
    """What a pass over one instance works with. `publisher` is None for a pass that must write nothing (a plan).

    `cloud` gets tokens of clouds for the clusters that need one.

    `open_token` returns the token of a cluster's credential, or None where it does not open. `concurrency` bounds the
    clusters in flight. `owner` is the configured owner id, "" = the one that Redis holds. `network` says to which
    addresses of clusters and issuers they may connect. `facts` go into the status document. `kube_recorder` receives
    each request to a cluster: its operation and its outcome. Once `stopping` is set no more clusters are admitted; once
    `late` is set those still at work are cancelled. Either way what was issued is published before the pass ends; if
    the store fails, `keep` receives the rest. `may_write` is asked before each write to a cluster; once it says no, or
    once `lease_lost` is set, the pass ends with LeaseLost. `seen` receives each discovery that listed Palette.
    `ongoing`: what the passes of a daemon share; None for a single pass.
    """

    policy: InstancePolicy
    client: PaletteClient
    store: Store
    publisher: Publisher | None
    open_token: Callable[[ClusterRecord, SealedCredential], Secret | None]
    names: NameBook
    cloud: CloudTokens
    clock: Callable[[], datetime]
    concurrency: int
    network: NetworkPolicy
    may_issue: Callable[[], bool] = lambda: True
    may_write: Callable[[], bool] = lambda: True
    lease_lost: asyncio.Event | None = None
    facts: Callable[[], Mapping[str, object]] = dict
    kube_recorder: Callable[[str, str], None] = lambda _api, _outcome: None
    stopping: asyncio.Event | None = None
    late: asyncio.Event | None = None
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None
    keep: Callable[[Unpublished], None] = lambda _unpublished: None
    owner: str = ""
    ongoing: Ongoing | None = None
    seen: Callable[[Discovery], None] = lambda _discovery: None


@dataclass(frozen=True, slots=True)
class PassOptions:
    """Options of a pass. `resync`: verify everything, ignore backoffs. `verify`: the same for these uids only, which an
    earlier pass of a resync left for this one. `asked`: the same, and before everything else, because an operator waits
    for these clusters; `rotate`: those of them that get a new token; `revoke`: those of these whose former token is to
    end. `allow_prune`: skip the prune guard.

    `known_only`: work on what is due among the published clusters, without listing Palette. `scheduled`: the listing
    counts for the prune guard; one that a person asked for does not. `peeked`: work on these rows, which a peek found,
    without listing Palette.
    """

    resync: bool = False
    verify: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    rotate: frozenset[str] = frozenset()
    revoke: frozenset[str] = frozenset()
    allow_prune: bool = False
    known_only: bool = False
    scheduled: bool = False
    peeked: Discovery | None = None

    @property
    def lists(self) -> bool:
        """Whether the pass lists Palette."""
        return not self.known_only and self.peeked is None
