"""The domain as frozen values: what Palette lists, what is published, what is remembered.

Pure: nothing here reads a clock, a file or a socket. Times are timezone-aware UTC datetimes.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from palette_sync.core.done import Done
    from palette_sync.core.reasons import Reason
    from palette_sync.core.ways import Way

MANAGED_BY = "palette-sync"
SCHEMA = 1
TENANT_SCOPE = "tenant"
# Palette's words, as they appear in its rows.
VIRTUAL_CLOUD_TYPE = "nested"
# Characters of a cluster's CA as PEM. A record, CA included, stays below the 64 KiB that readers accept.
LARGEST_CA = 20 * 1024
RUNNING = "Running"
GONE = frozenset({"Deleting", "Deleted"})
# The uids of clusters and projects. Anything else could be mistaken for a separator of the contract's texts.
UID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
# Foreign times outside these years are invalid: adding any interval to a time inside never leaves the calendar.
YEARS = range(1000, 9000)


class Secret:
    """A string that never shows itself: its repr, str and format are masked; `reveal` is the only way out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        raise TypeError("a Secret is not pickled")


@dataclass(frozen=True, slots=True, order=True)
class ClusterKey:
    """Names one cluster for ever. Palette's uid is unique within its instance only."""

    instance: str
    uid: str

    def __str__(self) -> str:
        return f"{self.instance}/{self.uid}"


class Scope(StrEnum):
    PROJECT = "project"
    TENANT = "tenant"


class AuthMode(StrEnum):
    SERVICE_ACCOUNT = "service-account"
    OIDC = "oidc"


class AccessState(StrEnum):
    """`degraded`: the credential lives although the last check or renewal failed."""

    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    PENDING = "pending"


# Readers use clusters in these states.
SERVED = frozenset({AccessState.READY, AccessState.DEGRADED})


@dataclass(frozen=True, slots=True, order=True)
class Project:
    uid: str
    name: str


@dataclass(frozen=True, slots=True)
class Location:
    """Where a cluster runs, according to Palette; empty strings where Palette does not report it."""

    country_code: str = ""
    country_name: str = ""
    region_code: str = ""
    region_name: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One row of a Palette cluster listing, after validation.

    `project` is None for tenant-scoped clusters and where Palette did not report it (then `scope` is PROJECT and the
    cluster fails closed). `state` and `health` are Palette's words (`Running`, `Deleting`, ...); `health` may be "".
    `tags` are `key:value` or plain tags, sorted. `permissions` is what the caller may do with this
    cluster according to the row's annotation, None where the row has none. `imported`: Palette did not make the
    cluster, so it has no kubeconfig to offer.
    """

    uid: str
    name: str
    scope: Scope
    project: Project | None
    state: str
    health: str = ""
    cloud_type: str = ""
    created_at: datetime | None = None
    modified_at: datetime | None = None
    tags: tuple[str, ...] = ()
    location: Location = Location()
    virtual: bool = False
    paused: bool = False
    permissions: frozenset[str] | None = None
    imported: bool = False

    @property
    def gone(self) -> bool:
        """Whether Palette reports that the cluster is being deleted or has been deleted."""
        return self.state in GONE


@dataclass(frozen=True, slots=True)
class Server:
    """An API server's address and trust. `ca_data` is base64 of PEM; None = the system's trust."""

    url: str
    ca_data: str | None = None
    tls_server_name: str | None = None


def ca_data_of(pem: str) -> str:
    """A CA as it is published: base64 of its PEM."""
    return base64.b64encode(pem.encode()).decode()


def ca_pem_of(server: Server) -> str:
    """A published CA as PEM; "" if it is missing or cannot be read."""
    try:
        return base64.b64decode(server.ca_data or "").decode()
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True)
class ServiceAccountAuth:
    pass


@dataclass(frozen=True, slots=True)
class OidcAuth:
    oidc_token_provider: str
    issuer_url: str
    client_id: str


Auth = ServiceAccountAuth | OidcAuth


@dataclass(frozen=True, slots=True)
class Access:
    """What a reader may expect of a cluster. `since` moves only when state or reason changes."""

    state: AccessState
    reason: Reason
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class PaletteFacts:
    """What a record repeats from Palette; nothing that changes by itself (no heartbeat, no metrics)."""

    state: str
    health: str = ""
    cloud_type: str = ""
    created_at: datetime | None = None
    tags: tuple[str, ...] = ()
    location: Location = Location()
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """An operator's wish that nothing is written to a cluster. `by` names who asked. `until` None: until resumed."""

    reason: str
    by: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What is published about a cluster; never a secret. `server` and `auth` are None until access was gained."""

    uid: str
    name: str
    title: str
    instance: str
    scope: Scope
    project: Project | None
    server: Server | None
    auth: Auth | None
    palette: PaletteFacts
    access: Access
    kubernetes_version: str | None = None
    skip_metrics_lookup: bool = True
    dashboard_url: str | None = None
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """A service-account token as issued. `expires_at` and `renew_at` follow from what was granted, not requested.

    `expires_at` is None for tokens of `kubernetes.io/service-account-token` Secrets, which never expire.
    """

    token: Secret
    issued_at: datetime
    renew_at: datetime
    expires_at: datetime | None = None

    def alive(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class SealedCredential:
    """A credential as stored in Redis: the token as a JWE in `sealed` (in the clear if sealing is off)."""

    issued_at: datetime
    renew_at: datetime
    expires_at: datetime | None
    sealed: str = field(repr=False)

    def alive(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class RetiredSecret:
    """A Secret generation that was replaced. It is deleted after `delete_at`, if the uid still matches."""

    name: str
    uid: str
    delete_at: datetime


@dataclass(frozen=True, slots=True)
class ClusterMemory:
    """What the daemon remembers of a cluster between passes. It has no version and is never authority.

    `verified_at`: last time access was proven. `failures`: in a row. `retry_at`: end of the backoff.
    `generation`: name of the Secret behind the published token. `desired`: fingerprint of the
    configuration that the cluster was last brought in line with. `legacy`: a Secret of another tool that holds a
    never-expiring token was in the cluster when it was last looked at with enough rights. `way`: how its API server was
    reached last, None where that is the way that is tried first. `validity`: the life that was requested for the
    published token. `recheck_at`: when the token is verified again out of turn. `tried_at`: when
    work on the cluster last failed. `hung`: its API server was silent then. `done`: what was last done to its objects.
    """

    verified_at: datetime | None = None
    failures: int = 0
    retry_at: datetime | None = None
    generation: str | None = None
    desired: str | None = None
    retired: tuple[RetiredSecret, ...] = ()
    legacy: bool = False
    way: Way | None = None
    validity: timedelta | None = None
    recheck_at: datetime | None = None
    tried_at: datetime | None = None
    hung: bool = False
    done: tuple[Done, ...] = ()


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """How fresh one part of the inventory is: `listed_at` = last good listing, `error`/`since` while it fails."""

    name: str
    listed_at: datetime | None = None
    error: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class IssuerMetadata:
    """An OIDC issuer's discovery document and keys, checked. `error` is why the last refresh failed."""

    issuer: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    jwks_uri: str = ""
    key_ids: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()
    fetched_at: datetime | None = None
    valid_until: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an instance's snapshot, as it stands in Redis (`{p:i}:head`).

    `unconfirmed` are the uids of records that the writer has neither seen in Palette nor written itself since it
    started, sorted. `checked_at` is None where Redis holds no authentic one.
    """

    schema: int
    epoch: int
    version: int
    digest: str
    credentials_digest: str
    mac: str
    clusters: int
    complete: bool
    changed_at: datetime
    checked_at: datetime | None
    checked_mac: str
    writer: str
    unconfirmed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InstanceState:
    """Everything the store holds about one instance, decoded. `head` is None on an empty store.

    `trusted` is False if count, a digest or the mac does not match: then neither servers nor credentials may be used.
    `problems` name single documents that could not be decoded (their records are missing from `records`).
    """

    head: Head | None = None
    trusted: bool = True
    records: Mapping[str, ClusterRecord] = field(default_factory=dict)
    credentials: Mapping[str, SealedCredential] = field(default_factory=dict)
    memory: Mapping[str, ClusterMemory] = field(default_factory=dict)
    scopes: Mapping[str, ScopeStatus] = field(default_factory=dict)
    issuers: Mapping[str, IssuerMetadata] = field(default_factory=dict)
    status: Mapping[str, object] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """The listing of one scope (a project, or the tenant): rows, or the reason why there are none.

    A failed listing says nothing about its clusters; `clusters` is then empty and must not be read as "none". `short`
    says how far a listing that ended fell short of its announced total: its rows are good, but others may be missing.
    """

    scope: str
    name: str
    clusters: tuple[Cluster, ...] = ()
    error: str | None = None
    not_permitted: bool = False
    short: str | None = None

    @property
    def complete(self) -> bool:
        return self.error is None and self.short is None and not self.not_permitted

    @property
    def problem(self) -> str | None:
        """Why the listing cannot be relied on, or None."""
        return self.error or self.short


@dataclass(frozen=True, slots=True)
class Discovery:
    """What listing an instance found. `projects` is None if the project list failed (`error`).

    `projects` are all that the key can see; `listings` cover the selected ones and, if asked, the tenant. `short` says
    how far the project list fell short of its announced total.
    """

    tenant_uid: str
    org_name: str
    projects: tuple[Project, ...] | None
    listings: tuple[Listing, ...]
    error: str | None = None
    short: str | None = None
