"""The daemon's metrics in Prometheus' text format, in a registry of their own.

Names are `palette_sync_<noun>_<unit>`. The label of a Palette instance is `palette_instance`, because Prometheus adds
a label `instance` to whatever it scrapes. A cluster's uid and text from elsewhere are never labels: the number of
series would grow without limit. Times are UNIX seconds. Ages are computed at each scrape, so that they also grow in a
daemon that hangs.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from palette_sync import __version__
from palette_sync.core.model import AccessState
from palette_sync.core.reasons import Reason
from palette_sync.reconcile.report import Effect, PassReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import Metric

# From a quiet pass to a cold start of thousands of clusters behind Palette's rate limit, in seconds.
DURATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
OUTCOMES = ("ok", "partial", "failed", "aborted")
_INSTANCE = "palette_instance"


@dataclass(frozen=True, slots=True)
class RequestRecorder:
    """Counts the requests of one instance's Palette client. `api` is a path without uids, `outcome` a fixed word."""

    instance: str
    requests: Counter
    retries: Counter

    def request(self, api: str, outcome: str) -> None:
        self.requests.labels(self.instance, api, outcome).inc()

    def retry(self, api: str) -> None:
        self.retries.labels(self.instance, api).inc()


class Metrics:
    """All series of one process. `clock` is the time from which a token's expiry is measured."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._registry = CollectorRegistry()
        self._gauges: list[Gauge] = []
        self._counters: list[Counter] = []
        self._leads = self._gauge("leading", "1 where this process leads the instance, else 0.")
        self._keys_differ = self._gauge(
            "keys_differ", "1 where the seal keys of this process do not verify what another one publishes, else 0."
        )
        self._attempt = self._gauge(
            "pass_attempt_timestamp_seconds", "When the last pass that lists Palette began, whatever its result."
        )
        self._success = self._gauge(
            "pass_success_timestamp_seconds", "When the last pass that lists Palette ended without failing as a whole."
        )
        self._complete = self._gauge(
            "inventory_complete_timestamp_seconds",
            "When every selected scope was last listed, and all that was due was worked on and published.",
        )
        self._duration = Histogram(
            "palette_sync_pass_duration_seconds",
            "How long passes took.",
            [_INSTANCE],
            buckets=DURATION_BUCKETS,
            registry=self._registry,
        )
        self._passes = self._counter(
            "passes_total", "Passes: ok, partial (a scope or cluster failed), failed, aborted (the store).", "outcome"
        )
        self._failures = self._counter("pass_failures_total", "Passes that were aborted, by reason.", "reason")
        self._clusters = self._gauge("clusters", "Published clusters by the state of their access.", "state")
        self._by_reason = self._gauge(
            "clusters_by_reason", "Published clusters by the state of their access and its reason.", "state", "reason"
        )
        self._changes = self._counter("changes_total", "What passes did to clusters' records, by effect.", "effect")
        self._lapse = self._gauge(
            "token_first_lapse_seconds", "Seconds until the first published token lapses; negative once one has."
        )
        self._renewals = self._gauge("renewals_failing", "Published tokens whose renewal is due and fails.")
        self._requests = self._counter("palette_requests_total", "Requests to Palette.", "api", "outcome")
        self._retries = self._counter("palette_retries_total", "Requests to Palette that were repeated.", "api")
        self._kube = self._counter("kube_requests_total", "Requests to clusters' API servers.", "api", "outcome")
        self._held = self._gauge("prune_held", "Records whose cluster disappeared and that the prune guard holds.")
        self._held_since = self._gauge("prune_held_since_timestamp_seconds", "When the first held record was missed.")
        self._held_until = self._gauge(
            "prune_held_until_timestamp_seconds", "When the first held record is dropped; absent if none is by itself."
        )
        self._paused = self._gauge("clusters_paused", "Published clusters that an operator paused.")
        self._version = self._gauge("snapshot_version", "The version of the published snapshot.")
        self._scopes = self._gauge("scopes_failing", "Parts of the inventory that could not be listed, and are stale.")
        self._key = self._gauge("api_key_expiry_timestamp_seconds", "When the Palette API key expires.")
        self._unexpected = self._counter("unexpected_errors_total", "Errors that only a bug explains.")
        self._store_errors = self._counter("store_errors_total", "Attempts to use Redis that failed.")
        self._log_lines_dropped = Counter(
            "palette_sync_log_lines_dropped_total",
            "Log lines that were dropped because nobody read them.",
            registry=self._registry,
        )
        self._reload_success = Gauge(
            "palette_sync_config_last_reload_successful",
            "1 if the configuration in force is the one that was read last, 0 if a reload was rejected.",
            registry=self._registry,
        )
        self._loaded = Gauge(
            "palette_sync_config_loaded_timestamp_seconds",
            "When the configuration in force was read.",
            registry=self._registry,
        )
        self._orphaned = Gauge(
            "palette_sync_orphaned_instances",
            "Instances that are published, but no longer configured.",
            registry=self._registry,
        )
        self._members = Gauge(
            "palette_sync_members", "Living processes that share the instances, this one too.", registry=self._registry
        )
        self._outdated = Gauge(
            "palette_sync_config_differs",
            "1 if a newer configuration than that of this process has been loaded by another one.",
            registry=self._registry,
        )
        self._outdated_since = Gauge(
            "palette_sync_config_differs_since_timestamp_seconds",
            "Since when a newer configuration has been loaded elsewhere; 0 if that is not so.",
            registry=self._registry,
        )
        self._build = Gauge(
            "palette_sync_build_info",
            "1; the labels say which palette-sync and which Python run.",
            ["version", "python"],
            registry=self._registry,
        )
        self._build.labels(__version__, platform.python_version()).set(1)
        self.of_process = (
            self._log_lines_dropped, self._reload_success, self._loaded, self._orphaned, self._build, self._members,
            self._outdated, self._outdated_since,
        )  # fmt: skip
        ProcessCollector(registry=self._registry)

    def observe(self, report: PassReport, *, listed: bool = True) -> None:
        """Count what a pass did. A pass over known clusters (`listed` is False) knows nothing of the listing, so it
        leaves timestamps and failing scopes as they are.
        """
        name = report.instance
        self._duration.labels(name).observe(report.duration_s)
        outcomes = self._children(self._passes, name, OUTCOMES)
        outcomes["failed" if report.error else "partial" if report.failed else "ok"].inc()
        self._version.labels(name).set(report.version)
        effects = self._children(self._changes, name, Effect)
        for change in report.changes:
            for effect in change.effects:
                effects[effect].inc()
        self._unexpected.labels(name).inc(sum(change.reason is Reason.INTERNAL_ERROR for change in report.changes))
        if listed:
            self._observe_listing(report)

    def _observe_listing(self, report: PassReport) -> None:
        name, ended_at = report.instance, report.started_at + timedelta(seconds=report.duration_s)
        if report.error is not None:
            return
        self._success.labels(name).set(ended_at.timestamp())
        if not report.problems and not report.skipped:
            self._complete.labels(name).set(ended_at.timestamp())

    def log_lines_dropped(self, count: int) -> None:
        """Count lines that were dropped. May be called from every thread."""
        self._log_lines_dropped.inc(count)

    def leading(self, instance: str, leads: bool) -> None:  # noqa: FBT001 - the gauge's value
        """Whether this process leads the instance. Set from the start, because a standby has no other data."""
        self._leads.labels(instance).set(leads)

    def attempted(self, instance: str, at: datetime | None) -> None:
        """When the last pass that lists Palette began. Set as it begins, so that a pass that hangs is visible."""
        _set(self._attempt, instance, at.timestamp() if at is not None else None)

    def observe_failure(self, instance: str, reason: Reason) -> None:
        """A pass that ended without a report.

        The gauges of clusters stay: they show what is published.
        """
        self._children(self._passes, instance, OUTCOMES)["aborted"].inc()
        self._failures.labels(instance, reason.value).inc()
        self._unexpected.labels(instance).inc(reason is Reason.INTERNAL_ERROR)

    def clusters(self, instance: str, by_state: Mapping[str, int], by_reason: Mapping[tuple[str, str], int]) -> None:
        """How many published clusters have which state, and which reason of it.

        Every state has a series. A pair that `by_reason` lacks loses its series.
        """
        for state in AccessState:
            self._clusters.labels(instance, state.value).set(by_state.get(state.value, 0))
        self._by_reason.remove_by_labels({_INSTANCE: instance})
        for (name, reason), count in by_reason.items():
            self._by_reason.labels(instance, name, reason).set(count)

    def scopes_failing(self, instance: str, count: int) -> None:
        """How many projects could not be listed last time, or the tenant."""
        self._scopes.labels(instance).set(count)

    def paused(self, instance: str, count: int) -> None:
        """How many published clusters are paused."""
        self._paused.labels(instance).set(count)

    def store_failed(self, instance: str) -> None:
        """Count one attempt to use Redis that failed."""
        self._store_errors.labels(instance).inc()

    def configuration(self, *, rejected: bool, loaded_at: datetime, orphaned: int) -> None:
        """Whether the last reload was rejected, when the configuration in force was read, and how many instances are
        published although they are not configured.
        """
        self._reload_success.set(not rejected)
        self._loaded.set(loaded_at.timestamp())
        self._orphaned.set(orphaned)

    def members(self, count: int, *, outdated_since: datetime | None) -> None:
        """How many processes share the instances, and since when this one has had an older configuration."""
        self._members.set(count)
        self._outdated.set(outdated_since is not None)
        self._outdated_since.set(outdated_since.timestamp() if outdated_since is not None else 0)

    def keys_differ(self, instance: str, differ: bool) -> None:  # noqa: FBT001 - the gauge's value
        """Whether the seal keys of this process do not verify what is published."""
        self._keys_differ.labels(instance).set(differ)

    def held(self, instance: str, count: int, *, since: datetime | None, until: datetime | None) -> None:
        """How many records the prune guard holds, and the first of their times."""
        self._held.labels(instance).set(count)
        _set(self._held_since, instance, since.timestamp() if since is not None else None)
        _set(self._held_until, instance, until.timestamp() if until is not None else None)

    def first_lapse(self, instance: str, at: datetime | None, *, renewals_failing: int | None = None) -> None:
        """When the first of an instance's tokens expires (None: it has no token that does), and how many could not be
        renewed (None: not known).
        """
        if at is None:
            self._lapse.remove(instance)
        else:
            self._lapse.labels(instance).set_function(partial(self._seconds_until, at))
        _set(self._renewals, instance, renewals_failing)

    def api_key(self, instance: str, expires_at: datetime | None) -> None:
        """When an instance's API key expires; None if it never does, or if that is not known."""
        _set(self._key, instance, expires_at.timestamp() if expires_at is not None else None)

    def recorder(self, instance: str) -> RequestRecorder:
        """Counts the requests of an instance's Palette client."""
        return RequestRecorder(instance, self._requests, self._retries)

    def kube_recorder(self, instance: str) -> Callable[[str, str], None]:
        """Counts the requests to an instance's clusters, by operation of the client library and outcome."""
        return lambda api, outcome: self._kube.labels(instance, api, outcome).inc()

    def forget(self, instance: str) -> None:
        """Drop every series of an instance. After a reload removed it, call this once its runner has ended."""
        for metric in (*self._gauges, *self._counters, self._duration):
            metric.remove_by_labels({_INSTANCE: instance})

    def render(self) -> tuple[bytes, str]:
        """The body of the response to Prometheus, and its content type."""
        return generate_latest(_WithoutCreated(self._registry)), CONTENT_TYPE_PLAIN_0_0_4

    def _seconds_until(self, at: datetime) -> float:
        return (at - self._clock()).total_seconds()

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        gauge = Gauge(f"palette_sync_{name}", text, [_INSTANCE, *labels], registry=self._registry)
        self._gauges.append(gauge)
        return gauge

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        counter = Counter(f"palette_sync_{name}", text, [_INSTANCE, *labels], registry=self._registry)
        self._counters.append(counter)
        return counter

    @staticmethod
    def _children(counter: Counter, instance: str, values: Iterable[str]) -> dict[str, Counter]:
        """A counter's series for each value. All begin at 0, because `rate()` does not see a series appear with 1."""
        return {value: counter.labels(instance, str(value)) for value in values}


class _WithoutCreated(Collector):
    """Leaves out the `_created` series that the library adds to every counter; its own switch is global."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _set(gauge: Gauge, instance: str, value: float | None) -> None:
    """An unknown value has no series, because 0 would be a claim."""
    if value is None:
        gauge.remove(instance)
    else:
        gauge.labels(instance).set(value)
