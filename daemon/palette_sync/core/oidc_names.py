"""One provider name of Backstage stands for one login: one issuer and one client id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.core.model import OidcAuth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from palette_sync.core.model import Auth

_SHOWN = 3
"""How many logins a message names."""


def ambiguous_providers(auths: Iterable[Auth | None]) -> dict[str, str]:
    """Return the provider names that stand for several logins, each with a text that names some of these logins.

    Backstage logs a user in once for each provider name. The token of that login is valid for one issuer and one client
    id, so clusters of another issuer or client id under the same name refuse it.
    """
    logins: dict[str, set[tuple[str, str]]] = {}
    for auth in auths:
        if isinstance(auth, OidcAuth):
            logins.setdefault(auth.oidc_token_provider, set()).add((auth.issuer_url, auth.client_id))
    return {name: _text(found) for name, found in sorted(logins.items()) if len(found) > 1}


def _text(logins: set[tuple[str, str]]) -> str:
    shown = [f"{issuer} with client id {client}" for issuer, client in sorted(logins)[:_SHOWN]]
    more = len(logins) - len(shown)
    return "; ".join([*shown, f"{more} more"] if more else shown)
