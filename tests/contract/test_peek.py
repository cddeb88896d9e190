"""A peek finds what is new or changed with one request, and remembers what it has seen."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from palette_sync.core.model import TENANT_SCOPE, Discovery, Secret
from palette_sync.palette import Limits, PaletteClient, Peek, discover
from palette_sync.simulator import Fault, Simulator, SimulatorOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from palette_sync.core.model import Project

SEARCHES = ".*/spectroclusters/search"
EVERYTHING: dict[str, Any] = {"choose": lambda _: True, "tenant_scope": True, "include_virtual": False}


class Lab:
    """A simulated Palette, a client, and a peek that learnt from a full listing."""

    def __init__(self, simulator: Simulator, client: PaletteClient) -> None:
        self.simulator, self.client, self.peek = simulator, client, Peek()
        self.world = simulator.world
        self.instance = next(iter(self.world.instances.values()))
        self.wanted = dict(EVERYTHING)

    async def list(self) -> None:
        self.peek.learn(await discover(self.client, **self.wanted))
        self.simulator.requests.reset()

    async def look(self) -> dict[str, set[str]]:
        """The names of the clusters that one look finds, by scope; they count as worked on."""
        found = await self.peek.look(self.client, **self.wanted)
        if found is None:
            return {}
        assert isinstance(found, Discovery)
        assert found.projects is None
        assert not any(one.complete or one.problem for one in found.listings)
        self.peek.learn(found)
        return {one.scope: {cluster.name for cluster in one.clusters} for one in found.listings}

    def searches(self) -> int:
        return self.simulator.requests.count("palette", path_regex=SEARCHES)

    def project(self, number: int = 0) -> str:
        return sorted(self.instance.projects)[number]

    def later(self) -> None:
        self.world.advance(1)


@asynccontextmanager
async def lab(clusters: int = 8, **options: Any) -> AsyncIterator[Lab]:
    options = {"instances": 1, "projects": 3, "clusters": clusters, "rate_limits": False, **options}
    async with Simulator(SimulatorOptions(**options)) as simulator:
        one = next(iter(simulator.world.instances.values()))
        key, limits = Secret(one.api_key), Limits(enabled=False)
        async with PaletteClient(one.name, one.url, key, limits=limits, ca_pem=one.ca_pem) as client:
            made = Lab(simulator, client)
            await made.list()
            yield made


async def test_nothing_is_asked_before_a_full_listing() -> None:
    async with lab() as one:
        one.peek = Peek()

        assert await one.look() == {}
        assert one.searches() == 0


async def test_a_look_that_finds_nothing_costs_one_request() -> None:
    async with lab(clusters=120) as one:
        assert await one.look() == {}
        assert one.searches() == 1


@pytest.mark.parametrize("tenant_scoped", [True, False])
async def test_a_new_cluster_and_a_changed_one_are_found_once(*, tenant_scoped: bool) -> None:
    async with lab() as one:
        project = None if tenant_scoped else one.project()
        changed = next(c for c in one.world.clusters.values() if c.project_uid == one.project(1))
        one.later()
        added = await one.world.add_cluster(one.instance, project, name="added", state="Provisioning")
        one.later()
        one.world.set_tags(changed.uid, ["team:new"])

        assert await one.look() == {project or TENANT_SCOPE: {"added"}, one.project(1): {changed.name}}
        assert await one.look() == {}
        one.later()
        one.world.set_state(added.uid, "Running")
        assert await one.look() == {project or TENANT_SCOPE: {"added"}}
        assert one.searches() == 3


async def test_what_was_not_worked_on_is_found_again() -> None:
    async with lab() as one:
        one.later()
        await one.world.add_cluster(one.instance, one.project(), name="added")

        first = await one.peek.look(one.client, **one.wanted)
        again = await one.peek.look(one.client, **one.wanted)

        assert first is not None
        assert first == again


async def test_more_changes_than_a_page_holds_are_read_to_the_first_known_row() -> None:
    async with lab(clusters=130, tenant_scoped=0) as one:
        one.later()
        for cluster in list(one.world.clusters.values())[:70]:
            one.world.set_tags(cluster.uid, ["team:new"])

        found = await one.look()

        assert sum(len(names) for names in found.values()) == 70
        assert one.searches() == 2


async def test_one_look_reads_a_bounded_number_of_pages() -> None:
    async with lab(clusters=300, tenant_scoped=0) as one:
        one.later()
        for cluster in one.world.clusters.values():
            one.world.set_tags(cluster.uid, ["team:new"])

        found = await one.look()

        assert one.searches() == 4
        assert sum(len(names) for names in found.values()) == 200


async def test_clusters_that_are_being_deleted_or_are_not_served_are_left_to_the_full_listing() -> None:
    async with lab() as one:
        unserved = one.project(0)

        def choose(project: Project) -> bool:
            return project.uid != unserved

        one.wanted |= {"choose": choose, "tenant_scope": False}
        await one.list()
        one.later()
        deleted = next(c for c in one.world.clusters.values() if c.project_uid == one.project(1))
        one.world.set_state(deleted.uid, "Deleting")
        await one.world.add_cluster(one.instance, unserved, name="unserved")
        await one.world.add_cluster(one.instance, None, name="tenant-scoped")

        assert await one.look() == {}
        one.later()
        await one.world.add_cluster(one.instance, one.project(1), name="served")
        before = one.searches()
        assert await one.look() == {one.project(1): {"served"}}
        assert one.searches() - before == 1, "unserved rows are known after the first look"


async def test_a_cluster_of_a_project_that_no_listing_showed_is_left_alone() -> None:
    async with lab() as one:
        one.later()
        project = one.world.add_project(one.instance, "new")
        await one.world.add_cluster(one.instance, project.uid, name="added")

        assert await one.look() == {}


@pytest.mark.parametrize("answer", ["forbidden", "empty"])
async def test_a_key_with_project_roles_only_asks_for_one_project_in_turns(answer: str) -> None:
    async with lab(tenant_scoped=0) as one:
        one.instance.behaviour.no_tenant_right = answer
        one.world.set_key_permission(one.instance, "project")
        await one.list()
        one.later()
        for number in range(3):
            await one.world.add_cluster(one.instance, one.project(number), name=f"added-{number}")

        found: dict[str, set[str]] = {}
        for _ in range(3):
            found |= await one.look()

        assert found == {one.project(number): {f"added-{number}"} for number in range(3)}
        assert one.searches() == 4, "the first look asked without a project too"


async def test_a_palette_that_fails_is_left_to_the_full_listing() -> None:
    async with lab() as one:
        one.later()
        await one.world.add_cluster(one.instance, one.project(), name="added")
        fault = one.simulator.faults.add(Fault(target="palette", kind="garbage"))

        assert await one.look() == {}
        one.simulator.faults.remove(fault)
        assert await one.look() == {one.project(): {"added"}}


async def test_a_key_without_any_project_asks_for_nothing_more() -> None:
    async with lab(tenant_scoped=0) as one:
        one.world.set_key_permission(one.instance, "project")
        one.wanted |= {"choose": _nothing}

        assert await one.look() == {}
        assert await one.look() == {}
        assert one.searches() == 1


def _nothing(_: Project) -> bool:
    return False
