"""Names are unique without case, stable, and such that Backstage and Kubernetes accept them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palette_sync.core.model import Project
from palette_sync.core.naming import LONGEST, assign_names
from unit.builders import BANK, NOW, SHOP, cluster, tenant_cluster

ENTITY_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")  # Backstage's rule for entity names
UID = "65f0c0ffee0123456789abcd"


def names(*clusters: Any, published: Any = None, taken: Any = (), prefix: str = "prod") -> dict[str, str]:
    return assign_names(clusters, published=published or {}, taken=taken, prefix=prefix)


@pytest.mark.parametrize(
    ("row", "prefix", "expected"),
    [
        pytest.param(cluster(name="shop"), "prod", "prod-shop", id="prefix and name"),
        pytest.param(cluster(name="shop"), "", "shop", id="no prefix"),
        pytest.param(cluster(name="Shöp & co!"), "prod", "prod-Sh-p-co", id="what is not allowed becomes a dash"),
        pytest.param(cluster(name="***"), "", "cluster", id="nothing is left of the name"),
        pytest.param(cluster(UID, name="x" * 80), "p", f"p-shop-{'x' * 49}-89abcd", id="too long: it ends in the uid"),
    ],
)
def test_a_name(row: Any, prefix: str, expected: str) -> None:
    assert names(row, prefix=prefix)[row.uid] == expected


def test_the_older_of_two_namesakes_keeps_the_plain_name() -> None:
    old = cluster("b", name="shop", created_at=NOW)
    young = cluster("a", name="Shop", project=BANK, created_at=NOW + timedelta(1))
    undated = cluster("c", name="shop", project=Project("p3", "third"))

    assert names(young, undated, old) == {"b": "prod-shop", "a": "prod-bank-Shop", "c": "prod-third-shop"}


def test_namesakes_of_one_project_end_in_their_uids() -> None:
    one, two, three = (cluster(f"{UID}{end}", name="shop", created_at=NOW) for end in "123")

    assert set(names(one, two, three).values()) == {"prod-shop", "prod-shop-shop", "prod-shop-shop-9abcd3"}


def test_a_published_name_stays_whatever_others_are_called() -> None:
    row = cluster("a", name="renamed", created_at=NOW)

    assert names(row, cluster("b", name="old"), published={"a": "prod-old"}) == {"a": "prod-old", "b": "prod-shop-old"}


def test_names_of_other_instances_and_of_clusters_not_listed_now_are_taken() -> None:
    assert names(cluster(name="x"), published={"gone": "prod-x"}, taken=["PROD-shop-x"]) == {"c1": "prod-shop-x-c1"}


def test_the_same_uid_in_two_instances_still_gets_a_name_of_its_own() -> None:
    row = tenant_cluster("c1", name="x")
    taken = {"prod-x", "prod-tenant-x"} | {f"prod-tenant-x-{'c1'[-n:]}" for n in range(1, 9)}

    assert names(row, taken=taken) == {"c1": "prod-tenant-x-c1-2"}
    assert names(row, taken=taken | {"prod-tenant-x-c1-2"}) == {"c1": "prod-tenant-x-c1-3"}


rows = st.lists(
    st.builds(
        cluster,
        st.text("0123456789abcdef", min_size=24, max_size=24),
        name=st.text(max_size=70),
        project=st.sampled_from([SHOP, BANK]),
        created_at=st.none() | st.datetimes().map(lambda moment: moment.replace(tzinfo=NOW.tzinfo)),
    ),
    max_size=12,
    unique_by=lambda row: row.uid,
)


@given(rows, st.sampled_from(["", "prod", "a" * 60]))
def test_names_are_valid_unique_and_stable(found: Any, prefix: str) -> None:
    given_names = names(*found, prefix=prefix)

    assert given_names.keys() == {row.uid for row in found}
    assert len({name.casefold() for name in given_names.values()}) == len(found)
    for name in given_names.values():
        assert len(name) <= LONGEST
        assert ENTITY_NAME.fullmatch(name)
    assert names(*found, published=given_names, prefix="other") == given_names
