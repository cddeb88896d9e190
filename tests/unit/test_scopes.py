"""How fresh each scope is, and what of the last status is believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import NOW, TEAM_A, TEAM_B, cluster, discovery, listing, tenant_listing
from palette_sync.core.model import TENANT_SCOPE, Discovery, Listing, ScopeStatus
from palette_sync.core.scopes import access_reduced, scopes_after, whole

EARLIER = NOW - timedelta(hours=1)
REFUSED = Listing(TENANT_SCOPE, TENANT_SCOPE, not_permitted=True)


def test_a_listed_scope_is_fresh_and_a_failed_one_keeps_its_last_good_time() -> None:
    before = {"p-a": ScopeStatus("team-a", EARLIER), "p-b": ScopeStatus("old name", EARLIER, "500", EARLIER)}

    after = scopes_after(before, discovery(listing(TEAM_A, error="403"), listing(TEAM_B, error="500")), NOW)

    assert after == {
        "p-a": ScopeStatus("team-a", EARLIER, "403", NOW),
        "p-b": ScopeStatus("team-b", EARLIER, "500", EARLIER),
    }
    assert scopes_after(before, discovery(listing(TEAM_B)), NOW) == {"p-a": None, "p-b": ScopeStatus("team-b", NOW)}


def test_a_new_scope_that_fails_was_never_listed() -> None:
    assert scopes_after({}, discovery(listing(TEAM_A, error="500")), NOW) == {
        "p-a": ScopeStatus("team-a", None, "500", NOW)
    }


def test_without_a_project_list_every_scope_is_stale() -> None:
    before = {"p-a": ScopeStatus("team-a", EARLIER)}

    assert scopes_after(before, replace(discovery(projects=None), error="503"), NOW) == {
        "p-a": ScopeStatus("team-a", EARLIER, "503", NOW)
    }
    assert scopes_after(before, discovery(projects=None), NOW)["p-a"] is not None


def test_a_scope_that_is_not_permitted_is_none_of_ours() -> None:
    assert scopes_after({}, discovery(REFUSED), NOW) == {}


def test_a_discovery_is_whole_when_nothing_failed() -> None:
    assert whole(discovery(listing(TEAM_A), REFUSED))
    assert not whole(discovery(listing(TEAM_A, error="500")))
    assert not whole(discovery(projects=None))


def test_a_listing_that_falls_short_shows_it_and_keeps_its_last_complete_time() -> None:
    short = replace(listing(TEAM_A, cluster()), short="1 rows instead of the announced 2")

    after = scopes_after({"p-a": ScopeStatus("team-a", EARLIER)}, discovery(short), NOW)

    assert after == {"p-a": ScopeStatus("team-a", EARLIER, "1 rows instead of the announced 2", NOW)}
    assert not whole(discovery(short))


def test_a_project_list_that_falls_short_removes_no_scope() -> None:
    before = {"p-a": ScopeStatus("team-a", EARLIER), "p-b": ScopeStatus("team-b", EARLIER)}
    seen = replace(discovery(listing(TEAM_A), projects=(TEAM_A,)), short="1 rows instead of the announced 2")

    assert scopes_after(before, seen, NOW) == {
        "p-a": ScopeStatus("team-a", NOW),
        "p-b": ScopeStatus("team-b", EARLIER, "projects: 1 rows instead of the announced 2", NOW),
    }
    assert not whole(seen)


@pytest.mark.parametrize(
    ("before", "seen", "reduced"),
    [
        pytest.param(("p-a", TENANT_SCOPE), discovery(listing(TEAM_A), tenant_listing()), False, id="as before"),
        pytest.param(("p-a",), discovery(projects=(TEAM_A,)), False, id="deselected, and still visible"),
        pytest.param(("p-a", "p-b"), discovery(listing(TEAM_A), projects=(TEAM_A,)), True, id="fewer projects"),
        pytest.param(
            ("p-b",), replace(discovery(projects=(TEAM_A,)), short="1 of 2"), False, id="a short list of projects"
        ),
        pytest.param(("p-a",), discovery(projects=None), False, id="no list of projects"),
        pytest.param((TENANT_SCOPE,), discovery(REFUSED), True, id="the tenant scope is refused now"),
        pytest.param(("p-a",), discovery(listing(TEAM_A), REFUSED), False, id="it was never permitted"),
    ],
)
def test_access_is_reduced_when_the_key_sees_less_than_before(
    before: tuple[str, ...], seen: Discovery, *, reduced: bool
) -> None:
    assert access_reduced({scope: ScopeStatus(scope, EARLIER) for scope in before}, seen) is reduced
