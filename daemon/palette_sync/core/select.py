"""Which of the discovered clusters are served, dropped at once, or left alone. Filters fail closed.

Pure. There are three cases of a cluster that is not chosen. One that the configuration deselects or Palette reports as
deleted is dropped at once. One that disappeared passes the prune guard (`core.prune`). One whose project is unknown is
neither touched nor newly published (invariant 6, docs/architecture.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from palette_sync.core.model import TENANT_SCOPE, VIRTUAL_CLOUD_TYPE, AuthMode, Cluster, Project, Scope
from palette_sync.core.pause import PAUSE_TAG
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from palette_sync.core.model import ClusterRecord, Discovery


@dataclass(frozen=True, slots=True)
class Filters:
    """Names and globs; an empty `include_*` includes everything, an `exclude_*` always wins.

    Projects match by name, uid or glob of either. Tags match as `key:value` or as the plain tag.
    """

    include_projects: tuple[str, ...] = ()
    exclude_projects: tuple[str, ...] = ()
    include_tags: tuple[str, ...] = ()
    exclude_tags: tuple[str, ...] = ()
    exclude_tenant_scoped_clusters: bool = False
    include_virtual: bool = False
    include_imported: bool = True

    def chooses_project(self, project: Project) -> bool:
        names = (project.name, project.uid)
        if _any_matches(self.exclude_projects, names):
            return False
        return not self.include_projects or _any_matches(self.include_projects, names)

    def deselects(self, cluster: Cluster) -> Reason | None:
        """Why the configuration deselects this cluster, or None. Its project must be resolved."""
        if cluster.virtual and not self.include_virtual:
            return Reason.VIRTUAL_EXCLUDED
        if cluster.imported and not self.include_imported:
            return Reason.IMPORTED_EXCLUDED
        if cluster.scope is Scope.TENANT:
            if self.exclude_tenant_scoped_clusters:
                return Reason.TENANT_SCOPE_EXCLUDED
        elif cluster.project is not None and not self.chooses_project(cluster.project):
            return Reason.PROJECT_EXCLUDED
        if _any_matches(self.exclude_tags, cluster.tags):
            return Reason.TAG_EXCLUDED
        if self.include_tags and not _any_matches(self.include_tags, cluster.tags):
            return Reason.TAG_NOT_INCLUDED
        return None


@dataclass(frozen=True, slots=True)
class AuthRule:
    """One rule of mixed authentication: all given globs must match; None matches everything."""

    mode: AuthMode | None
    project: str | None = None
    cluster: str | None = None
    tag: str | None = None

    def matches(self, cluster: Cluster) -> bool:
        return _matches(cluster, self.project, self.cluster, self.tag)


@dataclass(frozen=True, slots=True)
class CaRule:
    """The CA to trust for clusters, in place of the one in their kubeconfig; the globs are those of `AuthRule`."""

    pem: str
    project: str | None = None
    cluster: str | None = None
    tag: str | None = None

    def matches(self, cluster: Cluster) -> bool:
        return _matches(cluster, self.project, self.cluster, self.tag)


@dataclass(frozen=True, slots=True)
class ClusterGlobs:
    """Clusters by globs as in `AuthRule`; without any it matches every cluster."""

    project: str | None = None
    cluster: str | None = None
    tag: str | None = None

    def matches(self, cluster: Cluster) -> bool:
        return _matches(cluster, self.project, self.cluster, self.tag)


def _matches(cluster: Cluster, project: str | None, name: str | None, tag: str | None) -> bool:
    of_project = cluster.project.name if cluster.project else ""
    return (
        (project is None or fnmatchcase(of_project, project))
        and (name is None or fnmatchcase(cluster.name, name))
        and (tag is None or _any_matches((tag,), cluster.tags))
    )


def auth_mode(cluster: Cluster, *, rules: Iterable[AuthRule], default: AuthMode | None) -> AuthMode | None:
    """The mode of the first rule that matches, else `default`. None means `auto`: OIDC where it works."""
    for rule in rules:
        if rule.matches(cluster):
            return rule.mode
    return default


@dataclass(frozen=True, slots=True)
class Selection:
    """What a discovery means for an instance, by cluster uid.

    `chosen`: served. `dropped`: their records are dropped at once, with the reason. `disappeared`: their scope was
    listed completely without them; they pass the prune guard. `unresolved`: left alone, with the reason. `kept`:
    records whose scope could not be listed; they stay untouched. Among them, the API key may not list the scope of
    those in `forbidden`.

    `empty` are the scopes that were listed completely and hold no cluster at all, `vanished` the uids of projects that
    have records and are missing from a complete list of projects. `seen` are those of `dropped` that were listed, so
    that their tags are known: the tag that pauses is not among them.
    """

    chosen: Mapping[str, Cluster] = field(default_factory=dict)
    dropped: Mapping[str, Reason] = field(default_factory=dict)
    disappeared: frozenset[str] = frozenset()
    unresolved: Mapping[str, Reason] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    vanished: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()


def select(discovery: Discovery, records: Mapping[str, ClusterRecord], filters: Filters) -> Selection:
    """Decide every discovered cluster and every published record."""
    chosen, dropped, unresolved = _judge_clusters(discovery, filters, records)
    seen = frozenset(dropped)
    disappeared: set[str] = set()
    kept: set[str] = set()
    forbidden: set[str] = set()
    vanished: set[str] = set()
    complete = {listing.scope for listing in discovery.listings if listing.complete}
    not_permitted = {listing.scope for listing in discovery.listings if listing.not_permitted}
    projects = None if discovery.projects is None else {project.uid: project for project in discovery.projects}
    for uid in records.keys() - chosen.keys() - dropped.keys() - unresolved.keys():
        record = records[uid]
        scope = record.project.uid if record.project else TENANT_SCOPE if record.scope is Scope.TENANT else ""
        if reason := _deselects_record(record, projects, filters):
            dropped[uid] = reason
        elif scope in complete:
            disappeared.add(uid)
        elif record.project is not None and projects is not None and not discovery.short and scope not in projects:
            disappeared.add(uid)
            vanished.add(scope)
        else:
            kept.add(uid)
            if scope in not_permitted:
                forbidden.add(uid)
    return Selection(
        chosen=chosen,
        dropped={uid: reason for uid, reason in dropped.items() if uid in records},
        disappeared=frozenset(disappeared),
        unresolved=unresolved,
        kept=frozenset(kept),
        forbidden=frozenset(forbidden),
        empty=frozenset(one.scope for one in discovery.listings if one.complete and not one.clusters),
        vanished=frozenset(vanished),
        seen=seen & records.keys(),
    )


def deselected(
    records: Mapping[str, ClusterRecord], discovery: Discovery | None, filters: Filters
) -> dict[str, Reason]:
    """Which published records `filters` would deselect, with the reason. `discovery` is the last one, if any."""
    listings = discovery.listings if discovery is not None else ()
    rows = {cluster.uid: cluster for listing in listings for cluster in listing.clusters}
    known = {project.uid: project for project in (discovery.projects if discovery is not None else None) or ()}
    found = {}
    for uid, record in records.items():
        row = rows.get(uid)
        resolved = row is not None and (row.scope is Scope.TENANT or row.project is not None)
        reason = filters.deselects(row) if row is not None and resolved else _deselects_record(record, known, filters)
        if reason is not None:
            found[uid] = reason
    return found


def unmatched(filters: Filters, discovery: Discovery) -> list[str]:
    """One line for each pattern of the filters that matches nothing that Palette has, with what may be meant.

    Nothing is said of patterns while Palette could not be listed completely.
    """
    if discovery.projects is None or discovery.short:
        return []
    projects = {name for project in discovery.projects for name in (project.name, project.uid)}
    found = _without_match("include_projects", filters.include_projects, "project", projects)
    found += _without_match("exclude_projects", filters.exclude_projects, "project", projects)
    clusters = [cluster for listing in discovery.listings for cluster in listing.clusters]
    if not clusters or any(one.problem for one in discovery.listings):
        return found
    tags = {tag for cluster in clusters for tag in cluster.tags}
    found += _without_match("include_tags", filters.include_tags, "tag of a listed cluster", tags)
    return found + _without_match("exclude_tags", filters.exclude_tags, "tag of a listed cluster", tags)


def _without_match(key: str, patterns: tuple[str, ...], what: str, names: set[str]) -> list[str]:
    found = []
    for pattern in patterns:
        if not _any_matches((pattern,), names):
            close = get_close_matches(pattern, sorted(names), n=1)
            found.append(f'{key}: "{pattern}" matches no {what}' + (f'; is "{close[0]}" meant?' if close else ""))
    return found


def _judge_clusters(
    discovery: Discovery, filters: Filters, records: Mapping[str, ClusterRecord]
) -> tuple[dict[str, Cluster], dict[str, Reason], dict[str, Reason]]:
    chosen: dict[str, Cluster] = {}
    dropped: dict[str, Reason] = {}
    unresolved: dict[str, Reason] = {}
    for listing in discovery.listings:
        for cluster in listing.clusters:
            if _stays_paused(cluster, records):
                chosen[cluster.uid] = cluster
            elif cluster.gone:
                dropped[cluster.uid] = Reason.read(cluster.state)
            elif cluster.scope is Scope.PROJECT and cluster.project is None:
                unresolved[cluster.uid] = Reason.PROJECT_UNRESOLVED
            elif reason := filters.deselects(cluster):
                dropped[cluster.uid] = reason
            else:
                chosen[cluster.uid] = cluster
    # A cluster that moves while it is listed can appear twice. It is served if one of its rows is chosen.
    for uid in chosen:
        dropped.pop(uid, None)
    for uid in chosen.keys() | dropped.keys():
        unresolved.pop(uid, None)
    return chosen, dropped, unresolved


def _stays_paused(cluster: Cluster, records: Mapping[str, ClusterRecord]) -> bool:
    """Whether a tag in Palette pauses a published cluster: then its record stays, whatever else would drop it."""
    unresolved = cluster.scope is Scope.PROJECT and cluster.project is None
    return PAUSE_TAG in cluster.tags and cluster.uid in records and not unresolved


def _deselects_record(record: ClusterRecord, projects: Mapping[str, Project] | None, filters: Filters) -> Reason | None:
    """Why the configuration deselects a record that no listing showed: by its scope or kind.

    Unwanted virtual clusters are not requested from Palette, so their absence is no disappearance.
    """
    if record.palette.cloud_type.lower() == VIRTUAL_CLOUD_TYPE and not filters.include_virtual:
        return Reason.VIRTUAL_EXCLUDED
    if record.access.reason is Reason.IMPORTED and not filters.include_imported:
        return Reason.IMPORTED_EXCLUDED
    if record.scope is Scope.TENANT:
        return Reason.TENANT_SCOPE_EXCLUDED if filters.exclude_tenant_scoped_clusters else None
    if record.project is None:
        return None
    current = (projects or {}).get(record.project.uid, record.project)
    return None if filters.chooses_project(current) else Reason.PROJECT_EXCLUDED


def _any_matches(patterns: Iterable[str], names: Iterable[str]) -> bool:
    names = tuple(names)
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)
