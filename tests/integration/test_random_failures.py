"""Random sequences of failures through real passes: whatever fails, in whatever order, invariants 1 to 4 hold.

An oracle that knows the simulated world judges each pass. `make explore` tries more and longer sequences.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration.runners import dump, flush, restore
from integration.stage import stages
from palette_sync.core.model import AccessState, ServiceAccountAuth
from palette_sync.kube.errors import KubeError
from palette_sync.simulator import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from integration.stage import Stage
    from palette_sync.core.model import ClusterRecord, InstanceState
    from palette_sync.simulator.world import SimCluster

CLUSTERS = 4
HOLD = timedelta(hours=24)
USABLE = {AccessState.READY, AccessState.DEGRADED}
clusters = st.integers(0, CLUSTERS - 1)
Step = tuple[Any, ...]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from(["scheduled", "scheduled", "known", "resync"])),
    st.tuples(st.just("advance"), st.sampled_from([1, 40, 700, 3600, 9 * 3600, 25 * 3600])),
    st.tuples(st.just("daemon's clock"), st.sampled_from([-3600, -250, 250, 3600])),
    st.tuples(st.just("tokens die"), clusters),
    st.tuples(st.just("admin file"), clusters, st.booleans()),
    st.tuples(st.just("API server"), clusters, st.sampled_from(["works", "drop", "garbage", "status"])),
    st.tuples(st.just("Palette"), st.sampled_from(["works", "fails", "lists nothing"])),
    st.tuples(st.just("Redis"), st.sampled_from(["lost", "restored"])),
    st.tuples(st.just("deleted"), clusters),
)
MORE = settings().max_examples > 100  # `make explore`


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palette_sync.kube.tokens.PROOF_PAUSES", (0.0,))


@given(st.lists(STEPS, min_size=3, max_size=30 if MORE else 12))
@settings(max_examples=settings().max_examples // 2 if not MORE else 200)
def test_whatever_fails_the_invariants_hold(valkey_url: str, tmp_path_factory: Any, steps: list[Step]) -> None:
    async def run(directory: Path) -> None:
        async with stages(valkey_url, directory) as make:
            world = World(await make(clusters=CLUSTERS, projects=2, oidc_share=0.0, tenant_scoped=0))
            for step in [("pass", "scheduled"), *steps, ("pass", "resync")]:
                await world.take(step)
            await world.recover()

    asyncio.run(run(tmp_path_factory.mktemp("world")))


@dataclass
class World:
    """The simulated world, what is broken in it, and the judgment of each pass."""

    stage: Stage
    broken: dict[str, Any] = field(default_factory=dict)  # the faults of API servers, by uid
    listing: Any = None  # the fault of Palette's listings
    lists: str = "works"
    held_since: Any = None  # the first scheduled listing that held nothing
    kept: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.uids = list(self.stage.simulator.world.clusters)

    @property
    def clusters(self) -> Mapping[str, SimCluster]:
        return self.stage.simulator.world.clusters

    async def take(self, step: Step) -> None:
        match step:
            case ("pass", kind):
                await self.run_and_judge(kind)
            case ("advance", seconds):
                self.stage.advance(seconds=seconds)
            case ("daemon's clock", seconds):
                self.stage.offset += timedelta(seconds=seconds)
            case ("Palette", how):
                self.break_listings(how)
            case ("Redis", what):
                await self.change_redis(what)
            case (what, number, *how):
                self.change_cluster(what, self.uids[number], *how)

    def change_cluster(self, what: str, uid: str, how: Any = None) -> None:
        world, faults = self.stage.simulator.world, self.stage.simulator.faults
        match what:
            case "tokens die":
                self.clusters[uid].tokens.revoke_all()
            case "admin file":
                world.set_admin_download(uid, allowed=how)
            case "deleted":
                world.set_state(uid, "Deleting")
            case "API server":
                if (fault := self.broken.pop(uid, None)) is not None:
                    faults.remove(fault)
                if how != "works":
                    self.broken[uid] = faults.add(Fault(target="kube", kind=how, cluster=uid, status=500))

    def break_listings(self, how: str) -> None:
        faults = self.stage.simulator.faults
        if self.listing is not None:
            faults.remove(self.listing)
        self.listing, self.lists = None, how
        path = ".*/spectroclusters/search"
        if how == "fails":
            self.listing = faults.add(Fault(target="palette", kind="status", status=403, path=path))
        elif how == "lists nothing":
            body = '{"items": [], "listmeta": {"continue": "", "count": 0, "limit": 50, "offset": 0}}'
            self.listing = faults.add(Fault(target="palette", kind="status", status=200, body=body, path=path))

    async def change_redis(self, what: str) -> None:
        client = self.stage.shared.store.link.client
        found = await dump(client, self.stage)
        if found and (what == "lost" or self.kept):
            await flush(client, self.stage)
        if what == "lost":
            self.kept = found or self.kept
        else:
            await restore(client, self.kept)

    # -- the oracle -------------------------------------------------------------------------------------------------

    async def run_and_judge(self, kind: str) -> None:
        before = await self.stage.state()
        options = {kind: True} if kind != "known" else {"known_only": True}
        await self.stage.run(rows=self.stage.rows, **options)
        after = await self.stage.state()
        if kind == "scheduled" and self.lists != "fails":
            self.held_since = (self.held_since or self.stage.clock()) if self.lists == "lists nothing" else None
        self.stale_beats_partial(before, after)
        self.only_complete_listings_prune(before, after, kind)
        self.what_is_published_is_whole(after)
        if kind == "resync":
            await self.what_is_usable_works(after)

    def stale_beats_partial(self, before: InstanceState, after: InstanceState) -> None:
        """Invariant 1: no failure takes the last good server, kind of access or version away."""
        for uid in before.records.keys() & after.records.keys():
            was, now = before.records[uid], after.records[uid]
            assert was.server is None or now.server is not None, uid
            assert was.auth is None or now.auth is not None, uid
            assert was.name == now.name

    def only_complete_listings_prune(self, before: InstanceState, after: InstanceState, kind: str) -> None:
        """Invariant 2, and the prune guard: only what Palette deletes goes at once."""
        for uid in before.records.keys() - after.records.keys():
            deleted = self.clusters[uid].state == "Deleting"
            if deleted and self.lists == "works" and kind != "known":
                continue
            assert self.lists == "lists nothing", (uid, kind)
            assert kind == "scheduled", uid
            assert self.held_since is not None
            assert self.stage.clock() - self.held_since >= HOLD, uid

    def what_is_published_is_whole(self, after: InstanceState) -> None:
        """Invariants 3 and 4: a usable record has a token that lives, renewed between 1/3 and 2/3 of its life."""
        now = self.stage.clock()
        for uid, record in after.records.items():
            credential = after.credentials.get(uid)
            if record.access.state in USABLE:
                assert credential is not None, (uid, record.access)
                assert credential.alive(now.replace(microsecond=0)), (uid, record.access)
            if credential is not None and credential.expires_at is not None:
                life = credential.expires_at - credential.issued_at
                second = timedelta(seconds=1)
                assert life / 3 - second <= credential.renew_at - credential.issued_at <= life * 2 / 3 + second

    async def what_is_usable_works(self, after: InstanceState) -> None:
        """Invariant 3: after everything was verified, no token is published that its API server refuses."""
        for uid in self.usable(after.records):
            if uid in self.broken or self.lists != "works":  # only what is urgent is worked on without a listing
                continue
            try:
                assert await self.stage.pods(uid) >= 0
            except KubeError as error:
                pytest.fail(f"{uid} is {after.records[uid].access}, and its token is refused: {error}")

    def usable(self, records: Mapping[str, ClusterRecord]) -> Iterator[str]:
        for uid, record in records.items():
            if record.access.state in USABLE and isinstance(record.auth, ServiceAccountAuth):
                yield uid

    async def recover(self) -> None:
        """Once nothing is broken any more, one look is enough: every cluster is ready."""
        for number in range(CLUSTERS):
            await self.take(("API server", number, "works"))
            await self.take(("admin file", number, True))
        self.break_listings("works")
        await self.stage.run(resync=True)
        state = await self.stage.state()
        living = {uid for uid, one in self.clusters.items() if one.state == "Running"}
        assert {uid: state.records[uid].access.state for uid in living} == dict.fromkeys(living, AccessState.READY)
        await self.what_is_usable_works(state)
