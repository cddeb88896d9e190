"""What is worked on first, what a pause after a failure does not suspend, and what one refused token means."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import HOUR, KEY, MINUTE, NOW, OIDC, candidate, record, sealed_credential
from palette_sync.core.due import (
    SUSPICION,
    SUSPICION_REST,
    Due,
    due,
    suspects,
    wakes_at,
)
from palette_sync.core.fold import AccessFailed, fold_memory
from palette_sync.core.model import ClusterKey, ClusterMemory
from palette_sync.core.reasons import Reason
from palette_sync.core.rotation import FIRST_BACKOFF, next_verification
from palette_sync.core.urgency import Urgency, order, urgency

if TYPE_CHECKING:
    from datetime import datetime

VERIFIED = ClusterMemory(verified_at=NOW, desired="as-configured")
FAILURE = AccessFailed(Reason.UNREACHABLE, "no answer")
# Of 24 hours, so the last quarter begins 6 hours before the end.
RENEWABLE = sealed_credential(issued_at=NOW - 12 * HOUR, renew_at=NOW, expires_at=NOW + 12 * HOUR)
LAPSING = sealed_credential(issued_at=NOW - 19 * HOUR, renew_at=NOW - HOUR, expires_at=NOW + 5 * HOUR)
LAPSED = sealed_credential(issued_at=NOW - 24 * HOUR, renew_at=NOW - 9 * HOUR, expires_at=NOW)
UNENDING = sealed_credential(issued_at=NOW - 24 * HOUR, renew_at=NOW, expires_at=None)
NEW: dict[str, Any] = {"record": None, "credential": None, "memory": ClusterMemory()}


def found(now: datetime = NOW, *, resync: bool = False, suspect: datetime | None = None, **changes: Any) -> Due | None:
    return due(candidate(**changes), now=now, verify_interval=HOUR, resync=resync, suspect_since=suspect)


def urgency_of(**changes: Any) -> Urgency:
    one = candidate(**changes)
    work = due(one, now=NOW, verify_interval=HOUR, resync=True)
    assert work is not None
    return urgency(one, work, NOW)


def test_what_an_operator_wants_to_be_rotated_comes_with_what_is_about_to_lapse() -> None:
    work = due(candidate(), now=NOW, verify_interval=HOUR, rotate=True)
    assert work is not None
    assert urgency(candidate(), work, NOW) is Urgency.LAPSING


# -- the order ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"credential": LAPSING}, Urgency.LAPSING, id="a token with less than a quarter of its life"),
        pytest.param(NEW, Urgency.NEW, id="a new cluster"),
        pytest.param({"credential": LAPSED}, Urgency.NEW, id="a token that has lapsed"),
        pytest.param({"credential": RENEWABLE}, Urgency.RENEWAL, id="a renewal"),
        pytest.param({"credential": UNENDING}, Urgency.RENEWAL, id="the rotation of a token that never ends"),
        pytest.param({}, Urgency.VERIFICATION, id="a verification"),
        pytest.param(
            NEW | {"memory": ClusterMemory(failures=1, retry_at=NOW)},
            Urgency.RETRY,
            id="first access that failed",
        ),
    ],
)
def test_work_has_an_urgency(changes: dict[str, Any], expected: Urgency) -> None:
    assert urgency_of(**changes) is expected


def test_work_is_ordered_by_urgency_and_then_by_what_ends_first() -> None:
    given_: list[dict[str, Any]] = [
        {"memory": replace(VERIFIED, verified_at=NOW - MINUTE)},
        {"memory": replace(VERIFIED, verified_at=NOW - HOUR)},
        NEW | {"memory": ClusterMemory(failures=3, retry_at=NOW)},
        {"credential": RENEWABLE},
        {"credential": replace(RENEWABLE, expires_at=NOW + 11 * HOUR)},
        NEW,
        {"credential": LAPSING},
        {"credential": replace(LAPSING, expires_at=NOW + HOUR)},
    ]
    work = [candidate(key=ClusterKey("alpha", str(number)), **one) for number, one in enumerate(given_)]

    def key(one: Any) -> Any:
        reason = due(one, now=NOW, verify_interval=HOUR, resync=True)
        assert reason is not None
        return order(one, reason, NOW)

    assert [one.key.uid for one in sorted(work, key=key)] == ["7", "6", "5", "4", "3", "1", "0", "2"]


# -- pauses after failures ---------------------------------------------------------------------------------------------


@given(st.integers(0, 9), st.lists(st.integers(0, 20), max_size=9))
def test_failures_within_a_pause_count_once_and_never_lengthen_it(before: int, seconds: list[int]) -> None:
    memory = fold_memory(ClusterMemory(failures=before), FAILURE, key=KEY, desired="d", now=NOW)

    again = memory
    for second in seconds:
        again = fold_memory(again, FAILURE, key=KEY, desired="d", now=NOW + timedelta(seconds=second), hung=True)

    assert (again.failures, again.retry_at) == (memory.failures, memory.retry_at)


def test_the_next_failure_after_a_pause_counts() -> None:
    memory = fold_memory(ClusterMemory(), FAILURE, key=KEY, desired="d", now=NOW)

    again = fold_memory(memory, FAILURE, key=KEY, desired="d", now=NOW + FIRST_BACKOFF)

    assert again.failures == 2


def test_a_failure_is_remembered_with_its_time_and_whether_the_server_hung() -> None:
    memory = fold_memory(ClusterMemory(), FAILURE, key=KEY, desired="d", now=NOW, hung=True)

    assert (memory.tried_at, memory.hung) == (NOW, True)


def resting(**changes: Any) -> ClusterMemory:
    return replace(VERIFIED, failures=9, retry_at=NOW + 20 * MINUTE, tried_at=NOW, **changes)


def test_a_pause_suspends_no_verification_of_a_token_that_works() -> None:
    comes = next_verification(KEY, NOW, 5 * MINUTE)
    assert comes is not None
    one = candidate(memory=resting())

    work = due(one, now=comes, verify_interval=5 * MINUTE)

    assert work == Due(Reason.VERIFY_DUE, "the verification interval has passed")
    assert due(one, now=comes - timedelta(seconds=1), verify_interval=5 * MINUTE) is None
    wakes = wakes_at(one, now=NOW, verify_interval=5 * MINUTE)
    assert wakes is not None
    assert comes <= wakes < NOW + 20 * MINUTE


def test_a_verification_that_failed_in_a_pause_is_not_repeated_before_the_next_interval() -> None:
    comes = next_verification(KEY, NOW, 5 * MINUTE)
    assert comes is not None

    assert due(candidate(memory=replace(resting(), tried_at=comes)), now=comes, verify_interval=5 * MINUTE) is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"memory": resting(hung=True)}, id="the API server hung"),
        pytest.param({"memory": resting(), "credential": LAPSING}, id="a new token is due, and its attempts look too"),
        pytest.param({"memory": resting(), "credential": None, "record": record(auth=OIDC)}, id="OIDC has no token"),
        pytest.param({"memory": resting(), "credential": None}, id="no token"),
        pytest.param({"memory": resting(), "record": None}, id="never published"),
        pytest.param({"memory": replace(resting(), tried_at=None)}, id="an older version wrote the memory"),
    ],
)
def test_in_a_pause_everything_else_waits(changes: dict[str, Any]) -> None:
    one = candidate(**changes)

    assert due(one, now=NOW + 19 * MINUTE, verify_interval=5 * MINUTE) is None
    assert wakes_at(one, now=NOW + 19 * MINUTE, verify_interval=5 * MINUTE) == NOW + 20 * MINUTE


def test_a_token_that_was_never_verified_is_verified_in_a_pause() -> None:
    comes = next_verification(KEY, NOW, 5 * MINUTE)
    assert comes is not None

    assert due(candidate(memory=replace(resting(), verified_at=None)), now=comes, verify_interval=5 * MINUTE)


# -- one refused token -------------------------------------------------------------------------------------------------


@given(st.text("0123456789abcdef", min_size=1, max_size=24))
def test_after_a_refused_token_all_others_are_verified_within_the_time_of_suspicion(uid: str) -> None:
    one = candidate(key=ClusterKey("alpha", uid), memory=replace(VERIFIED, verified_at=NOW))
    since = NOW + timedelta(seconds=1)

    def work(now: datetime) -> Due | None:
        return due(one, now=now, verify_interval=3650 * 24 * HOUR, suspect_since=since)

    wakes = wakes_at(one, now=NOW, verify_interval=3650 * 24 * HOUR, suspect_since=since)
    assert wakes is not None
    assert since <= wakes <= since + SUSPICION
    assert work(wakes) == Due(Reason.VERIFY_DUE, "the token of another cluster was refused")
    assert work(wakes - timedelta(microseconds=1)) is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"memory": replace(VERIFIED, verified_at=NOW + SUSPICION)}, id="verified since"),
        pytest.param({"credential": sealed_credential(issued_at=NOW)}, id="issued since"),
        pytest.param({"record": record(auth=OIDC), "credential": None, "mode": None}, id="no token"),
    ],
)
def test_a_token_that_is_beyond_suspicion_is_left_alone(changes: dict[str, Any]) -> None:
    one = candidate(**changes)

    assert due(one, now=NOW + SUSPICION, verify_interval=3650 * 24 * HOUR, suspect_since=NOW) is None


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (None, True),
        (NOW, False),
        (NOW - SUSPICION_REST + timedelta(seconds=1), False),
        (NOW - SUSPICION_REST, True),
        (NOW + timedelta(seconds=1), True),
    ],
)
def test_refused_tokens_make_others_suspect_once_in_a_while(since: datetime | None, *, expected: bool) -> None:
    assert suspects(since, NOW) is expected
