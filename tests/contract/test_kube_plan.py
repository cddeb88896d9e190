"""What a plan asks API servers for, what a refusal leaves behind, and tokens of Secrets that are refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from structlog.testing import capture_logs

from contract.test_kube_access import DUE, KEEP, NEW, POLICY, REQUEST, SECRET, SPACE, Stage, rows_of, token_of
from palette_sync import kube
from palette_sync.core.model import ClusterMemory, Secret
from palette_sync.core.plan import TokenNeed
from palette_sync.core.rbac import VIEW
from palette_sync.core.reasons import Reason
from palette_sync.http import Reply
from palette_sync.kube.server_warnings import SeenWarnings
from palette_sync.simulator import Simulator, SimulatorOptions
from palette_sync.simulator.faults import Fault

PATCHED = ClusterMemory(generation=REQUEST.secret)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    options = SimulatorOptions(instances=1, projects=1, clusters=1, rate_limits=False)
    async with Simulator(options) as sim:
        yield Stage(sim, next(iter(sim.world.clusters.values())))


def refusal(status: int, message: str, reason: str = "Forbidden") -> dict[str, Any]:
    """The answer of an API server that refuses a request."""
    return {
        "kind": "status",
        "status": status,
        "body": json.dumps({"kind": "Status", "reason": reason, "message": message}),
    }


ESCALATION = refusal(403, "attempting to grant RBAC permissions not currently held")


def dry_runs(stage: Stage) -> list[tuple[str, str]]:
    entries = [entry for entry in stage.sim.requests.entries if entry.target == "kube" and "dryRun=All" in entry.query]
    return [(entry.method, entry.path.rsplit("/", 1)[1]) for entry in entries]


# -- plan ------------------------------------------------------------------------------------------------------------


async def test_a_plan_asks_the_api_server_whether_it_would_take_the_writes(stage: Stage) -> None:
    await stage.grant(dry_run=True)

    # What lives in a namespace that does not exist yet cannot be asked for.
    assert dry_runs(stage) == [("POST", "clusterroles"), ("POST", "namespaces"), ("POST", "clusterrolebindings")]
    assert stage.store.get("ClusterRole", None, REQUEST.cluster_role) is None
    assert stage.store.get("Namespace", None, SPACE) is None


async def test_a_plan_of_a_repair_changes_nothing(stage: Stage) -> None:
    await stage.grant()
    binding = ("ClusterRoleBinding", None, REQUEST.cluster_role_binding)
    stage.store.patch("ClusterRole", None, REQUEST.cluster_role, {"rules": []})
    stage.store.patch(*binding, {"roleRef": {"name": "view"}})
    stage.store.remove("Secret", SPACE, REQUEST.secret)
    stage.sim.requests.reset()

    planned = await stage.grant(KEEP, PATCHED, dry_run=True)

    assert [verb for verb, _, _ in rows_of(planned.actions)] == ["update", "create", "replace", "issue"]
    assert dry_runs(stage) == [
        ("PATCH", REQUEST.cluster_role),
        ("POST", "secrets"),
        ("DELETE", REQUEST.cluster_role_binding),
    ]
    assert stage.store.get("ClusterRole", None, REQUEST.cluster_role)["rules"] == []
    assert stage.store.get(*binding)["roleRef"]["name"] == "view"
    assert stage.store.get("Secret", SPACE, REQUEST.secret) is None


async def test_rbac_speaks_in_the_plan_already(stage: Stage) -> None:
    stage.sim.faults.add(Fault(target="kube", method="POST", path="clusterroles$", **ESCALATION))

    with pytest.raises(kube.KubeError, match="not currently held", check=lambda error: error.reason == "Forbidden"):
        await stage.grant(dry_run=True)


@pytest.mark.parametrize("resource", ["serviceaccounts", "secrets", "serviceaccounts/token"])
async def test_where_a_dry_run_is_not_possible_the_right_is_asked_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, resource: str
) -> None:
    """The namespace does not exist yet, and a dry run of a TokenRequest would issue a token."""

    async def review(api: Any, probe: Any) -> bool:
        return bool(probe.resource != resource)

    monkeypatch.setattr(import_module("palette_sync.kube.write"), "review", review)

    with pytest.raises(kube.KubeError, match=f"may not create {resource} ", check=lambda e: e.reason == "Forbidden"):
        await stage.grant(dry_run=True)


async def test_access_reviews_that_are_forbidden_do_not_spoil_the_plan(stage: Stage) -> None:
    stage.sim.faults.add(Fault(target="kube", method="POST", path="selfsubjectaccessreviews", **refusal(403, "no")))

    assert len((await stage.grant(dry_run=True)).actions) == 6


async def test_a_plan_of_a_token_that_is_read_from_a_secret_needs_no_right_to_issue_one(stage: Stage) -> None:
    stage.desired = SECRET

    await stage.grant(dry_run=True)

    assert reviews(stage) == 2, "for the service account and the Secret"


async def test_a_webhook_that_supports_no_dry_run_does_not_spoil_the_plan(stage: Stage) -> None:
    message = 'admission webhook "audit.example.com" does not support dry run'
    stage.sim.faults.add(Fault(target="kube", method="POST", **refusal(400, message, "BadRequest")))

    assert [action.verb for action in (await stage.grant(dry_run=True)).actions] == ["create"] * 5 + ["issue"]


async def test_a_binding_to_a_role_that_is_not_there_yet_does_not_spoil_the_plan(stage: Stage) -> None:
    """RBAC looks the role up, and a dry run did not create it."""
    missing = refusal(404, 'clusterroles.rbac.authorization.k8s.io "backstage-read-only" not found', "NotFound")
    stage.sim.faults.add(Fault(target="kube", method="POST", path="clusterrolebindings$", **missing))

    assert len((await stage.grant(dry_run=True)).actions) == 6


async def test_what_is_missing_for_another_reason_does_spoil_the_plan(stage: Stage) -> None:
    await stage.grant()
    stage.store.patch("ClusterRole", None, REQUEST.cluster_role, {"rules": []})
    missing = refusal(404, "not found", "NotFound")
    stage.sim.faults.add(Fault(target="kube", method="PATCH", **missing))

    with pytest.raises(kube.NotFound):
        await stage.grant(KEEP, PATCHED, dry_run=True)


async def test_another_invalid_write_spoils_the_plan(stage: Stage) -> None:
    stage.sim.faults.add(Fault(target="kube", method="POST", **refusal(422, "denied by policy", "Invalid")))

    with pytest.raises(kube.KubeError, match="denied by policy"):
        await stage.grant(dry_run=True)


# -- refused half way ------------------------------------------------------------------------------------------------


async def test_a_role_that_rbac_refuses_leaves_nothing_behind(stage: Stage) -> None:
    stage.sim.faults.add(Fault(target="kube", method="POST", path="clusterroles$", **ESCALATION))

    with pytest.raises(kube.KubeError, match="not currently held"):
        await stage.grant()

    assert stage.store.get("Namespace", None, SPACE) is None
    assert stage.sim.world.clusters[stage.cluster.uid].tokens.issued == 0


@pytest.mark.parametrize("desired", [REQUEST, SECRET], ids=["request", "secret"])
@pytest.mark.parametrize("path", ["clusterrolebindings$", "serviceaccounts$", "secrets$", "token$", "namespaces$"])
async def test_the_next_attempt_uses_what_a_refusal_half_way_left_behind(stage: Stage, desired: Any, path: str) -> None:
    stage.desired = desired
    stage.sim.faults.add(Fault(target="kube", method="POST", path=path, **ESCALATION))
    for _ in range(3):
        if desired is REQUEST or path != "token$":
            with pytest.raises(kube.KubeError):
                await stage.grant()
    stage.sim.faults.clear()

    granted = await stage.grant()

    assert granted.generation == desired.secret
    assert stage.store.names("Secret", SPACE) == [desired.secret]
    assert (await stage.check(granted)).healthy


# -- patience --------------------------------------------------------------------------------------------------------


def reviews(stage: Stage) -> int:
    return sum(entry.path.endswith("selfsubjectaccessreviews") for entry in stage.sim.requests.entries)


async def test_a_deleted_role_is_not_waited_for(stage: Stage) -> None:
    """It does not come back by itself: a verification, and so a plan, asks once and looks at the objects."""
    granted = await stage.grant()
    stage.store.remove("ClusterRole", None, REQUEST.cluster_role)
    stage.sim.requests.reset()

    checked = await stage.check(granted)

    assert checked.denied
    assert reviews(stage) == 1


async def test_a_plan_does_not_ask_twice_about_a_dead_token_either(stage: Stage) -> None:
    granted = await stage.grant()
    stage.cluster.tokens.revoke_all()
    stage.sim.requests.reset()

    checked = await stage.check(granted, patience=kube.Patience.NONE)

    assert checked.dead
    assert reviews(stage) == 1


# -- tokens of Secrets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [ClusterMemory(), ClusterMemory(generation=SECRET.secret)], ids=["lost", "known"])
async def test_a_secret_whose_token_is_dead_is_replaced_by_the_next_generation(
    stage: Stage, memory: ClusterMemory
) -> None:
    """Every attempt read the same dead token again."""
    stage.desired = SECRET
    await stage.grant()
    stage.cluster.tokens.revoke_all()
    stage.sim.world.advance(3600)

    granted = await stage.grant(TokenNeed(issue=True, reason=Reason.NO_ACCESS), memory)

    assert granted.generation == f"{SECRET.secret}-2"
    assert (await stage.check(granted)).healthy
    assert [retired.name for retired in granted.retired] == [SECRET.secret]


async def test_within_the_overlap_no_further_generation_is_made(stage: Stage) -> None:
    stage.desired = SECRET
    await stage.grant()
    stage.cluster.tokens.revoke_all()
    stage.sim.world.advance(60)

    for _ in range(3):
        with pytest.raises(kube.TokenRejected):
            await stage.grant(NEW, ClusterMemory())

    assert stage.store.names("Secret", SPACE) == [SECRET.secret]


@pytest.mark.parametrize("ahead", [250, -250, 7200])
async def test_the_age_of_a_generation_follows_the_clusters_clock(stage: Stage, ahead: int) -> None:
    """The daemon's clock is wrong, and generations are short."""
    stage.desired = SECRET
    policy = replace(POLICY, rotate_every=timedelta(minutes=5), overlap=timedelta(minutes=2))
    now = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=ahead)

    credential = (await stage.grant(now=now, policy=policy)).credential

    assert credential is not None
    assert now - timedelta(seconds=30) <= credential.issued_at <= now
    assert credential.renew_at >= credential.issued_at + policy.rotate_every * 2 / 3
    for _ in range(5):
        await stage.grant(DUE, ClusterMemory(generation=SECRET.secret), now=now, policy=policy)
    assert stage.store.names("Secret", SPACE) == [SECRET.secret]


async def test_a_token_that_is_bound_to_a_secret_of_before_is_issued_anew(stage: Stage) -> None:
    """The Secret was deleted and made again under its name, and the API server's cache still accepts the token."""
    stage.cluster.tokens.cache_seconds = 10.0
    granted = await stage.grant()
    assert (await stage.check(granted)).healthy
    stage.store.remove("Secret", SPACE, REQUEST.secret)
    made_again = {
        "metadata": {"labels": {"app.kubernetes.io/managed-by": "palette-sync", "palette-sync/generation": "1"}}
    }
    stage.store.put("Secret", SPACE, REQUEST.secret, {**made_again, "type": "Opaque"})

    checked = await stage.check(granted)
    bound = kube.bound_to(token_of(granted))
    repaired = await stage.grant(replace(KEEP, bound=bound), PATCHED)

    assert not checked.dead, "the cache answers"
    assert rows_of(checked.actions) == [("issue", "Token", "TokenDead")]
    assert rows_of(repaired.actions) == [("issue", "Token", "TokenDead")]
    assert (await stage.check(repaired)).healthy


async def test_whether_the_secret_was_seen_is_said(stage: Stage) -> None:
    seen = await stage.check(await stage.grant())
    stage.desired = replace(REQUEST, rules=VIEW)
    unseen = await stage.check(await stage.grant(NEW, PATCHED))

    assert (seen.secrets_seen, unseen.secrets_seen) == (True, False)
    assert unseen.healthy


# -- warnings --------------------------------------------------------------------------------------------------------


async def test_a_warning_of_an_api_server_is_logged_once(stage: Stage) -> None:
    stage.sim.world.token_cap = 3600
    stage.cluster.token_cap = 3600

    with capture_logs() as logs:
        for _ in range(3):
            await stage.grant(NEW, PATCHED)

    warnings = [entry for entry in logs if entry["event"] == "api_server_warning"]
    assert [(entry["server"], entry["reason"]) for entry in warnings] == [
        (stage.admin.server.url, "requested expiration of 86400 seconds shortened to 3600 seconds")
    ]


def test_warnings_show_no_token_and_are_forgotten_in_the_end() -> None:
    seen, token = SeenWarnings(most=2), Secret("canary-token")

    def warn(text: str) -> list[str]:
        with capture_logs() as logs:
            seen.log("https://x", Reply(200, {"Warning": text}, b""), token=token)
        return [entry["reason"] for entry in logs]

    assert warn('299 - "you sent canary-token", 299 - "old \\"x\\""') == ["you sent ***", 'old \\"x\\"']
    assert warn('299 - "you sent canary-token"') == []
    assert warn("nothing that has the form") == []
    assert warn('299 - "third"') == ["third"]
    assert warn('299 - "you sent canary-token"') == ["you sent ***"], "the one seen longest ago was forgotten"
