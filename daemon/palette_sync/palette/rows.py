"""Parsers from Palette's JSON documents to domain values, field by field.

They are written by hand for speed: a pass may read ten thousand rows, and uses a few fields of each. Palette sends null
for empty arrays and objects, and the year 1 for "no time". A row without uid or name makes the whole document
`Malformed`: skipping it would make an incomplete listing look complete. Error texts never repeat a value from Palette.

Every value has a length, because Palette's users choose many of them and all are kept in memory and published. What is
longer is cut if people read it, and refused if programs do. Characters that are not printable are replaced.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, cast

from palette_sync.core.model import UID, VIRTUAL_CLOUD_TYPE, YEARS, Cluster, Location, Project, Scope
from palette_sync.core.text import label
from palette_sync.palette.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PLAIN_TAG = "spectro__tag"
_PAUSED = frozenset({"Paused", "Pausing", "Resuming"})
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
MOST_ROWS = 1000  # on one page; asked for are 50
MOST_ANNOUNCED = 1_000_000
LONGEST_TOKEN = 4096  # characters of a continue token
LONGEST_NAME = 253  # of a cluster, a project or a tenant
LONGEST_WORD = 64  # of a state, a health, a kind of cloud or a part of a location
LONGEST_TAG = 128
MOST_TAGS = 64
MOST_TAG_CHARACTERS = 2048  # of one cluster, together
LONGEST_CA = 64 * 1024
# The permissions that are looked for. The others of a row are not kept: each row may list thousands.
READ_PERMISSION = "cluster.get"
ADMIN_PERMISSION = "cluster.adminKubeconfigDownload"
ADMIN_PERMISSION_BEFORE = "cluster.delete"  # before Palette 4.8.21
_LOOKED_FOR = frozenset({READ_PERMISSION, ADMIN_PERMISSION, ADMIN_PERMISSION_BEFORE})
_LONGEST_PERMISSIONS = 32 * 1024


@dataclass(frozen=True, slots=True)
class UserInfo:
    """The user and tenant that the API key belongs to."""

    org_name: str
    tenant_uid: str
    user_uid: str


@dataclass(frozen=True, slots=True)
class ApiKeyInfo:
    """An API key as Palette lists it, without its value. `expiry` is None for a key that never expires."""

    name: str
    expiry: datetime | None


@dataclass(frozen=True, slots=True)
class OidcSpec:
    """A cluster's OIDC configuration without its client secret. `ca_pem` is the issuer's CA (None = system's trust).

    Palette's option to skip the issuer's TLS verification is ignored: palette-sync always verifies.
    """

    issuer_url: str
    client_id: str
    ca_pem: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: unparsed rows, the token of the next page ("" = last page), and the announced total."""

    items: tuple[object, ...]
    following: str
    count: int


def read_page(document: object) -> Page:
    """Parse a page. Raises Malformed, also if listmeta is missing: nothing else says whether it is the last page."""
    page = _object(document, "the listing")
    meta = page.get("listmeta")
    if not isinstance(meta, dict):
        raise Malformed("the listing has no listmeta")
    count = meta.get("count")
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_ANNOUNCED:
        raise Malformed("the listing's listmeta has no count, or one that cannot be")
    if "items" not in page:
        raise Malformed("the listing has no items")
    items = _array(page["items"], "items")
    if len(items) > MOST_ROWS:
        raise Malformed(f"a page of the listing has more than {MOST_ROWS} rows")
    return Page(tuple(items), _limited(meta, "continue", "listmeta", LONGEST_TOKEN), count)


def read_project(row: object) -> Project:
    """Parse a `v1ProjectSummary`. Raises Malformed."""
    metadata = _part(_object(row, "a project"), "metadata", "a project")
    return Project(_uid(metadata, "a project"), _name(metadata, "a project"))


def read_cluster(row: object) -> Cluster:
    """Parse a `v1SpectroClusterSummary`. Raises Malformed.

    If the annotation and `projectMeta` name different projects, the annotation counts, and the project's name stays
    empty for the caller to fill in.
    """
    what = "a cluster"
    document = _object(row, what)
    metadata = _part(document, "metadata", what)
    annotations = _part(metadata, "annotations", what)
    summary = _part(document, "specSummary", what)
    status = _part(document, "status", what)
    virtual = _part(status, "virtual", what)
    cloud_type = _line(_part(summary, "cloudConfig", what), "cloudType", what)
    scope = Scope.TENANT if _text(annotations, "scope", what) == Scope.TENANT else Scope.PROJECT
    return Cluster(
        uid=_uid(metadata, what),
        name=_name(metadata, what),
        scope=scope,
        project=None if scope is Scope.TENANT else _project(annotations, _part(summary, "projectMeta", what)),
        state=_line(status, "state", what) or "Unknown",
        health=_line(_part(status, "health", what), "state", what),
        cloud_type=cloud_type,
        created_at=read_time(metadata.get("creationTimestamp")),
        modified_at=read_time(metadata.get("lastModifiedTimestamp")),
        tags=_tags(_part(metadata, "labels", what)),
        location=_location(_part(status, "location", what)),
        virtual=cloud_type.lower() == VIRTUAL_CLOUD_TYPE or bool(_part(virtual, "hostCluster", what).get("uid")),
        paused=_text(_part(virtual, "lifecycleStatus", what), "status", what) in _PAUSED,
        permissions=_permissions(annotations),
        imported=_imported(summary, _part(status, "clusterImport", what)),
    )


def read_user_info(document: object) -> UserInfo:
    """Parse a `v1UserInfo`. Raises Malformed."""
    what = "the user's information"
    info = _object(document, what)
    tenant_uid = _limited(info, "tenantUid", what, LONGEST_NAME)
    if not tenant_uid:
        raise Malformed(f"{what} has no tenant")
    return UserInfo(
        _line(info, "orgName", what, LONGEST_NAME), tenant_uid, _limited(info, "userUid", what, LONGEST_NAME)
    )


def read_api_key(document: object, name: str, *, user_uid: str) -> ApiKeyInfo | None:
    """Find the API key with that name or uid in a `v1ApiKeys`; None if it is not listed. Raises Malformed.

    Names are unique per user only. Of several matches, a key of the user `user_uid` counts, else the one that expires
    first.
    """
    what = "an API key"
    found: list[tuple[bool, datetime, ApiKeyInfo]] = []
    for row in _array(_object(document, "the list of API keys").get("items"), "items"):
        key = _object(row, what)
        metadata, spec = _part(key, "metadata", what), _part(key, "spec", what)
        if name not in {_text(metadata, "name", what), _text(metadata, "uid", what)}:
            continue
        expiry = read_time(spec.get("expiry"))
        foreign = _text(_part(spec, "user", what), "uid", what) != user_uid
        never = datetime.max.replace(tzinfo=UTC)
        found.append((foreign, expiry or never, ApiKeyInfo(_line(metadata, "name", what, LONGEST_NAME), expiry)))
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def read_permissions(document: object) -> frozenset[str]:
    """Parse a `v1Permissions`: the names of all permissions. Raises Malformed."""
    what = "a permission"
    groups = [_object(one, what) for one in _array(document, "the list of permissions")]
    return frozenset(str(name) for group in groups for name in _array(group.get("permissions"), "permissions"))


def read_oidc(document: object) -> OidcSpec | None:
    """Parse a `v1SpectroClusterOidcSpec`, dropping its secret. None if issuer or client is missing."""
    what = "the OIDC configuration"
    spec = _object(document, what)
    issuer, client = _text(spec, "issuerUrl", what), _text(spec, "clientId", what)
    if not issuer or not client:
        return None
    trust = _part(spec, "issuerTls", what)
    ca = _ca(_text(trust, "caCertificateBase64", what))
    return OidcSpec(issuer, client, ca)


def read_time(value: object) -> datetime | None:
    """Parse an RFC 3339 time as UTC; None for null, for years outside `YEARS` (such as 1), and for invalid text."""
    if not isinstance(value, str):
        return None
    try:
        when = datetime.fromisoformat(value)
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return when if when.year in YEARS else None


def read_rows(rows: tuple[object, ...], read: Callable[[object], T]) -> list[T]:
    """Parse every row. Raises Malformed, with the position of the first invalid row."""
    found: list[T] = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(read(row))
        except Malformed as error:
            raise Malformed(f"row {number} of {len(rows)}: {error}") from None
    return found


def _project(annotations: dict[str, object], meta: dict[str, object]) -> Project | None:
    what = "a cluster"
    named, uid = _project_uid(annotations, "projectUid"), _project_uid(meta, "uid")
    if not named:
        return Project(uid, _line(meta, "name", what, LONGEST_NAME)) if uid else None
    return Project(named, _line(meta, "name", what, LONGEST_NAME) if uid == named else "")


def _project_uid(document: dict[str, object], key: str) -> str:
    """The uid of a cluster's project; empty if absent. It becomes a header of requests."""
    uid = _text(document, key, "a cluster")
    if uid and not UID.fullmatch(uid):
        raise Malformed("a cluster's project has an invalid uid")
    return uid


def _imported(summary: dict[str, object], cluster_import: dict[str, object]) -> bool:
    """Whether Palette did not make the cluster. Rows of the dashboard have `isBrownfield`; `importMode` is in those of
    the metadata search, as `read-only` where the import is not a full one.
    """
    return cluster_import.get("isBrownfield") is True or bool(_text(summary, "importMode", "a cluster"))


def _tags(labels: dict[str, object]) -> tuple[str, ...]:
    tags: list[str] = []
    for key in labels:
        value = _text(labels, key, "a cluster's labels")
        tag = key if value in {"", PLAIN_TAG} else f"{key[:LONGEST_TAG]}:{value[:LONGEST_TAG]}"
        tags.append(label(tag, LONGEST_TAG))
    left, kept = MOST_TAG_CHARACTERS, []
    for tag in sorted(tags)[:MOST_TAGS]:
        left -= len(tag)
        if left < 0:
            break
        kept.append(tag)
    return tuple(kept)


def _permissions(annotations: dict[str, object]) -> frozenset[str] | None:
    """Which permissions of interest the row lists; None if it lists none at all, or more than is read."""
    listed = annotations.get("permissions")
    if listed is None:
        return None
    text = _text(annotations, "permissions", "a cluster")
    return None if len(text) > _LONGEST_PERMISSIONS else _words(text)


@lru_cache(maxsize=256)
def _words(listed: str) -> frozenset[str]:
    """Look for the permissions of interest. Most rows repeat the same few lists, so the answers are cached."""
    return frozenset(_LOOKED_FOR & {entry.strip() for entry in listed.split(",")})


def _location(location: dict[str, object]) -> Location:
    what = "a cluster's location"
    return Location(
        country_code=_line(location, "countryCode", what),
        country_name=_line(location, "countryName", what),
        region_code=_line(location, "regionCode", what),
        region_name=_line(location, "regionName", what),
    )


def _ca(encoded: str) -> str | None:
    """Return the CA as PEM. Palette sends base64 of PEM; plain PEM is accepted too."""
    if not encoded.strip():
        return None
    if len(encoded) > LONGEST_CA:
        raise Malformed(f"the issuer's CA in the OIDC configuration is longer than {LONGEST_CA} characters")
    if _CERTIFICATE in encoded:
        return encoded
    try:
        text = base64.b64decode("".join(encoded.split()), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    if _CERTIFICATE not in text:
        raise Malformed("the issuer's CA in the OIDC configuration is not a PEM certificate in base64")
    return text


def _uid(metadata: dict[str, object], what: str) -> str:
    uid = _text(metadata, "uid", what)
    if not uid:
        raise Malformed(f"{what} has no uid")
    if not UID.fullmatch(uid):
        raise Malformed(f"{what} has an invalid uid")
    return uid


def _name(metadata: dict[str, object], what: str) -> str:
    name = _line(metadata, "name", what, LONGEST_NAME)
    if not name.strip():
        raise Malformed(f"{what} has no name")
    return name


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not an object")
    return cast("dict[str, object]", value)


def _part(document: dict[str, object], key: str, what: str) -> dict[str, object]:
    """Return a nested object; empty if it is null or absent."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{key} of {what} is not an object")
    return cast("dict[str, object]", value)


def _array(value: object, what: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"{what} is not an array")
    return value


def _text(document: dict[str, object], key: str, what: str) -> str:
    """Return a string; empty if it is null or absent."""
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        # Keys of labels are foreign text and not repeated; names of fields are.
        raise Malformed(f"{key if key.isidentifier() else 'a value'} of {what} is not a string")
    return value


def _limited(document: dict[str, object], key: str, what: str, longest: int) -> str:
    """Return a string that programs read; empty if it is null or absent. Raises Malformed for a longer one."""
    value = _text(document, key, what)
    if len(value) > longest:
        raise Malformed(f"{key} of {what} is longer than {longest} characters")
    return value


def _line(document: dict[str, object], key: str, what: str, longest: int = LONGEST_WORD) -> str:
    """Return a string for people to read, cut, without control characters and line breaks."""
    return label(_text(document, key, what), longest)
