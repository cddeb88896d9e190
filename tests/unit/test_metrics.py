"""Metrics: names and types as documented, no cluster as a label, ages computed at each scrape."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from builders import HOUR, MINUTE, NOW
from palette_sync import __version__
from palette_sync.core.model import AccessState
from palette_sync.core.reasons import Reason
from palette_sync.reconcile.report import Change, Effect, PassReport
from palette_sync.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from prometheus_client import Metric

LATER = NOW + HOUR
# Dashboards and alerts use these names: a change breaks them.
OF_THE_PROCESS = {
    "palette_sync_log_lines_dropped": "counter",
    "palette_sync_config_last_reload_successful": "gauge",
    "palette_sync_config_loaded_timestamp_seconds": "gauge",
    "palette_sync_orphaned_instances": "gauge",
    "palette_sync_build_info": "gauge",
    "palette_sync_members": "gauge",
    "palette_sync_config_differs": "gauge",
    "palette_sync_config_differs_since_timestamp_seconds": "gauge",
}
DOCUMENTED = {
    "palette_sync_leading": "gauge",
    "palette_sync_keys_differ": "gauge",
    "palette_sync_pass_attempt_timestamp_seconds": "gauge",
    "palette_sync_pass_success_timestamp_seconds": "gauge",
    "palette_sync_inventory_complete_timestamp_seconds": "gauge",
    "palette_sync_pass_duration_seconds": "histogram",
    "palette_sync_passes": "counter",
    "palette_sync_pass_failures": "counter",
    "palette_sync_clusters": "gauge",
    "palette_sync_clusters_by_reason": "gauge",
    "palette_sync_changes": "counter",
    "palette_sync_token_first_lapse_seconds": "gauge",
    "palette_sync_renewals_failing": "gauge",
    "palette_sync_palette_requests": "counter",
    "palette_sync_palette_retries": "counter",
    "palette_sync_kube_requests": "counter",
    "palette_sync_clusters_paused": "gauge",
    "palette_sync_prune_held": "gauge",
    "palette_sync_prune_held_since_timestamp_seconds": "gauge",
    "palette_sync_prune_held_until_timestamp_seconds": "gauge",
    "palette_sync_snapshot_version": "gauge",
    "palette_sync_scopes_failing": "gauge",
    "palette_sync_api_key_expiry_timestamp_seconds": "gauge",
    "palette_sync_unexpected_errors": "counter",
    "palette_sync_store_errors": "counter",
    **OF_THE_PROCESS,
}
OF_PYTHON = "process_"  # what the client library reports of every process


class Time:
    now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def metrics(time: Time) -> Metrics:
    return Metrics(clock=time)


def report(**changes: Any) -> PassReport:
    facts: dict[str, Any] = {
        "instance": "prod",
        "pass_id": "abc",
        "started_at": NOW,
        "duration_s": 2.0,
        "version_before": 3,
        "version": 4,
        "clusters": 3,
        "access": {"ready": 2, "failed": 1},
    }
    return PassReport(**(facts | changes))


def change(uid: str, reason: str, *effects: Effect) -> Change:
    return Change(uid, f"prod-{uid}", "team-a", effects, reason, "canary message")


def families(metrics: Metrics) -> dict[str, Metric]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=0.0.4")
    found = text_string_to_metric_families(body.decode())
    return {one.name: one for one in found if not one.name.startswith(OF_PYTHON)}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of one series of `prod`, None if it does not exist."""
    wanted = {"palette_instance": "prod"} | labels
    found = [
        sample.value
        for family in families(metrics).values()
        for sample in family.samples
        if sample.name == f"palette_sync_{name}" and sample.labels == wanted
    ]
    assert len(found) <= 1
    return found[0] if found else None


def everything(metrics: Metrics) -> None:
    metrics.observe(
        report(changes=(change("c1", "TokenDue", Effect.ROTATED), change("c2", "InternalError", Effect.FAILED)))
    )
    metrics.observe_failure("prod", Reason.STORE_UNAVAILABLE)
    metrics.first_lapse("prod", LATER, renewals_failing=1)
    metrics.clusters("prod", {"ready": 2, "failed": 1}, {("ready", "Verified"): 2, ("failed", "Unreachable"): 1})
    metrics.scopes_failing("prod", 0)
    metrics.paused("prod", 0)
    metrics.store_failed("prod")
    metrics.configuration(rejected=False, loaded_at=NOW, orphaned=0)
    metrics.api_key("prod", LATER)
    recorder = metrics.recorder("prod")
    recorder.request("/v1/users/info", "ok")
    recorder.retry("/v1/users/info")
    metrics.kube_recorder("prod")("read_namespace", "ok")
    metrics.attempted("prod", NOW)
    metrics.leading("prod", True)
    metrics.keys_differ("prod", False)
    metrics.members(2, outdated_since=None)


def test_names_and_types_are_as_documented_and_no_others(metrics: Metrics) -> None:
    everything(metrics)

    assert {name: one.type for name, one in families(metrics).items()} == DOCUMENTED
    assert all(one.documentation.endswith(".") for one in families(metrics).values())


def test_every_name_is_of_the_projects_form_and_no_label_names_a_cluster(metrics: Metrics) -> None:
    everything(metrics)

    for family in families(metrics).values():
        assert re.fullmatch(r"palette_sync(_[a-z]+)+", family.name)
        for sample in family.samples:
            if family.name in OF_THE_PROCESS:
                assert sample.labels.keys() <= {"version", "python"}
                continue
            assert sample.labels.keys() <= {"palette_instance", "outcome", "reason", "state", "effect", "api", "le"}
            assert sample.labels["palette_instance"] == "prod"
    body = metrics.render()[0].decode()
    assert "canary" not in body
    assert '"c1"' not in body
    assert "_created" not in body


def test_a_process_that_has_not_passed_yet_claims_nothing(metrics: Metrics) -> None:
    assert {name for name, one in families(metrics).items() if one.samples} == set(OF_THE_PROCESS)


def test_processes_that_do_not_agree_show(metrics: Metrics) -> None:
    def shown() -> list[float]:
        found = families(metrics)
        names = ("members", "config_differs", "config_differs_since_timestamp_seconds")
        return [found[f"palette_sync_{name}"].samples[0].value for name in names]

    metrics.members(3, outdated_since=LATER)
    metrics.keys_differ("prod", True)
    assert shown() == [3, 1, LATER.timestamp()]
    assert value(metrics, "keys_differ") == 1

    metrics.members(2, outdated_since=None)
    metrics.keys_differ("prod", False)
    assert shown() == [2, 0, 0]
    assert value(metrics, "keys_differ") == 0


def test_the_process_says_what_it_is_and_what_it_uses(metrics: Metrics) -> None:
    (build,) = families(metrics)["palette_sync_build_info"].samples
    body = metrics.render()[0].decode()

    assert (build.labels["version"], build.value) == (__version__, 1)
    assert "process_resident_memory_bytes " in body
    assert "process_start_time_seconds " in body


@pytest.mark.parametrize("rejected", [False, True])
def test_a_rejected_reload_and_orphaned_instances_show(metrics: Metrics, *, rejected: bool) -> None:
    metrics.configuration(rejected=rejected, loaded_at=LATER, orphaned=2)

    values = {name: one.samples[0].value for name, one in families(metrics).items() if name in OF_THE_PROCESS}
    assert values["palette_sync_config_last_reload_successful"] == (0 if rejected else 1)
    assert values["palette_sync_config_loaded_timestamp_seconds"] == LATER.timestamp()
    assert values["palette_sync_orphaned_instances"] == 2


def test_each_attempt_to_use_redis_that_failed_is_counted(metrics: Metrics) -> None:
    metrics.store_failed("prod")
    metrics.store_failed("prod")

    assert value(metrics, "store_errors_total") == 2


def test_a_pass_sets_its_times_and_what_it_found(metrics: Metrics) -> None:
    metrics.observe(report())

    assert value(metrics, "pass_success_timestamp_seconds") == NOW.timestamp() + 2
    assert value(metrics, "inventory_complete_timestamp_seconds") == NOW.timestamp() + 2
    assert value(metrics, "pass_duration_seconds_count") == 1
    assert value(metrics, "pass_duration_seconds_sum") == 2
    assert value(metrics, "snapshot_version") == 4


def test_scopes_that_fail_are_as_many_as_the_status_lists(metrics: Metrics) -> None:
    """A pass that could not even list the projects leaves each of them stale."""
    metrics.observe(report(error="401"))
    metrics.scopes_failing("prod", 4)

    assert value(metrics, "scopes_failing") == 4


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        pytest.param({}, "ok", id="all well"),
        pytest.param({"error": "401"}, "failed", id="nothing could be listed"),
        pytest.param({"problems": ("team-a: 403",)}, "partial", id="a scope failed"),
        pytest.param({"skipped": 1}, "partial", id="something due was not worked on"),
        pytest.param({"changes": (change("c1", "Unreachable", Effect.FAILED),)}, "partial", id="a cluster failed"),
    ],
)
def test_a_pass_counts_under_one_outcome_and_the_others_are_there(
    metrics: Metrics, changes: dict[str, Any], outcome: str
) -> None:
    metrics.observe(report(**changes))

    found = {word: value(metrics, "passes_total", outcome=word) for word in ("ok", "partial", "failed", "aborted")}
    assert found == {"ok": 0, "partial": 0, "failed": 0, "aborted": 0} | {outcome: 1}


@pytest.mark.parametrize(
    ("changes", "success", "complete"),
    [
        pytest.param({"error": "401"}, False, False, id="a pass that failed as a whole"),
        pytest.param({"problems": ("a: 403", "b: 500")}, True, False, id="two scopes that failed"),
        pytest.param({"skipped": 2}, True, False, id="what was due and not worked on"),
        pytest.param({}, True, True, id="a whole pass"),
    ],
)
def test_success_and_completeness_are_different_times(
    metrics: Metrics, changes: dict[str, Any], *, success: bool, complete: bool
) -> None:
    metrics.observe(report(**changes))

    assert (value(metrics, "pass_success_timestamp_seconds") is not None) is success
    assert (value(metrics, "inventory_complete_timestamp_seconds") is not None) is complete


def test_a_pass_over_known_clusters_says_nothing_of_the_listing(metrics: Metrics) -> None:
    metrics.observe(report(problems=("team-a: 403",)))
    metrics.observe(report(started_at=LATER, version=5, access={"ready": 3}), listed=False)

    assert value(metrics, "pass_success_timestamp_seconds") == NOW.timestamp() + 2
    assert value(metrics, "snapshot_version") == 5


def test_what_is_held_has_its_first_times(metrics: Metrics) -> None:
    metrics.held("prod", 6, since=NOW, until=LATER)

    assert value(metrics, "prune_held") == 6
    assert value(metrics, "prune_held_since_timestamp_seconds") == NOW.timestamp()
    assert value(metrics, "prune_held_until_timestamp_seconds") == LATER.timestamp()

    metrics.held("prod", 0, since=None, until=None)

    assert value(metrics, "prune_held") == 0
    assert value(metrics, "prune_held_since_timestamp_seconds") is None
    assert value(metrics, "prune_held_until_timestamp_seconds") is None


def test_effects_are_counted_and_begin_at_zero_together(metrics: Metrics) -> None:
    metrics.observe(
        report(
            changes=(
                change("c1", "TokenDue", Effect.ROTATED, Effect.UPDATED),
                change("c2", "TokenDue", Effect.ROTATED),
            )
        )
    )

    found = {effect.value: value(metrics, "changes_total", effect=effect.value) for effect in Effect}
    assert found == dict.fromkeys(found, 0) | {"rotated": 2, "updated": 1}


def test_errors_that_only_a_bug_explains_are_counted_wherever_they_happen(metrics: Metrics) -> None:
    metrics.observe(report())
    assert value(metrics, "unexpected_errors_total") == 0, "the series is there before the first"
    metrics.observe(
        report(
            changes=(change("c1", Reason.INTERNAL_ERROR, Effect.FAILED), change("c2", Reason.CONFLICT, Effect.FAILED))
        )
    )
    metrics.observe_failure("prod", Reason.INTERNAL_ERROR)
    metrics.observe_failure("prod", Reason.STORE_UNAVAILABLE)

    assert value(metrics, "unexpected_errors_total") == 2


def test_an_attempt_is_set_before_its_outcome(metrics: Metrics) -> None:
    metrics.observe(report())
    metrics.attempted("prod", LATER)

    assert value(metrics, "pass_attempt_timestamp_seconds") == LATER.timestamp()
    assert value(metrics, "pass_success_timestamp_seconds") == NOW.timestamp() + 2


def test_a_pass_without_a_report_leaves_what_is_published(metrics: Metrics) -> None:
    metrics.observe(report())
    metrics.clusters("prod", {"ready": 2}, {})
    metrics.observe_failure("prod", Reason.STORE_UNAVAILABLE)

    assert value(metrics, "pass_success_timestamp_seconds") == NOW.timestamp() + 2
    assert value(metrics, "clusters", state="ready") == 2
    assert value(metrics, "passes_total", outcome="aborted") == 1
    assert value(metrics, "pass_failures_total", reason="StoreUnavailable") == 1


def test_the_time_to_the_first_lapse_is_computed_when_it_is_read(metrics: Metrics, time: Time) -> None:
    metrics.first_lapse("prod", LATER, renewals_failing=2)
    assert value(metrics, "token_first_lapse_seconds") == 3600

    time.now = LATER + MINUTE
    assert value(metrics, "token_first_lapse_seconds") == -60
    assert value(metrics, "renewals_failing") == 2


def test_clusters_are_counted_by_reason_and_a_reason_that_no_cluster_has_loses_its_series(metrics: Metrics) -> None:
    metrics.clusters("prod", {"ready": 2, "failed": 1}, {("ready", "Verified"): 2, ("failed", "Unreachable"): 1})
    metrics.clusters("prod", {"ready": 3}, {("ready", "Verified"): 3})

    by_state = {state.value: value(metrics, "clusters", state=state.value) for state in AccessState}
    assert by_state == {"ready": 3, "degraded": 0, "failed": 0, "pending": 0}, "every state has a series"
    assert value(metrics, "clusters_by_reason", state="ready", reason="Verified") == 3
    assert value(metrics, "clusters_by_reason", state="failed", reason="Unreachable") is None


def test_what_is_not_known_is_no_series(metrics: Metrics) -> None:
    metrics.first_lapse("prod", None)
    metrics.api_key("prod", None)
    metrics.first_lapse("prod", LATER, renewals_failing=0)
    metrics.api_key("prod", LATER)
    assert value(metrics, "api_key_expiry_timestamp_seconds") == LATER.timestamp()
    assert value(metrics, "renewals_failing") == 0

    metrics.first_lapse("prod", None)
    metrics.api_key("prod", None)

    assert value(metrics, "token_first_lapse_seconds") is None
    assert value(metrics, "renewals_failing") is None
    assert value(metrics, "api_key_expiry_timestamp_seconds") is None


def test_requests_are_counted_by_api_and_outcome(metrics: Metrics) -> None:
    recorder = metrics.recorder("prod")
    recorder.request("/v1/users/info", "ok")
    recorder.request("/v1/users/info", "ok")
    recorder.request("/v1/users/info", "429")
    recorder.retry("/v1/users/info")

    api = "/v1/users/info"
    assert value(metrics, "palette_requests_total", api=api, outcome="ok") == 2
    assert value(metrics, "palette_requests_total", api=api, outcome="429") == 1
    assert value(metrics, "palette_retries_total", api=api) == 1

    count = metrics.kube_recorder("prod")
    count("read_namespace", "ok")
    count("read_namespace", "unreachable")
    count("read_namespace", "unreachable")
    assert value(metrics, "kube_requests_total", api="read_namespace", outcome="ok") == 1
    assert value(metrics, "kube_requests_total", api="read_namespace", outcome="unreachable") == 2


def test_a_forgotten_instance_leaves_no_series_and_takes_no_others(metrics: Metrics) -> None:
    everything(metrics)
    metrics.observe(report(instance="prod-2"))
    metrics.first_lapse("prod-2", NOW + timedelta(days=1))
    metrics.clusters("prod-2", {"ready": 1}, {("ready", "Verified"): 1})

    metrics.forget("prod")
    metrics.forget("never-seen")

    left = {name: one for name, one in families(metrics).items() if name not in OF_THE_PROCESS}
    assert {sample.labels["palette_instance"] for one in left.values() for sample in one.samples} == {"prod-2"}


def test_two_processes_worth_of_metrics_share_nothing(metrics: Metrics) -> None:
    everything(metrics)

    assert value(Metrics(), "snapshot_version") is None
