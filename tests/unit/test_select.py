"""What one discovery means for every cluster and every published record; filters fail closed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    TEAM_A,
    TEAM_B,
    access,
    by_uid,
    cluster,
    discovery,
    listing,
    record,
    tenant_cluster,
    tenant_listing,
    tenant_record,
)
from palette_sync.core.model import AccessState, AuthMode, PaletteFacts, Project, Scope
from palette_sync.core.pause import PAUSE_TAG
from palette_sync.core.reasons import Reason
from palette_sync.core.select import AuthRule, Filters, Selection, auth_mode, deselected, select, unmatched

if TYPE_CHECKING:
    from palette_sync.core.model import Cluster, Discovery

ALL = Filters()


def fates(selection: Selection) -> dict[str, list[str]]:
    """Every uid and the names of all its fates."""
    found: dict[str, list[str]] = {}
    for fate in ("chosen", "dropped", "disappeared", "unresolved", "kept"):
        for uid in getattr(selection, fate):
            found.setdefault(uid, []).append(fate)
    return found


# ---- Projects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "chosen"),
    [
        pytest.param(Filters(), True, id="no filter includes everything"),
        pytest.param(Filters(include_projects=("team-a",)), True, id="included by name"),
        pytest.param(Filters(include_projects=("p-a",)), True, id="included by uid"),
        pytest.param(Filters(include_projects=("team-*",)), True, id="included by a glob of the name"),
        pytest.param(Filters(include_projects=("p-?",)), True, id="included by a glob of the uid"),
        pytest.param(Filters(include_projects=("x", "team-a")), True, id="one of several includes is enough"),
        pytest.param(Filters(include_projects=("team-b",)), False, id="not among the included"),
        pytest.param(Filters(include_projects=("Team-A",)), False, id="names are compared with case"),
        pytest.param(Filters(include_projects=("team",)), False, id="a part of the name is no match"),
        pytest.param(Filters(exclude_projects=("team-a",)), False, id="excluded by name"),
        pytest.param(Filters(exclude_projects=("p-a",)), False, id="excluded by uid"),
        pytest.param(Filters(exclude_projects=("*",)), False, id="excluded by a glob"),
        pytest.param(Filters(exclude_projects=("team-b",)), True, id="another one is excluded"),
        pytest.param(
            Filters(include_projects=("team-a",), exclude_projects=("team-*",)), False, id="an exclusion always wins"
        ),
    ],
)
def test_a_project_is_chosen_by_names_uids_and_globs(filters: Filters, *, chosen: bool) -> None:
    assert filters.chooses_project(TEAM_A) is chosen


# ---- Clusters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "filters", "reason"),
    [
        pytest.param(cluster(), Filters(), None, id="everything is served by default"),
        pytest.param(cluster(virtual=True), Filters(), "VirtualExcluded", id="virtual clusters are left out"),
        pytest.param(cluster(virtual=True), Filters(include_virtual=True), None, id="virtual clusters are asked for"),
        pytest.param(tenant_cluster(), Filters(), None, id="tenant-scoped clusters are served"),
        pytest.param(
            tenant_cluster(),
            Filters(exclude_tenant_scoped_clusters=True),
            "TenantScopeExcluded",
            id="tenant-scoped clusters are left out",
        ),
        pytest.param(
            tenant_cluster(),
            Filters(include_projects=("team-b",)),
            None,
            id="project filters say nothing of the tenant",
        ),
        pytest.param(
            cluster(), Filters(exclude_tenant_scoped_clusters=True), None, id="a project's cluster is no tenant's"
        ),
        pytest.param(cluster(), Filters(exclude_projects=("team-a",)), "ProjectExcluded", id="its project is left out"),
        pytest.param(
            cluster(tags=("env:prod", "old")), Filters(exclude_tags=("env:*",)), "TagExcluded", id="excluded by a tag"
        ),
        pytest.param(cluster(tags=("old",)), Filters(exclude_tags=("old",)), "TagExcluded", id="by a plain tag"),
        pytest.param(cluster(), Filters(exclude_tags=("*",)), None, id="without tags no tag excludes"),
        pytest.param(cluster(tags=("env:prod",)), Filters(include_tags=("env:prod",)), None, id="an included tag"),
        pytest.param(cluster(), Filters(include_tags=("env:prod",)), "TagNotIncluded", id="without the included tag"),
        pytest.param(
            cluster(tags=("env:prod", "old")),
            Filters(include_tags=("env:prod",), exclude_tags=("old",)),
            "TagExcluded",
            id="an excluded tag wins over an included one",
        ),
        pytest.param(
            tenant_cluster(tags=("old",)),
            Filters(exclude_tags=("old",)),
            "TagExcluded",
            id="tags count in the tenant too",
        ),
    ],
)
def test_a_listed_cluster_is_served_or_left_out_with_a_reason(
    one: Cluster, filters: Filters, reason: str | None
) -> None:
    shown = tenant_listing(one) if one.scope is Scope.TENANT else listing(TEAM_A, one)

    found = select(discovery(shown), by_uid(record()), filters)

    assert filters.deselects(one) == reason
    assert found.dropped == ({"c1": reason} if reason else {})
    assert found.chosen == ({} if reason else {"c1": one})


@pytest.mark.parametrize("listed", [True, False])
def test_imported_clusters_can_be_left_out(*, listed: bool) -> None:
    one = cluster(imported=True)
    shown = record(server=None, auth=None, access=access(AccessState.PENDING, Reason.IMPORTED))
    seen = discovery(listing(TEAM_A, one) if listed else listing(TEAM_A, error="503"))

    assert select(seen, by_uid(shown), ALL).dropped == {}
    assert select(seen, by_uid(shown), Filters(include_imported=False)).dropped == {"c1": Reason.IMPORTED_EXCLUDED}


def test_a_short_listing_serves_its_rows_and_keeps_the_records_that_it_lacks() -> None:
    seen = discovery(replace(listing(TEAM_A, cluster("c1")), short="1 of 2"))

    found = select(seen, by_uid(record("c1"), record("c2")), ALL)

    assert fates(found) == {"c1": ["chosen"], "c2": ["kept"]}
    assert found.empty == frozenset()


def test_what_the_key_may_not_list_and_what_is_not_there_are_told_apart() -> None:
    published = by_uid(record("a1"), record("b1", project=TEAM_B), tenant_record("t1"))

    found = select(discovery(listing(TEAM_A), tenant_listing(not_permitted=True), projects=(TEAM_A,)), published, ALL)

    assert (found.disappeared, found.kept, found.forbidden) == ({"a1", "b1"}, {"t1"}, {"t1"})
    assert (found.empty, found.vanished) == ({"p-a"}, {"p-b"})


# ---- Patterns that match nothing, and what new filters deselect ------------------------------------------------------

SEEN = discovery(listing(TEAM_A, cluster("a1", tags=("env:prod",)), cluster("a2")), listing(TEAM_B))


@pytest.mark.parametrize(
    ("filters", "seen", "lines"),
    [
        pytest.param(Filters(include_projects=("team-?", "p-b"), include_tags=("env:*",)), SEEN, [], id="all match"),
        pytest.param(
            Filters(include_projects=("taem-a",), exclude_projects=("x",)),
            SEEN,
            [
                'include_projects: "taem-a" matches no project; is "team-a" meant?',
                'exclude_projects: "x" matches no project',
            ],
            id="projects",
        ),
        pytest.param(
            Filters(include_tags=("env:prd",), exclude_tags=("old",)),
            SEEN,
            [
                'include_tags: "env:prd" matches no tag of a listed cluster; is "env:prod" meant?',
                'exclude_tags: "old" matches no tag of a listed cluster',
            ],
            id="tags",
        ),
        pytest.param(Filters(include_tags=("x",)), discovery(listing(TEAM_A)), [], id="no cluster was listed"),
        pytest.param(
            Filters(include_tags=("x",)),
            discovery(listing(TEAM_A, cluster()), listing(TEAM_B, error="503")),
            [],
            id="a cluster with that tag may be in a project that failed",
        ),
        pytest.param(Filters(include_projects=("x",)), discovery(projects=None), [], id="no list of projects"),
        pytest.param(
            Filters(include_projects=("x",)), replace(SEEN, short="2 of 3"), [], id="a short list of projects"
        ),
    ],
)
def test_patterns_that_match_nothing_are_named(filters: Filters, seen: Discovery, lines: list[str]) -> None:
    assert unmatched(filters, seen) == lines


@pytest.mark.parametrize(
    ("filters", "gone"),
    [
        pytest.param(ALL, {}, id="nothing"),
        pytest.param(Filters(exclude_tags=("env:prod",)), {"a1": "TagExcluded"}, id="by the tags of the last row"),
        pytest.param(
            Filters(include_projects=("team-b",)), dict.fromkeys(("a1", "a2", "u1"), "ProjectExcluded"), id="by project"
        ),
        pytest.param(Filters(exclude_tenant_scoped_clusters=True), {"t1": "TenantScopeExcluded"}, id="by scope"),
    ],
)
def test_new_filters_are_judged_by_the_last_rows_and_by_what_is_published(
    filters: Filters, gone: dict[str, str]
) -> None:
    seen = replace(
        SEEN,
        listings=(*SEEN.listings, listing(TEAM_B, cluster("u1", project=None)), tenant_listing(tenant_cluster("t1"))),
    )
    published = by_uid(record("a1"), record("a2"), record("u1"), record("b1", project=TEAM_B), tenant_record("t1"))

    assert deselected(published, seen, filters) == gone


def test_without_a_listing_new_filters_are_judged_by_what_is_published() -> None:
    assert deselected(by_uid(record()), None, Filters(exclude_projects=("team-a",))) == {"c1": "ProjectExcluded"}


@pytest.mark.parametrize("state", ["Deleting", "Deleted"])
def test_what_palette_calls_deleted_goes_at_once_and_is_never_served(state: str) -> None:
    found = select(discovery(listing(TEAM_A, cluster(state=state))), by_uid(record()), ALL)

    assert found == Selection(dropped={"c1": state}, seen=frozenset({"c1"}))


@pytest.mark.parametrize("published", [{}, by_uid(record())], ids=["new", "published"])
def test_a_published_cluster_with_the_tag_that_pauses_is_kept_whatever_would_drop_it(
    published: dict[str, Any],
) -> None:
    filters = Filters(exclude_tags=("palette-sync:*",))
    for one in (cluster(state="Deleting", tags=(PAUSE_TAG,)), cluster(tags=(PAUSE_TAG,))):
        found = select(discovery(listing(TEAM_A, one)), published, filters)
        assert set(found.chosen) == set(published)
    unresolved = select(discovery(listing(TEAM_A, cluster(project=None, tags=(PAUSE_TAG,)))), published, ALL)
    assert set(unresolved.unresolved) == {"c1"}


@pytest.mark.parametrize("state", ["Provisioning", "Error", "Unknown", ""], ids=lambda state: state or "no state")
def test_every_other_state_is_served(state: str) -> None:
    assert fates(select(discovery(listing(TEAM_A, cluster(state=state))), {}, ALL)) == {"c1": ["chosen"]}


@pytest.mark.parametrize("filters", [ALL, Filters(exclude_projects=("team-b",))], ids=["no filter", "some filter"])
@pytest.mark.parametrize("published", [{}, by_uid(record())], ids=["new", "published"])
def test_a_cluster_whose_project_is_unknown_is_left_alone(published: dict[str, Any], filters: Filters) -> None:
    found = select(discovery(listing(TEAM_A, cluster(project=None))), published, filters)

    assert found == Selection(unresolved={"c1": "ProjectUnresolved"})


@pytest.mark.parametrize(
    ("sights", "fate"),
    [
        pytest.param([cluster(project=TEAM_B), cluster()], "chosen", id="served in one and left out in another"),
        pytest.param([cluster(project=None), cluster()], "chosen", id="unknown in one and served in another"),
        pytest.param(
            [cluster(project=None), cluster(project=TEAM_B)], "dropped", id="unknown in one and left out in another"
        ),
        pytest.param([cluster(project=None), cluster(state="Deleting")], "dropped", id="unknown in one and deleted"),
    ],
)
def test_a_cluster_that_is_seen_twice_has_one_fate(sights: list[Cluster], fate: str) -> None:
    filters = Filters(exclude_projects=("team-b",))
    for order in (sights, sights[::-1]):
        shown = [listing(project, one) for project, one in zip((TEAM_A, TEAM_B), order, strict=True)]

        assert fates(select(discovery(*shown), by_uid(record()), filters)) == {"c1": [fate]}


def test_a_cluster_that_was_never_published_is_not_dropped() -> None:
    shown = listing(TEAM_A, cluster("new", state="Deleting"), cluster("virtual", virtual=True))

    assert select(discovery(shown), {}, ALL) == Selection()


# ---- Records that no listing showed ----------------------------------------------------------------------------------

MOVED = Project("p-a", "renamed")
NESTED = PaletteFacts(state="Running", cloud_type="nested")


@pytest.mark.parametrize(
    ("found", "one", "filters", "fate"),
    [
        pytest.param(discovery(listing(TEAM_A)), record(), ALL, "disappeared", id="a complete listing without it"),
        pytest.param(
            discovery(listing(TEAM_A, error="503")), record(), ALL, "kept", id="its project could not be listed"
        ),
        pytest.param(
            discovery(listing(TEAM_A, error="503"), listing(TEAM_B)),
            record(),
            ALL,
            "kept",
            id="its project could not be listed though another could",
        ),
        pytest.param(discovery(), record(), ALL, "kept", id="its project was not listed at all"),
        pytest.param(
            discovery(projects=(TEAM_B,)), record(), ALL, "disappeared", id="its project is gone from a complete list"
        ),
        pytest.param(discovery(projects=()), record(), ALL, "disappeared", id="there are no projects any more"),
        pytest.param(discovery(projects=None), record(), ALL, "kept", id="the list of projects failed"),
        pytest.param(
            discovery(tenant_listing(), projects=None), tenant_record(), ALL, "disappeared", id="the tenant without it"
        ),
        pytest.param(
            discovery(tenant_listing(error="503")), tenant_record(), ALL, "kept", id="the tenant could not be listed"
        ),
        pytest.param(
            discovery(tenant_listing(not_permitted=True)),
            tenant_record(),
            ALL,
            "kept",
            id="the tenant may not be listed any more",
        ),
        pytest.param(discovery(listing(TEAM_A)), tenant_record(), ALL, "kept", id="the tenant was not listed at all"),
        pytest.param(
            discovery(listing(TEAM_A), tenant_listing()),
            record(project=None),
            ALL,
            "kept",
            id="a record without a project cannot be judged",
        ),
        pytest.param(
            discovery(projects=(TEAM_A, TEAM_B)),
            record(),
            Filters(exclude_projects=("team-a",)),
            "dropped",
            id="its project is left out now",
        ),
        pytest.param(
            discovery(projects=None),
            record(),
            Filters(exclude_projects=("team-a",)),
            "dropped",
            id="its project is left out now though nothing could be listed",
        ),
        pytest.param(
            discovery(projects=(MOVED,)),
            record(),
            Filters(exclude_projects=("renamed",)),
            "dropped",
            id="its project has a new name that is left out",
        ),
        pytest.param(
            discovery(listing(MOVED, error="503"), projects=(MOVED,)),
            record(),
            Filters(exclude_projects=("team-a",)),
            "kept",
            id="its project has a new name that is not left out",
        ),
        pytest.param(
            discovery(),
            tenant_record(),
            Filters(exclude_tenant_scoped_clusters=True),
            "dropped",
            id="the tenant scope is left out now",
        ),
        pytest.param(
            discovery(listing(TEAM_A)), record(palette=NESTED), ALL, "dropped", id="virtual clusters are left out now"
        ),
        pytest.param(
            discovery(listing(TEAM_A)),
            record(palette=NESTED),
            Filters(include_virtual=True),
            "disappeared",
            id="a virtual cluster disappeared",
        ),
    ],
)
def test_a_record_that_no_listing_showed(found: Discovery, one: Any, filters: Filters, fate: str) -> None:
    assert fates(select(found, by_uid(one), filters)) == {"c1": [fate]}


def test_dropped_records_say_why() -> None:
    published = by_uid(record("a"), tenant_record("b"), record("c", palette=NESTED))
    filters = Filters(exclude_projects=("team-a",), exclude_tenant_scoped_clusters=True)

    found = select(discovery(), published, filters)

    assert found.dropped == {"a": "ProjectExcluded", "b": "TenantScopeExcluded", "c": "VirtualExcluded"}


def test_one_failed_project_leaves_the_others_complete() -> None:
    published = by_uid(record("a1"), record("a2"), record("b1", project=TEAM_B), record("b2", project=TEAM_B))
    found = select(discovery(listing(TEAM_A, cluster("a1")), listing(TEAM_B, error="500")), published, ALL)

    assert fates(found) == {"a1": ["chosen"], "a2": ["disappeared"], "b1": ["kept"], "b2": ["kept"]}


# ---- Laws ------------------------------------------------------------------------------------------------------------

PROJECTS = (TEAM_A, TEAM_B, Project("p-c", "team-c"))
UIDS = [f"c{number}" for number in range(12)]
homes = st.sampled_from([*PROJECTS, None])
states = st.sampled_from(["Running", "Provisioning", "Deleting", "Deleted", ""])
tags = st.sampled_from([(), ("old",), ("env:prod",), ("env:prod", "old")])


@st.composite
def clusters_of(draw: st.DrawFn, project: Project | None) -> tuple[Cluster, ...]:
    some = draw(st.lists(st.sampled_from(UIDS), max_size=6, unique=True))
    scope = Scope.PROJECT if project else Scope.TENANT
    unresolved = draw(st.booleans())
    return tuple(
        cluster(
            uid,
            scope=scope,
            project=None if unresolved else project,
            state=draw(states),
            tags=draw(tags),
            virtual=draw(st.booleans()),
        )
        for uid in some
    )


@st.composite
def discoveries(draw: st.DrawFn) -> Discovery:
    listings = []
    for project in draw(st.lists(st.sampled_from(PROJECTS), unique=True)):
        error = draw(st.sampled_from([None, None, "503"]))
        listings.append(listing(project, *(() if error else draw(clusters_of(project))), error=error))
    if draw(st.booleans()):
        error = draw(st.sampled_from([None, "503"]))
        listings.append(tenant_listing(*(() if error else draw(clusters_of(None))), error=error))
    projects = draw(st.none() | st.lists(st.sampled_from(PROJECTS), unique=True).map(tuple))
    return discovery(*listings, projects=projects)


@st.composite
def inventories(draw: st.DrawFn) -> dict[str, Any]:
    return {
        uid: record(
            uid,
            scope=draw(st.sampled_from(Scope)),
            project=draw(homes),
            palette=draw(st.sampled_from([NESTED, PaletteFacts(state="Running")])),
        )
        for uid in draw(st.lists(st.sampled_from(UIDS), unique=True))
    }


filters_drawn = st.builds(
    Filters,
    include_projects=st.sampled_from([(), ("team-a",), ("team-*",)]),
    exclude_projects=st.sampled_from([(), ("team-b",), ("p-c",)]),
    include_tags=st.sampled_from([(), ("env:*",)]),
    exclude_tags=st.sampled_from([(), ("old",)]),
    exclude_tenant_scoped_clusters=st.booleans(),
    include_virtual=st.booleans(),
)


@given(discoveries(), inventories(), filters_drawn)
def test_every_record_gets_exactly_one_fate_and_nothing_else_is_touched(
    found: Discovery, published: dict[str, Any], filters: Filters
) -> None:
    decided = fates(select(found, published, filters))

    assert all(len(some) == 1 for some in decided.values())
    assert published.keys() <= decided.keys()
    assert {uid for uid in decided if uid not in published} <= {
        one.uid for shown in found.listings for one in shown.clusters
    }


@given(discoveries(), inventories(), filters_drawn)
def test_an_incomplete_listing_makes_nothing_disappear(
    found: Discovery, published: dict[str, Any], filters: Filters
) -> None:
    failed = replace(
        found, projects=None, listings=tuple(replace(one, clusters=(), error="503") for one in found.listings)
    )

    assert select(failed, published, filters).disappeared == frozenset()


@given(discoveries(), inventories(), filters_drawn)
def test_a_record_disappears_only_from_a_scope_that_is_known_without_it(
    found: Discovery, published: dict[str, Any], filters: Filters
) -> None:
    complete = {shown.scope for shown in found.listings if shown.complete}
    listed = {one.uid for shown in found.listings for one in shown.clusters}
    for uid in select(found, published, filters).disappeared:
        home = published[uid].project
        scope = "tenant" if published[uid].scope is Scope.TENANT else home.uid
        gone = scope != "tenant" and found.projects is not None and home not in found.projects

        assert scope in complete or gone
        assert uid not in listed


@given(discoveries(), inventories(), filters_drawn)
def test_nothing_is_served_whose_project_is_unknown_or_that_palette_calls_deleted(
    found: Discovery, published: dict[str, Any], filters: Filters
) -> None:
    for one in select(found, published, filters).chosen.values():
        assert not one.gone
        assert one.scope is Scope.TENANT or (one.project is not None and filters.chooses_project(one.project))


# ---- Mixed authentication --------------------------------------------------------------------------------------------

RULES = (
    AuthRule(AuthMode.SERVICE_ACCOUNT, project="legacy-*"),
    AuthRule(AuthMode.OIDC, tag="auth:oidc"),
    AuthRule(None, cluster="edge-*", project="team-a"),
    AuthRule(AuthMode.OIDC, cluster="shared", project=""),
)


@pytest.mark.parametrize(
    ("one", "mode"),
    [
        pytest.param(cluster(project=Project("p", "legacy-x")), AuthMode.SERVICE_ACCOUNT, id="by the project's name"),
        pytest.param(cluster(tags=("auth:oidc", "x")), AuthMode.OIDC, id="by a tag"),
        pytest.param(
            cluster(project=Project("p", "legacy-x"), tags=("auth:oidc",)),
            AuthMode.SERVICE_ACCOUNT,
            id="the first rule that matches wins",
        ),
        pytest.param(cluster(name="edge-1"), None, id="a rule may say auto"),
        pytest.param(
            cluster(name="edge-1", project=TEAM_B), AuthMode.SERVICE_ACCOUNT, id="all globs of a rule must match"
        ),
        pytest.param(tenant_cluster(name="edge-1"), AuthMode.SERVICE_ACCOUNT, id="a tenant's cluster has no project"),
        pytest.param(tenant_cluster(), AuthMode.OIDC, id="the empty project means the tenant's clusters"),
        pytest.param(cluster(), AuthMode.SERVICE_ACCOUNT, id="no rule matches and the default holds"),
    ],
)
def test_the_mode_of_a_cluster_is_that_of_the_first_rule_that_matches(one: Cluster, mode: AuthMode | None) -> None:
    assert auth_mode(one, rules=RULES, default=AuthMode.SERVICE_ACCOUNT) is mode


def test_without_rules_the_default_holds_even_if_it_is_auto() -> None:
    assert auth_mode(cluster(), rules=(), default=None) is None
    assert auth_mode(cluster(), rules=(AuthRule(AuthMode.OIDC),), default=None) is AuthMode.OIDC
