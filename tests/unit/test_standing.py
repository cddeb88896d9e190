"""How fresh each scope is, and what of the last status is believed."""

from __future__ import annotations

from datetime import timedelta

from palette_sync.core.model import TENANT_SCOPE, Listing, ScopeStatus
from palette_sync.core.standing import held_before, scopes_after, whole
from unit.builders import BANK, NOW, SHOP, discovery, listing

EARLIER = NOW - timedelta(hours=1)
REFUSED = Listing(TENANT_SCOPE, TENANT_SCOPE, not_permitted=True)


def test_a_listed_scope_is_fresh_and_a_failed_one_keeps_its_last_good_time() -> None:
    before = {"p1": ScopeStatus("shop", EARLIER), "p2": ScopeStatus("old name", EARLIER, "500", EARLIER)}

    after = scopes_after(before, discovery(listing(SHOP, error="403"), listing(BANK, error="500")), NOW)

    assert after == {
        "p1": ScopeStatus("shop", EARLIER, "403", NOW),
        "p2": ScopeStatus("bank", EARLIER, "500", EARLIER),
    }
    assert scopes_after(before, discovery(listing(BANK)), NOW) == {"p1": None, "p2": ScopeStatus("bank", NOW)}


def test_a_new_scope_that_fails_was_never_listed() -> None:
    assert scopes_after({}, discovery(listing(SHOP, error="500")), NOW) == {"p1": ScopeStatus("shop", None, "500", NOW)}


def test_without_a_project_list_every_scope_is_stale() -> None:
    before = {"p1": ScopeStatus("shop", EARLIER)}

    assert scopes_after(before, discovery(projects=None, error="503"), NOW) == {
        "p1": ScopeStatus("shop", EARLIER, "503", NOW)
    }
    assert scopes_after(before, discovery(projects=None), NOW)["p1"] is not None


def test_a_scope_that_is_not_permitted_is_none_of_ours() -> None:
    assert scopes_after({}, discovery(REFUSED), NOW) == {}


def test_a_discovery_is_whole_when_nothing_failed() -> None:
    assert whole(discovery(listing(SHOP), REFUSED))
    assert not whole(discovery(listing(SHOP, error="500")))
    assert not whole(discovery(projects=None))


def test_only_sound_entries_of_a_status_are_believed() -> None:
    assert held_before({"held": {"a": 1, "b": "x", 3: 4}}) == {"a": 1}
    assert held_before({"held": []}) == {}
    assert held_before({}) == {}
