"""Whose an object is: this installation's, another palette-sync's, another tool's, or nobody's."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from palette_sync.core.model import ClusterMemory, RetiredSecret
from palette_sync.core.objects import (
    GENERATION_LABEL,
    LEGACY_LABEL,
    MANAGED_BY_LABEL,
    OPAQUE,
    OWNER_LABEL,
    TOKEN_SECRET_TYPE,
    Desired,
    Kind,
    Meta,
    Observed,
    ObservedBinding,
    ObservedNamespace,
    ObservedRole,
    ObservedSecret,
    ObservedServiceAccount,
    owner_problem,
)
from palette_sync.core.plan import Plan, TokenNeed, plan, plan_replace_legacy, plan_revocation
from palette_sync.core.rbac import READ_ONLY, VIEW
from palette_sync.core.reasons import Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEW = TokenNeed(issue=True, reason=Reason.NEW)
VERIFY = TokenNeed(issue=False, reason=Reason.VERIFY_DUE)
CHANGED = TokenNeed(issue=False, reason=Reason.CONFIG_CHANGED)
KNOWN = ClusterMemory(generation="token")
UNKNOWN = ClusterMemory()
PRODUCTION = Desired(
    "tools",
    "sa",
    "token",
    "reader",
    "binding",
    READ_ONLY,
    owner="production",
    former_owners=frozenset({"before"}),
)
SECRET_MODE = replace(PRODUCTION, token_source="secret")


def meta(name: str, owner: str | None, **labels: str) -> Meta:
    marks = {MANAGED_BY_LABEL: "palette-sync", **({OWNER_LABEL: owner} if owner else {})}
    return Meta(f"uid-{name}", "7", {**marks, **labels})


def secret(owner: str | None, name: str = "token", **changes: Any) -> ObservedSecret:
    number = name.partition("-")[2] or "1"
    return replace(ObservedSecret(name, meta(name, owner, **{GENERATION_LABEL: number}), OPAQUE), **changes)


def owned(owner: str | None, *secrets: ObservedSecret, **changes: Any) -> Observed:
    """A cluster in order whose objects belong to `owner`; None = made before objects had an owner."""
    observed = Observed(
        namespace=ObservedNamespace(meta("tools", owner)),
        service_account=ObservedServiceAccount(meta("sa", owner)),
        secrets=secrets or (secret(owner),),
        cluster_role=ObservedRole(meta("reader", owner), READ_ONLY),
        cluster_role_binding=ObservedBinding(
            meta("binding", owner), ("ClusterRole", "reader"), frozenset({("ServiceAccount", "tools", "sa")})
        ),
    )
    return replace(observed, **changes)


def decide(
    observed: Observed, desired: Desired = PRODUCTION, memory: ClusterMemory = UNKNOWN, need: TokenNeed = NEW
) -> Plan:
    return plan(desired, observed, need=need, memory=memory, now=NOW, overlap=timedelta(minutes=10))


def relabelled(found: Plan) -> set[Kind]:
    """The kinds of objects that get the owner's label by updates."""
    return {
        action.kind
        for action in found.actions
        if action.verb == "update" and action.wanted and action.wanted.labels[OWNER_LABEL] == "production"
    }


FIVE = {Kind.NAMESPACE, Kind.SERVICE_ACCOUNT, Kind.SECRET, Kind.CLUSTER_ROLE, Kind.CLUSTER_ROLE_BINDING}


def test_every_object_that_is_made_carries_the_owner() -> None:
    made = [action for action in decide(Observed()).actions if action.wanted]

    assert {action.kind for action in made} == FIVE
    assert {action.wanted.labels[OWNER_LABEL] for action in made if action.wanted} == {"production"}


def test_what_this_installation_made_needs_nothing() -> None:
    assert decide(owned("production"), memory=KNOWN, need=VERIFY) == Plan(secret="token")


def test_what_it_made_under_a_former_id_gets_the_present_one() -> None:
    assert relabelled(decide(owned("before"), memory=KNOWN, need=VERIFY)) == FIVE


@pytest.mark.parametrize("memory", [KNOWN, UNKNOWN], ids=["known", "new"])
@pytest.mark.parametrize("adopt", ["never", "matching", "always"])
def test_equal_objects_from_before_there_were_owners_are_taken(adopt: Any, memory: ClusterMemory) -> None:
    found = decide(owned(None), replace(PRODUCTION, adopt=adopt), memory=memory, need=VERIFY)

    assert found.blocked is None
    assert relabelled(found) == FIVE


WIDER = ObservedRole(meta("reader", None), VIEW)


def test_a_role_from_before_with_other_rules_is_repaired_where_this_installation_had_access() -> None:
    found = decide(owned(None, cluster_role=WIDER), memory=KNOWN, need=VERIFY)

    assert found.blocked is None
    assert (Kind.CLUSTER_ROLE, Reason.ROLE_DRIFTED) in {(action.kind, action.reason) for action in found.actions}


def test_a_role_from_before_with_other_rules_may_be_another_installations() -> None:
    found = decide(owned(None, cluster_role=WIDER))

    assert found.blocked is not None
    assert found.blocked.reason is Reason.CONFLICT
    assert "ClusterRole reader has other rules" in found.blocked.message
    assert found.actions == ()
    assert decide(owned(None, cluster_role=WIDER), replace(PRODUCTION, adopt="always")).blocked is None


@pytest.mark.parametrize("desired", [PRODUCTION, replace(PRODUCTION, adopt="never")], ids=["matching", "never"])
@pytest.mark.parametrize("memory", [KNOWN, UNKNOWN], ids=["known", "new"])
@pytest.mark.parametrize("rules", [READ_ONLY, VIEW], ids=["equal", "other"])
@pytest.mark.parametrize("kind", ["service_account", "secrets", "cluster_role", "cluster_role_binding"])
def test_one_object_of_another_installation_stops_every_write(
    desired: Desired, memory: ClusterMemory, rules: Any, kind: str
) -> None:
    """Equal wishes are no reason to share: each rotation would disturb the other."""
    theirs = owned("staging", cluster_role=ObservedRole(meta("reader", "staging"), rules))

    found = decide(owned("production", **{kind: getattr(theirs, kind)}), desired, memory)

    assert found.blocked is not None
    assert found.blocked.reason is Reason.CONFLICT
    for word in ("the palette-sync installation staging", "this one is production", "[rbac]", '"always"', "owner ="):
        assert word in found.blocked.message
    assert found.actions == ()


def test_a_namespace_of_another_installation_is_used_and_never_labelled() -> None:
    observed = owned("production", namespace=ObservedNamespace(meta("tools", "staging")))

    assert decide(observed, memory=KNOWN, need=VERIFY) == Plan(secret="token")


ALWAYS = replace(PRODUCTION, adopt="always")


def test_always_takes_over_on_purpose() -> None:
    found = decide(owned("staging", cluster_role=ObservedRole(meta("reader", "staging"), VIEW)), ALWAYS)

    assert found.blocked is None
    assert relabelled(found) == FIVE - {Kind.NAMESPACE}
    assert {action.reason for action in found.actions} == {Reason.ADOPTED, Reason.ROLE_DRIFTED, Reason.NEW}


def test_two_installations_with_always_do_not_take_from_each_other_for_ever() -> None:
    taken = decide(owned("staging"), ALWAYS, memory=KNOWN, need=VERIFY)

    assert taken.blocked is not None
    assert "was taken over by the palette-sync installation staging" in taken.blocked.message


def test_a_changed_configuration_takes_back() -> None:
    assert decide(owned("staging"), ALWAYS, memory=KNOWN, need=CHANGED).blocked is None


def test_generations_of_another_installation_are_neither_used_nor_deleted() -> None:
    filled = {"type": TOKEN_SECRET_TYPE, "service_account": "sa", "empty": False}
    theirs = secret("staging", "token-2", **filled)
    memory = ClusterMemory(generation="token", retired=(RetiredSecret("token-2", theirs.meta.uid, NOW),))

    found = decide(owned("production", secret("production", **filled), theirs), SECRET_MODE, memory, VERIFY)
    renewed = decide(owned("production", secret("production", **filled), theirs), SECRET_MODE, memory)

    assert [action.name for action in found.actions if action.kind is Kind.SECRET] == ["token"]
    assert found.retired == ()
    assert renewed.secret == "token-3"


def test_an_unowned_generation_of_another_name_is_left_alone_unless_it_is_remembered() -> None:
    """Another installation of before may have used the namespace with names of its own."""
    other = secret(None, "elsewhere")
    retired = RetiredSecret("elsewhere", other.meta.uid, NOW)

    unknown = decide(owned("production", secret("production"), other), memory=KNOWN, need=VERIFY)
    known = decide(
        owned("production", secret("production"), other), memory=replace(KNOWN, retired=(retired,)), need=VERIFY
    )

    assert unknown.actions == ()
    assert [(action.verb, action.name) for action in known.actions] == [("delete", "elsewhere")]


def test_a_legacy_token_of_the_same_account_is_not_deleted_for_another_installation() -> None:
    filled = {"type": TOKEN_SECRET_TYPE, "service_account": "sa", "empty": False}
    labels = {LEGACY_LABEL: "true"}
    theirs = replace(secret("staging", "old"), meta=meta("old", "staging", **labels), **filled)
    ours = replace(secret("production", "older"), meta=meta("older", "production", **labels), **filled)

    assert [action.name for action in plan_replace_legacy(PRODUCTION, owned(None, theirs, ours))] == ["older"]


def test_leaving_deletes_every_generation_of_ours_and_nothing_else() -> None:
    filled = {"type": TOKEN_SECRET_TYPE, "service_account": "sa", "empty": False}
    secrets = (
        secret("production", **filled),
        secret("production", "token-2", **filled),
        secret("staging", "token-3", **filled),
        replace(secret("production", "redis"), meta=meta("redis", "production")),
        replace(secret("production", "old"), meta=meta("old", "production", **{LEGACY_LABEL: "true"}), **filled),
    )

    actions = plan_revocation(SECRET_MODE, owned("production", *secrets), KNOWN)

    assert [(action.verb, action.name, action.reason) for action in actions] == [
        ("delete", "token", Reason.LEFT),
        ("delete", "token-2", Reason.LEFT),
    ]
    assert [action.meta for action in actions] == [secrets[0].meta, secrets[1].meta]


@pytest.mark.parametrize("owner", ["production", "4f2a", "a.b_c-d", "x" * 63])
def test_an_owner_id_is_a_label_value(owner: str) -> None:
    assert owner_problem(owner) is None


@pytest.mark.parametrize("owner", ["", "two words", "-x", "x" * 64, "ä"])
def test_what_is_no_label_value_is_no_owner_id(owner: str) -> None:
    assert owner_problem(owner) is not None
