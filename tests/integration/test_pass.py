"""The main job, from Palette to Redis, and what a pass costs when nothing is due."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from integration.runners import flush
from palette_sync.assembly.instance import open_shared
from palette_sync.core.model import AccessState, OidcAuth, ServiceAccountAuth
from palette_sync.reconcile import lanes
from palette_sync.reconcile import names as names_module
from palette_sync.reconcile.report import Effect
from palette_sync.service.daemon import Daemon
from palette_sync.service.membership import Membership
from palette_sync.service.runners import Runners
from palette_sync.service.systemd import Notifier
from palette_sync.simulator import Fault
from palette_sync.store.redis import Store
from palette_sync.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from integration.stage import Stage


async def test_sixty_clusters_are_published_ready_and_the_second_pass_does_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(instances=2, projects=6, clusters=60)

    first = {name: await stage.run(name) for name in ("alpha", "bravo")}

    assert {name: dict(report.access) for name, report in first.items()} == {
        "alpha": {"ready": 30},
        "bravo": {"ready": 30},
    }
    assert not any(report.failed for report in first.values())
    before = await stage.state("alpha")
    oidc = [record for record in before.records.values() if isinstance(record.auth, OidcAuth)]
    assert len(oidc) == 10
    assert before.head is not None
    assert before.head.complete
    assert before.credentials.keys() == before.records.keys() - {record.uid for record in oidc}

    second = await stage.run("alpha")

    assert stage.kube_requests() == 0
    # users/info, the project list, one page per project, one page of the tenant scope
    projects = len(stage.simulator.world.instances["alpha"].projects)
    assert second.palette_requests == 2 + projects + 1
    assert second.version == second.version_before == before.head.version
    assert second.changes == ()
    after = await stage.state("alpha")
    assert after.records == before.records
    assert after.credentials == before.credentials
    assert after.memory == before.memory


async def test_every_published_token_lists_pods_with_tls_verified(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6)

    await stage.run()

    state = await stage.state()
    accounts = [record for record in state.records.values() if isinstance(record.auth, ServiceAccountAuth)]
    assert len(accounts) == 4
    for record in accounts:
        assert record.server is not None
        assert record.server.ca_data
        assert await stage.pods(record.uid) > 0


async def test_an_oidc_cluster_needs_no_admin_kubeconfig_and_no_object(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=1.0)

    report = await stage.run()

    assert dict(report.access) == {"ready": 3}
    assert stage.simulator.requests.count("palette", path_regex=".*adminKubeconfig") == 0
    assert stage.kube_writes() == 0
    state = await stage.state()
    assert not state.credentials
    record = next(iter(state.records.values()))
    alpha = stage.simulator.world.instances["alpha"]
    assert record.auth == OidcAuth("spectrocloud", alpha.issuer_url, record.auth.client_id)  # type: ignore[union-attr]
    assert record.kubernetes_version is not None
    issuer = state.issuers[alpha.issuer_url]
    assert issuer.error is None
    assert issuer.key_ids
    assert stage.simulator.requests.count("issuer") == 2, "the issuer is read once for all its clusters"


async def test_a_failed_project_listing_keeps_its_records_and_does_not_affect_other_projects(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=3, clusters=9)
    await stage.run()
    before = await stage.state()
    alpha = stage.simulator.world.instances["alpha"]
    sick, well = list(alpha.projects.values())[:2]
    stage.simulator.faults.add(Fault(target="palette", kind="status", status=403, project_uid=sick.uid))
    added = await stage.simulator.world.add_cluster("alpha", well.uid, "fresh")

    report = await stage.run()

    assert report.failed
    assert [problem for problem in report.problems if problem.startswith(sick.name)]
    after = await stage.state()
    assert before.records.items() <= after.records.items()
    assert after.records[added.uid].access.state is AccessState.READY
    assert after.scopes[sick.uid].error
    assert after.scopes[sick.uid].listed_at == before.scopes[sick.uid].listed_at
    assert after.scopes[well.uid].error is None


async def test_a_palette_outage_changes_nothing_that_is_published(stage_of: Any) -> None:
    stage: Stage = await stage_of()
    await stage.run()
    before = await stage.state()
    stage.simulator.faults.add(Fault(target="palette", kind="drop", path="/v1/users/info"))

    report = await stage.run()

    assert report.error
    after = await stage.state()
    assert (after.records, after.credentials) == (before.records, before.credentials)
    assert after.head is not None
    assert before.head is not None
    assert after.head.version == before.head.version


async def test_a_cluster_that_hangs_delays_no_other_and_keeps_its_record(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=9, oidc_share=0.0)
    await stage.run()
    before = await stage.state()
    # Long enough for a healthy cluster on a slow machine; the cluster that hangs uses all of it.
    stage.reconfigure("", "[defaults]\ncluster_timeout = '5s'\n")
    victim = next(iter(before.records))
    stage.simulator.faults.add(Fault(target="kube", kind="hang", cluster=victim))

    report = await stage.run(resync=True)

    assert dict(report.access) == {"degraded": 1, "ready": 8}
    after = await stage.record(victim)
    assert after.access.reason == "Unreachable"
    assert after.server == before.records[victim].server
    assert (await stage.state()).credentials[victim] == before.credentials[victim]


async def test_a_cluster_that_comes_back_is_ready_after_its_backoff(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    victim = next(iter(stage.simulator.world.clusters))
    fault = stage.simulator.faults.add(Fault(target="kube", kind="drop", cluster=victim))
    report = await stage.run()
    assert (await stage.record(victim)).access.state is AccessState.FAILED
    asked = stage.kube_requests()
    assert report.kube_requests == asked - 1, (
        "failed requests count too, and aiohttp repeats a GET whose connection was dropped"
    )
    stage.simulator.faults.remove(fault)

    await stage.run()
    assert stage.kube_requests() == 0, "the backoff holds"
    stage.advance(seconds=60)
    await stage.run()

    assert (await stage.record(victim)).access.state is AccessState.READY


async def test_clusters_that_are_not_running_yet_are_published_as_pending_and_not_contacted(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    uid = next(iter(stage.simulator.world.clusters))
    stage.simulator.world.set_state(uid, "Provisioning")

    await stage.run()

    record = await stage.record(uid)
    assert (record.access.state, record.access.reason) == (AccessState.PENDING, "NotRunning")
    assert record.server is None
    assert stage.kube_requests(uid) == 0

    stage.simulator.world.set_state(uid, "Running")
    await stage.run()

    assert (await stage.record(uid)).access.state is AccessState.READY


@pytest.mark.parametrize("read_only", [True, False])
async def test_an_imported_cluster_is_shown_with_its_reason_and_nothing_is_asked_for_it(
    stage_of: Any, *, read_only: bool
) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    uid = next(iter(stage.simulator.world.clusters))
    stage.simulator.world.set_imported(uid, imported=True, read_only=read_only)
    path = f"{uid}/assets"

    for options in ({}, {"resync": True}, {"known_only": True}):
        stage.advance(hours=1)
        await stage.run(**options)
        record = await stage.record(uid)
        assert (record.access.state, record.access.reason) == (AccessState.PENDING, "Imported")
        assert stage.simulator.requests.count("palette", path_regex=path) == 0
        assert stage.kube_requests(uid) == 0

    stage.simulator.world.set_imported(uid, imported=False)
    await stage.run()

    assert (await stage.record(uid)).access.state is AccessState.READY


async def test_imported_clusters_can_be_left_out(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=2, oidc_share=0.0)
    uid = next(iter(stage.simulator.world.clusters))
    stage.simulator.world.set_imported(uid, imported=True)
    await stage.run()
    stage.reconfigure("", "[defaults]\ninclude_imported = false\n")

    report = await stage.run()

    assert [change.reason for change in report.changes] == ["ImportedExcluded"]
    assert uid not in (await stage.state()).records


async def test_a_project_that_palette_does_not_open_has_its_own_reason_and_changes_no_kind_of_access(
    stage_of: Any,
) -> None:
    stage: Stage = await stage_of(clusters=1, oidc_share=1.0, extra="[defaults.auth]\nmode = 'auto'\nrules = []\n")
    await stage.run()
    before = await stage.state()
    body = '{"code": "ProjectNotFoundInTenant", "message": "Project is not found"}'
    stage.simulator.faults.add(Fault(target="palette", kind="status", status=404, body=body, path="/(oidc|assets)"))

    await stage.run(resync=True)

    ((uid, record),) = (await stage.state()).records.items()
    assert (record.auth, record.server) == (before.records[uid].auth, before.records[uid].server)
    assert record.access.reason == "ProjectUnavailable"


async def test_a_missing_kubeconfig_permission_fails_the_cluster_and_not_the_pass(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=3, oidc_share=0.0)
    uid = next(iter(stage.simulator.world.clusters))
    stage.simulator.world.set_admin_download(uid, allowed=False)

    report = await stage.run()

    assert report.error is None
    assert report.problems == ()
    record = await stage.record(uid)
    assert (record.access.state, record.access.reason) == (AccessState.FAILED, "KubeconfigForbidden")
    assert "cluster.adminKubeconfigDownload" in record.access.message
    assert dict(report.access) == {"failed": 1, "ready": 2}


async def test_a_key_with_project_rights_only_works_and_is_noted_once(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6)
    stage.simulator.world.set_key_permission("alpha", "project")

    report = await stage.run()

    assert not report.failed
    assert len([note for note in report.notes if "NotPermitted" in note]) == 1
    assert sum(report.access.values()) == 5, "all but the tenant-scoped cluster"


async def test_clusters_of_the_same_name_in_two_projects_get_stable_unique_names(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=2, clusters=0)
    world = stage.simulator.world
    one, two = world.instances["alpha"].projects.values()
    older = await world.add_cluster("alpha", one.uid, "shop")
    stage.simulator.world.advance(5)
    younger = await world.add_cluster("alpha", two.uid, "shop")
    await stage.run()
    names = {uid: record.name for uid, record in (await stage.state()).records.items()}
    assert names == {older.uid: "alpha-shop", younger.uid: f"alpha-{two.name}-shop"}

    world.remove_cluster(older.uid)
    await stage.run()

    assert (await stage.record(younger.uid)).name == names[younger.uid], "a published name never changes"


async def test_the_name_of_a_dropped_cluster_is_free_for_another_instance(stage_of: Any) -> None:
    stage: Stage = await stage_of(instances=2, clusters=0, extra='[defaults]\nname_prefix = ""\n')
    world = stage.simulator.world
    first = await world.add_cluster("alpha", next(iter(world.instances["alpha"].projects)), "shop")
    await stage.run("alpha")
    world.remove_cluster(first.uid)
    await stage.run("alpha", allow_prune=True)

    second = await world.add_cluster("bravo", next(iter(world.instances["bravo"].projects)), "shop")
    await stage.run("bravo")

    assert (await stage.record(second.uid, "bravo")).name == "shop"


async def test_two_processes_that_publish_at_once_give_no_name_twice(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sees the published names of the other before either has published."""
    stage: Stage = await stage_of(instances=2, clusters=0, extra='[defaults]\nname_prefix = ""\n')
    world = stage.simulator.world
    for instance in ("alpha", "bravo"):
        await world.add_cluster(instance, next(iter(world.instances[instance].projects)), "twin")
    async with open_shared(stage.settings) as shared:
        other = replace(stage, shared=shared)
        seen, both_saw, names = [0], asyncio.Event(), Store.names

        async def together(self: Store, **given: Any) -> Any:
            found = await names(self, **given)
            seen[0] += 1
            if seen[0] == 2:
                both_saw.set()
            await both_saw.wait()
            return found

        monkeypatch.setattr(Store, "names", together)
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.run("alpha"))
            group.create_task(other.run("bravo"))

    published = [one.name for name in ("alpha", "bravo") for one in (await stage.state(name)).records.values()]
    assert len(published) == len(set(published)) == 2


async def test_a_name_that_redis_has_lost_is_not_free_while_a_daemon_remembers_it(
    stage_of: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage: Stage = await stage_of(instances=2, clusters=0, extra='[defaults]\nname_prefix = ""\n')
    world = stage.simulator.world
    for instance in ("alpha", "bravo"):
        await world.add_cluster(instance, next(iter(world.instances[instance].projects)), "twin")
    await stage.run("alpha")
    remembered = {"alpha": await stage.state("alpha")}
    monkeypatch.setattr(Runners, "states", lambda _: remembered)
    Daemon(stage.directory, stage.shared, notifier=Notifier(), metrics=Metrics())
    await flush(raw, stage)

    await stage.run("bravo")

    (record,) = (await stage.state("bravo")).records.values()
    assert record.name != "twin"


async def test_no_new_name_is_given_while_redis_has_lost_another_instance(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other instance is filled again meanwhile, with a name that this process does not remember."""
    stage: Stage = await stage_of(instances=2, clusters=0, extra='[defaults]\nname_prefix = ""\n')
    world = stage.simulator.world
    for instance in ("alpha", "bravo"):
        await world.add_cluster(instance, next(iter(world.instances[instance].projects)), "twin")
    looks = iter([True, False])

    async def others_lost(self: Membership, instance: str) -> bool:
        lost = instance == "bravo" and next(looks)
        if lost:
            await stage.run("alpha")
        return lost

    monkeypatch.setattr(Membership, "others_lost", others_lost)
    monkeypatch.setattr(names_module, "LOOK_AGAIN", 0.0)
    Daemon(stage.directory, stage.shared, notifier=Notifier(), metrics=Metrics())

    await stage.run("bravo")

    (record,) = (await stage.state("bravo")).records.values()
    assert record.name != "twin"
    assert next(looks, None) is None


async def test_plan_reports_what_once_would_do_and_writes_nothing(stage_of: Any) -> None:
    stage: Stage = await stage_of(clusters=6)

    plan = await stage.plan()

    assert {effect for change in plan.changes for effect in change.effects} == {Effect.PUBLISHED}
    assert len(plan.changes) == 6
    actions = [action for change in plan.changes for action in change.actions]
    assert {action.kind.value for action in actions} == {
        "Namespace",
        "ServiceAccount",
        "Secret",
        "ClusterRole",
        "ClusterRoleBinding",
        "Token",
    }
    assert stage.kube_writes() == 0
    assert (await stage.state()).head is None
    assert all(not cluster.tokens.issued for cluster in stage.simulator.world.clusters.values())


async def test_clusters_are_worked_on_concurrently_up_to_the_configured_number(
    stage_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "YIELD_AFTER", 600.0)  # a busy machine looks like clusters that hang
    extra = "[service]\nconcurrency = 4\n"
    stage: Stage = await stage_of(clusters=12, oidc_share=0.0, extra=extra, latency=0.02)
    entries = stage.simulator.requests.entries

    await stage.run()

    spans: dict[str, list[float]] = {}
    for entry in entries:
        if entry.target == "kube" and entry.cluster:
            spans.setdefault(entry.cluster, []).append(entry.time)
    moments = sorted(
        [(min(times), 1) for times in spans.values()] + [(max(times) + 1e-9, -1) for times in spans.values()]
    )
    most = running = 0
    for _, step in moments:
        running += step
        most = max(most, running)
    assert most == 4


async def test_a_cluster_of_an_unknown_project_is_not_contacted_and_not_published(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=2, clusters=4, oidc_share=0.0, tenant_scoped=0)
    hidden, seen = list(stage.simulator.world.instances["alpha"].projects.values())
    body = {
        "items": [{"metadata": {"uid": seen.uid, "name": seen.name}}],
        "listmeta": {"continue": "", "count": 1, "limit": 50, "offset": 1},
    }
    stage.simulator.faults.add(
        Fault(target="palette", kind="status", status=200, body=json.dumps(body), path="/dashboard/projects$")
    )

    report = await stage.run()

    assert [note for note in report.notes if "project is unknown" in note]

    records = (await stage.state()).records
    assert {record.project.uid for record in records.values() if record.project} == {seen.uid}
    touched = {entry.cluster for entry in stage.simulator.requests.entries if entry.target == "kube"}
    assert touched == records.keys()
    assert hidden.uid not in (await stage.state()).scopes
    assert not report.failed


async def test_existing_access_is_verified_and_renewed_in_every_state_that_palette_reports(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0)
    uid = next(iter(stage.simulator.world.clusters))
    await stage.run()
    first = (await stage.state()).credentials[uid]
    stage.simulator.world.set_state(uid, "Error")
    stage.simulator.world.set_health(uid, "UnHealthy")

    stage.advance(hours=17)
    await stage.run()

    record = await stage.record(uid)
    assert (record.palette.state, record.palette.health) == ("Error", "UnHealthy")
    assert record.access.state is AccessState.READY
    assert (await stage.state()).credentials[uid] != first


async def test_a_paused_virtual_cluster_is_withheld_and_returns_when_it_resumes(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=0, extra="[defaults]\ninclude_virtual = true\n")
    world = stage.simulator.world
    project = next(iter(world.instances["alpha"].projects))
    virtual = await world.add_cluster("alpha", project, "inner", virtual=True)
    await stage.run()
    assert (await stage.record(virtual.uid)).access.state is AccessState.READY

    world.set_paused(virtual.uid, paused=True)
    await stage.run(resync=True)
    assert stage.kube_requests() == 0
    assert (await stage.record(virtual.uid)).access.reason == "Paused"

    world.set_paused(virtual.uid, paused=False)
    await stage.run()
    assert (await stage.record(virtual.uid)).access.state is AccessState.READY


async def test_an_issuer_that_no_cluster_uses_any_more_is_forgotten(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=1.0)
    await stage.run()
    one, other = stage.simulator.world.clusters

    stage.simulator.world.remove_cluster(one)
    await stage.run()
    assert len((await stage.state()).issuers) == 1, "another cluster uses it"
    stage.simulator.world.remove_cluster(other)
    await stage.run(known_only=True)
    assert len((await stage.state()).issuers) == 1, "this pass listed nothing"
    await stage.run(allow_prune=True)
    assert (await stage.state()).issuers == {}


async def test_an_issuer_that_fails_later_keeps_its_clusters_ready_and_records_its_error(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=1.0)
    await stage.run()
    issuer = stage.simulator.world.instances["alpha"].issuer_url
    before = (await stage.state()).issuers[issuer]
    stage.simulator.faults.add(Fault(target="issuer", kind="status", status=500))

    stage.advance(hours=2)
    report = await stage.run()

    assert dict(report.access) == {"ready": 2}
    after = (await stage.state()).issuers[issuer]
    assert after.error
    assert after.key_ids == before.key_ids
    assert after.fetched_at == before.fetched_at


async def test_clusters_of_an_issuer_that_never_answered_fail_with_their_own_reason(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=1.0)
    stage.simulator.faults.add(Fault(target="issuer", kind="garbage"))

    await stage.run()

    reasons = {record.access.reason for record in (await stage.state()).records.values()}
    assert reasons == {"IssuerUnavailable"}


async def test_an_oidc_cluster_without_oidc_configuration_fails_with_its_own_reason(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=0.0)
    rules = 'rules = [{ tag = "auth:oidc", mode = "oidc" }]'
    stage.reconfigure(rules, 'rules = [{ cluster = "*", mode = "oidc" }]')

    await stage.run()

    (record,) = (await stage.state()).records.values()
    assert (record.access.state, record.access.reason) == (AccessState.FAILED, "OidcNotConfigured")


async def test_auto_keeps_the_access_in_use_while_it_cannot_tell_whether_oidc_is_configured(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=0.5)
    stage.reconfigure('mode = "service-account"\nrules = [{ tag = "auth:oidc", mode = "oidc" }]', 'mode = "auto"')
    await stage.run()
    before = await stage.state()
    stage.simulator.faults.add(Fault(target="palette", kind="status", status=501, path="/oidc$"))

    report = await stage.run(resync=True)

    after = await stage.state()
    assert {uid: record.auth for uid, record in after.records.items()} == {
        uid: record.auth for uid, record in before.records.items()
    }
    assert dict(report.access) == {"degraded": 1, "ready": 1}, (
        "the service account works, and nothing shows that OIDC would"
    )


ELSEWHERE = "\n[instances.alpha.oidc]\nissuers = ['https://login.example/*']\n"


async def test_an_issuer_that_is_not_allowed_is_not_asked_and_no_login_is_published(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=1.0, extra=ELSEWHERE)

    report = await stage.run()

    records = (await stage.state()).records.values()
    assert {(one.access.state, one.access.reason) for one in records} == {(AccessState.PENDING, "IssuerNotAllowed")}
    assert {one.auth for one in records} == {None}
    assert stage.simulator.requests.count("issuer") == 0
    assert stage.kube_requests() == 0
    line = 'issuers = ["https://login.example/*", "' + stage.simulator.world.instances["alpha"].issuer_url + '"]'
    assert all(line in change.message for change in report.changes)


async def test_the_line_that_is_printed_allows_the_issuer(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=1.0, extra=ELSEWHERE)
    report = await stage.plan()
    line = report.changes[0].message.rpartition(": issuers")[2]

    stage.reconfigure("issuers = ['https://login.example/*']", "issuers" + line)
    await stage.run()

    assert {one.access.reason for one in (await stage.state()).records.values()} == {"Verified"}


async def test_an_issuer_that_is_allowed_no_more_loses_its_clusters(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=1.0)
    await stage.run()
    stage.reconfigure("", ELSEWHERE)

    report = await stage.run()

    assert report.due == 1
    (record,) = (await stage.state()).records.values()
    assert (record.auth, record.access.reason) == (None, "IssuerNotAllowed")


async def test_auto_takes_a_service_account_where_the_issuer_is_not_allowed(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=1, oidc_share=1.0, extra=ELSEWHERE)
    stage.reconfigure('mode = "service-account"\nrules = [{ tag = "auth:oidc", mode = "oidc" }]', 'mode = "auto"')

    await stage.run()

    (record,) = (await stage.state()).records.values()
    assert (record.auth, record.access.state) == (ServiceAccountAuth(), AccessState.READY)


async def test_without_an_allowed_network_nothing_on_loopback_is_connected_to(stage_of: Any) -> None:
    stage: Stage = await stage_of(projects=1, clusters=4, oidc_share=0.5)
    stage.reconfigure('allow = ["127.0.0.0/8", "::1/128"]', "")

    await stage.run()

    reasons = {one.access.reason for one in (await stage.state()).records.values()}
    assert reasons == {"AddressRefused", "IssuerUnavailable"}
    assert stage.kube_requests() == 0
    assert stage.simulator.requests.count("issuer") == 0


EVIL = '\x1b[2Jweb\u202e"; x: [\r\nSet-Cookie: a\u2028\x00é'


@pytest.mark.parametrize("oidc_share", [0.0, 1.0], ids=["service account", "OIDC"])
async def test_names_lose_their_control_characters_before_they_are_stored(stage_of: Any, oidc_share: float) -> None:
    stage: Stage = await stage_of(projects=1, clusters=2, oidc_share=oidc_share, tenant_scoped=0)
    world = stage.simulator.world
    for uid in world.clusters:
        world.rename_cluster(uid, EVIL)
        world.cluster(uid).tags.append(f"note:{EVIL}")
        world.set_health(uid, EVIL)
    for project in world.instances["alpha"].projects:
        world.rename_project(project, EVIL)

    await stage.run()

    state = await stage.state()
    assert {one.access.state for one in state.records.values()} == {AccessState.READY}
    for record in state.records.values():
        facts = record.palette
        assert record.project is not None
        stored = (record.name, record.title, record.project.name, facts.health, *facts.tags)
        assert all(text.isprintable() and text for text in stored)
    assert all(scope.name.isprintable() for scope in state.scopes.values())
