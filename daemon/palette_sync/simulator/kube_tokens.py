"""Service-account tokens of one simulated cluster: signed JWTs, and the checks that an API server makes.

A token is valid as long as its signature is valid, it is not expired, and its service account and bound object still
exist with the same uid. Without `cache_seconds`, deleting a Secret invalidates its tokens immediately.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from palette_sync.simulator import kube_errors as errors
from palette_sync.simulator.kube_resources import PODS, SECRETS, SERVICE_ACCOUNTS, TOKEN_REQUESTS
from palette_sync.simulator.kube_store import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from palette_sync.simulator.exchange import Json
    from palette_sync.simulator.kube_store import KubeStore

AUDIENCE = "https://kubernetes.default.svc.cluster.local"
LEGACY_ISSUER = "kubernetes/serviceaccount"
USERS_ISSUER = "users"
MIN_SECONDS = 600
MAX_SECONDS = 1 << 32
DEFAULT_SECONDS = 3600
_BINDABLE = {"Secret": SECRETS, "Pod": PODS}
_MAX_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class User:
    """The authenticated user of a request."""

    name: str
    groups: frozenset[str]
    uid: str = ""

    @property
    def service_account(self) -> tuple[str, str] | None:
        """Namespace and name, if the user is a service account."""
        parts = self.name.split(":")
        return (parts[2], parts[3]) if parts[:2] == ["system", "serviceaccount"] and len(parts) == 4 else None  # noqa: PLR2004


def service_account_user(namespace: str, name: str, uid: str) -> User:
    groups = {"system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"}
    return User(f"system:serviceaccount:{namespace}:{name}", frozenset(groups), uid)


class TokenAuthority:
    """Issues and checks the tokens of one cluster. `issued` counts the tokens granted by TokenRequest.

    A token that was accepted is accepted for `cache_seconds` more, as by an API server with its cache of 10 s.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.issued = 0
        self.cache_seconds = 0.0
        self._accepted: dict[str, tuple[float, User]] = {}
        self._clock = clock
        self._revoked_before = 0
        self._serial = 0
        self._known: dict[bytes, Json] = {}

    @cached_property
    def _key(self) -> ECKey:
        return ECKey.generate_key("P-256", auto_kid=True)

    def revoke_all(self) -> None:
        """Invalidate all tokens issued so far, like a new signing key."""
        self._revoked_before = self._serial

    def grant(self, store: KubeStore, account: Json, body: Json, cap: float | None) -> Json:
        """Answer a TokenRequest. `cap` (seconds) limits the granted life. Raises KubeApiError."""
        name = account["metadata"]["name"]
        spec = body.get("spec") or {}
        seconds = spec.get("expirationSeconds", DEFAULT_SECONDS)
        if not isinstance(seconds, int) or seconds < MIN_SECONDS:
            why = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
            raise errors.invalid(TOKEN_REQUESTS, "", "spec.expirationSeconds", why)
        if seconds > MAX_SECONDS:
            why = f"Invalid value: {seconds}: may not specify a duration larger than 2^32 seconds"
            raise errors.invalid(TOKEN_REQUESTS, "", "spec.expirationSeconds", why)
        bound = self._bound(store, account["metadata"]["namespace"], spec.get("boundObjectRef"))
        granted = int(min(seconds, cap)) if cap is not None else seconds
        audiences = spec.get("audiences") or [AUDIENCE]
        issued_at = int(self._clock())
        claims = {"aud": audiences, "exp": issued_at + granted, "iat": issued_at, "iss": AUDIENCE, "nbf": issued_at}
        claims["kubernetes.io"] = _private_claims(account, bound)
        self.issued += 1
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": account["metadata"]["namespace"], "creationTimestamp": None},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": granted},
            "status": {
                "token": self._sign_for(account, claims),
                "expirationTimestamp": timestamp(issued_at + granted),
            },
        }

    def for_secret(self, account: Json, secret: Json) -> str:
        """Sign the token of a `kubernetes.io/service-account-token` Secret, which never expires."""
        prefix = "kubernetes.io/serviceaccount/"
        claims = {
            "iss": LEGACY_ISSUER,
            f"{prefix}namespace": account["metadata"]["namespace"],
            f"{prefix}secret.name": secret["metadata"]["name"],
            f"{prefix}service-account.name": account["metadata"]["name"],
            f"{prefix}service-account.uid": account["metadata"]["uid"],
        }
        return self._sign_for(account, claims)

    @property
    def public_key(self) -> Json:
        """The key that verifies the tokens, as a JWK."""
        return dict(self._key.as_dict(private=False))

    def for_user(self, name: str, groups: Iterable[str], claims: Mapping[str, object] = MappingProxyType({})) -> str:
        """A person's token, as from the issuer that the cluster trusts. `claims` replace and add to the usual ones."""
        now = int(self._clock())
        usual = {"iss": USERS_ISSUER, "iat": now, "exp": now + DEFAULT_SECONDS}
        return self._sign({**usual, **claims, "sub": name, "groups": [*groups]})

    def authenticate(self, store: KubeStore, token: str) -> User | None:
        """Return the user of a token, or None if it is not valid."""
        if self.cache_seconds <= 0:
            return self._user(store, token)
        until, user = self._accepted.get(token, (0.0, None))
        if user is None or until <= self._clock():
            user = self._user(store, token)
            if user is not None:
                self._accepted[token] = (self._clock() + self.cache_seconds, user)
        return user

    def _user(self, store: KubeStore, token: str) -> User | None:
        claims = self._claims(token)
        if claims is None or claims["serial"] <= self._revoked_before:
            return None
        if "groups" in claims:  # a person's token, whatever its issuer
            groups = frozenset({*claims["groups"], "system:authenticated"})
            return User(claims["sub"], groups) if claims["exp"] > self._clock() else None
        if claims["iss"] == LEGACY_ISSUER:
            return self._legacy_user(store, claims)
        if AUDIENCE not in claims["aud"] or not claims["nbf"] <= self._clock() + 1 or claims["exp"] <= self._clock():
            return None
        private = claims["kubernetes.io"]
        namespace, account = private["namespace"], private["serviceaccount"]
        if _uid(store, "ServiceAccount", namespace, account["name"]) != account["uid"]:
            return None
        for word, kind in (("secret", "Secret"), ("pod", "Pod")):
            bound = private.get(word)
            if bound is not None and _uid(store, kind, namespace, bound["name"]) != bound["uid"]:
                return None
        return service_account_user(namespace, account["name"], account["uid"])

    def _legacy_user(self, store: KubeStore, claims: Json) -> User | None:
        prefix = "kubernetes.io/serviceaccount/"
        namespace, name = claims[f"{prefix}namespace"], claims[f"{prefix}service-account.name"]
        uid = claims[f"{prefix}service-account.uid"]
        secret = store.find(SECRETS, namespace, claims[f"{prefix}secret.name"])
        if secret is None or _uid(store, "ServiceAccount", namespace, name) != uid:
            return None
        return service_account_user(namespace, name, uid)

    def _bound(self, store: KubeStore, namespace: str, reference: Json | None) -> tuple[str, str, str] | None:
        if reference is None:
            return None
        kind, name = reference.get("kind", ""), reference.get("name", "")
        resource = _BINDABLE.get(kind)
        if resource is None or reference.get("apiVersion", "v1") != "v1":
            why = f'cannot bind token for serviceaccount to object of type "{kind}"'
            raise errors.bad_request(why)
        uid = store.read(resource, namespace, name)["metadata"]["uid"]
        wanted = reference.get("uid")
        if wanted and wanted != uid:
            why = (
                f"the UID in the bound object reference ({wanted}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
            raise errors.conflict(resource, name, why)
        return kind.lower(), name, uid

    def _sign_for(self, account: Json, claims: Json) -> str:
        metadata = account["metadata"]
        return self._sign({**claims, "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}"})

    def _sign(self, claims: Json) -> str:
        self._serial += 1
        claims["jti"] = f"{self._serial:08x}-{hashlib.sha256(repr(claims).encode()).hexdigest()[:24]}"
        return jwt.encode({"alg": "ES256", "kid": self._key.kid}, claims, self._key)

    def _claims(self, token: str) -> Json | None:
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None:
            return known
        try:
            claims: dict[str, Any] = jwt.decode(token, self._key, algorithms=["ES256"]).claims
            claims["serial"] = int(claims["jti"].split("-")[0], 16)
        except (JoseError, ValueError, KeyError):
            return None
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[digest] = claims
        return claims


def _private_claims(account: Json, bound: tuple[str, str, str] | None) -> Json:
    metadata = account["metadata"]
    claims: Json = {
        "namespace": metadata["namespace"],
        "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
    }
    if bound is not None:
        claims[bound[0]] = {"name": bound[1], "uid": bound[2]}
    return claims


_KINDS = {"ServiceAccount": SERVICE_ACCOUNTS, **_BINDABLE}


def _uid(store: KubeStore, kind: str, namespace: str, name: str) -> str | None:
    found = store.find(_KINDS[kind], namespace, name)
    return str(found["metadata"]["uid"]) if found is not None else None
