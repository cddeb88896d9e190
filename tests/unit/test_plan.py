"""The plan, case by case: what stands in the cluster, what is wanted, and what is done about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from palette_sync.core.model import ClusterMemory, RetiredSecret
from palette_sync.core.objects import (
    ADOPTED_LABEL,
    GENERATION_LABEL,
    LEGACY_LABEL,
    MANAGED_BY_LABEL,
    OPAQUE,
    SERVICE_ACCOUNT_ANNOTATION,
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
)
from palette_sync.core.plan import Action, Bound, Plan, TokenNeed, plan, plan_replace_legacy
from palette_sync.core.rbac import READ_ONLY, PolicyRule
from palette_sync.core.reasons import Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OVERLAP = timedelta(minutes=10)
KEEP = TokenNeed(issue=False, reason="VerifyDue")
NEW = TokenNeed(issue=True, reason="New")
DUE = TokenNeed(issue=True, reason="TokenDue")
OURS = {MANAGED_BY_LABEL: "palette-sync"}
HELM = {MANAGED_BY_LABEL: "Helm"}
OTHER_RULES = (PolicyRule(("",), ("pods",), ("get",)),)
ROLE = ("ClusterRole", "reader")
SUBJECTS = frozenset({("ServiceAccount", "tools", "sa")})

REQUEST = Desired("tools", "sa", "token", "reader", "binding", READ_ONLY)
SECRET = replace(REQUEST, token_source="secret")


def meta(name: str, labels: dict[str, str] | None = None) -> Meta:
    return Meta(f"uid-{name}", "7", OURS if labels is None else labels)


def secret(name: str = "token", generation: int | None = 1, **changes: Any) -> ObservedSecret:
    """One of ours; `labels` replaces all of its labels."""
    labels = OURS if generation is None else {**OURS, GENERATION_LABEL: str(generation)}
    labels = changes.pop("labels", labels)
    return replace(ObservedSecret(name, meta(name, labels), OPAQUE), **changes)


def filled(name: str = "token", generation: int | None = 1, **changes: Any) -> ObservedSecret:
    """A token Secret of our service account."""
    content = {"type": TOKEN_SECRET_TYPE, "service_account": "sa", "empty": False, **changes}
    made = secret(name, generation, **content)
    annotations = {SERVICE_ACCOUNT_ANNOTATION: made.service_account or ""}
    return replace(made, meta=replace(made.meta, annotations=annotations))


def in_order(*secrets: ObservedSecret, **changes: Any) -> Observed:
    """A cluster as it should be, with the given Secrets (default: the one that request mode makes)."""
    observed = Observed(
        namespace=ObservedNamespace(meta("tools")),
        service_account=ObservedServiceAccount(meta("sa")),
        secrets=secrets or (secret(),),
        cluster_role=ObservedRole(meta("reader"), READ_ONLY),
        cluster_role_binding=ObservedBinding(meta("binding"), ROLE, SUBJECTS),
    )
    return replace(observed, **changes)


def decide(
    observed: Observed, desired: Desired = REQUEST, need: TokenNeed = KEEP, memory: ClusterMemory | None = None
) -> Plan:
    return plan(
        desired, observed, need=need, memory=memory or ClusterMemory(generation="token"), now=NOW, overlap=OVERLAP
    )


def summary(actions: tuple[Action, ...]) -> list[tuple[str, str, str, str]]:
    return [(action.verb, action.kind.value, action.name, action.reason) for action in actions]


ISSUE_NEW = ("issue", "Token", "sa", "New")
ISSUE_DEAD = ("issue", "Token", "sa", "TokenDead")


def test_the_account_has_the_name_that_audit_logs_show() -> None:
    assert REQUEST.user == "system:serviceaccount:tools:sa"


def test_a_cluster_in_order_needs_nothing() -> None:
    assert decide(in_order()) == Plan(secret="token")


def test_an_empty_cluster_gets_the_role_first_and_the_rest_in_the_order_in_which_they_need_each_other() -> None:
    found = decide(Observed(), need=NEW, memory=ClusterMemory())

    assert summary(found.actions) == [
        ("create", "ClusterRole", "reader", "Missing"),
        ("create", "Namespace", "tools", "Missing"),
        ("create", "ServiceAccount", "sa", "Missing"),
        ("create", "Secret", "token", "SecretMissing"),
        ("create", "ClusterRoleBinding", "binding", "Missing"),
        ISSUE_NEW,
    ]
    assert (found.issue, found.secret, found.legacy, found.blocked) == (True, "token", False, None)


def test_a_terminating_namespace_blocks_all_writing() -> None:
    found = decide(in_order(namespace=ObservedNamespace(meta("tools"), terminating=True), cluster_role=None))

    assert found.blocked is not None
    assert found.blocked.reason == "NamespaceTerminating"
    assert found.actions == ()


ROLE_OTHER = in_order(cluster_role=ObservedRole(meta("reader"), OTHER_RULES))
BINDING_OTHER_ROLE = in_order(cluster_role_binding=ObservedBinding(meta("binding"), ("ClusterRole", "x"), SUBJECTS))
BINDING_OTHER_KIND = in_order(cluster_role_binding=ObservedBinding(meta("binding"), ("Role", "reader"), SUBJECTS))
BINDING_OTHER_SUBJECT = in_order(
    cluster_role_binding=ObservedBinding(meta("binding"), ROLE, SUBJECTS | {("User", "", "eve")})
)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(in_order(namespace=None), ("create", "Namespace", "tools", "Missing"), id="namespace gone"),
        pytest.param(
            in_order(service_account=None), ("create", "ServiceAccount", "sa", "Missing"), id="service account gone"
        ),
    ],
)
def test_with_the_service_account_its_token_is_gone_too(observed: Observed, expected: tuple[str, ...]) -> None:
    assert summary(decide(observed).actions) == [expected, ISSUE_DEAD]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(in_order(cluster_role=None), ("create", "ClusterRole", "reader", "Missing"), id="role gone"),
        pytest.param(
            in_order(cluster_role_binding=None),
            ("create", "ClusterRoleBinding", "binding", "Missing"),
            id="binding gone",
        ),
        pytest.param(ROLE_OTHER, ("update", "ClusterRole", "reader", "RoleDrifted"), id="rules drifted"),
        pytest.param(
            BINDING_OTHER_ROLE, ("replace", "ClusterRoleBinding", "binding", "RoleRefChanged"), id="another role bound"
        ),
        pytest.param(
            BINDING_OTHER_KIND, ("replace", "ClusterRoleBinding", "binding", "RoleRefChanged"), id="another kind bound"
        ),
        pytest.param(
            BINDING_OTHER_SUBJECT,
            ("update", "ClusterRoleBinding", "binding", "SubjectsDrifted"),
            id="another subject bound",
        ),
    ],
)
def test_repair_keeps_the_token(observed: Observed, expected: tuple[str, ...]) -> None:
    found = decide(observed)

    assert summary(found.actions) == [expected]
    assert not found.issue


def test_writes_to_what_stands_carry_what_was_seen_of_it() -> None:
    seen = [*decide(ROLE_OTHER).actions, *decide(BINDING_OTHER_ROLE).actions, *decide(BINDING_OTHER_SUBJECT).actions]

    assert [action.meta for action in seen] == [meta("reader"), meta("binding"), meta("binding")]


UNLABELLED: dict[str, str] = {}
FOREIGN = {
    "namespace": lambda labels: in_order(namespace=ObservedNamespace(meta("tools", labels))),
    "service account": lambda labels: in_order(service_account=ObservedServiceAccount(meta("sa", labels))),
    "equal role": lambda labels: in_order(cluster_role=ObservedRole(meta("reader", labels), READ_ONLY)),
    "other role": lambda labels: in_order(cluster_role=ObservedRole(meta("reader", labels), OTHER_RULES)),
    "equal binding": lambda labels: in_order(
        cluster_role_binding=ObservedBinding(meta("binding", labels), ROLE, SUBJECTS)
    ),
    "binding of another role": lambda labels: in_order(
        cluster_role_binding=ObservedBinding(meta("binding", labels), ("ClusterRole", "x"), SUBJECTS)
    ),
    "binding of others": lambda labels: in_order(
        cluster_role_binding=ObservedBinding(meta("binding", labels), ROLE, frozenset())
    ),
    "empty Opaque Secret": lambda labels: in_order(secret(labels=labels)),
    "Opaque Secret with data": lambda labels: in_order(secret(labels=labels, empty=False)),
}
CONFLICT = "Conflict"
NOTHING = ""


@pytest.mark.parametrize(
    ("what", "labels", "adopt", "expected"),
    [
        *(
            pytest.param("namespace", labels, adopt, NOTHING, id=f"a {who} namespace is used as it is ({adopt})")
            for who, labels in (("foreign", UNLABELLED), ("Helm's", HELM))
            for adopt in ("never", "matching", "always")
        ),
        *(
            pytest.param(what, UNLABELLED, "matching", "Adopted", id=f"matching adopts an unlabelled {what}")
            for what in ("service account", "equal role", "equal binding", "empty Opaque Secret")
        ),
        *(
            pytest.param(what, UNLABELLED, "matching", CONFLICT, id=f"matching leaves an unlabelled {what} alone")
            for what in ("other role", "binding of another role", "binding of others", "Opaque Secret with data")
        ),
        *(
            pytest.param(what, UNLABELLED, "never", CONFLICT, id=f"never leaves an unlabelled {what} alone")
            for what in FOREIGN
            if what != "namespace"
        ),
        *(
            pytest.param(what, HELM, adopt, CONFLICT, id=f"{adopt} leaves Helm's {what} alone")
            for what in FOREIGN
            if what != "namespace"
            for adopt in ("never", "matching")
        ),
        *(
            pytest.param(what, labels, "always", reason, id=f"always takes over {who} {what}")
            for who, labels in (("an unlabelled", UNLABELLED), ("Helm's", HELM))
            for what, reason in (
                ("service account", "Adopted"),
                ("equal role", "Adopted"),
                ("other role", "RoleDrifted"),
                ("equal binding", "Adopted"),
                ("binding of another role", "RoleRefChanged"),
                ("binding of others", "SubjectsDrifted"),
                ("empty Opaque Secret", "Adopted"),
                ("Opaque Secret with data", "Adopted"),
            )
        ),
    ],
)
def test_namesakes(what: str, labels: dict[str, str], adopt: Any, expected: str) -> None:
    found = decide(FOREIGN[what](labels), replace(REQUEST, adopt=adopt))

    if expected == CONFLICT:
        assert found.blocked is not None
        assert found.blocked.reason == CONFLICT
        assert found.actions == ()
    else:
        assert found.blocked is None
        assert [action.reason for action in found.actions] == ([expected] if expected else [])
        assert not found.issue


def test_an_adopted_binding_secret_gets_the_label_of_its_generation() -> None:
    (adopted,) = decide(in_order(secret(labels=UNLABELLED))).actions

    assert adopted.wanted is not None
    assert adopted.wanted.labels == {**OURS, GENERATION_LABEL: "1", ADOPTED_LABEL: "true"}
    assert adopted.meta == meta("token", UNLABELLED)


def test_one_conflict_stops_every_write_to_the_cluster() -> None:
    found = decide(in_order(namespace=None, cluster_role=ObservedRole(meta("reader", HELM), READ_ONLY)))

    assert found.actions == ()
    assert found.blocked is not None
    assert "Helm" in found.blocked.message


LEGACY_NEW = filled(labels=UNLABELLED)
LEGACY_KNOWN = filled(labels={**OURS, LEGACY_LABEL: "true"})


@pytest.mark.parametrize("desired", [REQUEST, SECRET], ids=["request mode", "secret mode"])
def test_the_other_tools_token_secret_is_labelled_and_a_second_one_made_beside_it(desired: Desired) -> None:
    found = decide(in_order(LEGACY_NEW), desired, NEW, ClusterMemory())

    assert summary(found.actions) == [
        ("update", "Secret", "token", "LegacyToken"),
        ("create", "Secret", "token-2", "SecretMissing"),
        ISSUE_NEW,
    ]
    assert found.actions[0].wanted is not None
    assert found.actions[0].wanted.labels == {**OURS, LEGACY_LABEL: "true"}
    assert found.legacy
    assert found.secret == "token-2"
    assert found.retired == ()


def test_a_known_legacy_secret_is_kept_and_reported() -> None:
    found = decide(in_order(LEGACY_KNOWN, secret("token-2", 2)), memory=ClusterMemory(generation="token-2"))

    assert found == Plan(secret="token-2", legacy=True)


def test_a_legacy_secret_is_a_conflict_where_nothing_is_adopted() -> None:
    found = decide(in_order(LEGACY_NEW), replace(REQUEST, adopt="never"))

    assert found.blocked is not None
    assert found.legacy


@pytest.mark.parametrize(
    ("named", "adopt", "expected"),
    [
        pytest.param(
            filled(labels=UNLABELLED, service_account="x"), "matching", CONFLICT, id="another account's token"
        ),
        pytest.param(filled(labels=UNLABELLED, service_account="x"), "always", NOTHING, id="always leaves its type be"),
        pytest.param(secret(labels=UNLABELLED, type="kubernetes.io/tls"), "always", NOTHING, id="a certificate"),
    ],
)
def test_a_secret_of_a_useless_type_is_never_touched(named: ObservedSecret, adopt: Any, expected: str) -> None:
    found = decide(in_order(named), replace(REQUEST, adopt=adopt), NEW, ClusterMemory())

    if expected == CONFLICT:
        assert found.blocked is not None
    else:
        assert summary(found.actions) == [("create", "Secret", "token-2", "SecretMissing"), ISSUE_NEW]


def test_an_opaque_secret_of_ours_cannot_hold_the_token_of_secret_mode() -> None:
    found = decide(in_order(secret()), SECRET, KEEP, ClusterMemory(generation="token"))

    assert summary(found.actions) == [("create", "Secret", "token-2", "SecretMissing"), ISSUE_DEAD]
    assert found.retired == (RetiredSecret("token", "uid-token", NOW + OVERLAP),)


def test_an_empty_namesake_is_no_token_secret_in_secret_mode() -> None:
    assert decide(in_order(secret(labels=UNLABELLED)), SECRET, NEW, ClusterMemory()).blocked is not None


@pytest.mark.parametrize(
    ("secrets", "memory", "need", "name", "actions"),
    [
        pytest.param(
            [secret()],
            ClusterMemory(generation="token"),
            DUE,
            "token",
            ["TokenDue"],
            id="renewal binds to the same one",
        ),
        pytest.param([secret()], ClusterMemory(), KEEP, "token", [], id="a forgotten generation is no reason to issue"),
        pytest.param(
            [secret()],
            ClusterMemory(generation="token-2"),
            KEEP,
            "token",
            ["TokenDead"],
            id="the published one is gone",
        ),
        pytest.param(
            [secret(), secret("token-2", 2)],
            ClusterMemory(),
            NEW,
            "token-2",
            ["New"],
            id="the newest where none is published",
        ),
        pytest.param(
            [secret(generation=None)],
            ClusterMemory(generation="token"),
            KEEP,
            "token",
            ["MetadataDrifted"],
            id="no number means 1, and the label is restored",
        ),
        pytest.param(
            [secret(labels={**OURS, GENERATION_LABEL: "²"})],
            ClusterMemory(generation="token"),
            KEEP,
            "token",
            ["MetadataDrifted"],
            id="so does junk",
        ),
    ],
)
def test_request_mode_binds_to_one_secret(
    secrets: list[ObservedSecret], memory: ClusterMemory, need: TokenNeed, name: str, actions: list[str]
) -> None:
    found = decide(in_order(*secrets), REQUEST, need, memory)

    assert found.secret == name
    assert [action.reason for action in found.actions] == actions


def test_a_deleted_secret_is_made_again_and_the_token_with_it() -> None:
    found = decide(replace(in_order(), secrets=()))

    assert summary(found.actions) == [("create", "Secret", "token", "SecretMissing"), ISSUE_DEAD]


@pytest.mark.parametrize(
    ("secrets", "memory", "need", "name", "actions"),
    [
        pytest.param([filled()], "token", KEEP, "token", [], id="nothing is due"),
        pytest.param(
            [filled()],
            "token",
            DUE,
            "token-2",
            [("create", "Secret", "token-2", "TokenDue"), ("issue", "Token", "sa", "TokenDue")],
            id="a replacement is a new generation",
        ),
        pytest.param(
            [filled(), filled("token-2", 2)],
            "token",
            DUE,
            "token-2",
            [("issue", "Token", "sa", "TokenDue")],
            id="one that was made and never published is used",
        ),
        pytest.param(
            [filled("token-7", 7)],
            "token-7",
            DUE,
            "token-8",
            [("create", "Secret", "token-8", "TokenDue"), ("issue", "Token", "sa", "TokenDue")],
            id="numbers only grow",
        ),
        pytest.param(
            [filled(), filled("token-2", labels=UNLABELLED)],
            "token",
            DUE,
            "token-3",
            [("create", "Secret", "token-3", "TokenDue"), ("issue", "Token", "sa", "TokenDue")],
            id="a taken name is passed over",
        ),
        pytest.param(
            [filled()], "token-9", DUE, "token", [("issue", "Token", "sa", "TokenDue")], id="what is left is used"
        ),
        pytest.param([filled()], None, NEW, "token", [ISSUE_NEW], id="what a crash left is used"),
        pytest.param(
            [filled(service_account="old")],
            "token",
            KEEP,
            "token-2",
            [("create", "Secret", "token-2", "SecretMissing"), ISSUE_DEAD],
            id="another account's token is of no use",
        ),
    ],
)
def test_secret_mode_has_generations(
    secrets: list[ObservedSecret], memory: str | None, need: TokenNeed, name: str, actions: list[tuple[str, ...]]
) -> None:
    found = decide(in_order(*secrets), SECRET, need, ClusterMemory(generation=memory))

    assert found.secret == name
    assert summary(found.actions) == actions


def test_in_secret_mode_a_lost_service_account_takes_every_generation_with_it() -> None:
    found = decide(in_order(filled(), service_account=None), SECRET)

    assert summary(found.actions)[1:] == [("create", "Secret", "token-2", "SecretMissing"), ISSUE_DEAD]


def test_a_replaced_generation_is_remembered_with_its_end() -> None:
    found = decide(in_order(filled()), SECRET, DUE)

    assert found.retired == (RetiredSecret("token", "uid-token", NOW + OVERLAP),)


@pytest.mark.parametrize(
    ("uid", "end", "deleted"),
    [
        pytest.param("uid-token", NOW, True, id="its time has come"),
        pytest.param("uid-token", NOW + timedelta(seconds=1), False, id="its time has not come"),
        pytest.param("uid-else", NOW, False, id="it is another Secret of the same name"),
    ],
)
def test_a_retired_generation_is_deleted_after_the_overlap(uid: str, end: datetime, deleted: bool) -> None:  # noqa: FBT001
    memory = ClusterMemory(generation="token-2", retired=(RetiredSecret("token", uid, end),))
    found = decide(in_order(filled(), filled("token-2", 2)), SECRET, memory=memory)

    if deleted:
        assert summary(found.actions) == [("delete", "Secret", "token", "OverlapOver")]
        assert found.actions[0].meta == filled().meta
        assert found.retired == ()
    else:
        assert found.actions == ()
        assert [retired.name for retired in found.retired] == ["token"]


def test_what_carries_our_name_but_no_generation_is_never_deleted() -> None:
    """The daemon's own deployment may label Secrets as it likes, in the same namespace."""
    own = secret("palette-sync-redis", None, empty=False)
    memory = ClusterMemory(generation="token", retired=(RetiredSecret("palette-sync-redis", own.meta.uid, NOW),))

    assert decide(in_order(secret(), own), memory=memory) == Plan(secret="token")


@pytest.mark.parametrize("kind", list(Kind))
def test_what_may_not_be_read_is_not_judged(kind: Kind) -> None:
    blind = {
        Kind.NAMESPACE: in_order(namespace=None),
        Kind.SERVICE_ACCOUNT: in_order(service_account=None),
        Kind.SECRET: replace(in_order(), secrets=()),
        Kind.CLUSTER_ROLE: in_order(cluster_role=None),
        Kind.CLUSTER_ROLE_BINDING: in_order(cluster_role_binding=None),
        Kind.TOKEN: in_order(),
    }[kind]
    retired = (RetiredSecret("old", "uid-old", NOW),)
    found = decide(
        replace(blind, unreadable=frozenset({kind})), memory=ClusterMemory(generation="token", retired=retired)
    )

    assert found.actions == ()
    assert not found.issue
    if kind is Kind.SECRET:
        assert (found.secret, found.retired) == ("token", retired)


def test_legacy_secrets_are_deleted_on_demand_only_those_of_our_account() -> None:
    observed = in_order(
        LEGACY_KNOWN,
        filled("found", labels=UNLABELLED),
        filled("helms", labels=HELM),
        filled("others", labels=UNLABELLED, service_account="x"),
        filled("current", 2),
        secret("token-3", 3),
    )

    actions = plan_replace_legacy(REQUEST, observed)

    assert summary(actions) == [
        ("delete", "Secret", "token", "LegacyToken"),
        ("delete", "Secret", "found", "LegacyToken"),
    ]
    assert actions[0].meta == LEGACY_KNOWN.meta


@pytest.mark.parametrize("label", ["9" * 5000, "9" * 63, "-5", "1e9", "\u0661", ""])
def test_a_label_that_is_no_generation_counts_as_the_first(label: str) -> None:
    damaged = secret()
    damaged = replace(damaged, meta=replace(damaged.meta, labels={**OURS, GENERATION_LABEL: label}))

    assert damaged.generation == 1


# -- the operator's labels and annotations ---------------------------------------------------------------------------

LABELLED = replace(
    REQUEST, labels={"example.com/team": "platform"}, annotations={"example.com/note": "from the portal"}
)


def marked(one: Any, **changes: Any) -> Any:
    """An observed object that carries what `LABELLED` wants, beside what others added."""
    labels = {**one.meta.labels, **LABELLED.labels, "other": "stays"}
    annotations = {**one.meta.annotations, **LABELLED.annotations, "other": "stays"}
    return replace(one, meta=replace(one.meta, labels=labels, annotations=annotations), **changes)


def in_order_and_marked() -> Observed:
    plain = in_order()
    return Observed(
        namespace=marked(plain.namespace),
        service_account=marked(plain.service_account),
        secrets=(marked(plain.secrets[0]),),
        cluster_role=marked(plain.cluster_role),
        cluster_role_binding=marked(plain.cluster_role_binding),
    )


@pytest.mark.parametrize("desired", [LABELLED, replace(LABELLED, token_source="secret")], ids=["request", "secret"])
def test_every_object_that_is_made_carries_the_operators_labels_and_annotations(desired: Desired) -> None:
    made = [action for action in decide(Observed(), desired, NEW, ClusterMemory()).actions if action.verb == "create"]

    assert {action.kind for action in made} == {kind for kind in Kind if kind is not Kind.TOKEN}
    for action in made:
        assert action.wanted is not None
        assert action.wanted.labels.items() >= {**LABELLED.labels, **OURS}.items(), action.kind
        assert action.wanted.annotations.items() >= LABELLED.annotations.items(), action.kind


def test_what_others_added_is_no_difference() -> None:
    assert decide(in_order_and_marked(), LABELLED) == Plan(secret="token")
    assert decide(in_order_and_marked(), REQUEST) == Plan(secret="token"), "a label that is no longer wanted stays"


def test_existing_objects_are_brought_in_line_and_keep_their_token() -> None:
    found = decide(in_order(), LABELLED)

    assert summary(found.actions) == [
        ("update", "ClusterRole", "reader", "MetadataDrifted"),
        ("update", "Namespace", "tools", "MetadataDrifted"),
        ("update", "ServiceAccount", "sa", "MetadataDrifted"),
        ("update", "Secret", "token", "MetadataDrifted"),
        ("update", "ClusterRoleBinding", "binding", "MetadataDrifted"),
    ]
    assert not found.issue


@pytest.mark.parametrize("what", ["labels", "annotations"])
@pytest.mark.parametrize("field", ["namespace", "service_account", "secrets", "cluster_role", "cluster_role_binding"])
def test_a_changed_label_or_annotation_is_restored(field: str, what: str) -> None:
    observed = in_order_and_marked()
    one = observed.secrets[0] if field == "secrets" else getattr(observed, field)
    key = next(iter(getattr(LABELLED, what)))
    damaged = replace(one, meta=replace(one.meta, **{what: {**getattr(one.meta, what), key: "changed"}}))
    observed = replace(observed, **{field: (damaged,) if field == "secrets" else damaged})

    (action,) = decide(observed, LABELLED).actions

    assert (action.verb, action.reason) == ("update", Reason.METADATA_DRIFTED)
    assert key in action.message
    assert action.meta == damaged.meta


def test_a_namespace_of_somebody_else_is_never_labelled() -> None:
    foreign = ObservedNamespace(meta("tools", UNLABELLED))

    assert decide(replace(in_order_and_marked(), namespace=foreign), LABELLED) == Plan(secret="token")


@pytest.mark.parametrize(("automount", "reasons"), [(None, []), (False, []), (True, ["AccountDrifted"])])
def test_a_service_account_that_mounts_its_token_into_pods_is_repaired(
    automount: bool | None,  # noqa: FBT001 - a table
    reasons: list[str],
) -> None:
    found = decide(in_order(service_account=ObservedServiceAccount(meta("sa"), automount)))

    assert [action.reason for action in found.actions] == reasons


def test_another_secret_of_ours_is_never_taken_for_a_generation() -> None:
    """The installation itself may keep Secrets in the same namespace, with our label on them."""
    own = secret("palette-sync-redis", generation=None)

    found = decide(in_order(own), need=NEW, memory=ClusterMemory())

    assert found.secret == "token"
    assert ("create", "Secret", "token", "SecretMissing") in summary(found.actions)


def test_an_adopted_account_that_mounts_its_token_is_brought_in_line_in_one_write() -> None:
    found = decide(in_order(service_account=ObservedServiceAccount(meta("sa", UNLABELLED), automount=True)))

    assert summary(found.actions) == [("update", "ServiceAccount", "sa", "AccountDrifted")]


def test_a_role_that_a_controller_fills_has_drifted_although_its_rules_are_right() -> None:
    ours = ObservedRole(meta("reader"), READ_ONLY, aggregated=True)
    foreign = ObservedRole(meta("reader", UNLABELLED), READ_ONLY, aggregated=True)

    assert summary(decide(in_order(cluster_role=ours)).actions) == [("update", "ClusterRole", "reader", "RoleDrifted")]
    assert decide(in_order(cluster_role=foreign)).blocked is not None


# -- the token of a Secret, refused or too young to be replaced ------------------------------------------------------


def aged(age: timedelta, name: str = "token", generation: int = 1) -> ObservedSecret:
    """A token Secret that is as old by the cluster's clock, which is hours behind the daemon's."""
    return filled(name, generation, created_at=CLUSTER_TIME - age)


CLUSTER_TIME = NOW - timedelta(hours=5)
OLD = timedelta(days=3)
REFUSED = TokenNeed(issue=True, reason=Reason.TOKEN_DEAD, rejected=frozenset({"token"}))


@pytest.mark.parametrize("memory", [None, "token", "token-9"], ids=["forgotten", "published", "another one published"])
def test_a_secret_whose_token_is_refused_is_followed_by_a_new_generation(memory: str | None) -> None:
    observed = in_order(aged(OLD), now=CLUSTER_TIME)

    found = decide(observed, SECRET, REFUSED, ClusterMemory(generation=memory))

    assert found.secret == "token-2"
    assert summary(found.actions) == [
        ("create", "Secret", "token-2", "TokenDead"),
        ("issue", "Token", "sa", "TokenDead"),
    ]
    assert [retired.name for retired in found.retired] == ["token"]


def test_a_newer_generation_that_is_refused_too_is_followed_by_another() -> None:
    need = replace(REFUSED, rejected=frozenset({"token-2"}))

    found = decide(in_order(aged(OLD), aged(OLD, "token-2", 2), now=CLUSTER_TIME), SECRET, need)

    assert found.secret == "token-3"


@pytest.mark.parametrize("need", [DUE, REFUSED], ids=["due", "refused"])
@pytest.mark.parametrize(
    ("age", "name"),
    [
        pytest.param(OVERLAP - timedelta(seconds=1), "token", id="younger than the overlap"),
        pytest.param(OVERLAP, "token-2", id="as old as the overlap"),
    ],
)
def test_generations_are_made_at_most_once_per_overlap(need: TokenNeed, age: timedelta, name: str) -> None:
    found = decide(in_order(aged(age), now=CLUSTER_TIME), SECRET, need)

    assert found.secret == name
    assert found.issue


@pytest.mark.parametrize("changes", [{"now": None}, {"secrets": (filled(),)}], ids=["no clock", "no creation time"])
def test_a_generation_of_unknown_age_may_be_replaced(changes: dict[str, Any]) -> None:
    observed = replace(in_order(aged(timedelta(0)), now=CLUSTER_TIME), **changes)

    assert decide(observed, SECRET, DUE).secret == "token-2"


def test_with_a_token_that_is_bound_to_what_stands_nothing_is_due() -> None:
    need = replace(KEEP, bound=Bound(account_uid="uid-sa", secret_uid="uid-token"))

    assert decide(in_order(), need=need) == Plan(secret="token")


@pytest.mark.parametrize(
    "bound",
    [Bound(account_uid="uid-of-before", secret_uid="uid-token"), Bound(account_uid="uid-sa", secret_uid="uid-before")],
    ids=["account", "Secret"],
)
def test_a_token_of_an_object_that_was_made_again_under_the_same_name_is_dead(bound: Bound) -> None:
    """The API server's token cache may still accept it, for about 10 s."""
    assert summary(decide(in_order(), need=replace(KEEP, bound=bound)).actions) == [ISSUE_DEAD]


@pytest.mark.parametrize("bound", [Bound(), Bound(secret_uid="x")], ids=["says nothing", "Secrets may not be read"])
def test_what_a_token_does_not_say_or_nobody_may_read_is_not_judged(bound: Bound) -> None:
    unreadable = frozenset({Kind.SECRET} if bound.secret_uid else ())
    observed = replace(in_order(), unreadable=unreadable)

    assert decide(observed, need=replace(KEEP, bound=bound)).actions == ()
    assert decide(replace(in_order(), service_account=None), need=replace(KEEP, bound=Bound(account_uid="x"))).issue


ROTATE = TokenNeed(issue=True, reason=Reason.ROTATION_ASKED)
OF_TOKEN = Bound(secret_uid="uid-token")
REVOKE = replace(ROTATE, fresh=True, revoke=True, bound=OF_TOKEN)


def test_a_rotation_without_revocation_keeps_the_secret_in_request_mode() -> None:
    found = decide(in_order(), need=ROTATE)

    assert summary(found.actions) == [("issue", "Token", "sa", "RotationAsked")]
    assert (found.secret, found.retired) == ("token", ())


@pytest.mark.parametrize(
    ("desired", "one"), [(REQUEST, secret()), (SECRET, aged(timedelta(seconds=1)))], ids=["request", "secret"]
)
def test_a_revocation_makes_a_new_secret_and_deletes_nothing_before_its_token_is_published(
    desired: Desired, one: ObservedSecret
) -> None:
    observed = in_order(one, now=CLUSTER_TIME)
    found = decide(observed, desired, REVOKE)

    assert summary(found.actions) == [
        ("create", "Secret", "token-2", "RotationAsked"),
        ("issue", "Token", "sa", "RotationAsked"),
    ]
    assert found.secret == "token-2"
    assert found.retired == (RetiredSecret("token", "uid-token", NOW),)

    memory = ClusterMemory(generation="token-2", retired=found.retired)
    other = filled("token-2", 2) if desired is SECRET else secret("token-2", 2)
    after = decide(
        in_order(one, other, now=CLUSTER_TIME), desired, replace(KEEP, bound=Bound(secret_uid="uid-token-2")), memory
    )
    assert summary(after.actions) == [("delete", "Secret", "token", "OverlapOver")]
    assert (after.issue, after.retired) == (False, ())


def test_a_rotation_makes_a_new_generation_in_secret_mode_whatever_the_age_of_the_last_one() -> None:
    found = decide(in_order(aged(timedelta(seconds=1)), now=CLUSTER_TIME), SECRET, replace(ROTATE, fresh=True))

    assert ("create", "Secret", "token-2", "RotationAsked") in summary(found.actions)
    assert found.retired == (RetiredSecret("token", "uid-token", NOW + OVERLAP),)


def test_a_new_secret_that_was_made_and_not_published_is_used_by_the_next_attempt() -> None:
    found = decide(in_order(secret(), secret("token-2", 2)), need=REVOKE)

    assert summary(found.actions) == [("issue", "Token", "sa", "RotationAsked")]
    assert found.secret == "token-2"


def test_a_secret_that_is_refused_or_holds_the_published_token_is_not_fresh() -> None:
    both = in_order(secret(), secret("token-2", 2))
    refused = replace(REVOKE, rejected=frozenset({"token-2"}))
    forgotten = replace(REVOKE, bound=Bound(secret_uid="uid-token-2"))

    assert decide(both, need=refused).secret == "token-3"
    assert decide(both, need=forgotten, memory=ClusterMemory()).secret == "token-3"
    assert decide(in_order(secrets=()), need=replace(REVOKE, bound=None), memory=ClusterMemory()).secret == "token"


def test_a_revocation_reaches_what_was_retired_before_and_a_secret_without_the_label_of_a_generation() -> None:
    later = (RetiredSecret("token-2", "uid-token-2", NOW + OVERLAP), RetiredSecret("token-3", "uid-token-3", NOW))
    observed = in_order(secret(generation=None), secret("token-2", 2), secret("token-3", 3))
    found = decide(observed, need=REVOKE, memory=ClusterMemory(generation="token", retired=later))

    assert {(one.name, one.delete_at) for one in found.retired} == {("token", NOW), ("token-2", NOW)}


def test_a_retired_secret_without_the_label_is_deleted_too() -> None:
    observed = in_order(secret(generation=None), secret("token-2", 2))
    memory = ClusterMemory(generation="token-2", retired=(RetiredSecret("token", "uid-token", NOW),))

    assert ("delete", "Secret", "token", "OverlapOver") in summary(decide(observed, memory=memory).actions)
