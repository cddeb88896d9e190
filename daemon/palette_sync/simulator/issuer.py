"""The OpenID issuer of a Palette instance: discovery document and keys."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from joserfc.jwk import RSAKey

from palette_sync.simulator.exchange import Answer, answer_json

if TYPE_CHECKING:
    from palette_sync.simulator.cluster import SimInstance
    from palette_sync.simulator.exchange import Json

MAX_AGE = 900
_BITS = 2048


@lru_cache(maxsize=1)
def _key() -> RSAKey:
    """One key for all issuers of a process: it takes long to make, and nobody here compares issuers' keys."""
    return RSAKey.generate_key(_BITS)


def _key_id(instance: SimInstance) -> str:
    return hashlib.sha256(instance.tenant_uid.encode()).hexdigest()[:16]


def issuer_path(instance: SimInstance) -> str:
    return f"/v1/oidc/tenant/{instance.tenant_uid}"


def answer_issuer(instance: SimInstance, path: str) -> Answer | None:
    """Answer a GET below the issuer's path; None for an unknown path."""
    cached = {"Cache-Control": f"public, max-age={MAX_AGE}"}
    rest = path.removeprefix(issuer_path(instance))
    if rest == "/.well-known/openid-configuration":
        return answer_json(_discovery(instance), headers=cached)
    if rest == "/jwks":
        public = _key().as_dict(private=False)
        key = {**public, "kid": _key_id(instance), "use": "sig", "alg": "RS256"}
        return answer_json({"keys": [key]}, headers=cached)
    return None


def _discovery(instance: SimInstance) -> Json:
    issuer = instance.issuer_url
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/auth",
        "token_endpoint": f"{issuer}/token",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "jwks_uri": f"{issuer}/jwks",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "profile", "email", "groups"],
        "claims_supported": ["email", "sub", "given_name", "family_name", "groups", "exp"],
    }
