"""What a pass does inside a cluster: repair, adoption, rotation, dead tokens, generations, other writers."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from builders import token_in
from palette_sync.assembly.instance import policy_of
from palette_sync.core.model import AccessState, AuthMode, ServiceAccountAuth, ca_data_of
from palette_sync.core.reasons import Reason
from palette_sync.reconcile.report import Effect
from palette_sync.simulator import Fault
from palette_sync.store.lease import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.stage import Stage
    from palette_sync.simulator.cluster import SimCluster

NAMESPACE, ACCOUNT, SECRET = "backstage-system", "backstage-sa", "backstage-sa-token"
ROLE, BINDING = "backstage-read-only", "backstage-read-only-binding"
FIVE = (
    ("Namespace", None, NAMESPACE),
    ("ServiceAccount", NAMESPACE, ACCOUNT),
    ("Secret", NAMESPACE, SECRET),
    ("ClusterRole", None, ROLE),
    ("ClusterRoleBinding", None, BINDING),
)
SECRET_MODE = "[defaults.token]\nsource = 'secret'\nrotate_every = '1d'\noverlap = '10m'\n"
HOURLY = "[defaults]\nverify_interval = '1h'\n"


async def one_cluster(stage_of: Any, extra: str = "", **options: Any) -> tuple[Stage, SimCluster]:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0, extra=extra, **options)
    return stage, next(iter(stage.simulator.world.clusters.values()))


def effects(report: Any) -> set[Effect]:
    return {effect for change in report.changes for effect in change.effects}


async def test_a_healthy_cluster_is_verified_with_its_own_token_and_no_admin_kubeconfig(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, extra=HOURLY)
    await stage.run()

    stage.advance(hours=1, minutes=1)
    report = await stage.run()

    assert report.due == 1
    assert report.changes == ()
    assert stage.simulator.requests.count("palette", path_regex=".*Kubeconfig") == 0
    kinds = {entry.credential for entry in stage.simulator.requests.entries if entry.target == "kube"}
    assert kinds == {"bearer"}
    assert stage.kube_writes(cluster.uid) == 0


async def test_a_widened_role_is_repaired_and_nothing_else_is_written(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    cluster.kube.patch("ClusterRole", None, ROLE, {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]})

    report = await stage.run(resync=True)

    assert effects(report) == {Effect.REPAIRED}
    assert [(action.verb, action.kind.value, action.reason) for action in report.changes[0].actions] == [
        ("update", "ClusterRole", "RoleDrifted")
    ]
    role = cluster.kube.get("ClusterRole", None, ROLE)
    assert role is not None
    assert role["rules"] == [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    assert stage.kube_writes(cluster.uid) == 1


async def test_a_binding_to_another_role_is_deleted_and_created(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    binding = cluster.kube.get("ClusterRoleBinding", None, BINDING)
    assert binding is not None
    cluster.kube.remove("ClusterRoleBinding", None, BINDING)
    binding["roleRef"]["name"] = "cluster-admin"
    cluster.kube.put("ClusterRoleBinding", None, BINDING, binding)

    report = await stage.run(resync=True)

    assert [(one.verb, one.reason) for one in report.changes[0].actions] == [("replace", "RoleRefChanged")]
    repaired = cluster.kube.get("ClusterRoleBinding", None, BINDING)
    assert repaired is not None
    assert repaired["roleRef"]["name"] == ROLE
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY


@pytest.mark.parametrize(("kind", "name"), [("Secret", SECRET), ("ServiceAccount", ACCOUNT)])
async def test_a_token_whose_object_was_deleted_is_replaced(stage_of: Any, kind: str, name: str) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    cluster.kube.remove(kind, NAMESPACE, name)

    report = await stage.run(resync=True)

    assert Effect.ROTATED in effects(report)
    assert await stage.pods(cluster.uid) > 0
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY


async def test_a_foreign_role_with_the_configured_name_is_a_conflict_and_stays_unchanged(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    foreign = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": ROLE}}
    cluster.kube.put(
        "ClusterRole", None, ROLE, {**foreign, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
    )

    await stage.run()

    record = await stage.record(cluster.uid)
    assert (record.access.state, record.access.reason) == (AccessState.FAILED, "Conflict")
    assert ROLE in record.access.message
    assert stage.kube_writes(cluster.uid) == 0


def put_what_the_plugin_leaves(cluster: SimCluster) -> None:
    """The in-process plugin's objects: the same default names, no labels, a token Secret that never expires."""
    rbac = "rbac.authorization.k8s.io"
    cluster.kube.fill_delay = 0.0
    cluster.kube.put(
        "Namespace", None, NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    cluster.kube.put(
        "ServiceAccount",
        NAMESPACE,
        ACCOUNT,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}},
    )
    cluster.kube.put(
        "Secret",
        NAMESPACE,
        SECRET,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": {
                "name": SECRET,
                "namespace": NAMESPACE,
                "annotations": {"kubernetes.io/service-account.name": ACCOUNT},
            },
        },
    )
    cluster.kube.put(
        "ClusterRole",
        None,
        ROLE,
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": ROLE},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}],
        },
    )
    cluster.kube.put(
        "ClusterRoleBinding",
        None,
        BINDING,
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": BINDING},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": ROLE},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
        },
    )


async def test_a_cluster_of_the_in_process_plugin_migrates_and_keeps_its_legacy_token(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    put_what_the_plugin_leaves(cluster)

    await stage.run()

    record = await stage.record(cluster.uid)
    assert (record.access.state, record.access.reason) == (AccessState.READY, "LegacyToken")
    legacy = cluster.kube.get("Secret", NAMESPACE, SECRET)
    assert legacy is not None
    assert legacy["metadata"]["labels"]["palette-sync/legacy"] == "true"
    assert legacy["data"]["token"], "the other tool's token is still there"
    ours = cluster.kube.get("Secret", NAMESPACE, f"{SECRET}-2")
    assert ours is not None
    assert ours["type"] == "Opaque"
    namespace = cluster.kube.get("Namespace", None, NAMESPACE)
    assert namespace is not None
    assert not (namespace["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by")
    credential = (await stage.state()).credentials[cluster.uid]
    assert credential.expires_at is not None, "the published token expires"
    assert await stage.pods(cluster.uid) > 0

    report = await stage.run(resync=True)
    assert report.changes == ()


async def test_a_failure_does_not_hide_that_a_legacy_token_is_in_the_cluster(stage_of: Any) -> None:
    """The token of the preset `view` may not read Secrets, so what the admin saw of them must be remembered."""
    rbac = "[defaults.rbac]\npreset = 'view'\nadopt = 'always'\n"
    stage, cluster = await one_cluster(stage_of, extra=rbac)
    put_what_the_plugin_leaves(cluster)
    await stage.run()
    reasons = [(await stage.record(cluster.uid)).access.reason]
    await stage.run(resync=True)
    reasons.append((await stage.record(cluster.uid)).access.reason)

    fault = stage.simulator.faults.add(Fault(target="kube", cluster=cluster.uid, kind="status", status=503))
    await stage.run(resync=True)
    reasons.append((await stage.record(cluster.uid)).access.reason)
    stage.simulator.faults.remove(fault)
    await stage.run(resync=True)
    reasons.append((await stage.record(cluster.uid)).access.reason)

    assert reasons == [Reason.LEGACY_TOKEN, Reason.LEGACY_TOKEN, Reason.SERVER_FAILURE, Reason.LEGACY_TOKEN]
    assert (await stage.state()).memory[cluster.uid].legacy

    assert cluster.kube.remove("Secret", NAMESPACE, SECRET)
    await stage.run(resync=True)
    assert (await stage.record(cluster.uid)).access.reason is Reason.VERIFIED, "a resync sees that it is gone"


async def test_labels_and_annotations_are_put_on_every_object_new_and_old(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    before = (await stage.state()).credentials[cluster.uid]
    marks = (
        "[defaults.rbac]\nlabels = { team = 'platform' }\nannotations = { 'example.com/note' = 'from the portal' }\n"
    )
    stage.reconfigure("", marks)

    planned = await stage.plan()
    report = await stage.run()

    assert [action.reason for action in planned.changes[0].actions] == [Reason.METADATA_DRIFTED] * 5
    assert report.changes[0].reason is Reason.CONFIG_CHANGED
    for kind, namespace, name in FIVE:
        found = cluster.kube.get(kind, namespace, name)
        assert found is not None
        assert found["metadata"]["labels"]["team"] == "platform", kind
        assert found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "palette-sync", kind
        assert found["metadata"]["annotations"]["example.com/note"] == "from the portal", kind
    assert (await stage.state()).credentials[cluster.uid] == before, "the token stays"
    assert (await stage.run(resync=True)).changes == ()

    cluster.kube.patch("Namespace", None, NAMESPACE, {"metadata": {"labels": {"team": "changed"}}})
    report = await stage.run(resync=True)
    assert [(action.kind.value, action.reason) for action in report.changes[0].actions] == [
        ("Namespace", Reason.METADATA_DRIFTED)
    ]


async def test_a_fingerprint_in_the_former_form_makes_no_cluster_due_and_is_replaced(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    policy = policy_of("alpha", stage.settings.instances["alpha"])
    former = policy.former_fingerprint(AuthMode.SERVICE_ACCOUNT)
    memory = (await stage.state()).memory[cluster.uid]
    async with await Lease.acquire(
        stage.shared.store.link, stage.shared.store.keys, "alpha", ttl=60, holder="test"
    ) as lease:
        publisher = await stage.shared.store.publisher("alpha", epoch=lease.epoch, writer="test")
        await publisher.write_unversioned(now=stage.clock(), memory={cluster.uid: replace(memory, desired=former)})

    assert (await stage.run()).due == 0
    assert (await stage.state()).memory[cluster.uid].desired == former

    await stage.run(resync=True)
    assert (await stage.state()).memory[cluster.uid].desired == policy.fingerprint(AuthMode.SERVICE_ACCOUNT)


@pytest.mark.parametrize("oidc_share", [0.0, 1.0], ids=["service account", "OIDC"])
async def test_a_rule_gives_a_cluster_the_ca_that_its_kubeconfig_lacks(stage_of: Any, oidc_share: float) -> None:
    extra = "[defaults.auth]\nmode = 'auto'\n"
    stage = await stage_of(projects=1, clusters=1, oidc_share=oidc_share, extra=extra)
    cluster = next(iter(stage.simulator.world.clusters.values()))
    cluster.skips_verification = True

    await stage.run()
    record = await stage.record(cluster.uid)
    assert record.access.reason is Reason.INSECURE_TLS
    assert "[defaults.trust]" in record.access.message

    (stage.directory / "edge-ca.pem").write_text(cluster.ca_pem)
    stage.reconfigure("", f"[defaults.trust]\nrules = [{{ cluster = '{cluster.name}', ca_file = 'edge-ca.pem' }}]\n")
    await stage.run(resync=True)

    record = await stage.record(cluster.uid)
    assert record.access.state is AccessState.READY
    assert record.server is not None
    assert record.server.ca_data == ca_data_of(cluster.ca_pem), "readers verify with it too"
    assert (await stage.run()).due == 0
    assert (await stage.run(rows=stage.rows, known_only=True)).due == 0
    assert (await stage.run(known_only=True)).due == 0, "a restarted daemon knows it from the record"

    stage.reconfigure(f"rules = [{{ cluster = '{cluster.name}', ca_file = 'edge-ca.pem' }}]", "rules = []")
    report = await stage.run()
    assert report.due == 1, "removing the rule is a change"
    assert (await stage.record(cluster.uid)).access.reason is Reason.INSECURE_TLS


async def test_with_adopt_never_an_existing_object_of_the_same_name_is_a_conflict(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, extra="[defaults.rbac]\nadopt = 'never'\n")
    put_what_the_plugin_leaves(cluster)

    await stage.run()

    assert (await stage.record(cluster.uid)).access.reason == "Conflict"
    assert stage.kube_writes(cluster.uid) == 0


async def test_a_cluster_whose_namespace_is_terminating_is_retried_later(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    cluster.kube.termination_delay = None
    ending = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Terminating"}}
    cluster.kube.patch("Namespace", None, NAMESPACE, ending)

    await stage.run(resync=True)
    assert (await stage.record(cluster.uid)).access.reason == "NamespaceTerminating"

    cluster.kube.finish_termination(NAMESPACE)
    await stage.run(resync=True)
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY
    assert await stage.pods(cluster.uid) > 0


async def test_a_token_is_rotated_by_two_thirds_of_the_life_that_was_granted(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, token_cap=3600.0)
    await stage.run()
    first = (await stage.state()).credentials[cluster.uid]
    assert first.expires_at is not None
    life = first.expires_at - first.issued_at
    assert life.total_seconds() == 3600, "the API server grants less than the 24 h that were requested"
    assert first.issued_at + life / 3 <= first.renew_at <= first.issued_at + 2 * life / 3

    stage.advance(seconds=(2 * life / 3).total_seconds() + 1)
    report = await stage.run()

    assert Effect.ROTATED in effects(report)
    assert report.changes[0].reason == "TokenDue"
    second = (await stage.state()).credentials[cluster.uid]
    assert second.sealed != first.sealed
    assert await stage.pods(cluster.uid) > 0
    assert stage.kube_writes(cluster.uid) == 0, "a rotation in request mode changes no object"


async def test_a_failed_renewal_keeps_the_valid_token_and_degrades_the_record(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    first = (await stage.state()).credentials[cluster.uid]
    stage.simulator.faults.add(Fault(target="kube", kind="status", status=500, path=".*/token$"))

    stage.advance(hours=17)
    await stage.run()

    record = await stage.record(cluster.uid)
    assert record.access.state is AccessState.DEGRADED
    assert (await stage.state()).credentials[cluster.uid] == first
    assert await stage.pods(cluster.uid) > 0


async def test_a_token_is_rotated_although_its_project_cannot_be_listed(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    first = (await stage.state()).credentials[cluster.uid]
    before = await stage.record(cluster.uid)
    stage.simulator.faults.add(Fault(target="palette", kind="status", status=500, path=".*/spectroclusters/search"))

    stage.advance(hours=17)
    await stage.run()

    assert (await stage.state()).credentials[cluster.uid] != first
    assert await stage.record(cluster.uid) == before


async def test_secret_mode_rotates_to_a_new_secret_and_deletes_the_old_one_after_the_overlap(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, extra=SECRET_MODE)
    await stage.run()
    state = await stage.state()
    assert state.credentials[cluster.uid].expires_at is None
    assert state.memory[cluster.uid].generation == SECRET

    stage.advance(days=1)
    await stage.run()

    state = await stage.state()
    assert state.memory[cluster.uid].generation == f"{SECRET}-2"
    assert cluster.kube.get("Secret", NAMESPACE, SECRET) is not None, "readers may still use the old one"
    assert await stage.pods(cluster.uid) > 0

    stage.advance(minutes=11)
    await stage.run()

    assert cluster.kube.get("Secret", NAMESPACE, SECRET) is None
    assert cluster.kube.get("Secret", NAMESPACE, f"{SECRET}-2") is not None
    assert await stage.pods(cluster.uid) > 0
    assert (await stage.state()).memory[cluster.uid].retired == ()


async def test_a_change_from_secret_to_request_mode_ends_the_token_that_never_expires(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, extra=SECRET_MODE)
    await stage.run()
    old = cluster.kube.get("Secret", NAMESPACE, SECRET)
    assert old is not None
    assert base64.b64decode(old["data"]["token"])

    stage.reconfigure(SECRET_MODE, "[defaults.token]\noverlap = '10m'\n")
    await stage.run()

    assert (await stage.state()).credentials[cluster.uid].expires_at is not None
    assert await stage.pods(cluster.uid) > 0
    stage.advance(minutes=11)
    await stage.run()
    assert cluster.kube.get("Secret", NAMESPACE, SECRET) is None
    assert await stage.pods(cluster.uid) > 0


async def test_changed_rules_reach_every_cluster_in_the_next_pass(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of, extra=HOURLY)
    await stage.run()

    stage.reconfigure("", "[defaults.rbac]\npreset = 'view'\n")
    report = await stage.run()

    assert report.changes[0].reason == "ConfigChanged"
    role = cluster.kube.get("ClusterRole", None, ROLE)
    assert role is not None
    assert all("secrets" not in rule["resources"] and "*" not in rule["resources"] for rule in role["rules"])
    stage.advance(hours=1, minutes=1)
    quiet = await stage.run()
    assert quiet.due == 1
    assert quiet.changes == (), "the view preset is enough to verify with"
    assert stage.simulator.requests.count("palette", path_regex=".*adminKubeconfig") == 0


async def test_a_changed_configuration_that_cannot_be_applied_waits_for_the_backoff(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    stage.simulator.faults.add(Fault(target="kube", kind="status", status=500, method="PATCH"))
    stage.reconfigure("", "[defaults.rbac]\npreset = 'view'\n")

    await stage.run()
    assert (await stage.record(cluster.uid)).access.state is AccessState.DEGRADED
    await stage.run()
    assert stage.kube_requests() == 0

    stage.simulator.faults.clear()
    stage.advance(minutes=1)
    report = await stage.run()
    assert Effect.REPAIRED in effects(report)
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY


async def test_a_change_from_service_account_to_oidc_withdraws_the_published_token(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=1.0, extra="")
    cluster = next(iter(stage.simulator.world.clusters.values()))
    rules = 'rules = [{ tag = "auth:oidc", mode = "oidc" }]'
    stage.reconfigure(rules, "rules = []")
    await stage.run()
    assert isinstance((await stage.record(cluster.uid)).auth, ServiceAccountAuth)

    stage.reconfigure("rules = []", rules)
    report = await stage.run()

    assert report.changes[0].reason == "ModeChanged"
    state = await stage.state()
    assert cluster.uid not in state.credentials
    assert state.records[cluster.uid].access.state is AccessState.READY


async def test_auto_uses_oidc_where_it_works_and_a_service_account_elsewhere(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=4, oidc_share=0.5)
    stage.reconfigure('mode = "service-account"\nrules = [{ tag = "auth:oidc", mode = "oidc" }]', 'mode = "auto"')

    report = await stage.run()

    assert dict(report.access) == {"ready": 4}
    for record in (await stage.state()).records.values():
        cluster = stage.simulator.world.cluster(record.uid)
        assert isinstance(record.auth, ServiceAccountAuth) is not cluster.oidc


async def test_a_write_by_somebody_else_between_observation_and_repair_is_no_failure(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    cluster.kube.patch("ClusterRole", None, ROLE, {"rules": []})
    stage.simulator.faults.add(
        Fault(target="kube", kind="status", status=409, method="PATCH", path=".*clusterroles.*", times=2)
    )

    report = await stage.run(resync=True)

    assert not report.failed
    role = cluster.kube.get("ClusterRole", None, ROLE)
    assert role is not None
    assert role["rules"]


async def test_an_api_server_at_a_new_address_is_found_through_the_new_kubeconfig(stage_of: Any) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    before = await stage.record(cluster.uid)
    cluster.renew_authority()

    await stage.run(resync=True)

    record = await stage.record(cluster.uid)
    assert record.access.state is AccessState.READY
    assert record.server is not None
    assert before.server is not None
    assert record.server.ca_data != before.server.ca_data
    assert await stage.pods(cluster.uid) > 0


def opened(stage: Stage, state: Any, uid: str) -> str:
    """The published token of a cluster."""
    token = token_in(state, uid, sealer=stage.shared.sealer, prefix=stage.shared.store.keys.prefix)
    return str(token.reveal())


@pytest.mark.parametrize("options", [{"resync": True}, {}], ids=["a check fails first", "a repair"])
async def test_a_token_never_goes_to_another_server_than_its_own(stage_of: Any, options: dict[str, bool]) -> None:
    """Palette names another cluster's server while the published one cannot be reached."""
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=0.0)
    victim, other = stage.simulator.world.clusters.values()
    await stage.run()
    before = await stage.state()
    server = before.records[victim.uid].server
    assert server is not None
    token = opened(stage, before, victim.uid)
    sent: list[str] = []
    answer = other.answer

    def listening(call: Any) -> Any:
        sent.append(call.headers.get("Authorization", ""))
        return answer(call)

    other.answer = listening  # type: ignore[method-assign]
    stage.simulator.world.shut_api_server(victim.uid)
    victim.listener = other.listener
    victim.__dict__.update(authority=other.authority, admin_certificate=other.admin_certificate)
    if not options:
        stage.reconfigure("", "\n[defaults.rbac]\npreset = 'view'\n")

    await stage.run(**options)

    after = await stage.state()
    assert after.records[victim.uid].access.state is AccessState.READY
    assert after.records[victim.uid].server != server
    renewed = opened(stage, after, victim.uid)
    assert renewed != token
    assert any(renewed in one for one in sent)
    assert not any(token in one for one in sent)


# -- a token that the cluster refuses is never published -------------------------------------------------------------


def admin_file_forbidden(stage: Stage, cluster: SimCluster) -> None:
    stage.simulator.world.set_admin_download(cluster.uid, allowed=False)


def palette_fails(stage: Stage, cluster: SimCluster) -> None:
    stage.simulator.faults.add(Fault(target="palette", path=".*Kubeconfig", kind="status", status=500))


def palette_hangs_up(stage: Stage, cluster: SimCluster) -> None:
    stage.simulator.faults.add(Fault(target="palette", path=".*Kubeconfig", kind="drop"))


def admin_is_refused(stage: Stage, cluster: SimCluster) -> None:
    stage.simulator.faults.add(
        Fault(target="kube", cluster=cluster.uid, path=".*/namespaces/backstage-system$", kind="status", status=401)
    )


def writes_are_forbidden(stage: Stage, cluster: SimCluster) -> None:
    stage.simulator.faults.add(
        Fault(target="kube", cluster=cluster.uid, path=".*/token$", method="POST", kind="status", status=403)
    )


def server_fails(stage: Stage, cluster: SimCluster) -> None:
    stage.simulator.faults.add(
        Fault(target="kube", cluster=cluster.uid, path=".*/token$", method="POST", kind="status", status=500)
    )


FAILURES = [admin_file_forbidden, palette_fails, palette_hangs_up, admin_is_refused, writes_are_forbidden, server_fails]


@pytest.mark.parametrize("due", ["verification", "renewal"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_refused_token_is_never_published_whatever_prevents_its_replacement(
    stage_of: Any, failure: Callable[[Stage, SimCluster], None], due: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palette_sync.kube.tokens.PROOF_PAUSES", (0.0,))
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    cluster.tokens.revoke_all()
    failure(stage, cluster)
    if due == "renewal":
        stage.advance(hours=17)

    await stage.run(resync=due == "verification")

    state = await stage.state()
    access = state.records[cluster.uid].access
    assert cluster.uid not in state.credentials
    assert access.state is AccessState.FAILED
    assert "refuses the published token, and it could not be replaced" in access.message

    stage.simulator.faults.clear()
    stage.simulator.world.set_admin_download(cluster.uid, allowed=True)
    await stage.run(resync=True)
    assert (await stage.record(cluster.uid)).access.state is AccessState.READY
    assert await stage.pods(cluster.uid) > 0


# A refused admin is left out: the simulator cannot refuse the admin's credential and accept the published token.
@pytest.mark.parametrize("failure", [one for one in FAILURES if one is not admin_is_refused])
async def test_a_valid_token_stays_published_while_it_cannot_be_renewed(
    stage_of: Any, failure: Callable[[Stage, SimCluster], None]
) -> None:
    stage, cluster = await one_cluster(stage_of)
    await stage.run()
    before = (await stage.state()).credentials[cluster.uid]
    failure(stage, cluster)
    stage.advance(hours=17)

    await stage.run()

    state = await stage.state()
    assert state.credentials[cluster.uid] == before
    assert state.records[cluster.uid].access.state is AccessState.DEGRADED
