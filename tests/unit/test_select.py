"""Every cluster and every record gets exactly one fate, and filters fail closed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette_sync.core.model import TENANT_SCOPE, AuthMode, Listing, PaletteFacts, Project, Scope
from palette_sync.core.select import AuthRule, Filters, auth_mode, select
from unit.builders import BANK, SHOP, cluster, discovery, listing, record, tenant_cluster

GONE_PROJECT = Project("p9", "gone")


@pytest.mark.parametrize(
    ("filters", "row", "reason"),
    [
        pytest.param({}, cluster(), None, id="without filters everything is chosen"),
        pytest.param({"include_projects": ("sh*",)}, cluster(), None, id="a glob of the project's name includes"),
        pytest.param({"include_projects": ("p1",)}, cluster(), None, id="a project's uid includes"),
        pytest.param({"include_projects": ("bank",)}, cluster(), "ProjectExcluded", id="what is not included is out"),
        pytest.param(
            {"include_projects": ("shop",), "exclude_projects": ("shop",)}, cluster(), "ProjectExcluded", id="out wins"
        ),
        pytest.param({"exclude_tags": ("env:*",)}, cluster(tags=("env:dev",)), "TagExcluded", id="a tag excludes"),
        pytest.param({"include_tags": ("env:prod",)}, cluster(tags=("env:dev",)), "TagNotIncluded", id="no such tag"),
        pytest.param({"include_tags": ("env:*",)}, cluster(tags=("env:dev",)), None, id="a tag's glob includes"),
        pytest.param({}, cluster(virtual=True), "VirtualExcluded", id="virtual clusters are out by default"),
        pytest.param({"include_virtual": True}, cluster(virtual=True), None, id="virtual clusters can be included"),
        pytest.param({}, tenant_cluster(), None, id="tenant-scoped clusters are in by default"),
        pytest.param(
            {"exclude_tenant_scoped_clusters": True}, tenant_cluster(), "TenantScopeExcluded", id="or left out"
        ),
    ],
)
def test_filters(filters: dict[str, Any], row: Any, reason: str | None) -> None:
    published = {row.uid: record(row.uid)}
    chosen = select(discovery(listing(SHOP, row)), published, Filters(**filters))

    assert (row.uid in chosen.chosen) is (reason is None)
    assert chosen.dropped.get(row.uid) == reason


@pytest.mark.parametrize(
    ("rules", "row", "mode"),
    [
        pytest.param([], cluster(), AuthMode.SERVICE_ACCOUNT, id="no rule means the default"),
        pytest.param([AuthRule(AuthMode.OIDC, project="sh*")], cluster(), AuthMode.OIDC, id="by project"),
        pytest.param([AuthRule(AuthMode.OIDC, cluster="c?")], cluster(), AuthMode.OIDC, id="by cluster"),
        pytest.param([AuthRule(AuthMode.OIDC, tag="a:*")], cluster(tags=("a:b",)), AuthMode.OIDC, id="by tag"),
        pytest.param(
            [AuthRule(AuthMode.OIDC, project="shop", tag="x")], cluster(), AuthMode.SERVICE_ACCOUNT, id="all must match"
        ),
        pytest.param(
            [AuthRule(None, cluster="c1"), AuthRule(AuthMode.OIDC, cluster="*")], cluster(), None, id="the first wins"
        ),
        pytest.param([AuthRule(AuthMode.OIDC, project="*")], tenant_cluster(), AuthMode.OIDC, id="a tenant cluster"),
    ],
)
def test_the_first_rule_that_matches_decides_the_mode(rules: Any, row: Any, mode: AuthMode | None) -> None:
    assert auth_mode(row, rules=rules, default=AuthMode.SERVICE_ACCOUNT) is mode


def fate(published: Any, found: Any, **filters: Any) -> str:
    selection = select(found, {published.uid: published}, Filters(**filters))
    fates = {
        "chosen": published.uid in selection.chosen,
        "dropped": published.uid in selection.dropped,
        "disappeared": published.uid in selection.disappeared,
        "unresolved": published.uid in selection.unresolved,
        "kept": published.uid in selection.kept,
    }
    (one,) = [name for name, is_it in fates.items() if is_it]
    return one


TENANT = Listing(TENANT_SCOPE, TENANT_SCOPE)
TENANT_RECORD = record("t1", scope=Scope.TENANT, project=None)


@pytest.mark.parametrize(
    ("published", "found", "filters", "expected"),
    [
        pytest.param(record(), discovery(listing(SHOP)), {}, "disappeared", id="its project was listed without it"),
        pytest.param(
            record(),
            discovery(listing(SHOP, error="500"), listing(BANK)),
            {},
            "kept",
            id="its project's listing failed",
        ),
        pytest.param(record(), discovery(projects=None, error="503"), {}, "kept", id="the project list failed"),
        pytest.param(record(project=GONE_PROJECT), discovery(), {}, "disappeared", id="its project is gone"),
        pytest.param(
            record(palette=PaletteFacts("Running", cloud_type="nested")),
            discovery(listing(SHOP)),
            {},
            "dropped",
            id="virtual clusters are not wanted any more",
        ),
        pytest.param(record(project=None), discovery(), {}, "kept", id="its project was never known"),
        pytest.param(TENANT_RECORD, discovery(TENANT), {}, "disappeared", id="the tenant scope was listed without it"),
        pytest.param(TENANT_RECORD, discovery(), {}, "kept", id="the tenant scope was not listed"),
        pytest.param(
            TENANT_RECORD,
            discovery(Listing(TENANT_SCOPE, TENANT_SCOPE, not_permitted=True)),
            {},
            "kept",
            id="the tenant scope is not permitted any more",
        ),
        pytest.param(
            TENANT_RECORD, discovery(), {"exclude_tenant_scoped_clusters": True}, "dropped", id="tenant scope left out"
        ),
        pytest.param(
            record(), discovery(listing(BANK)), {"include_projects": ("bank",)}, "dropped", id="its project is left out"
        ),
        pytest.param(
            record(),
            discovery(projects=(Project("p1", "renamed"),)),
            {"include_projects": ("shop",)},
            "dropped",
            id="its project was renamed out of the selection",
        ),
        pytest.param(
            record(), discovery(listing(SHOP, cluster(state="Deleting"))), {}, "dropped", id="Palette is deleting it"
        ),
        pytest.param(
            record(), discovery(listing(SHOP, cluster(project=None))), {}, "unresolved", id="its project is unknown now"
        ),
        pytest.param(
            record(),
            discovery(listing(SHOP, cluster(state="Deleted")), listing(BANK, cluster(project=BANK))),
            {},
            "chosen",
            id="seen twice, one sight is alive",
        ),
    ],
)
def test_the_fate_of_a_record(published: Any, found: Any, filters: dict[str, Any], expected: str) -> None:
    assert fate(published, found, **filters) == expected


def test_a_cluster_whose_project_is_unknown_is_neither_chosen_nor_newly_published() -> None:
    selection = select(discovery(listing(SHOP, cluster(project=None))), {}, Filters())

    assert not selection.chosen
    assert selection.unresolved == {"c1": "ProjectUnresolved"}


uids = st.sampled_from(["a", "b", "c", "d"])
rows = st.builds(
    cluster,
    uids,
    project=st.sampled_from([SHOP, BANK, None]),
    state=st.sampled_from(["Running", "Error", "Deleting"]),
    virtual=st.booleans(),
)
listings = st.builds(
    lambda project, found, error: listing(project, *(() if error else found), error=error),
    st.sampled_from([SHOP, BANK]),
    st.lists(rows, max_size=4),
    st.none() | st.just("500"),
)


@given(st.lists(listings, max_size=3), st.sets(uids), st.sampled_from([None, (SHOP,), (SHOP, BANK)]))
def test_every_record_has_one_fate_and_only_a_complete_listing_makes_one_disappear(
    found: list[Listing], published: set[str], projects: tuple[Project, ...] | None
) -> None:
    records = {uid: record(uid) for uid in published}
    selection = select(discovery(*found, projects=projects), records, Filters())

    for uid in published:
        fates = [
            uid in selection.chosen,
            uid in selection.dropped,
            uid in selection.disappeared,
            uid in selection.unresolved,
            uid in selection.kept,
        ]
        assert sum(fates) == 1
    if selection.disappeared:
        assert any(one.scope == SHOP.uid and one.complete for one in found)
