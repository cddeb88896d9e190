"""Discovery against the simulated Palette, and against one that lies."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from contract import palette_spec
from contract.palette_fake import CANARY, Fake, Seen, reply, tls
from palette_sync import palette
from palette_sync.core.model import Discovery, Listing, Project, Scope, Secret
from palette_sync.palette.client import PaletteClient, Recorder, Timing
from palette_sync.palette.discovery import search_body
from palette_sync.palette.limits import Limits
from palette_sync.simulator import Fault, Simulator, SimulatorOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from palette_sync.simulator.cluster import SimInstance

SEARCH = "/v1/dashboard/spectroclusters/search"
PROJECTS = "/v1/dashboard/projects"
INFO = "/v1/users/info"


async def no_sleep(_: float) -> None:
    pass


class World:
    """A simulator with one instance, and a client of it."""

    def __init__(self, sim: Simulator, client: PaletteClient) -> None:
        self.sim = sim
        self.client = client

    @property
    def instance(self) -> SimInstance:
        return self.sim.world.instances["alpha"]

    def project(self, name: str) -> str:
        return next(p.uid for p in self.instance.projects.values() if p.name == name)

    async def discover(self, **options: Any) -> Discovery:
        settings: dict[str, Any] = {
            "choose": lambda _: True,
            "tenant_scope": True,
            "include_virtual": False,
            **options,
        }
        return await palette.discover(self.client, **settings)


@asynccontextmanager
async def world_of(**options: Any) -> AsyncIterator[World]:
    settings = {"instances": 1, "projects": 3, "clusters": 12, **options}
    async with Simulator(SimulatorOptions(**settings)) as sim:
        instance = sim.world.instances["alpha"]
        async with PaletteClient(
            "alpha",
            instance.url,
            Secret(instance.api_key),
            limits=Limits(),
            ca_pem=instance.ca_pem,
            timing=Timing(attempt=5),
            sleep=no_sleep,
        ) as client:
            yield World(sim, client)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with world_of() as one:
        yield one


def by_name(found: Discovery) -> dict[str, Listing]:
    return {listing.name: listing for listing in found.listings}


def uids(found: Discovery) -> list[str]:
    return sorted(cluster.uid for listing in found.listings for cluster in listing.clusters)


async def test_everything_is_found_in_its_scope(world: World) -> None:
    found = await world.discover()

    assert (found.tenant_uid, found.org_name) == (world.instance.tenant_uid, world.instance.org_name)
    assert found.projects == tuple(Project(p.uid, p.name) for p in world.instance.projects.values())
    assert [listing.name for listing in found.listings] == ["payments", "retail", "logistics", "tenant"]
    assert all(listing.complete for listing in found.listings)
    assert uids(found) == sorted(world.instance.clusters)
    for listing in found.listings:
        for cluster in listing.clusters:
            assert (cluster.project.uid if cluster.project else "tenant") == listing.scope
            assert cluster.name == world.instance.clusters[cluster.uid].name
            assert cluster.created_at == world.instance.clusters[cluster.uid].created_at
    assert [c.scope for c in found.listings[-1].clusters] == [Scope.TENANT]


async def test_it_costs_one_request_per_page_and_two_before(world: World) -> None:
    await world.discover()

    log = world.sim.requests
    assert world.client.requests == 6
    assert log.count("palette") == 6
    assert log.count("palette", path_regex="search") == 4
    assert next(iter(log.entries)).path == INFO
    assert {e.project_uid for e in log.entries if e.path == SEARCH} == {*world.instance.projects, None}
    assert log.count("kube") == 0


async def test_only_chosen_projects_are_listed(world: World) -> None:
    found = await world.discover(choose=lambda project: project.name == "retail", tenant_scope=False)

    assert found.projects is not None
    assert len(found.projects) == 3
    assert [listing.name for listing in found.listings] == ["retail"]


async def test_every_page_is_read_in_order_of_creation() -> None:
    async with world_of(projects=1, clusters=170, tenant_scoped=0) as world:
        found = await world.discover()
        entries = [e for e in world.sim.requests.entries if e.path == SEARCH and e.project_uid]

    created = [cluster.created_at for cluster in found.listings[0].clusters]
    assert len(created) == 170
    assert created == sorted(created)  # type: ignore[type-var]
    assert len(entries) == 4
    assert all("limit=50" in entry.query for entry in entries)
    assert ["continue=" in entry.query for entry in entries] == [False, True, True, True]


async def test_more_than_one_page_of_projects_is_read() -> None:
    async with world_of(projects=60, clusters=0) as world:
        found = await world.discover(tenant_scope=False)

    assert found.projects is not None
    assert len(found.projects) == len(found.listings) == 60
    assert all(listing.complete and not listing.clusters for listing in found.listings)


@pytest.mark.parametrize("virtual", [True, False])
def test_the_search_is_as_the_description_has_it(virtual: bool) -> None:  # noqa: FBT001 - a table
    body: Any = search_body(include_virtual=virtual)

    palette_spec.check_document({"$ref": "#/definitions/v1SearchFilterSummarySpec"}, body)

    properties = [one["property"] for one in body["filter"]["filterGroups"][0]["filters"]]
    assert properties == (["isDeleted"] if virtual else ["environment", "isDeleted"])


async def test_virtual_clusters_come_only_when_asked_for(world: World) -> None:
    virtual = await world.sim.world.add_cluster("alpha", world.project("retail"), "inner", virtual=True)
    world.sim.world.set_paused(virtual.uid, paused=True)

    assert virtual.uid not in uids(await world.discover())

    rows = by_name(await world.discover(include_virtual=True))["retail"].clusters
    inner = next(row for row in rows if row.uid == virtual.uid)
    assert inner.virtual
    assert inner.paused


async def test_deleting_clusters_stay_in_the_listing_and_deleted_ones_do_not_come(world: World) -> None:
    going, gone = list(world.instance.clusters)[2:4]
    world.sim.world.set_state(going, "Deleting")
    world.sim.world.set_state(gone, "Deleted")

    found = await world.discover()

    assert gone not in uids(found)
    assert next(c for one in found.listings for c in one.clusters if c.uid == going).gone


async def test_one_failing_project_leaves_the_others_complete(world: World) -> None:
    retail = world.project("retail")
    world.sim.faults.add(Fault(target="palette", kind="status", status=500, project_uid=retail))

    found = by_name(await world.discover())

    assert found["retail"].clusters == ()
    assert not found["retail"].complete
    assert f"POST {SEARCH}: HTTP 500" in (found["retail"].error or "")
    assert all(found[name].complete and found[name].clusters for name in ("payments", "logistics", "tenant"))


@pytest.mark.parametrize("kind", ["truncate", "garbage", "drop", "redirect", "lost-answer"])
async def test_no_fault_on_the_wire_turns_into_an_empty_listing(world: World, kind: Any) -> None:
    world.sim.faults.add(Fault(target="palette", kind=kind, project_uid=world.project("retail")))

    found = by_name(await world.discover())

    assert found["retail"].error
    assert not found["retail"].complete
    assert found["payments"].complete


async def test_a_passing_fault_leaves_no_trace(world: World) -> None:
    world.sim.faults.add(Fault(target="palette", kind="status", status=429, times=3, path="search"))
    world.sim.faults.add(Fault(target="palette", kind="truncate", times=1, path="projects$"))

    found = await world.discover()

    assert all(listing.complete for listing in found.listings)
    assert uids(found) == sorted(world.instance.clusters)


async def test_a_project_that_is_not_found_is_unknown_and_not_empty(world: World) -> None:
    body = '{"code":"ProjectNotFoundInTenant","message":"Project is not found"}'
    world.sim.faults.add(
        Fault(target="palette", kind="status", status=404, body=body, project_uid=world.project("retail"))
    )

    found = by_name(await world.discover())

    assert "ProjectNotFoundInTenant" in (found["retail"].error or "")


async def test_a_forbidden_project_is_an_error(world: World) -> None:
    world.sim.faults.add(Fault(target="palette", kind="status", status=403, project_uid=world.project("retail")))

    found = by_name(await world.discover())

    assert found["retail"].error
    assert not found["retail"].not_permitted


async def test_a_failing_project_list_is_told_and_lists_nothing(world: World) -> None:
    world.sim.faults.add(Fault(target="palette", kind="status", status=503, path=f"{PROJECTS}$"))

    found = await world.discover()

    assert found.projects is None
    assert found.listings == ()
    assert "HTTP 503" in (found.error or "")
    assert found.tenant_uid
    assert world.sim.requests.count("palette", path_regex="search") == 0


async def test_a_bad_key_is_raised_before_anything_is_listed(world: World) -> None:
    world.sim.world.set_key_active("alpha", active=False)

    with pytest.raises(palette.Unauthorized):
        await world.discover()

    assert world.sim.requests.count("palette") == 1


async def test_a_key_that_palette_does_not_find_is_unauthorized_and_not_echoed(world: World) -> None:
    key = world.instance.api_key
    body = json.dumps({"code": "ResourceNotFound", "message": f"ApiKey {key} not found"})
    world.sim.faults.add(Fault(target="palette", kind="status", status=404, body=body, path="users/info"))

    with pytest.raises(palette.Unauthorized) as caught:
        await world.discover()

    assert key not in str(caught.value)


async def test_a_server_that_is_no_palette_is_not_found(world: World) -> None:
    world.sim.faults.add(Fault(target="palette", kind="status", status=404, body="nginx", path="users/info"))

    with pytest.raises(palette.NotFound):
        await world.discover()


async def test_the_tenant_is_checked_by_its_name_before_anything_is_listed(world: World) -> None:
    assert (await world.discover(tenant="ALPHA-Org")).projects is not None
    world.sim.requests.reset()

    with pytest.raises(palette.TenantMismatch, match="alpha-org, not to other"):
        await world.discover(tenant="other")

    assert world.sim.requests.count("palette") == 1


async def test_a_key_with_project_rights_only_may_not_list_the_tenant(world: World) -> None:
    world.sim.world.set_key_permission("alpha", "project")

    found = by_name(await world.discover())

    assert found["tenant"] == Listing("tenant", "tenant", not_permitted=True)
    assert all(found[name].complete and found[name].clusters for name in ("payments", "retail", "logistics"))


@pytest.mark.parametrize("status", [401, 403])
async def test_any_refusal_of_the_tenant_scope_is_not_permitted(world: World, status: int) -> None:
    def is_tenant(seen: Seen) -> bool:
        return seen.path == SEARCH and "ProjectUid" not in seen.headers

    async with lying(lambda seen: reply({}, status) if is_tenant(seen) else None, rows={"p1": [a_row("c1")]}) as found:
        tenant = by_name(await found())["tenant"]

    assert tenant.not_permitted
    assert tenant.error is None


async def test_a_failing_tenant_listing_is_an_error(world: World) -> None:
    async with lying(
        lambda seen: reply({}, 500) if seen.path == SEARCH and "ProjectUid" not in seen.headers else None,
        rows={"p1": [a_row("c1")]},
    ) as found:
        tenant = by_name(await found())["tenant"]

    assert tenant.error
    assert not tenant.not_permitted


async def test_the_key_shows_in_no_result_and_no_log(world: World) -> None:
    key = world.instance.api_key
    body = json.dumps({"code": "Broken", "message": f"key {key}"})
    world.sim.faults.add(Fault(target="palette", kind="status", status=500, body=body, path="search"))

    with structlog.testing.capture_logs() as logs:
        found = await world.discover()

    assert "key ***" in repr(found)
    assert key not in repr(found)
    assert key not in str(logs)


# A Palette that lies.


def a_row(uid: str, project: str | None = "p1", **metadata: Any) -> dict[str, Any]:
    annotations = {"scope": "project", "projectUid": project} if project else {"scope": "tenant"}
    return {
        "metadata": {"uid": uid, "name": f"name-{uid}", "annotations": annotations, **metadata},
        "specSummary": {"projectMeta": {"uid": project or "", "name": "from the row"}},
        "status": {"state": "Running"},
    }


def page(rows: list[Any], token: str = "", count: int | None = None) -> dict[str, Any]:
    return {
        "items": rows,
        "listmeta": {"continue": token, "count": len(rows) if count is None else count, "limit": 50, "offset": 0},
    }


@asynccontextmanager
async def lying(
    answer: Callable[[Seen], Any],
    *,
    rows: dict[str | None, list[dict[str, Any]]] | None = None,
    projects: tuple[str, ...] = ("p1", "p2"),
    include_virtual: bool = False,
    recorder: Recorder | None = None,
) -> AsyncIterator[Any]:
    """Palette with fixed rows per project header; where `answer` gives something, it is said instead."""
    held = rows or {}

    def truth(seen: Seen) -> Any:
        special = answer(seen)
        if special is not None:
            return special
        if seen.path == INFO:
            return reply({"orgName": "org", "tenantUid": "t1", "userUid": "u1"})
        if seen.path == PROJECTS:
            return reply(page([{"metadata": {"uid": uid, "name": uid.upper()}} for uid in projects]))
        return reply(page(held.get(seen.headers.get("ProjectUid"), [])))

    async with (
        Fake(truth) as fake,
        PaletteClient(
            "prod",
            fake.url,
            Secret(CANARY),
            limits=Limits(enabled=False),
            tls=tls().client,
            sleep=no_sleep,
            recorder=recorder,
        ) as client,
    ):

        async def found(**options: Any) -> Discovery:
            return await palette.discover(
                client, choose=lambda _: True, tenant_scope=True, include_virtual=include_virtual, **options
            )

        found.fake = fake  # type: ignore[attr-defined]
        yield found


def in_p1(seen: Seen) -> bool:
    return seen.path == SEARCH and seen.headers.get("ProjectUid") == "p1"


def paged(*pages: dict[str, Any]) -> Callable[[Seen], Any]:
    """Say these pages one after another to whoever lists p1; the last one for ever."""
    left = list(pages)
    return lambda seen: reply(left.pop(0) if len(left) > 1 else left[0]) if in_p1(seen) else None


def some(start: int, number: int = 50) -> list[dict[str, Any]]:
    return [a_row(f"c{index}") for index in range(start, start + number)]


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        pytest.param(
            [page(some(0), "a", 500), page(some(50), "a", 500)],
            "repeats an earlier continue token",
            id="a repeated token",
        ),
        pytest.param(
            [page(some(0), "a", 500), page(some(50), "b", 500), page(some(100), "a", 500)],
            "repeats an earlier continue token",
            id="a loop",
        ),
        pytest.param([page(some(0), "a", 500), page(some(0), "b", 500)], "no new rows", id="the same page again"),
        pytest.param([page([], "a", 500)], "no new rows", id="an empty page that goes on"),
        pytest.param([page([{"metadata": {"name": "x"}}])], "row 1 of 1: a cluster has no uid", id="a row without uid"),
        pytest.param([page([a_row("c1"), a_row("c2", name="")])], "row 2 of 2", id="a row without name"),
        pytest.param([{"items": some(0, 1)}], "no listmeta", id="no listmeta"),
        pytest.param([{}], "no listmeta", id="an empty object"),
    ],
)
async def test_a_listing_that_cannot_be_trusted_is_an_error(pages: list[dict[str, Any]], said: str) -> None:
    async with lying(paged(*pages), rows={"p2": [a_row("d1", "p2")]}) as found:
        listings = by_name(await found())

    assert said in (listings["P1"].error or "")
    assert listings["P1"].clusters == ()
    assert [c.uid for c in listings["P2"].clusters] == ["d1"]


@pytest.mark.parametrize(
    ("pages", "rows", "said"),
    [
        pytest.param([page(some(0), "", 51)], 50, "50 rows instead of the announced 51", id="a shortfall"),
        pytest.param([page(some(0), "a", 65), page([], "", 65)], 50, "50 rows instead of", id="an empty last page"),
        pytest.param([page([], "", 3)], 0, "0 rows instead of the announced 3", id="nothing instead of something"),
        pytest.param([page(some(0) + some(0), "", 100)], 50, "50 rows instead of", id="rows that repeat"),
    ],
)
async def test_a_listing_that_ends_below_its_total_keeps_its_rows_and_is_short(
    pages: list[dict[str, Any]], rows: int, said: str
) -> None:
    async with lying(paged(*pages * 2), rows={"p2": [a_row("d1", "p2")]}) as found:
        listings = by_name(await found())

    assert len(listings["P1"].clusters) == rows
    assert said in (listings["P1"].short or "")
    assert listings["P1"].error is None
    assert not listings["P1"].complete
    assert listings["P2"].complete


async def test_a_project_list_below_its_total_lists_the_projects_that_it_has() -> None:
    few = page([{"metadata": {"uid": "p1", "name": "P1"}}], "", 2)
    async with lying(lambda seen: reply(few) if seen.path == PROJECTS else None, rows={"p1": [a_row("c1")]}) as found:
        discovery = await found()

    assert discovery.projects == (Project("p1", "P1"),)
    assert "1 rows instead of the announced 2" in (discovery.short or "")
    assert [c.uid for c in discovery.listings[0].clusters] == ["c1"]


async def test_a_row_that_names_no_project_belongs_to_the_project_that_lists_it() -> None:
    bare = a_row("c1")
    del bare["metadata"]["annotations"], bare["specSummary"]["projectMeta"]
    async with lying(lambda _: None, rows={"p1": [bare], None: [bare]}) as found:
        listings = by_name(await found())

    assert [(c.uid, c.project) for c in listings["P1"].clusters] == [("c1", Project("p1", "P1"))]
    assert listings["tenant"].clusters == ()


async def test_pages_that_never_end_are_left_after_twice_the_pages_needed() -> None:
    asked = 0

    def endless(seen: Seen) -> Any:
        nonlocal asked
        if not in_p1(seen):
            return None
        asked += 1
        return reply(page(some(asked * 50), f"token-{asked}", 120))

    async with lying(endless) as found:
        listings = by_name(await found())

    assert "not at its end after 6 pages" in (listings["P1"].error or "")
    assert asked == 6


async def test_a_huge_total_is_bounded_by_the_hard_cap() -> None:
    asked = 0

    def endless(seen: Seen) -> Any:
        nonlocal asked
        if not in_p1(seen):
            return None
        asked += 1
        return reply(page(some(asked, 1), f"token-{asked}", 10**6))

    async with lying(endless) as found:
        listings = by_name(await found())

    assert asked == 1000
    assert "after 1000 pages" in (listings["P1"].error or "")


async def test_a_total_that_moves_is_read_once_more() -> None:
    moving = [page(some(0), "a", 60), page(some(50, 9), "", 59), page(some(0), "b", 59), page(some(50, 9), "", 59)]

    async with lying(paged(*moving)) as found:
        listing = by_name(await found())["P1"]

    assert listing.complete
    assert len(listing.clusters) == 59


async def test_a_total_that_grows_is_fine_if_the_rows_cover_it() -> None:
    growing = [page(some(0), "a", 60), page(some(50), "b", 101), page(some(100, 3), "", 103)]

    async with lying(paged(*growing)) as found:
        listing = by_name(await found())["P1"]
        asked = [seen for seen in found.fake.seen if in_p1(seen)]

    assert len(listing.clusters) == 103
    assert len(asked) == len(growing)


async def test_a_total_that_grows_beyond_the_rows_is_incomplete() -> None:
    growing = [page(some(0), "a", 60), page(some(50, 11), "", 62)]

    async with lying(paged(*growing, *growing)) as found:
        listing = by_name(await found())["P1"]

    assert "61 rows instead of the announced 62" in (listing.short or "")


async def test_a_shortfall_that_heals_is_forgiven() -> None:
    async with lying(paged(page(some(0, 4), "", 5), page(some(0, 5), "", 5))) as found:
        listing = by_name(await found())["P1"]

    assert len(listing.clusters) == 5


async def test_a_total_that_moves_again_is_incomplete_although_the_rows_would_suffice() -> None:
    moving = [page(some(0), "a", 60), page(some(50, 10), "", 59)]

    async with lying(paged(*moving, *moving)) as found:
        listing = by_name(await found())["P1"]

    assert "the total changed from 60 to 59" in (listing.short or "")
    assert len(listing.clusters) == 60


async def test_rows_that_repeat_beyond_the_total_count_once() -> None:
    async with lying(paged(page([*some(0), a_row("c0")], "a", 51), page(some(50, 1), "", 51))) as found:
        listing = by_name(await found())["P1"]

    assert len({c.uid for c in listing.clusters}) == len(listing.clusters) == 51


async def test_smaller_pages_than_asked_for_are_fine() -> None:
    pages = [page(some(start, 10), f"t{start}" if start < 90 else "", 100) for start in range(0, 100, 10)]

    async with lying(paged(*pages)) as found:
        assert len(by_name(await found())["P1"].clusters) == 100


async def test_the_token_travels_in_the_query_alone() -> None:
    token = base64.b64encode(b'{"offset":50}').decode()
    async with lying(paged(page(some(0), token, 51), page(some(50, 1), "", 51))) as found:
        await found()
        asked = [seen for seen in found.fake.seen if in_p1(seen)]

    assert [seen.query.get("continue") for seen in asked] == [None, token]
    assert asked[0].json == asked[1].json
    assert token not in str(asked[1].json)
    assert "Continue" not in asked[1].headers


async def test_a_cluster_in_two_projects_stays_in_the_one_that_it_names_itself() -> None:
    row = a_row("c1", "p2")
    async with lying(lambda _: None, rows={"p1": [row, a_row("x")], "p2": [row]}) as found:
        listings = by_name(await found())

    assert [c.uid for c in listings["P1"].clusters] == ["x"]
    assert [c.uid for c in listings["P2"].clusters] == ["c1"]
    assert listings["P2"].clusters[0].project == Project("p2", "P2")


async def test_a_cluster_that_moved_away_is_judged_by_the_project_that_it_names() -> None:
    async with lying(lambda _: None, rows={"p1": [a_row("c1", "p2")]}) as found:
        listings = by_name(await found())

    assert listings["P1"].clusters[0].project == Project("p2", "P2")


async def test_a_project_that_nobody_lists_leaves_the_cluster_unresolved() -> None:
    async with lying(
        lambda _: None, rows={"p1": [a_row("c1", "p9")], None: [a_row("c1", "p9"), a_row("c2", "p9")]}
    ) as found:
        listings = by_name(await found())

    assert [(c.uid, c.scope, c.project) for c in listings["P1"].clusters] == [("c1", Scope.PROJECT, None)]
    assert [(c.uid, c.scope, c.project) for c in listings["tenant"].clusters] == [("c2", Scope.PROJECT, None)]


async def test_project_rows_of_the_tenant_listing_belong_to_their_projects() -> None:
    everything = [a_row("c1"), a_row("c2", "p2"), a_row("t1", None)]
    async with lying(lambda _: None, rows={"p1": [a_row("c1")], "p2": [], None: everything}) as found:
        listings = by_name(await found())

    assert [c.uid for c in listings["tenant"].clusters] == ["t1"]
    assert listings["P2"].clusters == ()


async def test_tenant_rows_in_a_projects_listing_belong_to_the_tenant() -> None:
    shared = a_row("t1", None)
    async with lying(lambda _: None, rows={"p1": [shared, a_row("c1")], None: [shared, a_row("c1")]}) as found:
        listings = by_name(await found())

    assert [c.uid for c in listings["P1"].clusters] == ["c1"]
    assert [c.uid for c in listings["tenant"].clusters] == ["t1"]


async def test_an_empty_tenant_view_beside_full_projects_is_not_permitted() -> None:
    async with lying(lambda _: None, rows={"p1": [a_row("c1")]}) as found:
        assert by_name(await found())["tenant"].not_permitted


async def test_an_empty_tenant_view_of_an_empty_instance_is_complete() -> None:
    async with lying(lambda _: None) as found:
        tenant = by_name(await found())["tenant"]

    assert tenant.complete
    assert tenant.clusters == ()


async def test_an_empty_tenant_view_proves_nothing_while_a_project_fails() -> None:
    async with lying(lambda seen: reply({}, 400) if in_p1(seen) else None) as found:
        assert by_name(await found())["tenant"].not_permitted


async def test_an_instance_without_projects_has_its_tenant_scope() -> None:
    async with lying(lambda _: None, rows={None: [a_row("t1", None)]}, projects=()) as found:
        discovery = await found()

    assert discovery.projects == ()
    assert [c.uid for c in discovery.listings[0].clusters] == ["t1"]


async def test_nested_rows_that_the_filter_let_through_are_dropped_here() -> None:
    nested = a_row("v1")
    nested["specSummary"]["cloudConfig"] = {"cloudType": "nested"}
    rows: dict[str | None, list[dict[str, Any]]] = {"p1": [nested, a_row("c1")]}

    async with lying(lambda _: None, rows=rows) as found:
        assert [c.uid for c in by_name(await found())["P1"].clusters] == ["c1"]
    async with lying(lambda _: None, rows=rows, include_virtual=True) as found:
        assert [c.uid for c in by_name(await found())["P1"].clusters] == ["v1", "c1"]


async def test_deleted_rows_stay_for_selection_to_decide() -> None:
    row = a_row("c1")
    row["status"]["state"] = "Deleted"

    async with lying(lambda _: None, rows={"p1": [row]}) as found:
        assert by_name(await found())["P1"].clusters[0].gone


async def test_a_malformed_project_list_is_a_failed_project_list() -> None:
    async with lying(
        lambda seen: reply(page([{"metadata": {"uid": "p1"}}])) if seen.path == PROJECTS else None
    ) as found:
        discovery = await found()

    assert discovery.projects is None
    assert "a project has no name" in (discovery.error or "")


async def test_user_information_without_a_tenant_is_malformed() -> None:
    async with lying(lambda seen: reply({"orgName": "x"}) if seen.path == INFO else None) as found:
        with pytest.raises(palette.Malformed):
            await found()


async def test_a_listing_that_takes_too_long_is_an_error() -> None:
    async def slow(seen: Seen) -> Any:
        await asyncio.Event().wait()
        return reply(page([]))

    async with lying(lambda seen: slow(seen) if in_p1(seen) else None) as found:
        listings = by_name(await found(listing_timeout=3))

    assert listings["P1"].error == "not listed within 3 s"
    assert listings["P2"].complete


class BrokenRecorder:
    """Fails for the first answer to a search."""

    failed = False

    def request(self, api: str, outcome: str) -> None:
        if api == SEARCH and not self.failed:
            self.failed = True
            raise ZeroDivisionError(CANARY)

    def retry(self, api: str) -> None:
        pass


async def test_a_bug_in_one_listing_is_logged_and_contained() -> None:
    with structlog.testing.capture_logs() as logs:
        async with lying(lambda _: None, recorder=BrokenRecorder()) as found:
            listings = (await found()).listings

    broken = [listing for listing in listings if listing.error]
    assert [listing.error for listing in broken] == ["unexpected ZeroDivisionError; the log has the traceback"]
    assert len(listings) == 3
    assert [entry["event"] for entry in logs] == ["unexpected_error"]
