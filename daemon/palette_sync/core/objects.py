"""The five objects that give access to a cluster: what they should look like, and how one that stands there differs.

This is the one place that knows what palette-sync writes: `kube.objects` turns a `Wanted` into JSON, and `core.plan`
decides what to do where `drift` finds a difference. Pure.

What the API server or others add (defaults, further labels and annotations, a service account's `secrets`) is no
difference. So is a service account whose `automountServiceAccountToken` is not set: it may have been adopted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from palette_sync.core.model import MANAGED_BY
from palette_sync.core.rbac import PolicyRule, normalise
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
GENERATION_LABEL = "palette-sync/generation"
LEGACY_LABEL = "palette-sync/legacy"
OWNER_LABEL = "palette-sync.io/owner"
ADOPTED_LABEL = "palette-sync.io/adopted"
MARKS = (MANAGED_BY_LABEL, OWNER_LABEL, ADOPTED_LABEL, LEGACY_LABEL, GENERATION_LABEL)  # all labels that we set
SERVICE_ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"
TOKEN_SECRET_TYPE = "kubernetes.io/service-account-token"
OPAQUE = "Opaque"

Adopt = Literal["never", "matching", "always"]
TokenSource = Literal["request", "secret"]


class Kind(StrEnum):
    NAMESPACE = "Namespace"
    SERVICE_ACCOUNT = "ServiceAccount"
    SECRET = "Secret"
    CLUSTER_ROLE = "ClusterRole"
    CLUSTER_ROLE_BINDING = "ClusterRoleBinding"
    TOKEN = "Token"


@dataclass(frozen=True, slots=True)
class Desired:
    """What the configuration wants to stand in every cluster of an instance.

    `labels` and `annotations` are the operator's own; every object that palette-sync makes carries them. `owner` names
    this installation on every object; "" = objects carry no owner, and none is compared. `former_owners` are ids
    that this installation used before.
    """

    namespace: str
    service_account: str
    secret: str
    cluster_role: str
    cluster_role_binding: str
    rules: tuple[PolicyRule, ...]
    adopt: Adopt = "matching"
    token_source: TokenSource = "request"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    former_owners: frozenset[str] = frozenset()

    @property
    def secret_type(self) -> str:
        return OPAQUE if self.token_source == "request" else TOKEN_SECRET_TYPE

    @property
    def token_in_secret(self) -> bool:
        """Whether a Secret holds the token, so that a new token needs a new Secret."""
        return self.token_source == "secret"

    @property
    def user(self) -> str:
        """The service account's name as authorizers and audit logs know it."""
        return f"system:serviceaccount:{self.namespace}:{self.service_account}"

    def stranger(self, meta: Meta) -> str | None:
        """The id of another palette-sync installation that owns the object; None if no other one does."""
        known = {self.owner, *self.former_owners}
        return meta.owner if self.owner and meta.ours and meta.owner and meta.owner not in known else None

    def unowned(self, meta: Meta) -> bool:
        """Whether a palette-sync made the object before objects had an owner, so that it may be any installation's."""
        return bool(self.owner) and meta.ours and not meta.owner

    def owns(self, meta: Meta) -> bool:
        """Whether the object is a palette-sync's, and not another installation's."""
        return meta.ours and self.stranger(meta) is None


_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_KEY = re.compile(rf"((?=[^/]{{1,253}}/){_DNS_LABEL}(\.{_DNS_LABEL})*/)?{_NAME}")
_LABEL_VALUE = re.compile(rf"({_NAME})?")
_LARGEST_ANNOTATIONS = 16 * 1024  # bytes; Kubernetes allows 256 KiB for all annotations of an object


def metadata_problem(what: str, key: str, value: str) -> str | None:
    """Why an operator's label or annotation cannot be put on objects; None where it can. `what` is `labels` or
    `annotations`. The syntax is Kubernetes' own (kubernetes.io, "Labels and Selectors", "Annotations").
    """
    if not _KEY.fullmatch(key):
        return f"{key!r} is not a valid key: an optional DNS prefix and '/', then at most 63 letters, digits, - _ ."
    if key.partition("/")[0] in _OUR_PREFIXES or key in {MANAGED_BY_LABEL, SERVICE_ACCOUNT_ANNOTATION}:
        return f"{key!r} is set by palette-sync itself"
    if what == "labels" and not _LABEL_VALUE.fullmatch(value):
        return f"the value of {key!r} is not a valid label value: at most 63 letters, digits, - _ ."
    if what == "annotations" and len(value.encode()) > _LARGEST_ANNOTATIONS:
        return f"the value of {key!r} is longer than {_LARGEST_ANNOTATIONS} bytes"
    return None


_OUR_PREFIXES = frozenset({"palette-sync", "palette-sync.io"})


def owner_problem(owner: str) -> str | None:
    """Why an owner id cannot be put on objects as a label; None where it can."""
    if not owner or not _LABEL_VALUE.fullmatch(owner):
        return "is not a valid label value: 1 to 63 letters, digits, - _ ."
    return None


# -- what stands in a cluster ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meta:
    """The part of an object's metadata that decisions and preconditions need."""

    uid: str
    resource_version: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def manager(self) -> str | None:
        return self.labels.get(MANAGED_BY_LABEL)

    @property
    def ours(self) -> bool:
        """Whether a palette-sync made it, perhaps another installation (`Desired.stranger`)."""
        return self.manager == MANAGED_BY

    @property
    def owner(self) -> str | None:
        return self.labels.get(OWNER_LABEL)


@dataclass(frozen=True, slots=True)
class ObservedNamespace:
    meta: Meta
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class ObservedServiceAccount:
    """`automount` is None where the field is not set."""

    meta: Meta
    automount: bool | None = None


@dataclass(frozen=True, slots=True)
class ObservedSecret:
    """A Secret without its data; `empty` says whether it holds any. `created_at` is the cluster's time."""

    name: str
    meta: Meta
    type: str
    service_account: str | None = None
    empty: bool = True
    created_at: datetime | None = None

    @property
    def legacy(self) -> bool:
        return LEGACY_LABEL in self.meta.labels

    @property
    def generation(self) -> int:
        number = self.meta.labels.get(GENERATION_LABEL, "")
        return int(number) if re.fullmatch("[0-9]{1,9}", number) else 1


@dataclass(frozen=True, slots=True)
class ObservedRole:
    """`aggregated`: a controller fills the rules from other roles (`aggregationRule`)."""

    meta: Meta
    rules: tuple[PolicyRule, ...]
    aggregated: bool = False


@dataclass(frozen=True, slots=True)
class ObservedBinding:
    """`role` is (kind, name) of the roleRef; `subjects` are (kind, namespace, name)."""

    meta: Meta
    role: tuple[str, str]
    subjects: frozenset[tuple[str, str, str]]


ObservedObject = ObservedNamespace | ObservedServiceAccount | ObservedSecret | ObservedRole | ObservedBinding


@dataclass(frozen=True, slots=True)
class Observed:
    """What stands in the cluster. `unreadable`: kinds that the credential in use may not read; they are not judged.

    `now` is the time by the cluster's clock, None where the API server did not say.
    """

    namespace: ObservedNamespace | None = None
    service_account: ObservedServiceAccount | None = None
    secrets: tuple[ObservedSecret, ...] = ()
    cluster_role: ObservedRole | None = None
    cluster_role_binding: ObservedBinding | None = None
    unreadable: frozenset[Kind] = frozenset()
    now: datetime | None = None


# -- what should stand there -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object as it should stand, complete enough to be created.

    `role` is (kind, name) of a binding's roleRef, `subjects` are (kind, namespace, name), `type` is a Secret's,
    `automount` a service account's. `namespace` is None for what lives in no namespace.
    """

    kind: Kind
    name: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    automount: bool | None = None
    type: str | None = None
    rules: tuple[PolicyRule, ...] = ()
    role: tuple[str, str] | None = None
    subjects: frozenset[tuple[str, str, str]] = frozenset()


def wanted_namespace(desired: Desired) -> Wanted:
    return Wanted(Kind.NAMESPACE, desired.namespace, None, _labels(desired), desired.annotations)


def wanted_service_account(desired: Desired) -> Wanted:
    return Wanted(
        Kind.SERVICE_ACCOUNT,
        desired.service_account,
        desired.namespace,
        _labels(desired),
        desired.annotations,
        automount=False,
    )


def wanted_secret(desired: Desired, name: str, generation: int) -> Wanted:
    """One generation of the Secret that holds or binds the token."""
    annotations = dict(desired.annotations)
    if desired.token_source == "secret":
        annotations[SERVICE_ACCOUNT_ANNOTATION] = desired.service_account
    labels = {**_labels(desired), GENERATION_LABEL: str(generation)}
    return Wanted(Kind.SECRET, name, desired.namespace, labels, annotations, type=desired.secret_type)


def wanted_legacy_secret(desired: Desired, name: str) -> Wanted:
    """A token Secret of another tool: it is marked as ours and as legacy, and otherwise left as it is."""
    return Wanted(Kind.SECRET, name, desired.namespace, {**_marks(desired), LEGACY_LABEL: "true"})


def adopted(wanted: Wanted) -> Wanted:
    """The same object, marked as one that somebody else made, so that it is handed back and not deleted in the end."""
    return replace(wanted, labels={**wanted.labels, ADOPTED_LABEL: "true"})


def wanted_cluster_role(desired: Desired) -> Wanted:
    return Wanted(
        Kind.CLUSTER_ROLE, desired.cluster_role, None, _labels(desired), desired.annotations, rules=desired.rules
    )


def wanted_cluster_role_binding(desired: Desired) -> Wanted:
    return Wanted(
        Kind.CLUSTER_ROLE_BINDING,
        desired.cluster_role_binding,
        None,
        _labels(desired),
        desired.annotations,
        role=(Kind.CLUSTER_ROLE.value, desired.cluster_role),
        subjects=frozenset({(Kind.SERVICE_ACCOUNT.value, desired.namespace, desired.service_account)}),
    )


def _labels(desired: Desired) -> dict[str, str]:
    return {**desired.labels, **_marks(desired)}


def _marks(desired: Desired) -> dict[str, str]:
    """The labels by which palette-sync, and this installation, recognises its objects."""
    owner = {OWNER_LABEL: desired.owner} if desired.owner else {}
    return {MANAGED_BY_LABEL: MANAGED_BY, **owner}


# -- how it differs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drift:
    """How an object differs from what is wanted. `message` says it for people."""

    reason: Reason
    message: str


def drift(wanted: Wanted, observed: ObservedObject) -> Drift | None:
    """Return the first difference in what the object means, then in its metadata; None where there is none."""
    return meaning_drift(wanted, observed) or metadata_drift(wanted, observed.meta)


def meaning_drift(wanted: Wanted, observed: ObservedObject) -> Drift | None:
    """The difference in what the object does: rules, roleRef, subjects, automounting."""
    match observed:
        case ObservedRole(aggregated=True):
            return Drift(Reason.ROLE_DRIFTED, "its rules are aggregated from other roles")
        case ObservedRole() if normalise(observed.rules) != normalise(wanted.rules):
            return Drift(Reason.ROLE_DRIFTED, "its rules differ from the configured ones")
        case ObservedBinding() if observed.role != wanted.role:
            return Drift(Reason.ROLE_REF_CHANGED, f"binds {observed.role[0][:63]} {observed.role[1][:63]}")
        case ObservedBinding() if observed.subjects != wanted.subjects:
            return Drift(Reason.SUBJECTS_DRIFTED, "its subjects differ")
        case ObservedServiceAccount(automount=True) if wanted.automount is False:
            return Drift(Reason.ACCOUNT_DRIFTED, "it mounts its token into pods")
    return None


def metadata_drift(wanted: Wanted, meta: Meta) -> Drift | None:
    """Labels and annotations that are wanted and absent or different; what others added is left alone."""
    for what, expected, found in (
        ("label", wanted.labels, meta.labels),
        ("annotation", wanted.annotations, meta.annotations),
    ):
        wrong = sorted(key for key, value in expected.items() if found.get(key) != value)
        if wrong:
            return Drift(Reason.METADATA_DRIFTED, f"the {what} {wrong[0]} is missing or differs")
    return None
