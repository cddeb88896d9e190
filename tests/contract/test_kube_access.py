"""Access to a cluster, against API servers that check preconditions, immutability, RBAC and tokens as real ones do."""

from __future__ import annotations

import asyncio
import base64
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from integration.store_builders import until
from loopback import LOOPBACK
from palette_sync import kube
from palette_sync.core.model import ClusterKey, ClusterMemory, Credential, RetiredSecret, Secret, Server
from palette_sync.core.objects import GENERATION_LABEL, LEGACY_LABEL, MANAGED_BY_LABEL, TOKEN_SECRET_TYPE, Desired, Kind
from palette_sync.core.plan import TokenNeed
from palette_sync.core.policy import TokenPolicy
from palette_sync.core.rbac import READ_ONLY, VIEW, PolicyRule
from palette_sync.kube import tokens
from palette_sync.reconcile import access
from palette_sync.simulator import Simulator, SimulatorOptions
from palette_sync.simulator.faults import Fault
from palette_sync.simulator.kubeconfig_files import admin_kubeconfig

SPACE = "backstage-system"
REQUEST = Desired(
    SPACE, "backstage-sa", "backstage-sa-token", "backstage-read-only", "backstage-read-only-binding", READ_ONLY
)
SECRET = replace(REQUEST, token_source="secret")
POLICY = TokenPolicy(validity=timedelta(hours=24), rotate_every=timedelta(days=30), overlap=timedelta(minutes=10))
NEW = TokenNeed(issue=True, reason="New")
DUE = TokenNeed(issue=True, reason="TokenDue")
KEEP = TokenNeed(issue=False, reason="VerifyDue")
OURS = {MANAGED_BY_LABEL: "palette-sync"}
HERE = kube.Requests(network=LOOPBACK)
RBAC = "rbac.authorization.k8s.io"


@dataclass
class Stage:
    """One simulated cluster and the operations on it."""

    sim: Simulator
    cluster: Any
    desired: Desired = REQUEST
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.requests = kube.Requests(
            lambda operation, outcome: self.outcomes.update([(operation, outcome)]), network=LOOPBACK
        )

    @property
    def store(self) -> Any:
        return self.cluster.kube

    @property
    def admin(self) -> kube.AdminAccess:
        return kube.parse(Secret(admin_kubeconfig(self.cluster)))

    async def grant(self, need: TokenNeed = NEW, memory: ClusterMemory | None = None, **options: Any) -> access.Granted:
        return await access.grant(
            self.admin,
            self.desired,
            need=need,
            memory=memory or ClusterMemory(),
            key=ClusterKey("alpha", self.cluster.uid),
            now=options.pop("now", datetime.now(UTC)),
            token_policy=options.pop("policy", POLICY),
            timeout=options.pop("timeout", 60),
            requests=self.requests,
            **options,
        )

    async def check(
        self, granted: access.Granted, *, token: Secret | None = None, server: Server | None = None, **options: Any
    ) -> access.Checked:
        assert token is not None or granted.credential is not None
        return await access.check(
            server or granted.server,
            token or token_of(granted),
            self.desired,
            memory=ClusterMemory(generation=granted.generation),
            now=datetime.now(UTC),
            token_policy=POLICY,
            timeout=60,
            requests=self.requests,
            **options,
        )

    def writes(self) -> list[str]:
        """Every request so far that changes something, as the API server saw it."""
        entries = [entry for entry in self.sim.requests.entries if entry.target == "kube" and entry.method != "GET"]
        return [
            f"{entry.method} {entry.path}"
            for entry in entries
            if "selfsubjectaccessreviews" not in entry.path and "dryRun" not in entry.query
        ]

    def once_before(self, method: str, part: str, act: Callable[[], object]) -> None:
        """Do `act` right before the API server first handles such a request: the other writer."""
        answer, done = self.cluster.answer, []

        def racing(call: Any) -> Any:
            if not done and call.method == method and part in call.path:
                done.append(True)
                act()
            return answer(call)

        self.cluster.answer = racing

    def labels(self, kind: str, name: str, space: str | None = SPACE) -> dict[str, str]:
        labels: dict[str, str] = self.store.get(kind, space, name)["metadata"].get("labels") or {}
        return labels


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    options = SimulatorOptions(instances=1, projects=1, clusters=1, rate_limits=False)
    async with Simulator(options) as sim:
        yield Stage(sim, next(iter(sim.world.clusters.values())))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def token_of(granted: access.Granted) -> Secret:
    assert isinstance(granted.credential, Credential)
    return granted.credential.token


def rows_of(actions: Any) -> list[tuple[str, str, str]]:
    return [(action.verb, action.kind.value, action.reason) for action in actions]


def legacy_setup(store: Any) -> None:
    """What the in-process plugin leaves behind under the same default names; its token has long been there."""
    store.fill_delay = 0.0
    store.put("Namespace", None, SPACE, {"status": {"phase": "Active"}})
    store.put("ServiceAccount", SPACE, REQUEST.service_account, {"secrets": [{"name": "x"}]})
    store.put(
        "Secret",
        SPACE,
        REQUEST.secret,
        {
            "type": TOKEN_SECRET_TYPE,
            "metadata": {"annotations": {"kubernetes.io/service-account.name": REQUEST.service_account}},
        },
    )
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["watch", "list", "get"]}]
    store.put("ClusterRole", None, REQUEST.cluster_role, {"rules": rules})
    store.put(
        "ClusterRoleBinding",
        None,
        REQUEST.cluster_role_binding,
        {
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": REQUEST.cluster_role},
            "subjects": [{"kind": "ServiceAccount", "name": REQUEST.service_account, "namespace": SPACE}],
        },
    )


async def test_first_access_creates_the_five_objects_and_proves_the_token(stage: Stage) -> None:
    granted = await stage.grant()

    assert rows_of(granted.actions) == [
        ("create", "ClusterRole", "Missing"),
        ("create", "Namespace", "Missing"),
        ("create", "ServiceAccount", "Missing"),
        ("create", "Secret", "SecretMissing"),
        ("create", "ClusterRoleBinding", "Missing"),
        ("issue", "Token", "New"),
    ]
    for kind, space, name in (
        ("Namespace", None, SPACE),
        ("ServiceAccount", SPACE, REQUEST.service_account),
        ("Secret", SPACE, REQUEST.secret),
        ("ClusterRole", None, REQUEST.cluster_role),
        ("ClusterRoleBinding", None, REQUEST.cluster_role_binding),
    ):
        assert stage.labels(kind, name, space)[MANAGED_BY_LABEL] == "palette-sync"
    assert stage.labels("Secret", REQUEST.secret)[GENERATION_LABEL] == "1"
    assert stage.store.get("ServiceAccount", SPACE, REQUEST.service_account)["automountServiceAccountToken"] is False
    assert granted.kubernetes_version == stage.cluster.version
    assert (granted.generation, granted.legacy, granted.retired) == (REQUEST.secret, False, ())
    assert stage.requests.total == stage.sim.requests.count("kube")
    assert (await stage.check(granted)).healthy


async def test_an_unchanged_cluster_gets_no_write_and_few_requests(stage: Stage) -> None:
    granted = await stage.grant()
    stage.sim.requests.reset()
    before = stage.requests.total

    checked = await stage.check(granted)
    assert checked.healthy
    assert checked.kubernetes_version == stage.cluster.version
    assert stage.requests.total - before == stage.sim.requests.count("kube") == 7
    assert {entry.credential for entry in stage.sim.requests.entries} == {"bearer"}

    stage.sim.requests.reset()
    again = await stage.grant(KEEP, ClusterMemory(generation=granted.generation))
    assert again.actions == ()
    assert again.credential is None
    assert stage.sim.requests.count("kube") == 5
    assert stage.writes() == []


async def test_a_renewed_token_costs_one_write_and_the_old_one_lives_on(stage: Stage) -> None:
    granted = await stage.grant()
    stage.sim.requests.reset()

    renewed = await stage.grant(DUE, ClusterMemory(generation=granted.generation))

    assert rows_of(renewed.actions) == [("issue", "Token", "TokenDue")]
    assert [path.rsplit("/", 1)[1] for path in stage.writes()] == ["token"]
    assert token_of(renewed) != token_of(granted)
    assert (await stage.check(granted)).healthy
    assert (await stage.check(renewed)).healthy


async def test_life_and_renewal_follow_what_was_granted_not_what_was_asked(stage: Stage) -> None:
    stage.sim.world.set_token_cap(stage.cluster.uid, 3600)

    credential = (await stage.grant()).credential

    assert credential is not None
    assert credential.expires_at is not None
    life = credential.expires_at - credential.issued_at
    assert life == timedelta(hours=1)
    assert life / 3 <= credential.renew_at - credential.issued_at <= life * 2 / 3
    assert abs(credential.issued_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_cluster_whose_clock_runs_ahead_does_not_seem_to_issue_in_the_future(stage: Stage) -> None:
    stage.sim.world.advance(3 * 3600)
    now = datetime.now(UTC)

    credential = (await stage.grant(now=now)).credential

    assert credential is not None
    assert credential.issued_at == now
    assert credential.expires_at == now + timedelta(hours=24)


async def test_a_validity_below_ten_minutes_is_told_as_invalid(stage: Stage) -> None:
    with pytest.raises(kube.KubeError, match="less than 10 minutes", check=lambda error: error.reason == "Invalid"):
        await stage.grant(policy=replace(POLICY, validity=timedelta(seconds=599)))


async def test_a_dry_run_lists_all_and_writes_nothing(stage: Stage) -> None:
    granted = await stage.grant(dry_run=True)

    assert [action.verb for action in granted.actions] == ["create"] * 5 + ["issue"]
    assert granted.credential is None
    assert stage.writes() == []


DRIFTS = {
    "rules": (("ClusterRole", None, REQUEST.cluster_role), {"rules": []}, ("update", "ClusterRole", "RoleDrifted")),
    "roleRef": (
        ("ClusterRoleBinding", None, REQUEST.cluster_role_binding),
        {"roleRef": {"name": "view"}},
        ("replace", "ClusterRoleBinding", "RoleRefChanged"),
    ),
    "subjects": (
        ("ClusterRoleBinding", None, REQUEST.cluster_role_binding),
        {"subjects": [{"kind": "User", "name": "eve"}]},
        ("update", "ClusterRoleBinding", "SubjectsDrifted"),
    ),
    "lost labels": (
        ("ClusterRole", None, REQUEST.cluster_role),
        {"metadata": {"labels": None}},
        ("update", "ClusterRole", "Adopted"),
    ),
}


@pytest.mark.parametrize("drift", DRIFTS)
async def test_drift_is_repaired_once_and_the_token_kept(stage: Stage, drift: str) -> None:
    granted = await stage.grant()
    where, change, expected = DRIFTS[drift]
    stage.store.patch(*where, change)
    stage.sim.requests.reset()

    repaired = await stage.grant(KEEP, ClusterMemory(generation=granted.generation))

    assert rows_of(repaired.actions) == [expected]
    assert len(stage.writes()) == (2 if expected[0] == "replace" else 1)
    assert (await stage.check(granted)).healthy


async def test_the_published_token_alone_sees_drift_that_leaves_it_working(stage: Stage) -> None:
    granted = await stage.grant()
    wider = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    stage.store.patch("ClusterRole", None, REQUEST.cluster_role, {"rules": wider})

    checked = await stage.check(granted)

    assert not checked.healthy
    assert not checked.dead
    assert rows_of(checked.actions) == [("update", "ClusterRole", "RoleDrifted")]


async def test_foreign_fields_survive_a_repair(stage: Stage) -> None:
    await stage.grant()
    mark = {"metadata": {"annotations": {"team": "x"}, "labels": {"team": "x"}}, "rules": []}
    stage.store.patch("ClusterRole", None, REQUEST.cluster_role, mark)

    await stage.grant(KEEP, ClusterMemory(generation=REQUEST.secret))

    found = stage.store.get("ClusterRole", None, REQUEST.cluster_role)["metadata"]
    assert found["annotations"] == {"team": "x"}
    assert found["labels"] == {"team": "x", **OURS}


async def test_an_aggregated_role_is_taken_out_of_aggregation_so_that_its_rules_stay(stage: Stage) -> None:
    await stage.grant()
    stage.store.patch("ClusterRole", None, REQUEST.cluster_role, {"rules": [], "aggregationRule": {"x": []}})

    await stage.grant(KEEP, ClusterMemory(generation=REQUEST.secret))

    assert "aggregationRule" not in stage.store.get("ClusterRole", None, REQUEST.cluster_role)


@pytest.mark.parametrize("lost", ["ServiceAccount", "Secret", "Namespace"])
async def test_what_the_token_hangs_on_is_made_again_and_the_token_issued_anew(stage: Stage, lost: str) -> None:
    granted = await stage.grant()
    name = {"ServiceAccount": REQUEST.service_account, "Secret": REQUEST.secret, "Namespace": SPACE}[lost]
    stage.store.remove(lost, None if lost == "Namespace" else SPACE, name)

    renewed = await stage.grant(KEEP, ClusterMemory(generation=granted.generation))

    assert rows_of(renewed.actions)[-1] == ("issue", "Token", "TokenDead")
    assert (await stage.check(renewed)).healthy


async def test_a_dead_token_is_reported_after_a_few_seconds_of_asking(stage: Stage) -> None:
    granted = await stage.grant()
    stage.store.remove("Secret", SPACE, REQUEST.secret)
    stage.outcomes.clear()

    checked = await stage.check(granted)

    assert checked.dead
    assert not checked.healthy
    ((operation, outcome),) = stage.outcomes
    assert (operation, outcome) == ("create_self_subject_access_review", "unauthorized")
    assert stage.outcomes.total() > 3


async def test_a_stale_token_beside_a_valid_certificate_does_no_harm(stage: Stage) -> None:
    admin = kube.parse(Secret(admin_kubeconfig(stage.cluster) + "    token: stale\n"))

    seen: list[str | None] = []
    answer = stage.cluster.answer
    stage.cluster.answer = lambda call: seen.append(call.headers.get("Authorization")) or answer(call)
    names = await access.replace_legacy(admin, REQUEST, timeout=60, dry_run=True, requests=HERE)

    assert names == ()
    assert set(seen) == {"Bearer stale"}
    assert {entry.credential for entry in stage.sim.requests.entries} == {"client-certificate"}


async def test_a_valid_token_beside_a_certificate_of_another_authority_works(stage: Stage) -> None:
    """kubectl sends both, and the API server falls back to the token where the certificate does not count."""
    token = token_of(await stage.grant())
    stage.cluster.answer = _without_certificates(stage.cluster.answer)
    admin = kube.parse(Secret(admin_kubeconfig(stage.cluster) + f"    token: {token.reveal()}\n"))

    async with kube.KubeApi(admin.server, admin.credential, timeout=60, requests=HERE) as api:
        found = await api.call("namespace", api.core.read_namespace, SPACE)

    assert found["metadata"]["name"] == SPACE


def _without_certificates(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An API server to which no client certificate means anything."""
    return lambda call: answer(replace(call, client_subject=None))


async def test_a_refusal_that_passes_is_waited_out(stage: Stage) -> None:
    """Several API servers: one of them does not know the new token yet."""
    stage.sim.faults.add(Fault(target="kube", kind="status", status=401, path="selfsubjectaccessreviews", times=2))

    granted = await stage.grant()

    assert granted.credential is not None
    assert stage.sim.requests.count("kube", path_regex="selfsubjectaccessreviews") == 3


async def test_a_token_that_stays_refused_is_never_handed_out(stage: Stage) -> None:
    stage.sim.faults.add(Fault(target="kube", kind="status", status=401, path="selfsubjectaccessreviews"))

    with pytest.raises(kube.KubeError, check=lambda error: error.reason == "TokenRejected"):
        await stage.grant()


def forbidding(path: str, user: str | None) -> Fault:
    """What an authorizer answers that refuses `path` to `user`."""
    named = f'User \\"{user}\\" cannot create it' if user else "no"
    body = f'{{"kind": "Status", "reason": "Forbidden", "message": "it is forbidden: {named}"}}'
    return Fault(target="kube", kind="status", status=403, body=body, path=path)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(forbidding("^/version/?$", "system:serviceaccount:a:b"), id="forbidden"),
        pytest.param(Fault(target="kube", kind="status", status=500, path="^/version/?$"), id="failing"),
        pytest.param(Fault(target="kube", kind="status", status=401, path="^/version/?$"), id="unauthorized"),
        pytest.param(Fault(target="kube", kind="garbage", path="^/version/?$"), id="garbage"),
        pytest.param(Fault(target="kube", kind="drop", path="^/version/?$"), id="a broken connection"),
    ],
)
async def test_a_cluster_that_does_not_tell_its_version_has_access_all_the_same(stage: Stage, fault: Fault) -> None:
    stage.sim.faults.add(fault)

    granted = await stage.grant()
    checked = await stage.check(granted)

    assert granted.credential is not None
    assert granted.kubernetes_version is None
    assert checked.healthy
    assert checked.kubernetes_version is None


async def test_a_version_that_hangs_uses_up_only_a_part_of_the_clusters_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "VERSION_TIMEOUT", 0.2)
    stage.sim.faults.add(Fault(target="kube", kind="hang", path="^/version/?$"))

    async with asyncio.timeout(30):
        granted = await stage.grant(timeout=3600)

    assert granted.credential is not None


async def test_a_refused_access_review_that_names_the_account_proves_the_token(stage: Stage) -> None:
    stage.sim.faults.add(forbidding("selfsubjectaccessreviews", f"system:serviceaccount:{SPACE}:backstage-sa"))

    granted = await stage.grant()

    assert granted.credential is not None
    assert (await stage.check(granted)).healthy
    assert stage.sim.requests.count("kube", path_regex="selfsubjectaccessreviews") == 2


@pytest.mark.parametrize("user", ["system:anonymous", "system:serviceaccount:other:backstage-sa", None])
async def test_a_refused_access_review_of_somebody_else_proves_nothing(stage: Stage, user: str | None) -> None:
    stage.sim.faults.add(forbidding("selfsubjectaccessreviews", user))

    with pytest.raises(kube.KubeError, check=lambda error: error.reason == "Forbidden"):
        await stage.grant()


async def test_a_token_that_may_not_what_its_rules_say_is_never_handed_out(stage: Stage) -> None:
    denied = '{"status": {"allowed": false}}'
    stage.sim.faults.add(Fault(target="kube", kind="status", status=201, body=denied, path="selfsubjectaccessreviews"))

    with pytest.raises(kube.KubeError, match="list pods", check=lambda error: error.reason == "AccessDenied"):
        await stage.grant()


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(VIEW, id="the view preset"),
        pytest.param((PolicyRule(("",), ("pods/log",), ("get",)),), id="a subresource"),
        pytest.param((PolicyRule(("",), ("configmaps",), ("get",), ("one",)),), id="one object"),
        pytest.param((PolicyRule(verbs=("get",), non_resource_urls=("/metrics",)),), id="a path"),
    ],
)
async def test_every_kind_of_rules_can_be_proven(stage: Stage, rules: tuple[PolicyRule, ...]) -> None:
    stage.desired = replace(REQUEST, rules=rules)

    granted = await stage.grant()

    assert granted.credential is not None
    again = await stage.grant(KEEP, ClusterMemory(generation=granted.generation))
    assert again.actions == ()


async def test_a_token_that_reads_no_secrets_verifies_all_the_same(stage: Stage) -> None:
    stage.desired = replace(REQUEST, rules=VIEW)
    granted = await stage.grant()

    checked = await stage.check(granted)

    assert checked.healthy
    assert checked.legacy is None


async def test_a_token_that_reads_too_little_names_what_only_the_admin_can_judge(stage: Stage) -> None:
    stage.desired = replace(REQUEST, rules=(PolicyRule(("",), ("pods",), ("list",)),))
    granted = await stage.grant()

    checked = await stage.check(granted)

    assert not checked.healthy
    assert checked.unreadable == {Kind.NAMESPACE, Kind.SERVICE_ACCOUNT, Kind.CLUSTER_ROLE, Kind.CLUSTER_ROLE_BINDING}
    assert checked.actions == ()


async def test_a_cluster_of_the_in_process_plugin_migrates_without_losing_its_token(stage: Stage) -> None:
    legacy_setup(stage.store)
    old = stage.store.get("Secret", SPACE, REQUEST.secret).get("data")

    granted = await stage.grant()

    assert rows_of(granted.actions) == [
        ("update", "ClusterRole", "Adopted"),
        ("update", "ServiceAccount", "Adopted"),
        ("update", "Secret", "LegacyToken"),
        ("create", "Secret", "SecretMissing"),
        ("update", "ClusterRoleBinding", "Adopted"),
        ("issue", "Token", "New"),
    ]
    assert granted.legacy
    assert granted.generation == f"{REQUEST.secret}-2"
    assert MANAGED_BY_LABEL not in stage.labels("Namespace", SPACE, None)
    assert stage.labels("Secret", REQUEST.secret)[LEGACY_LABEL] == "true"
    assert old["token"]
    assert stage.store.get("Secret", SPACE, REQUEST.secret)["data"] == old
    assert stage.store.get("ServiceAccount", SPACE, REQUEST.service_account)["secrets"] == [{"name": "x"}]
    checked = await stage.check(granted)
    assert checked.healthy
    assert checked.legacy


async def test_replacing_the_legacy_token_keeps_ours(stage: Stage) -> None:
    legacy_setup(stage.store)
    granted = await stage.grant()

    told_only = await access.replace_legacy(stage.admin, REQUEST, timeout=60, dry_run=True, requests=HERE)
    assert stage.store.get("Secret", SPACE, REQUEST.secret) is not None
    deleted = await access.replace_legacy(stage.admin, REQUEST, timeout=60, dry_run=False, requests=HERE)

    assert told_only == deleted == (REQUEST.secret,)
    assert stage.store.get("Secret", SPACE, REQUEST.secret) is None
    assert (await stage.check(granted)).healthy
    assert await access.replace_legacy(stage.admin, REQUEST, timeout=60, dry_run=False, requests=HERE) == ()


async def test_a_legacy_secret_that_somebody_else_deletes_meanwhile_is_gone_all_the_same(stage: Stage) -> None:
    legacy_setup(stage.store)
    stage.once_before("DELETE", "/secrets/", lambda: stage.store.remove("Secret", SPACE, REQUEST.secret))

    assert await access.replace_legacy(stage.admin, REQUEST, timeout=60, dry_run=False, requests=HERE) == (
        REQUEST.secret,
    )


async def test_a_conflict_leaves_the_whole_cluster_untouched(stage: Stage) -> None:
    stage.store.put("ClusterRole", None, REQUEST.cluster_role, {"rules": []})

    with pytest.raises(kube.Blocked, match="other rules", check=lambda error: error.reason == "Conflict"):
        await stage.grant()

    assert stage.writes() == []


async def test_a_terminating_namespace_is_waited_for(stage: Stage) -> None:
    await stage.grant()
    stage.store.termination_delay = None
    stage.store.patch("Namespace", None, SPACE, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    stage.sim.requests.reset()

    with pytest.raises(kube.Blocked, check=lambda error: error.reason == "NamespaceTerminating"):
        await stage.grant()
    assert stage.writes() == []

    stage.store.finish_termination(SPACE)
    assert (await stage.grant()).credential is not None


async def test_a_namespace_that_begins_to_end_between_looking_and_writing_is_told_as_such(stage: Stage) -> None:
    await stage.grant()
    stage.store.remove("ServiceAccount", SPACE, REQUEST.service_account)
    ending = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    stage.once_before("POST", "/serviceaccounts", lambda: stage.store.patch("Namespace", None, SPACE, ending))

    with pytest.raises(kube.Blocked, check=lambda error: error.reason == "NamespaceTerminating"):
        await stage.grant(KEEP)


async def test_another_writer_that_creates_the_same_is_looked_at_again(stage: Stage) -> None:
    def other() -> None:
        rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
        stage.store.put("ClusterRole", None, REQUEST.cluster_role, {"metadata": {"labels": OURS}, "rules": rules})

    stage.once_before("POST", "/clusterroles", other)

    granted = await stage.grant()

    assert ("create", "ClusterRole", "Missing") not in rows_of(granted.actions)
    assert (await stage.check(granted)).healthy


async def test_a_namesake_that_appears_meanwhile_is_not_taken_over(stage: Stage) -> None:
    stage.once_before(
        "POST", "/clusterroles", lambda: stage.store.put("ClusterRole", None, REQUEST.cluster_role, {"rules": []})
    )

    with pytest.raises(kube.Blocked, check=lambda error: error.reason == "Conflict"):
        await stage.grant()
    assert stage.store.get("ClusterRole", None, REQUEST.cluster_role)["rules"] == []


async def test_a_change_between_looking_and_repairing_is_not_overwritten_blindly(stage: Stage) -> None:
    granted = await stage.grant()
    where = ("ClusterRole", None, REQUEST.cluster_role)
    stage.store.patch(*where, {"rules": []})
    stage.once_before("PATCH", "/clusterroles", lambda: stage.store.patch(*where, {"metadata": {"labels": {"a": "b"}}}))
    stage.sim.requests.reset()

    repaired = await stage.grant(KEEP, ClusterMemory(generation=granted.generation))

    assert rows_of(repaired.actions) == [("update", "ClusterRole", "RoleDrifted")]
    assert [entry.status for entry in stage.sim.requests.entries if entry.method == "PATCH"] == [409, 200]


async def test_a_binding_that_was_replaced_meanwhile_is_not_deleted(stage: Stage) -> None:
    granted = await stage.grant()
    where = ("ClusterRoleBinding", None, REQUEST.cluster_role_binding)
    right = stage.store.get(*where)
    stage.store.patch(*where, {"roleRef": {"name": "view"}})
    stage.once_before("DELETE", "/clusterrolebindings", lambda: stage.store.put(*where, right))

    repaired = await stage.grant(KEEP, ClusterMemory(generation=granted.generation))

    assert repaired.actions == ()
    assert stage.store.get(*where)["metadata"]["uid"] == right["metadata"]["uid"]


async def test_a_writer_who_never_rests_is_given_up_on(stage: Stage) -> None:
    stage.sim.faults.add(Fault(target="kube", kind="status", status=409, method="POST", path="/clusterroles$"))

    with pytest.raises(kube.KubeError, check=lambda error: error.reason == "Contended"):
        await stage.grant()

    assert stage.sim.requests.count("kube", method="POST", path_regex="/clusterroles$") == 4


async def test_a_token_that_dies_with_the_account_is_renewed_even_if_the_repair_took_two_rounds(stage: Stage) -> None:
    granted = await stage.grant()
    stage.store.remove("ServiceAccount", SPACE, REQUEST.service_account)
    stage.store.remove("ClusterRole", None, REQUEST.cluster_role)
    stage.sim.faults.add(Fault(target="kube", kind="status", status=409, method="POST", path="/clusterroles$", times=1))

    renewed = await stage.grant(KEEP, ClusterMemory(generation=granted.generation))

    assert renewed.credential is not None
    assert (await stage.check(renewed)).healthy


async def test_a_name_taken_by_a_secret_without_label_is_passed_over(stage: Stage) -> None:
    legacy_setup(stage.store)
    stage.store.put("Secret", SPACE, f"{REQUEST.secret}-2", {"type": "Opaque", "data": {"x": "eA=="}})

    granted = await stage.grant()

    assert granted.generation == f"{REQUEST.secret}-3"
    assert stage.store.get("Secret", SPACE, f"{REQUEST.secret}-2")["data"] == {"x": "eA=="}


async def test_secret_mode_waits_for_the_token_and_replaces_generations_without_a_gap(stage: Stage) -> None:
    stage.desired = SECRET
    first = await stage.grant()
    assert first.credential is not None
    assert first.credential.expires_at is None
    assert first.credential.renew_at > first.credential.issued_at + timedelta(days=19)
    assert (await stage.check(first)).healthy

    stage.sim.world.advance(11 * 60)
    second = await stage.grant(DUE, ClusterMemory(generation=first.generation))
    assert second.generation == f"{SECRET.secret}-2"
    assert [retired.name for retired in second.retired] == [SECRET.secret]
    assert (await stage.check(second)).healthy
    assert (await kube.probe_version(first.server, timeout=60, requests=HERE)) is not None
    assert token_of(first) != token_of(second)

    later = datetime.now(UTC) + timedelta(minutes=11)
    cleaned = await stage.grant(KEEP, ClusterMemory(generation=second.generation, retired=second.retired), now=later)
    assert rows_of(cleaned.actions) == [("delete", "Secret", "OverlapOver")]
    assert cleaned.retired == ()
    assert stage.store.get("Secret", SPACE, SECRET.secret) is None
    assert (await stage.check(second)).healthy


async def test_a_generation_that_was_never_published_is_used_by_the_next_attempt(stage: Stage) -> None:
    stage.desired = SECRET
    first = await stage.grant()
    stage.sim.world.advance(11 * 60)
    stage.sim.faults.add(Fault(target="kube", kind="drop", path="selfsubjectaccessreviews"))
    with pytest.raises(kube.Unreachable):
        await stage.grant(DUE, ClusterMemory(generation=first.generation))
    stage.sim.faults.clear()

    second = await stage.grant(DUE, ClusterMemory(generation=first.generation))

    assert second.generation == f"{SECRET.secret}-2"
    assert sorted(stage.store.names("Secret", SPACE)) == [SECRET.secret, f"{SECRET.secret}-2"]


async def test_a_retired_secret_of_another_uid_is_not_deleted(stage: Stage) -> None:
    stage.desired = SECRET
    first = await stage.grant()
    stage.sim.world.advance(11 * 60)
    second = await stage.grant(DUE, ClusterMemory(generation=first.generation))
    stranger = RetiredSecret(SECRET.secret, "another-uid", datetime.now(UTC) - timedelta(hours=1))

    await stage.grant(KEEP, ClusterMemory(generation=second.generation, retired=(stranger,)))

    assert stage.store.get("Secret", SPACE, SECRET.secret) is not None


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_overloaded_api_server_is_asked_once_more_after_the_time_that_it_names(
    stage: Stage, method: str, status: int
) -> None:
    overloaded = Fault(
        target="kube", kind="status", status=status, method=method, headers={"Retry-After": "0"}, times=1
    )
    stage.sim.faults.add(overloaded)

    granted = await stage.grant()

    assert granted.credential is not None
    assert len(granted.actions) == 6


@pytest.mark.parametrize(
    ("after", "requests"),
    [
        pytest.param("0", 2, id="once only"),
        pytest.param("3600", 1, id="longer than the cluster's time"),
        pytest.param("soon", 1, id="no number"),
        pytest.param("-1", 1, id="a negative number"),
    ],
)
async def test_an_api_server_that_stays_overloaded_is_left_alone(stage: Stage, after: str, requests: int) -> None:
    stage.sim.faults.add(Fault(target="kube", kind="status", status=429, headers={"Retry-After": after}))

    with pytest.raises(kube.KubeError, check=lambda error: error.reason == "TooManyRequests"):
        await stage.grant()

    assert stage.sim.requests.count("kube") == requests
    assert stage.outcomes == {("read_namespace", "rate-limited"): 1}


def patience(fault: dict[str, Any]) -> float:
    """Seconds that a request is waited for: long enough for it to arrive, however busy the machine is."""
    return 3 if fault["kind"] == "hang" else 60


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param({"kind": "hang"}, "Unreachable", id="a hang ends at the timeout"),
        pytest.param({"kind": "drop"}, "Unreachable", id="a dropped connection"),
        pytest.param({"kind": "truncate"}, "Unreachable", id="half an answer"),
        pytest.param({"kind": "garbage"}, "Malformed", id="garbage"),
        pytest.param({"kind": "redirect"}, "Malformed", id="a redirect is not followed"),
        pytest.param({"kind": "status", "status": 200, "body": "[]"}, "Malformed", id="a list"),
        pytest.param({"kind": "status", "status": 200, "body": "{}"}, "Malformed", id="nothing"),
        pytest.param({"kind": "status", "status": 200, "body": '{"metadata": [1]}'}, "Malformed", id="wrong shapes"),
        pytest.param(
            {"kind": "status", "status": 200, "body": '"' + "x" * 5_000_000 + '"'}, "Malformed", id="an endless answer"
        ),
        pytest.param({"kind": "status", "status": 401}, "AdminCredentialRefused", id="401"),
        pytest.param({"kind": "status", "status": 403}, "Forbidden", id="403"),
        pytest.param({"kind": "status", "status": 429}, "TooManyRequests", id="429"),
        pytest.param({"kind": "status", "status": 503}, "ServerFailure", id="503"),
        pytest.param({"kind": "status", "status": 418}, "Malformed", id="418"),
    ],
)
async def test_what_goes_wrong_is_reported_by_meaning_and_nothing_is_written(
    stage: Stage, fault: dict[str, Any], reason: str
) -> None:
    stage.sim.faults.add(Fault(target="kube", method="GET", **fault))

    with pytest.raises(kube.KubeError) as caught:
        await stage.grant(timeout=patience(fault))

    assert caught.value.reason == reason
    assert len(str(caught.value)) < 400
    assert stage.writes() == []
    # aiohttp repeats a GET once whose connection broke before an answer began; nothing else is repeated.
    assert stage.sim.requests.count("kube") == (2 if fault["kind"] == "drop" else 1)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        pytest.param({"kind": "hang"}, "unreachable", id="a hang"),
        pytest.param({"kind": "drop"}, "unreachable", id="a dropped connection"),
        pytest.param({"kind": "garbage"}, "malformed", id="garbage"),
        pytest.param({"kind": "status", "status": 401}, "unauthorized", id="401"),
        pytest.param({"kind": "status", "status": 403}, "not-permitted", id="403"),
        pytest.param({"kind": "status", "status": 429}, "rate-limited", id="429"),
        pytest.param({"kind": "status", "status": 503}, "server-failure", id="503"),
    ],
)
async def test_a_request_that_fails_is_counted_by_what_became_of_it(
    stage: Stage, fault: dict[str, Any], outcome: str
) -> None:
    stage.sim.faults.add(Fault(target="kube", method="GET", **fault))

    with pytest.raises(kube.KubeError):
        await stage.grant(timeout=patience(fault))

    assert stage.outcomes == {("read_namespace", outcome): 1}
    assert stage.requests.total == 1


async def test_a_request_that_the_caller_gave_up_is_counted_as_cancelled(stage: Stage) -> None:
    stage.sim.faults.add(Fault(target="kube", kind="hang"))

    task = asyncio.create_task(stage.grant(timeout=3600))
    await until(lambda: stage.sim.requests.count("kube"))
    task.cancel()
    await asyncio.wait({task})
    with pytest.raises(kube.Unreachable):
        await kube.probe_version(stage.admin.server, timeout=0.3, requests=stage.requests)

    assert task.cancelled()
    assert stage.outcomes == {("read_namespace", "cancelled"): 1, ("get_code", "unreachable"): 1}


async def test_no_secret_and_no_foreign_body_is_in_any_error(stage: Stage) -> None:
    granted = await stage.grant()
    token = token_of(granted).reveal()
    secrets = {token, *(line for line in stage.cluster.admin_key.decode().splitlines() if len(line) > 40)}
    shown = [repr(granted), repr(stage.admin)]
    long = "z" * 5000
    for body in (token, f'{{"kind": "Status", "reason": "Odd", "message": "{long}"}}', f'{{"message": "{token}"}}'):
        for status in (401, 403, 500):
            stage.sim.faults.clear()
            stage.sim.faults.add(Fault(target="kube", kind="status", status=status, body=body, method="GET"))
            with pytest.raises(kube.KubeError) as caught:
                await stage.grant()
            shown.append("".join(traceback.format_exception(caught.value)) + repr(caught.value))

    text = "\n".join(shown)
    assert not [secret for secret in secrets if secret in text]
    assert long[:201] not in text
    assert "Odd: zzz" in text


async def test_a_cluster_with_another_ca_is_not_talked_to(stage: Stage) -> None:
    admin = stage.admin
    stage.sim.world.renew_authority(stage.cluster.uid)

    with pytest.raises(kube.Unreachable, check=lambda error: error.reason == "CertificateRefused"):
        await kube.probe_version(admin.server, timeout=60, requests=HERE)
    assert stage.sim.requests.count("kube") == 0


async def test_the_name_to_verify_may_differ_from_the_address(stage: Stage) -> None:
    server = replace(stage.admin.server, tls_server_name="localhost")
    assert await kube.probe_version(server, timeout=60, requests=HERE) == stage.cluster.version

    with pytest.raises(kube.Unreachable):
        await kube.probe_version(replace(server, tls_server_name="elsewhere.example"), timeout=60, requests=HERE)


PAGE = "<html><title>Not found</title></html>"


def status_of(code: int) -> str:
    return f'{{"kind": "Status", "apiVersion": "v1", "message": "no", "code": {code}}}'


@pytest.mark.parametrize("status", [401, 403])
async def test_an_api_server_that_refuses_to_name_its_version_is_reachable(stage: Stage, status: int) -> None:
    stage.sim.faults.add(Fault(target="kube", kind="status", status=status, body=status_of(status)))

    assert await kube.probe_version(stage.admin.server, timeout=60, requests=HERE) is None


@pytest.mark.parametrize(("status", "reason"), [(429, "TooManyRequests"), (500, "ServerFailure")])
async def test_an_api_server_that_fails_is_not_ready(stage: Stage, status: int, reason: str) -> None:
    stage.sim.faults.add(Fault(target="kube", kind="status", status=status, body=status_of(status)))

    with pytest.raises(kube.KubeError, check=lambda error: error.reason == reason):
        await kube.probe_version(stage.admin.server, timeout=60, requests=HERE)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(404, PAGE, id="a page"),
        pytest.param(404, "404 page not found\n", id="a text"),
        pytest.param(401, PAGE, id="a login page"),
        pytest.param(401, "Unauthorized", id="a 401 of another service"),
        pytest.param(401, '{"kind": "Status", "message": "no"}', id="a Status without code"),
        pytest.param(401, status_of(403), id="a Status of another answer"),
        pytest.param(403, PAGE, id="a 403"),
        pytest.param(502, "no", id="a gateway"),
        pytest.param(200, PAGE, id="a page with 200"),
        pytest.param(200, "{}", id="an empty object"),
        pytest.param(200, '{"gitVersion": "v1.33.4"}', id="half a version"),
        pytest.param(200, '{"major": "1", "minor": "33", "gitVersion": ["v1"]}', id="a version that is a list"),
        pytest.param(500, '{"major": "1", "minor": "33", "gitVersion": "v1"}', id="a version with 500"),
    ],
)
async def test_an_answer_that_no_api_server_gives_makes_no_cluster_ready(stage: Stage, status: int, body: str) -> None:
    stage.sim.faults.add(Fault(target="kube", kind="status", status=status, body=body))

    with pytest.raises(kube.Unreachable, match=f"HTTP {status}", check=lambda error: error.reason == "ProxyAnswered"):
        await kube.probe_version(stage.admin.server, timeout=60, requests=stage.requests)
    assert stage.outcomes == {("get_code", "unreachable"): 1}


@pytest.mark.parametrize("body", [PAGE, "404 page not found\n"])
async def test_a_proxy_that_answers_404_for_everything_is_named(stage: Stage, body: str) -> None:
    granted = await stage.grant()
    stage.sim.faults.add(Fault(target="kube", kind="status", status=404, body=body))

    for work in (stage.grant, lambda: stage.check(granted)):
        with pytest.raises(kube.Unreachable, check=lambda error: error.reason == "ProxyAnswered"):
            await work()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        pytest.param("404 page not found\n", True, id="as old API servers answer"),
        pytest.param(
            '{"kind": "Status", "reason": "NotFound", "message": "the server could not find the requested resource"}',
            True,
            id="as a Status",
        ),
        pytest.param(
            '{"kind": "Status", "reason": "NotFound", "message": "serviceaccounts \\"backstage-sa\\" not found"}',
            False,
            id="the account is missing",
        ),
    ],
)
async def test_an_api_server_without_token_requests_is_named_with_what_to_do(
    stage: Stage, body: str, *, named: bool
) -> None:
    stage.sim.faults.add(Fault(target="kube", kind="status", status=404, body=body, path="/token$"))

    with pytest.raises(kube.NotFound) as caught:
        await stage.grant()

    assert ('token.source = "secret"' in str(caught.value)) is named


async def test_a_closed_port_is_unreachable(stage: Stage) -> None:
    server = stage.admin.server
    stage.sim.world.shut_api_server(stage.cluster.uid)

    with pytest.raises(kube.Unreachable, match="cannot connect"):
        await kube.probe_version(server, timeout=60, requests=HERE)


@pytest.mark.parametrize(
    ("certificate", "key", "ca", "reason"),
    [
        pytest.param(True, "mine", "junk", "BadCA", id="a CA that is no certificate"),
        pytest.param(False, "mine", "good", "BadCredential", id="an invalid certificate"),
        pytest.param(True, "other", "good", "BadCredential", id="a key of another certificate"),
        pytest.param(True, "encrypted", "good", "BadCredential", id="an encrypted key asks nobody for its passphrase"),
    ],
)
async def test_what_does_not_load_is_refused(stage: Stage, certificate: bool, key: str, ca: str, reason: str) -> None:  # noqa: FBT001
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric import ec

    from palette_sync.kube.kubeconfig import ClientCertificate

    junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    fresh = ec.generate_private_key(ec.SECP256R1())
    how = ser.BestAvailableEncryption(b"x") if key == "encrypted" else ser.NoEncryption()
    other = fresh.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, how).decode()
    admin = stage.admin
    server = admin.server if ca == "good" else replace(admin.server, ca_data=base64.b64encode(junk.encode()).decode())
    credential = ClientCertificate(
        stage.cluster.admin_certificate.decode() if certificate else junk,
        Secret(stage.cluster.admin_key.decode() if key == "mine" else other),
    )

    with pytest.raises(kube.KubeconfigError, check=lambda error: error.reason == reason):
        await access.replace_legacy(
            kube.AdminAccess(server, credential), REQUEST, timeout=60, dry_run=True, requests=HERE
        )


async def test_two_hundred_clusters_leave_no_file_open(stage: Stage) -> None:
    await stage.grant()
    before = open_files()

    for _ in range(200):
        await access.replace_legacy(stage.admin, REQUEST, timeout=60, dry_run=True, requests=HERE)

    assert open_files() <= before + 4
