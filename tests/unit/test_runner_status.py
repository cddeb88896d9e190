"""How a runner stands, as a document for programs and as one line for people."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

import builders
from builders import HOUR, MINUTE, NOW, access, by_uid, record, sealed_credential
from palette_sync.core.documents import format_time
from palette_sync.core.expiry import warning_due
from palette_sync.core.model import AccessState, ClusterMemory, Head, InstanceState, ScopeStatus
from palette_sync.core.prune import Absence, absences_to_dict
from palette_sync.core.reasons import Reason
from palette_sync.runner import RunnerState, RunnerStatus
from palette_sync.runner.refill import lost_something
from palette_sync.telemetry.status import instance_document, status_line, stored_document

DAY = timedelta(days=1)


def head(epoch: int = 5, version: int = 7, *, complete: bool = True) -> Head:
    return builders.head(epoch=epoch, version=version, complete=complete)


PUBLISHED = InstanceState(head=head())


def status_of(state: InstanceState, **before: Any) -> RunnerStatus:
    status = RunnerStatus(**before)
    status.take_over(state, now=NOW)
    return status


# -- core.expiry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "due"),
    [
        pytest.param(15 * DAY, None, id="far away"),
        pytest.param(14 * DAY + MINUTE, None, id="just before the first warning"),
        pytest.param(14 * DAY, 14, id="two weeks ahead"),
        pytest.param(8 * DAY, 14, id="between two weeks and one it was logged already"),
        pytest.param(7 * DAY, 7, id="a week ahead"),
        pytest.param(DAY, 1, id="the last day"),
        pytest.param(-DAY, 1, id="expired"),
    ],
)
def test_the_expiry_of_a_key_is_logged_two_weeks_one_week_and_one_day_ahead(left: timedelta, due: int | None) -> None:
    assert warning_due(left) == (None if due is None else due * DAY)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {("ready", "Verified"): 1}, id="before its end"),
        pytest.param({"expires_at": NOW}, {("failed", "TokenLapsed"): 1}, id="at its end"),
        pytest.param({"expires_at": None}, {("ready", "Verified"): 1}, id="without an end"),
    ],
)
def test_a_cluster_counts_as_ready_only_while_its_token_lives(
    changes: dict[str, Any], expected: dict[tuple[str, str], int]
) -> None:
    credential = sealed_credential(**changes)
    status = status_of(replace(PUBLISHED, records=by_uid(record()), credentials={"c1": credential}))

    assert status.reasons == expected
    assert status.access == {state: 1 for state, _ in expected}
    alive = credential.expires_at is not None and credential.expires_at > NOW
    assert status.next_lapse == (credential.expires_at if alive else None)


# -- runner.status -------------------------------------------------------------------------------------------------


def test_an_empty_store_says_nothing_about_a_runner() -> None:
    known = status_of(PUBLISHED, access={"ready": 3})
    known.take_over(InstanceState(records=by_uid(record())), now=NOW)

    assert status_of(InstanceState()) == RunnerStatus()
    assert (known.read, known.version) == (True, 7)


def test_what_the_prune_guard_holds_shows_with_its_first_times_and_why() -> None:
    absent = {
        "c1": Absence(NOW - HOUR, NOW - HOUR, NOW + 23 * HOUR, Reason.PRUNE_HELD, "4 of 10 disappeared"),
        "c2": Absence(NOW, NOW, None, Reason.ACCESS_LOST, "its project is gone"),
        "c3": Absence(NOW - 2 * HOUR, None, NOW, Reason.NOT_LISTED, "not listed"),
        "gone": Absence(NOW - 9 * HOUR, None, NOW, Reason.PRUNE_HELD, "its record was dropped"),
    }
    records = by_uid(record("c1"), record("c2"), record("c3"))
    status = status_of(replace(PUBLISHED, records=records, status={"held": absences_to_dict(absent)}))

    assert (status.held, status.held_since, status.held_until) == (2, NOW - HOUR, NOW + 23 * HOUR)
    assert status.held_why == "PruneHeld: 4 of 10 disappeared"
    document = instance_document(status, NOW)
    assert document["prune_held"] == 2
    assert document["prune_held_since"] == "2026-03-01T11:00:00Z"
    assert document["prune_held_until"] == "2026-03-02T11:00:00Z"
    assert "prod: 2 drops held" in status_line({"prod": status}, NOW)

    status.take_over(PUBLISHED, now=NOW)

    assert (status.held, status.held_since, status.held_until, status.held_why) == (0, None, None, "")


def test_what_is_published_shows_in_the_status() -> None:
    failed = record("c2", access=access(AccessState.FAILED, "Unreachable"))
    state = replace(
        PUBLISHED,
        head=head(complete=False),
        records=by_uid(record(), failed, record("c3")),
        scopes={
            "p-a": ScopeStatus("team-a", NOW),
            "p-b": ScopeStatus("team-b", NOW, "503", NOW),
        },
        credentials={
            "c1": sealed_credential(expires_at=NOW + 3 * HOUR),
            "c2": sealed_credential(expires_at=NOW + 2 * HOUR),
            "c3": sealed_credential(expires_at=None),
        },
    )

    status = status_of(state)

    assert (status.read, status.version, status.complete) == (True, 7, False)
    assert status.access == {"ready": 2, "failed": 1}
    assert status.reasons == {("ready", "Verified"): 2, ("failed", "Unreachable"): 1}
    assert status.scopes_failing == {"team-b": "503"}
    assert status.first_lapse == NOW + 2 * HOUR
    assert status.renewals_failing == 0


def test_tokens_that_never_expire_have_no_first_lapse() -> None:
    published = replace(PUBLISHED, records=by_uid(record()))
    known = status_of(replace(published, credentials={"c1": sealed_credential()}))
    assert known.first_lapse is not None
    known.take_over(replace(published, credentials={"c1": sealed_credential(expires_at=None)}), now=NOW)

    assert known.first_lapse is None


def test_a_token_that_belongs_to_no_record_raises_no_alarm() -> None:
    assert status_of(replace(PUBLISHED, credentials={"c1": sealed_credential()})).first_lapse is None


@pytest.mark.parametrize(
    ("renew_at", "memory", "count"),
    [
        pytest.param(NOW, ClusterMemory(failures=1), 1, id="due and failing"),
        pytest.param(NOW, ClusterMemory(), 0, id="due, and not tried yet"),
        pytest.param(
            NOW + MINUTE, ClusterMemory(failures=1), 1, id="within the minute in which passes renew it already"
        ),
        pytest.param(NOW + 2 * MINUTE, ClusterMemory(failures=1), 0, id="a failed check while the token is young"),
        pytest.param(NOW, None, 0, id="nothing is remembered"),
    ],
)
def test_a_renewal_fails_when_the_token_is_past_its_renewal_time(
    renew_at: Any, memory: ClusterMemory | None, count: int
) -> None:
    remembered = {"c1": memory} if memory is not None else {}
    state = replace(PUBLISHED, credentials={"c1": sealed_credential(renew_at=renew_at)}, memory=remembered)

    assert status_of(state).renewals_failing == count


def test_a_state_is_timed_from_when_it_began() -> None:
    status = RunnerStatus()
    status.enter(RunnerState.STORELESS, "down", now=NOW)
    status.enter(RunnerState.STORELESS, "still down", now=NOW + MINUTE)
    assert (status.detail, status.state_since) == ("still down", NOW)

    status.enter(RunnerState.LEADING, now=NOW + HOUR)
    assert (status.detail, status.state_since) == ("", NOW + HOUR)


def test_failures_are_timed_from_the_first_in_a_row() -> None:
    status = RunnerStatus()
    status.fail("503", now=NOW)
    status.fail("502", now=NOW + MINUTE)
    assert (status.error, status.failing_since) == ("502", NOW)

    status.fail(None, now=NOW + HOUR)
    assert (status.error, status.failing_since) == (None, None)


# -- runner.refill ---------------------------------------------------------------------------------------------------

UNTRUSTED = replace(PUBLISHED, trusted=False)


@pytest.mark.parametrize(
    ("found", "memory", "lost"),
    [
        pytest.param(InstanceState(), PUBLISHED, True, id="the store is empty"),
        pytest.param(UNTRUSTED, PUBLISHED, True, id="the store was tampered with"),
        pytest.param(replace(UNTRUSTED, head=head(9, 9)), PUBLISHED, True, id="tampered with, and claims to be newer"),
        pytest.param(InstanceState(head=head(5, 6)), PUBLISHED, True, id="an older version of the same epoch"),
        pytest.param(InstanceState(head=head(4, 99)), PUBLISHED, True, id="an older epoch, whatever its version"),
        pytest.param(PUBLISHED, PUBLISHED, False, id="as this process left it"),
        pytest.param(InstanceState(head=head(5, 8)), PUBLISHED, False, id="a newer version"),
        pytest.param(InstanceState(head=head(6, 1)), PUBLISHED, False, id="another writer's epoch"),
        pytest.param(InstanceState(), InstanceState(), False, id="nothing is remembered"),
        pytest.param(InstanceState(), UNTRUSTED, False, id="what is remembered was not trusted"),
        pytest.param(UNTRUSTED, UNTRUSTED, False, id="neither is trusted"),
    ],
)
def test_the_store_lost_something(found: InstanceState, memory: InstanceState, *, lost: bool) -> None:
    assert lost_something(found, memory) is lost


# -- telemetry.status ------------------------------------------------------------------------------------------------

LISTED = RunnerStatus(
    state=RunnerState.LEADING,
    read=True,
    passes=4,
    version=7,
    complete=True,
    attempted_at=NOW - MINUTE,
    succeeded_at=NOW - 2 * MINUTE,
    access={"ready": 3, "degraded": 1},
    first_lapse=NOW + HOUR,
    wakes_at=NOW + MINUTE,
    key_name="daemon",
    key_expires_at=NOW + 30 * DAY,
)


def test_the_document_of_a_runner_has_times_and_ages() -> None:
    document = instance_document(replace(LISTED, scopes_failing={"team-b": "503"}, busy_since=NOW), NOW)

    assert orjson.loads(orjson.dumps(document)) == {
        "state": "leading",
        "ready": True,
        "version": 7,
        "complete": True,
        "access": {"ready": 3, "degraded": 1},
        "passes": 4,
        "busy_since": "2026-03-01T12:00:00Z",
        "attempted_at": "2026-03-01T11:59:00Z",
        "succeeded_at": "2026-03-01T11:58:00Z",
        "success_age_s": 120,
        "scopes_failing": {"team-b": "503"},
        "prune_held": 0,
        "first_lapse_at": "2026-03-01T13:00:00Z",
        "first_lapse_s": 3600,
        "renewals_failing": 0,
        "wakes_at": "2026-03-01T12:01:00Z",
        "api_key_name": "daemon",
        "api_key_expires_at": "2026-03-31T12:00:00Z",
    }


def test_the_document_leaves_out_what_a_runner_does_not_know() -> None:
    assert instance_document(RunnerStatus(), NOW) == {
        "state": "starting",
        "ready": False,
        "complete": False,
        "access": {},
        "passes": 0,
        "prune_held": 0,
        "renewals_failing": 0,
    }


@pytest.mark.parametrize(
    ("holder", "lease_known", "checked", "state"),
    [
        pytest.param("there:7", True, NOW, "led", id="somebody holds the lease"),
        pytest.param(None, True, NOW, "unled", id="nobody does"),
        pytest.param(None, False, NOW, "unknown", id="the lease may not be read"),
        pytest.param(None, False, NOW - 2 * HOUR, "unled", id="may not be read, and nobody has confirmed it for long"),
    ],
)
def test_the_document_from_redis_says_who_leads(
    holder: str | None, *, lease_known: bool, checked: Any, state: str
) -> None:
    stored = replace(PUBLISHED, head=replace(head(), checked_at=checked), records=by_uid(record()))

    document = stored_document(stored, NOW, holder=holder, since=NOW - MINUTE, lease_known=lease_known)

    assert (document["state"], document.get("holder"), document["ready"]) == (state, holder, True)
    assert document["checked_age_s"] == (NOW - checked).total_seconds()
    assert document["access"] == {"ready": 1}
    if state == "unled":
        assert document["state_since"] == format_time(checked)


def test_the_document_from_redis_has_what_the_last_pass_left_there() -> None:
    status = {"pass": {"error": "HTTP 503", "started_at": "2026-03-01T11:00:00Z"}, "api_key": {"name": "daemon"}}

    document = stored_document(replace(PUBLISHED, status=status), NOW, holder="x", since=None, lease_known=True)

    assert (document["error"], document["failing_since"]) == ("HTTP 503", "2026-03-01T11:00:00Z")
    assert document["api_key_name"] == "daemon"
    assert "passes" not in document


def test_an_empty_store_is_not_ready() -> None:
    document = stored_document(InstanceState(), NOW, holder=None, since=None, lease_known=True)

    assert (document["ready"], document["detail"]) == (False, "nothing is in Redis")


def test_a_token_that_has_lapsed_shows_as_negative_seconds() -> None:
    assert instance_document(replace(LISTED, first_lapse=NOW - MINUTE), NOW)["first_lapse_s"] == -60


@pytest.mark.parametrize(
    ("statuses", "line"),
    [
        pytest.param({}, "no instance is configured", id="nothing is configured"),
        pytest.param(
            {"prod": RunnerStatus()},
            "prod: starting; 1 instances, 0 clusters (none published yet)",
            id="just started",
        ),
        pytest.param(
            {"prod": LISTED, "nonprod": replace(LISTED, access={"ready": 2}, succeeded_at=NOW, first_lapse=None)},
            "2 instances, 6 clusters (1 degraded, 5 ready); all listed since 2026-03-01T11:58:00Z; "
            "first token ends 2026-03-01T13:00:00Z",
            id="all is well",
        ),
        pytest.param(
            {
                "prod": replace(LISTED, error="401 from Palette"),
                "nonprod": RunnerStatus(RunnerState.STANDBY, "held by other"),
            },
            "2 instances, 4 clusters (1 degraded, 3 ready); prod: 401 from Palette; standing by for 1; "
            "all listed since 2026-03-01T11:58:00Z; first token ends 2026-03-01T13:00:00Z",
            id="a failing listing and a standby",
        ),
        pytest.param(
            {
                "prod": replace(LISTED, first_lapse=None),
                "nonprod": RunnerStatus(RunnerState.LEADING),
                "dev": RunnerStatus(RunnerState.STANDBY, succeeded_at=NOW),
            },
            "3 instances, 4 clusters (1 degraded, 3 ready); standing by for 1",
            id="one that was never listed, so not all are",
        ),
        pytest.param(
            {"prod": replace(LISTED, first_lapse=None, succeeded_at=None, key_expires_at=NOW + 14 * DAY)},
            "1 instances, 4 clusters (1 degraded, 3 ready); prod: the API key ends 2026-03-15T12:00:00Z",
            id="an API key that ends soon",
        ),
        pytest.param(
            {"prod": RunnerStatus(RunnerState.STORELESS, "Redis cannot be reached")},
            "prod: Redis cannot be reached; 1 instances, 0 clusters (none published yet)",
            id="what keeps it from serving stands first",
        ),
    ],
)
def test_the_status_line_of(statuses: dict[str, RunnerStatus], line: str) -> None:
    assert status_line(statuses, NOW) == line


def test_the_status_line_stays_the_same_while_nothing_happens() -> None:
    """It is not sent every second, so it must not contain an age."""
    line = status_line({"prod": LISTED}, NOW)

    assert status_line({"prod": LISTED}, NOW + HOUR) == line
    assert not re.search(r"\b\d+ ?(s|m|h|seconds|minutes|hours)\b|ago", line)
