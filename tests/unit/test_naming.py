"""Names that Backstage entities refer to: unique, stable, short enough; the older cluster keeps the plain one."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOW, TEAM_B, cluster, tenant_cluster
from palette_sync.core.model import Project, Scope
from palette_sync.core.naming import LONGEST, assign_names

if TYPE_CHECKING:
    from palette_sync.core.model import Cluster

# Backstage refuses entity names that do not match: packages/catalog-model, KubernetesValidatorFunctions.
BACKSTAGE = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
DAY = timedelta(days=1)


def names_of(
    *clusters: Cluster, prefix: str = "prod", published: dict[str, str] | None = None, taken: tuple[str, ...] = ()
) -> dict[str, str]:
    return assign_names(clusters, published=published or {}, taken=taken, prefix=prefix)


@pytest.mark.parametrize(
    ("one", "prefix", "name"),
    [
        pytest.param(cluster(name="web"), "prod", "prod-web", id="prefix and cluster"),
        pytest.param(cluster(name="web"), "", "web", id="no prefix"),
        pytest.param(
            cluster(name="web eu/1"), "prod", "prod-web-eu-1", id="characters that are not allowed become a dash"
        ),
        pytest.param(cluster(name="Web_1.eu"), "prod", "prod-Web_1.eu", id="case, dot and underscore stay"),
        pytest.param(cluster(name="-web-"), "_prod_", "prod-web", id="no part begins or ends with punctuation"),
        pytest.param(cluster(name="büro"), "prod", "prod-b-ro", id="letters of other alphabets are not allowed"),
        pytest.param(cluster(name="東京"), "prod", "prod", id="without any allowed character only the prefix is left"),
        pytest.param(cluster(name="東京"), "", "cluster", id="and without prefix there is still a name"),
    ],
)
def test_the_plain_name_is_prefix_and_cluster(one: Cluster, prefix: str, name: str) -> None:
    assert names_of(one, prefix=prefix) == {"c1": name}


def test_of_two_new_clusters_of_the_same_name_the_older_gets_the_plain_name() -> None:
    older = cluster("z", created_at=NOW - DAY)
    younger = cluster("a", created_at=NOW, project=TEAM_B)

    assert names_of(younger, older) == {"z": "prod-web", "a": "prod-team-b-web"}


def test_a_cluster_without_a_creation_time_counts_as_the_youngest() -> None:
    undated = cluster("a", project=TEAM_B)

    assert names_of(undated, cluster("z", created_at=NOW)) == {"z": "prod-web", "a": "prod-team-b-web"}


def test_clusters_of_the_same_name_and_age_are_ordered_by_uid() -> None:
    assert names_of(cluster("b", project=TEAM_B), cluster("a")) == {"a": "prod-web", "b": "prod-team-b-web"}


def test_a_tenant_scoped_cluster_of_the_same_name_is_named_after_its_scope() -> None:
    assert names_of(tenant_cluster("b", "web"), cluster("a"))["b"] == "prod-tenant-web"


def test_the_third_cluster_of_the_same_name_ends_with_six_characters_of_its_uid() -> None:
    uids = ["65f000000000000000aaaaa1", "65f000000000000000aaaaa2", "65f000000000000000aaaaa3"]

    assert list(names_of(*(cluster(uid) for uid in uids)).values()) == [
        "prod-web",
        "prod-team-a-web",
        "prod-team-a-web-aaaaa3",
    ]


def test_uids_with_the_same_end_contribute_more_characters() -> None:
    uids = ["x1aaaaaa", "x2aaaaaa", "x3aaaaaa", "x4aaaaaa", "y4aaaaaa"]

    assert list(names_of(*(cluster(uid) for uid in uids)).values()) == [
        "prod-web",
        "prod-team-a-web",
        "prod-team-a-web-aaaaaa",
        "prod-team-a-web-4aaaaaa",
        "prod-team-a-web-y4aaaaaa",
    ]


def test_a_number_is_appended_where_even_the_whole_uid_is_taken() -> None:
    taken = ("prod-web", "prod-team-a-web", "prod-team-a-web-c1", "prod-team-a-web-c1-2")

    assert names_of(cluster(), taken=taken) == {"c1": "prod-team-a-web-c1-3"}


def test_a_published_name_never_changes_while_its_record_lives() -> None:
    younger = cluster("young", created_at=NOW)
    older = cluster("old", created_at=NOW - DAY, project=TEAM_B)

    assert names_of(younger, older, published={"young": "prod-web"}) == {"young": "prod-web", "old": "prod-team-b-web"}
    assert names_of(cluster(name="renamed"), prefix="other", published={"c1": "prod-web"}) == {"c1": "prod-web"}


def test_the_name_of_a_record_that_was_not_listed_stays_reserved() -> None:
    assert names_of(cluster(), published={"unlisted": "prod-web"}) == {"c1": "prod-team-a-web"}


def test_names_of_other_instances_are_taken_and_compared_without_case() -> None:
    assert names_of(cluster(), taken=("PROD-Web",)) == {"c1": "prod-team-a-web"}


def test_names_that_differ_only_in_case_are_the_same() -> None:
    assert names_of(cluster("a", name="Web"), cluster("b", name="web")) == {"a": "prod-Web", "b": "prod-team-a-web"}


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        pytest.param("x" * 58, False, id="63 characters are not cut"),
        pytest.param("x" * 59, True, id="64 are cut and end with the uid"),
        pytest.param("x" * 500, True, id="very long names are cut too"),
    ],
)
def test_a_name_that_is_too_long_ends_with_six_characters_of_the_uid(name: str, *, cut: bool) -> None:
    given_name = names_of(cluster("65f000000000000000abcdef", name=name))["65f000000000000000abcdef"]

    assert len(given_name) == LONGEST
    assert given_name.endswith("x-abcdef") is cut


def test_a_cut_leaves_no_punctuation_at_the_end() -> None:
    name = "x" * 43 + "." * 20 + "y" * 30

    assert names_of(cluster("abcdef", name=name)) == {"abcdef": "prod-team-a-" + "x" * 43 + "-abcdef"}


# ---- Properties ------------------------------------------------------------------------------------------------------

words = st.sampled_from(["web", "Web", "web-1", "", "東京", "a b", "-", "team", "x" * 70]) | st.text(max_size=80)
uid_texts = st.text("0123456789abcdef", min_size=24, max_size=24) | st.text(min_size=1, max_size=70)


@st.composite
def inventories(draw: st.DrawFn) -> list[Cluster]:
    some = draw(st.lists(uid_texts, unique=True, max_size=12))
    return [
        cluster(
            uid,
            name=draw(words),
            scope=Scope.PROJECT,
            project=Project(draw(words), draw(words)),
            created_at=draw(st.none() | st.sampled_from([NOW, NOW - DAY, NOW + DAY])),
        )
        for uid in some
    ]


taken_names = st.lists(st.sampled_from(["web", "prod-web", "PROD-WEB", "cluster", "prod", "prod-web-web"]))
prefixes = st.sampled_from(["", "prod", "p" * 70]) | st.text(max_size=10)


@given(inventories(), prefixes, taken_names)
def test_names_are_unique_regardless_of_case_and_never_taken_from_another_instance(
    clusters: list[Cluster], prefix: str, taken: list[str]
) -> None:
    names = names_of(*clusters, prefix=prefix, taken=tuple(taken))

    folded = [name.casefold() for name in names.values()]
    assert names.keys() == {one.uid for one in clusters}
    assert len(set(folded)) == len(folded)
    assert not set(folded) & {name.casefold() for name in taken}


@given(inventories(), prefixes, taken_names)
def test_backstage_and_kubernetes_accept_every_name(clusters: list[Cluster], prefix: str, taken: list[str]) -> None:
    for name in names_of(*clusters, prefix=prefix, taken=tuple(taken)).values():
        assert len(name) <= LONGEST
        assert BACKSTAGE.fullmatch(name)


@given(inventories(), prefixes, st.randoms(use_true_random=False))
def test_names_depend_neither_on_the_order_of_the_listing_nor_on_the_pass(
    clusters: list[Cluster], prefix: str, shuffler: object
) -> None:
    first = names_of(*clusters, prefix=prefix)
    shuffled = list(clusters)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]

    assert names_of(*shuffled, prefix=prefix) == first
    assert names_of(*shuffled, prefix=prefix, published=first) == first


@given(inventories(), inventories(), prefixes)
def test_new_clusters_change_no_published_name(old: list[Cluster], new: list[Cluster], prefix: str) -> None:
    known = {one.uid for one in old}
    published = names_of(*old, prefix=prefix)

    names = names_of(*old, *(one for one in new if one.uid not in known), prefix=prefix, published=published)

    assert published.items() <= names.items()
    assert len({name.casefold() for name in names.values()}) == len(names)


@given(st.lists(st.sampled_from([NOW, NOW - DAY, NOW - 2 * DAY, NOW + DAY]), min_size=2, max_size=4, unique=True))
def test_the_oldest_of_the_same_name_keeps_the_plain_name(dates: list[object]) -> None:
    clusters = [cluster(f"uid-{number}", created_at=date) for number, date in enumerate(dates)]
    oldest = min(clusters, key=lambda one: one.created_at or NOW)

    names = names_of(*clusters)

    assert [uid for uid, name in names.items() if name == "prod-web"] == [oldest.uid]
