"""Provider names that stand for several logins."""

from __future__ import annotations

from palette_sync.core.model import OidcAuth, ServiceAccountAuth
from palette_sync.core.oidc_names import ambiguous_providers

ONE = OidcAuth("oidc", "https://id.test/a", "web")


def test_one_login_for_each_name_is_right() -> None:
    other = OidcAuth("other", "https://id.test/b", "web")

    assert ambiguous_providers([ONE, ONE, other, ServiceAccountAuth(), None]) == {}


def test_two_issuers_under_one_name_are_named() -> None:
    other = OidcAuth("oidc", "https://id.test/b", "web")

    assert ambiguous_providers([other, ONE]) == {
        "oidc": "https://id.test/a with client id web; https://id.test/b with client id web"
    }


def test_two_client_ids_under_one_name_are_named() -> None:
    other = OidcAuth("oidc", "https://id.test/a", "cli")

    assert ambiguous_providers([other, ONE]) == {
        "oidc": "https://id.test/a with client id cli; https://id.test/a with client id web"
    }


def test_a_long_list_is_cut() -> None:
    many = [OidcAuth("oidc", f"https://id.test/{number}", "web") for number in range(9)]

    assert ambiguous_providers(many)["oidc"].endswith("; 6 more")
