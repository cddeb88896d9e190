"""Palette's search filter: groups of typed conditions over the properties of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from palette_sync.simulator.cluster import SimCluster
    from palette_sync.simulator.exchange import Json

Value = str | bool | datetime | dict[str, str]


@dataclass(frozen=True, slots=True)
class Property:
    """A searchable property: its type in the filter language, and how to read it from a cluster."""

    name: str
    type: str
    display: str
    read: Callable[[SimCluster], Value]


PROPERTIES = {
    p.name: p
    for p in (
        Property("clusterName", "string", "Cluster Name", lambda c: c.name),
        Property("clusterState", "string", "Status", lambda c: c.state),
        Property("healthState", "string", "Health", lambda c: c.health),
        Property("environment", "string", "Environment", lambda c: c.cloud_type),
        Property("isDeleted", "bool", "Deleted", lambda c: c.state == "Deleted"),
        Property("tags", "keyValue", "Tags", lambda c: labels_of(c.tags)),
        Property("creationTimestamp", "date", "Created On", lambda c: c.created_at),
        Property("lastModifiedTimestamp", "date", "Last Modified On", lambda c: c.modified_at),
    )
}
SORT_FIELDS = frozenset(PROPERTIES) - {"isDeleted", "tags"}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda have, want: have > want,
    "gte": lambda have, want: have >= want,
    "lt": lambda have, want: have < want,
    "lte": lambda have, want: have <= want,
    "eq": lambda have, want: have == want,
}


class InvalidFilterError(Exception):
    """The filter is invalid; the text says where."""


def labels_of(tags: Iterable[str]) -> dict[str, str]:
    """Return tags as Palette stores them in `metadata.labels`: a tag without value has the value `spectro__tag`."""
    pairs = (tag.partition(":") for tag in tags)
    return {key: value if colon else "spectro__tag" for key, colon, value in pairs}


def compile_filter(document: Json | None) -> Callable[[SimCluster], bool]:
    """Compile a `v1SearchFilterSpec` to a predicate. Raises InvalidFilterError."""
    document = document or {}
    groups = [_group(group) for group in document.get("filterGroups") or ()]
    return _combined(groups, document.get("conjunction"))


def _group(group: Json) -> Callable[[SimCluster], bool]:
    return _combined([_item(item) for item in group.get("filters") or ()], group.get("conjunction"))


def _combined(predicates: list[Callable[[SimCluster], bool]], conjunction: str | None) -> Callable[[SimCluster], bool]:
    if conjunction not in {None, "", "and", "or"}:
        raise InvalidFilterError("conjunction should be one of [and or]")
    if not predicates:
        return lambda _: True
    combine = any if conjunction == "or" else all
    return lambda cluster: combine(predicate(cluster) for predicate in predicates)


def _item(item: Json) -> Callable[[SimCluster], bool]:
    known = PROPERTIES.get(item.get("property", ""))
    if known is None:
        raise InvalidFilterError(f"property {str(item.get('property'))[:50]!r} is not searchable")
    kind = item.get("type") or known.type
    condition = (item.get("condition") or {}).get(kind)
    if kind != known.type or not isinstance(condition, dict):
        raise InvalidFilterError(f"property {known.name} needs a condition of type {known.type}")
    if kind == "bool":
        return lambda cluster: known.read(cluster) == bool(condition.get("value"))
    wanted = (condition.get("match") or {}).get("values") or []
    test = _date_test(condition, wanted) if kind == "date" else _text_test(condition, wanted)
    combine = all if (condition.get("match") or {}).get("conjunction") == "and" else any
    negated = bool(condition.get("negation"))

    def holds(cluster: SimCluster) -> bool:
        value = known.read(cluster)
        if isinstance(value, dict):
            found = value.get(condition.get("key", ""))
            if found is None:
                return negated
            value = found
        return combine(test(value, want) for want in wanted) != negated

    return holds


def _text_test(condition: Json, wanted: list[Any]) -> Callable[[Any, Any], bool]:
    if not all(isinstance(want, str) for want in wanted):
        raise InvalidFilterError("match.values are strings")
    operator, fold = condition.get("operator", "eq"), bool(condition.get("ignoreCase"))
    tests: dict[str, Callable[[str, str], bool]] = {
        "eq": lambda have, want: have == want,
        "contains": lambda have, want: want in have,
        "beginsWith": lambda have, want: have.startswith(want),
    }
    test = tests.get(operator)
    if test is None:
        raise InvalidFilterError("operator should be one of [eq contains beginsWith]")
    return (lambda have, want: test(have.casefold(), want.casefold())) if fold else test


def _date_test(condition: Json, wanted: list[Any]) -> Callable[[Any, Any], bool]:
    operator = condition.get("operator", "eq")
    try:
        wanted[:] = [datetime.fromisoformat(str(want)) for want in wanted]
    except ValueError:
        raise InvalidFilterError("match.values are RFC 3339 times") from None
    if operator == "range" and len(wanted) == 2:  # noqa: PLR2004 - from and to
        return lambda have, _: bool(wanted[0] <= have <= wanted[1])
    if operator not in _COMPARISONS:
        raise InvalidFilterError("operator should be one of [eq gt gte lt lte range]")
    return _COMPARISONS[operator]


def sort_clusters(clusters: list[SimCluster], sort: list[Json] | None) -> list[SimCluster]:
    """Sort by the given fields, the first one first; by age if there are none. Raises InvalidFilterError."""
    ordered = sorted(clusters, key=lambda c: (c.created_at, c.uid))
    for entry in reversed(sort or []):
        field, order = entry.get("field", ""), entry.get("order") or "asc"
        if field not in SORT_FIELDS or order not in {"asc", "desc"}:
            raise InvalidFilterError(f"sort by {str(field)[:50]!r} {str(order)[:10]!r} is not possible")
        ordered.sort(key=PROPERTIES[field].read, reverse=order == "desc")  # type: ignore[arg-type]  # one type per field
    return ordered
