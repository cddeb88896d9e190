"""A pass works only on what is due and gives the reason; everything else needs no request."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    HOUR,
    KEY,
    MINUTE,
    NOW,
    OIDC,
    SERVER,
    access,
    candidate,
    cluster,
    record,
    sealed_credential,
)
from palette_sync.core.due import Candidate, Due, asks_again, due, has_access, waits, wakes_at
from palette_sync.core.model import AccessState, AuthMode, ClusterMemory, RetiredSecret, ServiceAccountAuth
from palette_sync.core.policy import TokenPolicy
from palette_sync.core.reasons import Reason
from palette_sync.core.rotation import CLOCK_TOLERANCE, LONGEST_BACKOFF

if TYPE_CHECKING:
    from datetime import datetime

VERIFIED = ClusterMemory(verified_at=NOW, desired="as-configured")
FAILING = replace(VERIFIED, failures=2, retry_at=NOW + MINUTE)
NO_ACCESS = record(server=None, auth=None, access=access(AccessState.PENDING, "NotRunning"))
OIDC_RECORD = record(auth=OIDC)
LAPSED = sealed_credential(renew_at=NOW - 2 * HOUR, expires_at=NOW)
RENEWABLE = sealed_credential(renew_at=NOW)


def found(one: Candidate, *, now: datetime = NOW, resync: bool = False) -> Due | None:
    return due(one, now=now, verify_interval=HOUR, resync=resync)


def reason(**changes: Any) -> str | None:
    """The reason for which a healthy candidate with these changes is worked on."""
    one = found(candidate(**changes))
    return one.reason if one else None


def test_on_a_healthy_cluster_nothing_is_due() -> None:
    assert found(candidate()) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"record": None, "credential": None, "memory": ClusterMemory()},
            Due(Reason.NEW, "not published yet", True),
            id="new",
        ),
        pytest.param(
            {"record": NO_ACCESS, "credential": None, "memory": ClusterMemory()},
            Due(Reason.NO_ACCESS, "no working access yet", True),
            id="published without access",
        ),
        pytest.param(
            {"credential": None}, Due(Reason.NO_ACCESS, "no working access yet", True), id="its credential is missing"
        ),
        pytest.param({"record": record(auth=None)}, None, id="a credential and a server are access in every mode"),
        pytest.param(
            {"mode": AuthMode.OIDC},
            Due(Reason.MODE_CHANGED, "configured for OIDC now"),
            id="moved to OIDC by the operator",
        ),
        pytest.param(
            {"record": OIDC_RECORD, "credential": None},
            Due(Reason.MODE_CHANGED, "configured for a service account now", True),
            id="moved to a service account by the operator",
        ),
        pytest.param({"mode": None}, None, id="auto keeps a service account"),
        pytest.param(
            {"mode": None, "record": OIDC_RECORD, "credential": None},
            None,
            id="auto keeps OIDC, which has no credential",
        ),
        pytest.param(
            {"desired": "changed"},
            Due(
                Reason.CONFIG_CHANGED, "the configured access differs from what the cluster was given", needs_admin=True
            ),
            id="other rules or names are configured",
        ),
        pytest.param(
            {"desired": "changed", "former_desired": "as-configured"}, None, id="it was stored in the former form"
        ),
        pytest.param(
            {"memory": replace(VERIFIED, desired=None)}, None, id="an unknown earlier configuration is no change"
        ),
        pytest.param(
            {"credential": LAPSED},
            Due(Reason.TOKEN_LAPSED, "the token has expired", True, urgent=True),
            id="the token has expired",
        ),
        pytest.param(
            {"credential": RENEWABLE},
            Due(Reason.TOKEN_DUE, "the token has reached its renewal time", True, urgent=True),
            id="the token has reached its renewal time",
        ),
        pytest.param(
            {"credential": sealed_credential(issued_at=NOW + HOUR)},
            Due(Reason.TOKEN_DUE, "the token has reached its renewal time", True, urgent=True),
            id="a token issued in the future shows that the clock leapt",
        ),
        pytest.param(
            {"credential": sealed_credential(renew_at=NOW + HOUR, expires_at=None)},
            None,
            id="a token that never expires waits",
        ),
        pytest.param(
            {"mode": AuthMode.OIDC, "record": OIDC_RECORD, "credential": LAPSED},
            None,
            id="a token left over beside OIDC is not renewed",
        ),
        pytest.param(
            {"cluster": cluster(health="UnHealthy")},
            Due(Reason.STATE_CHANGED, "Palette reports Running/UnHealthy, before Running/Healthy"),
            id="Palette reports another health",
        ),
        pytest.param(
            {"cluster": cluster(state="Error", health="")},
            Due(Reason.STATE_CHANGED, "Palette reports Error, before Running/Healthy"),
            id="Palette reports another state",
        ),
        pytest.param(
            {"memory": replace(VERIFIED, retired=(RetiredSecret("old", "u", NOW),))},
            Due(Reason.OVERLAP_OVER, "the overlap of a replaced Secret is over", needs_admin=True),
            id="the overlap of a replaced Secret is over",
        ),
        pytest.param(
            {"memory": replace(VERIFIED, retired=(RetiredSecret("old", "u", NOW + MINUTE),))},
            None,
            id="a replaced Secret waits for the end of its overlap",
        ),
        pytest.param(
            {"record": record(access=access(AccessState.DEGRADED, "Unreachable"))},
            Due(Reason.RETRY_DUE, "attempt 1 after a failure"),
            id="published as failing though no failure is remembered",
        ),
        pytest.param(
            {"memory": replace(FAILING, retry_at=NOW)},
            Due(Reason.RETRY_DUE, "attempt 3 after a failure"),
            id="its backoff has passed",
        ),
        pytest.param(
            {"memory": replace(FAILING, retry_at=None)},
            Due(Reason.RETRY_DUE, "attempt 3 after a failure"),
            id="a failure without backoff is tried again",
        ),
        pytest.param({"memory": FAILING}, None, id="its backoff is not over"),
        pytest.param(
            {"memory": replace(FAILING, retry_at=NOW + LONGEST_BACKOFF)},
            None,
            id="even the longest backoff is respected",
        ),
        pytest.param(
            {"memory": replace(FAILING, retry_at=NOW + LONGEST_BACKOFF + 2 * CLOCK_TOLERANCE)},
            Due(Reason.RETRY_DUE, "attempt 3 after a failure"),
            id="a backoff longer than the longest shows that the clock leapt",
        ),
        pytest.param(
            {"memory": replace(VERIFIED, verified_at=NOW - HOUR)},
            Due(Reason.VERIFY_DUE, "the verification interval has passed"),
            id="its verification is due",
        ),
        pytest.param(
            {"memory": ClusterMemory(desired="as-configured")},
            Due(Reason.VERIFY_DUE, "the verification interval has passed"),
            id="it was never verified",
        ),
    ],
)
def test_what_is_due_and_why(changes: dict[str, Any], expected: Due | None) -> None:
    assert found(candidate(**changes)) == expected


# ---- First access waits for Running; existing access is kept in every state ------------------------------------------


@pytest.mark.parametrize("state", ["Provisioning", "Pending", "Importing", "Error", "Unknown", ""])
def test_first_access_waits_until_palette_reports_running(state: str) -> None:
    new = candidate(cluster=cluster(state=state), record=None, credential=None, memory=ClusterMemory())

    assert waits(new, NOW)
    assert found(new) is None
    assert found(new, resync=True) is None


def test_first_access_to_an_imported_cluster_waits_until_its_row_changes() -> None:
    new = candidate(cluster=cluster(imported=True), record=None, credential=None, memory=ClusterMemory())

    assert found(new, resync=True) is None
    assert found(replace(new, cluster=cluster())) is not None
    assert found(candidate(cluster=cluster(imported=True), credential=RENEWABLE)) is not None, "what works is kept"


@pytest.mark.parametrize("state", ["Provisioning", "Error", "Unknown", ""])
def test_an_existing_credential_is_renewed_in_every_state(state: str) -> None:
    shown = record(palette=replace(record().palette, state=state, health=""))
    one = candidate(cluster=cluster(state=state, health=""), record=shown, credential=RENEWABLE)

    assert not waits(one, NOW)
    assert found(one) == Due(Reason.TOKEN_DUE, "the token has reached its renewal time", issue=True, urgent=True)


def test_oidc_access_is_verified_in_every_state() -> None:
    shown = record(auth=OIDC, palette=replace(record().palette, state="Error"))
    one = candidate(
        cluster=cluster(state="Error"),
        record=shown,
        credential=None,
        mode=AuthMode.OIDC,
        memory=replace(VERIFIED, verified_at=None),
    )

    assert found(one) == Due(Reason.VERIFY_DUE, "the verification interval has passed")


@pytest.mark.parametrize("resync", [False, True], ids=["in any pass", "not even for a resync"])
def test_a_paused_cluster_is_not_worked_on(*, resync: bool) -> None:
    paused = candidate(cluster=cluster(paused=True, virtual=True), credential=LAPSED)

    assert waits(paused, NOW)
    assert found(paused, resync=resync) is None


@pytest.mark.parametrize(
    ("changes", "access_was_gained"),
    [
        pytest.param({}, True, id="a server and a credential are access"),
        pytest.param({"credential": LAPSED}, True, id="an expired credential shows earlier access"),
        pytest.param({"record": OIDC_RECORD, "credential": None}, True, id="OIDC needs no credential"),
        pytest.param({"record": None}, False, id="a credential without a record is no access"),
        pytest.param({"record": NO_ACCESS}, False, id="a credential without a server is no access"),
        pytest.param({"credential": None}, False, id="a service account without a credential is no access"),
    ],
)
def test_which_records_and_credentials_count_as_access(changes: dict[str, Any], *, access_was_gained: bool) -> None:
    assert has_access(candidate(**changes)) is access_was_gained


# ---- Backoff and resync ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"credential": RENEWABLE}, None, id="a due token waits for the backoff"),
        pytest.param({"credential": LAPSED}, None, id="an expired token waits for the backoff"),
        pytest.param({"record": None, "credential": None}, None, id="a new cluster that failed waits"),
        pytest.param({"desired": "changed"}, "ConfigChanged", id="a changed configuration ends the backoff"),
        pytest.param({"cluster": cluster(health="")}, "StateChanged", id="another health ends the backoff"),
    ],
)
def test_a_failed_cluster_waits_for_its_backoff_unless_something_changed(
    changes: dict[str, Any], expected: str | None
) -> None:
    assert reason(memory=FAILING, **changes) == expected


@pytest.mark.parametrize(
    ("why", "changes", "expected"),
    [
        pytest.param(Reason.NEEDS_AWS_CREDENTIALS, {}, None, id="a settled failure waits for hours"),
        pytest.param(Reason.NEEDS_AWS_CREDENTIALS, {"desired": "x"}, "NoAccess", id="a configuration ends the wait"),
        pytest.param(
            Reason.NEEDS_AWS_CREDENTIALS, {"cluster": cluster(health="")}, "NoAccess", id="a change in Palette ends it"
        ),
        pytest.param(Reason.UNREACHABLE, {}, "NoAccess", id="for another failure such a wait is a clock that jumped"),
    ],
)
def test_a_settled_failure_waits_longer_than_any_other(
    why: Reason, changes: dict[str, Any], expected: str | None
) -> None:
    memory = replace(FAILING, retry_at=NOW + 6 * HOUR)
    failed = replace(NO_ACCESS, access=access(AccessState.FAILED, why))

    assert reason(record=failed, credential=None, memory=memory, **changes) == expected


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        pytest.param(VERIFIED, Due(Reason.RESYNC, "an operator asked for it"), id="a healthy cluster is verified"),
        pytest.param(FAILING, Due(Reason.RETRY_DUE, "attempt 3 after a failure"), id="a failed cluster does not wait"),
        pytest.param(
            replace(VERIFIED, legacy=True),
            Due(Reason.RESYNC, "an operator asked for it", needs_admin=True),
            id="a legacy Secret may be hidden from the read-only token",
        ),
        pytest.param(
            replace(VERIFIED, verified_at=None),
            Due(Reason.RESYNC, "an operator asked for it"),
            id="the resync is the reason although a verification is due",
        ),
    ],
)
def test_a_resync_verifies_every_cluster_at_once(memory: ClusterMemory, expected: Due) -> None:
    assert found(candidate(memory=memory), resync=True) == expected


# ---- The order of the reasons ----------------------------------------------------------------------------------------

ORDER: list[tuple[str, dict[str, Any]]] = [
    ("ModeChanged", {"mode": AuthMode.OIDC}),
    ("ConfigChanged", {"desired": "changed"}),
    ("TokenDue", {"credential": RENEWABLE}),
    ("StateChanged", {"cluster": cluster(health="")}),
    ("OverlapOver", {"memory": replace(VERIFIED, retired=(RetiredSecret("old", "u", NOW),))}),
]


@pytest.mark.parametrize("first", range(len(ORDER)), ids=[name for name, _ in ORDER])
def test_of_several_reasons_the_first_in_the_order_is_reported(first: int) -> None:
    changes: dict[str, Any] = {}
    for _, more in ORDER[first:]:
        changes |= more

    assert reason(**changes) == ORDER[first][0]


# ---- Properties ------------------------------------------------------------------------------------------------------

moments = st.timedeltas(-40 * HOUR, 40 * HOUR).map(lambda delta: NOW + delta)
works = st.builds(
    ClusterMemory,
    verified_at=st.none() | moments,
    failures=st.integers(0, 9),
    retry_at=st.none() | moments,
    desired=st.sampled_from([None, "as-configured", "changed"]),
    retired=st.lists(moments.map(lambda end: RetiredSecret("old", "u", end)), max_size=2).map(tuple),
)
candidates = st.builds(
    Candidate,
    key=st.just(KEY),
    cluster=st.builds(
        cluster, state=st.sampled_from(["Running", "Error"]), health=st.just(""), paused=st.sampled_from([False, True])
    ),
    record=st.none()
    | st.builds(
        record,
        server=st.sampled_from([SERVER, None]),
        auth=st.sampled_from([ServiceAccountAuth(), OIDC, None]),
        access=st.sampled_from(AccessState).map(access),
    ),
    credential=st.none()
    | st.builds(sealed_credential, issued_at=moments, renew_at=moments, expires_at=st.none() | moments),
    memory=works,
    mode=st.sampled_from([*AuthMode, None]),
    desired=st.just("as-configured"),
)


@given(candidates)
def test_a_cluster_that_waits_is_never_worked_on_not_even_by_a_resync(one: Candidate) -> None:
    assert not (waits(one, NOW) and (found(one) or found(one, resync=True)))


@given(candidates)
def test_a_resync_reaches_every_cluster_that_does_not_wait(one: Candidate) -> None:
    assert waits(one, NOW) or found(one, resync=True) is not None


@given(candidates)
def test_no_cluster_is_forgotten_for_longer_than_the_longest_wait(one: Candidate) -> None:
    """Whatever the memory holds, also after a clock leap, work is due after one backoff and one interval."""
    later = NOW + LONGEST_BACKOFF + CLOCK_TOLERANCE + HOUR
    ticks = (NOW + timedelta(minutes=10) * number for number in range(1 + (later - NOW) // timedelta(minutes=10) + 1))

    assert waits(one, NOW) or any(found(one, now=tick) for tick in ticks)


@given(candidates)
def test_a_new_token_is_issued_only_where_no_token_works_or_its_renewal_is_due(one: Candidate) -> None:
    wanted = found(one)

    if wanted is not None and wanted.issue:
        assert wanted.reason in {"New", "NoAccess", "ModeChanged", "TokenLapsed", "TokenDue"}


# -- asked again, and shorter lives ----------------------------------------------------------------------------------

TOKENS = TokenPolicy(validity=HOUR, rotate_every=24 * HOUR, overlap=MINUTE)


@pytest.mark.parametrize(
    ("requested", "expires_in", "expected"),
    [
        pytest.param(24 * HOUR, 23 * HOUR, Reason.TOKEN_DUE, id="it lives longer than is configured by now"),
        pytest.param(24 * HOUR, HOUR, None, id="it ends in time"),
        pytest.param(HOUR, 23 * HOUR, None, id="the API server granted more than was asked for"),
        pytest.param(None, 23 * HOUR, None, id="nobody knows what was asked for"),
        pytest.param(24 * HOUR, None, None, id="a Secret's token has no end"),
    ],
)
def test_a_shortened_validity_renews_what_lives_longer(
    requested: timedelta | None, expires_in: timedelta | None, expected: Reason | None
) -> None:
    expires_at = None if expires_in is None else NOW + expires_in
    token = sealed_credential(expires_at=expires_at, issued_at=NOW - MINUTE, renew_at=NOW + 8 * HOUR)

    assert reason(credential=token, memory=replace(VERIFIED, validity=requested), token=TOKENS) == expected


@pytest.mark.parametrize(("age", "expected"), [(24 * HOUR, Reason.TOKEN_DUE), (23 * HOUR, None)])
def test_a_shortened_rotate_every_renews_what_is_older(age: timedelta, expected: Reason | None) -> None:
    token = sealed_credential(expires_at=None, issued_at=NOW - age, renew_at=NOW + 8 * HOUR)

    assert reason(credential=token, token=TOKENS) == expected


def test_a_token_beside_oidc_is_not_renewed_for_its_life() -> None:
    assert (
        reason(record=OIDC_RECORD, mode=AuthMode.OIDC, token=TOKENS, memory=replace(VERIFIED, validity=99 * HOUR))
        is None
    )


@pytest.mark.parametrize(("in_seconds", "expected"), [(0, Reason.VERIFY_DUE), (1, None)])
def test_a_token_is_verified_again_once_the_cache_of_the_api_server_has_passed(
    in_seconds: int, expected: Reason | None
) -> None:
    again = NOW + timedelta(seconds=in_seconds)
    memory = replace(VERIFIED, recheck_at=again)

    assert reason(memory=memory) == expected
    assert wakes_at(candidate(memory=memory), now=NOW - HOUR, verify_interval=1000 * HOUR) == again


@pytest.mark.parametrize(
    ("prompted", "seen", "expected"),
    [
        (Reason.RESYNC, False, True),
        (Reason.STATE_CHANGED, False, True),
        (Reason.CONFIG_CHANGED, False, True),
        (Reason.RETRY_DUE, False, True),
        (Reason.RESYNC, True, False),
        (Reason.VERIFY_DUE, False, False),
    ],
)
def test_what_happened_just_now_is_asked_about_again_where_the_secret_was_not_seen(
    prompted: Reason,
    seen: bool,  # noqa: FBT001
    expected: bool,  # noqa: FBT001
) -> None:
    assert asks_again(Due(prompted, ""), secrets_seen=seen) is expected
