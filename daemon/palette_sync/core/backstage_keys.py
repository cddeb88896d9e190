"""The keys of the in-process plugin that have a place here: where they go, and how their values are read. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Fate(StrEnum):
    """What becomes of a key of the plugin."""

    STAYS = "stays"
    CHANGES = "changes"
    NO_PLACE = "no place"


class Unusable(Exception):
    """A value that is not what the plugin takes. The text says what it should be."""


def text_of(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise Unusable("is not a text")
    return value


def _boolean(value: object) -> bool:
    if str(value).lower() not in {"true", "false"}:
        raise Unusable("is neither true nor false")
    return str(value).lower() == "true"


def _seconds(value: object) -> str:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", str(value)):
        raise Unusable("is not a number of seconds")
    return f"{value}s"


def projects_of(value: object) -> list[str]:
    """The plugin compares whole names; here `*`, `?` and `[` would be globs."""
    return [re.sub(r"([*?[])", r"[\1]", name) for name in _texts(value)]


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Unusable("is not a list of texts")
    return value


def _mode(value: object) -> str:
    modes = {"serviceAccount": "service-account", "oidc": "oidc"}
    if value not in modes:
        raise Unusable("is neither serviceAccount nor oidc")
    return modes[str(value)]


def _rules(value: object) -> list[dict[str, list[str]]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Unusable("is not a list of rules")
    rules = [
        {
            "api_groups": [group or "core" for group in _texts(rule.get("apiGroups"))],
            "resources": _texts(rule.get("resources")),
            "verbs": _texts(rule.get("verbs")),
        }
        for rule in value
    ]
    if not rules or not all(all(rule.values()) for rule in rules):
        raise Unusable("gives no rights, and here an empty list means the preset")
    return rules


@dataclass(frozen=True, slots=True)
class Key:
    """Where a key of the plugin goes, and how its value is read."""

    here: tuple[str, ...]
    read: Callable[[object], Any]
    fate: Fate = Fate.STAYS
    remark: str = ""


TENANT = "the plugin did not use it; here an API key of another tenant is refused"
_ROLE = "the plugin never updated an existing role: one with other rules is a Conflict, see docs/migrate.md"
OIDC = "issuer and client come from Palette's OIDC configuration of each cluster, and TLS is verified"
_TOKENS = "tokens expire and are rotated; the plugin's Secret stays until `palette-sync replace-legacy`"
PROVIDER_KEYS = {
    "authType": Key(("auth", "mode"), _mode),
    "oidcAuthProviderName": Key(("oidc", "provider"), text_of),
    "includeProjects": Key(("include_projects",), projects_of),
    "excludeProjects": Key(("exclude_projects",), projects_of),
    "skipMetricsLookup": Key(("skip_metrics_lookup",), _boolean),
    "excludeTenantScopedClusters": Key(("exclude_tenant_scoped_clusters",), _boolean),
    "refreshIntervalSeconds": Key(("refresh_interval",), _seconds),
    "clusterTimeoutSeconds": Key(("cluster_timeout",), _seconds),
}
RBAC_KEYS = {
    "namespace": Key(("rbac", "namespace"), text_of),
    "serviceAccountName": Key(("rbac", "service_account"), text_of),
    "secretName": Key(("rbac", "secret"), text_of, Fate.CHANGES, _TOKENS),
    "clusterRoleName": Key(("rbac", "cluster_role"), text_of),
    "clusterRoleBindingName": Key(("rbac", "cluster_role_binding"), text_of),
    "clusterRoleRules": Key(("rbac", "rules"), _rules, Fate.STAYS, _ROLE),
}
