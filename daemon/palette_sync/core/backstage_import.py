"""Translate the in-process plugin's part of Backstage's configuration into instances of ours. Pure.

The plugin is `spectrocloud-cluster-provider`; its keys and defaults are those of its `config.d.ts` and
`SpectroCloudClusterSupplier.fromConfig`. Every key that is present leads to a `Row`, so that nothing is lost silently.

No value of a reference is known here. What comes from a variable stays a variable, what comes from a file stays a file.
An API token that stands in the files in the clear is not carried over.
"""

from __future__ import annotations

import json
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from palette_sync.core.backstage_files import BackstageConfigError, Reference, Variable
from palette_sync.core.backstage_keys import (
    OIDC,
    PROVIDER_KEYS,
    RBAC_KEYS,
    TENANT,
    Fate,
    Key,
    Unusable,
    projects_of,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Shell = tuple[str | Variable, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A key of Backstage's configuration, what it becomes here ("" = nothing), and what to know about that."""

    fate: Fate
    key: str
    here: str
    remark: str = ""


@dataclass(slots=True)
class Imported:
    """`instances` by name, as tables of our configuration. `variables` are those that the daemon needs beside the file.

    `default_owner` is an entity reference for our catalog module; "" where the plugin had none.
    """

    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    variables: dict[str, Shell] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    default_owner: str = ""


def translate(document: dict[str, Any]) -> Imported:
    """Raises BackstageConfigError where there is no instance to translate."""
    imported = Imported()
    root = document.get("spectrocloud")
    if isinstance(root, list):  # the plugin's older form
        root = {"environments": root}
    if not isinstance(root, dict) or not isinstance(root.get("environments"), list) or not root["environments"]:
        raise BackstageConfigError(_no_environments(root))
    for key in root.keys() - {"environments"}:
        imported.rows.append(Row(Fate.NO_PLACE, f"spectrocloud.{key}", "", _ROOT.get(key, _UNKNOWN)))
    for number, environment in enumerate(root["environments"]):
        at = f"spectrocloud.environments[{number}]"
        if not isinstance(environment, dict):
            raise BackstageConfigError(
                f"{at}: {_BY_HAND if isinstance(environment, Reference) else 'is not an object'}"
            )
        _Environment(imported, environment, at, _name_of(environment, imported.instances)).translate()
    providers = document.get("auth", {})
    providers = providers.get("providers", {}) if isinstance(providers, dict) else {}
    if isinstance(providers, dict) and "spectrocloud" in providers:
        remark = "the login stays Backstage's; clusters with OIDC use it by its name"
        imported.rows.append(Row(Fate.STAYS, "auth.providers.spectrocloud", "", remark))
    imported.rows.sort(key=lambda row: row.key)
    return imported


_UNKNOWN = "the plugin's documentation does not name it"
_BY_HAND = "is in another file by $include, which is not read; put its content in its place and run again"
_ROOT = {
    "enabled": "the daemon is on while it runs; remove the plugin from the backend when you cut over",
    "annotationPrefix": "belongs to the plugin's catalog entities; ours have a prefix of their own, "
    "`catalog.providers.paletteSync.annotationPrefix`",
    "enablePermissions": "Backstage's permission kubernetes.clusters.read decides; `paletteSync.visibility: catalog` "
    "shows a user only the clusters that the catalog shows him",
}
_CATALOG = {
    "enabled": "add the catalog module of palette-sync to the backend instead",
    "refreshIntervalSeconds": "the catalog follows the snapshots at once",
    "ownerNamespace": "a part of the default owner",
    "includeProjects": "the catalog shows the clusters that the daemon publishes",
    "excludeProjects": "the catalog shows the clusters that the daemon publishes",
    "excludeTenantScopedResources": "the catalog shows the clusters that the daemon publishes",
    "resources": "the catalog module describes clusters only",
}


def _no_environments(root: object) -> str:
    if isinstance(root, Reference) or (isinstance(root, dict) and isinstance(root.get("environments"), Reference)):
        return f"spectrocloud.environments: {_BY_HAND}"
    return "has no spectrocloud.environments; name the app-config files of the Backstage that runs the plugin"


def _name_of(environment: dict[str, Any], taken: dict[str, dict[str, Any]]) -> str:
    """A name for the instance, as variables need it: from the plugin's name, else its tenant."""
    texts = (environment.get("name"), environment.get("tenant"))
    words = (re.sub("[^a-z0-9]+", "_", one.lower()).strip("_") for one in texts if isinstance(one, str))
    word = next((one for one in words if one), "palette")
    name = plain = word if word[0].isalpha() else f"palette_{word}"
    number = 2
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    return name


_SHELL_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


class _Environment:
    """Translates one entry of `spectrocloud.environments`."""

    def __init__(self, imported: Imported, document: dict[str, Any], at: str, name: str) -> None:
        self._imported = imported
        self._document = document
        self._at = at
        self._name = name
        self._table: dict[str, Any] = {}
        imported.instances[name] = self._table

    def translate(self) -> None:
        for required in ("url", "apiToken"):
            if required not in self._document:
                raise BackstageConfigError(f"{self._at}.{required}: is missing")
        self._take("url", Key(("url",), text_of))
        self._token()
        if "tenant" in self._document:
            self._take("tenant", Key(("tenant",), text_of, Fate.CHANGES, TENANT))
        self._prefix()
        self._put(("include_virtual",), True)
        self._row(Fate.STAYS, "(virtual clusters)", ("include_virtual",), "the plugin lists them too")
        self._put(("auth", "mode"), "service-account")
        self._section("clusterProvider", PROVIDER_KEYS, {"rbac": self._rbac})
        self._catalog()
        for key in self._document.keys() - {"url", "apiToken", "tenant", "name", "clusterProvider", "catalogProvider"}:
            self._row(Fate.NO_PLACE, key, (), _UNKNOWN)

    def _token(self) -> None:
        token = self._document["apiToken"]
        if isinstance(token, Reference) and token.kind == "file" and "${" not in token.target:
            self._put(("api_key_file",), posixpath.normpath(posixpath.join(token.folder, token.target)))
            self._row(Fate.STAYS, "apiToken", ("api_key_file",), "the same file")
        elif isinstance(token, Reference) and token.kind == "env":
            self._take("apiToken", Key(("api_key",), text_of))
        else:
            file = f"{self._name}.api-key"
            self._put(("api_key_file",), file)
            self._row(
                Fate.CHANGES, "apiToken", ("api_key_file",), f"it is not copied: write it into {file} beside the file"
            )

    def _prefix(self) -> None:
        name = self._document.get("name")
        if name is None:
            self._put(("name_prefix",), "")
            self._row(Fate.STAYS, "name (absent)", ("name_prefix",), "cluster names stay as they are")
            return
        kept = not isinstance(name, str) or re.fullmatch(r"[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?", name)
        remark = "cluster names stay as they are" if kept else "characters that Backstage refuses become '-' in names"
        self._take("name", Key(("name_prefix",), text_of, Fate.STAYS if kept else Fate.CHANGES, remark))

    def _section(self, path: str, keys: dict[str, Key], below: dict[str, Callable[[], None]] | None = None) -> None:
        section = self._at_path(path)
        if section is None:
            return
        if not isinstance(section, dict):
            remark = _BY_HAND if isinstance(section, Reference) else "is not an object"
            self._row(Fate.NO_PLACE, path, (), remark)
            return
        for key in section:
            if below and key in below:
                below[key]()
            elif key in keys:
                self._take(f"{path}.{key}", keys[key])
            else:
                self._row(Fate.NO_PLACE, f"{path}.{key}", (), _UNKNOWN)
        if section.get("authType") == "oidc":
            self._row(Fate.CHANGES, f"{path} (OIDC)", ("auth", "mode"), OIDC)

    def _rbac(self) -> None:
        self._section("clusterProvider.rbac", RBAC_KEYS)

    def _catalog(self) -> None:
        section = self._document.get("catalogProvider")
        if not isinstance(section, dict):
            return
        for key in section.keys() - {"defaultOwner"}:
            self._row(Fate.NO_PLACE, f"catalogProvider.{key}", (), _CATALOG.get(key, _UNKNOWN))
        owner, space = section.get("defaultOwner"), section.get("ownerNamespace", "default")
        if not isinstance(owner, str) or not isinstance(space, str):
            if owner is not None:
                self._row(Fate.NO_PLACE, "catalogProvider.defaultOwner", (), "set it in Backstage by hand")
            return
        self._imported.default_owner = owner if ":" in owner or "/" in owner else f"group:{space}/{owner}"
        self._imported.rows.append(
            Row(
                Fate.CHANGES,
                f"{self._at}.catalogProvider.defaultOwner",
                "catalog.providers.paletteSync.defaultOwner",
                "in Backstage; a tag `owner:<name>` of a cluster wins",
            )
        )

    def _take(self, path: str, key: Key) -> None:
        """Take one value over: into the table, or as a variable where it is a reference."""
        value = self._at_path(path)
        variable = f"PALETTE_SYNC_INSTANCES__{self._name}__{'__'.join(key.here)}".upper()
        try:
            shell = _shell(value)
            if shell is not None:
                self._imported.variables[variable] = shell
                self._unset(key.here)
                remark = "; ".join(part for part in (f"from the variable {variable}", key.remark) if part)
                self._row(key.fate, path, key.here, remark)
                return
            self._put(key.here, key.read(value))
        except Unusable as error:
            self._row(Fate.NO_PLACE, path, (), f"{error}; set {'.'.join(key.here)} by hand")
            return
        self._row(key.fate, path, key.here, key.remark)

    def _at_path(self, path: str) -> Any:
        found: Any = self._document
        for key in path.split("."):
            found = found.get(key)
            if found is None:
                return None
        return found

    def _put(self, here: tuple[str, ...], value: object) -> None:
        table = self._table
        for key in here[:-1]:
            table = table.setdefault(key, {})
        table[here[-1]] = value

    def _unset(self, here: tuple[str, ...]) -> None:
        table = self._table
        for key in here[:-1]:
            table = table.get(key, {})
        table.pop(here[-1], None)

    def _row(self, fate: Fate, path: str, here: tuple[str, ...], remark: str) -> None:
        where = ".".join(("instances", self._name, *here)) if here else ""
        self._imported.rows.append(Row(fate, f"{self._at}.{path}", where, remark))


def _shell(value: object) -> Shell | None:
    """What the shell computes for a value that holds references; None where it holds none. Raises Unusable."""
    if isinstance(value, Reference):
        if value.kind != "env":
            raise Unusable(f"stands in another file, by ${value.kind}")
        if not all(isinstance(part, str) or _SHELL_NAME.fullmatch(part.name) for part in value.parts):
            raise Unusable("comes from a variable that a shell cannot name")
        return value.parts
    if not isinstance(value, list) or not any(isinstance(one, Reference) for one in value):
        return None
    parts: list[str | Variable] = ["["]
    for number, one in enumerate(value):
        parts.append(", " if number else "")
        inner = _shell(one) if isinstance(one, Reference) else None
        if inner is not None:
            quoted = (json.dumps(part)[1:-1] if isinstance(part, str) else part for part in inner)
            parts += ['"', *quoted, '"']
        else:
            parts.append(json.dumps(projects_of([one])[0]))
    return (*parts, "]")
