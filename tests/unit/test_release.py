"""What a release deletes, what it hands back, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from palette_sync.core.objects import (
    ADOPTED_LABEL,
    LEGACY_LABEL,
    MANAGED_BY_LABEL,
    OWNER_LABEL,
    Desired,
    Kind,
    Meta,
)
from palette_sync.core.rbac import READ_ONLY
from palette_sync.core.reasons import Reason
from palette_sync.core.release import LabelledObject, plan_release

DESIRED = Desired("tools", "sa", "token", "reader", "binding", READ_ONLY, owner="production")


def found(kind: Kind, name: str, owner: str | None = "production", **labels: str) -> LabelledObject:
    marks = {MANAGED_BY_LABEL: "palette-sync", **({OWNER_LABEL: owner} if owner else {})}
    namespaced = kind in {Kind.SECRET, Kind.SERVICE_ACCOUNT}
    return LabelledObject(kind, name, "tools" if namespaced else "", Meta(f"uid-{name}", "7", {**marks, **labels}))


ADOPTED = {ADOPTED_LABEL: "true"}
ALL = (
    found(Kind.NAMESPACE, "tools"),
    found(Kind.CLUSTER_ROLE, "reader"),
    found(Kind.SERVICE_ACCOUNT, "sa"),
    found(Kind.SECRET, "token"),
    found(Kind.CLUSTER_ROLE_BINDING, "binding"),
)


def planned(*objects: LabelledObject, others: dict[str, str] | None = None) -> list[tuple[str, str, str]]:
    return [
        (step.action.verb, step.action.name, step.namespace) for step in plan_release(DESIRED, objects, others or {})
    ]


def test_what_gives_rights_goes_first_and_the_namespace_last() -> None:
    assert planned(*ALL) == [
        ("delete", "token", "tools"),
        ("delete", "binding", ""),
        ("delete", "reader", ""),
        ("delete", "sa", "tools"),
        ("delete", "tools", ""),
    ]
    steps = plan_release(DESIRED, ALL, {})
    assert {step.action.reason for step in steps} == {Reason.RELEASED}
    assert steps[0].action.meta == ALL[3].meta, "the precondition of the deletion"


@pytest.mark.parametrize("labels", [ADOPTED, {LEGACY_LABEL: "true"}])
def test_what_was_there_before_is_handed_back(labels: dict[str, str]) -> None:
    (step,) = plan_release(DESIRED, [found(Kind.SECRET, "token", **labels)], {})

    assert (step.action.verb, step.action.reason) == ("hand back", Reason.HANDED_BACK)


def test_a_namespace_of_ours_stays_where_something_of_others_stays() -> None:
    assert planned(ALL[0], found(Kind.SERVICE_ACCOUNT, "sa", **ADOPTED))[-1] == ("hand back", "tools", "")
    assert planned(ALL[0], others={"tools": "Pod x"}) == [("hand back", "tools", "")]
    assert planned(ALL[0], others={"elsewhere": "Pod x"}) == [("delete", "tools", "")]
    assert planned(ALL[0], found(Kind.CLUSTER_ROLE, "reader", **ADOPTED))[-1] == ("delete", "tools", "")


def test_objects_of_another_installation_or_of_nobody_known_stay() -> None:
    assert planned(*(replace(one, meta=found(one.kind, one.name, "staging").meta) for one in ALL)) == []
    assert planned(replace(ALL[1], meta=Meta("uid", "7", {MANAGED_BY_LABEL: "Helm"}))) == []


@pytest.mark.parametrize(
    ("kind", "name", "goes"),
    [
        (Kind.NAMESPACE, "tools", True),
        (Kind.NAMESPACE, "other", False),
        (Kind.SERVICE_ACCOUNT, "sa", True),
        (Kind.SERVICE_ACCOUNT, "other", False),
        (Kind.CLUSTER_ROLE, "other", False),
        (Kind.CLUSTER_ROLE_BINDING, "binding", True),
        (Kind.SECRET, "token-3", True),
        (Kind.SECRET, "token-x", False),
    ],
)
def test_an_object_without_an_owner_goes_only_under_a_configured_name(kind: Kind, name: str, *, goes: bool) -> None:
    """Another installation may have made it before objects had an owner."""
    assert bool(planned(found(kind, name, None))) is goes


def test_an_installation_without_an_owner_id_takes_every_object_of_palette_sync() -> None:
    desired = replace(DESIRED, owner="")

    assert len(plan_release(desired, [found(Kind.CLUSTER_ROLE, "other", None)], {})) == 1
