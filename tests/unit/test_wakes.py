"""A cluster wakes its runner when it becomes due and not before: `wakes_at` and `due` never disagree."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
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
    by_uid,
    candidate,
    cluster,
    record,
    sealed_credential,
)
from palette_sync.core.candidates import Candidates, mode_in_use
from palette_sync.core.due import PATIENCE, Due, due, wakes_at
from palette_sync.core.fold import SHORTEST_BACKOFF, AccessFailed, AccessGained, Presentation, fold_memory
from palette_sync.core.issuers import IssuerPolicy
from palette_sync.core.model import (
    AccessState,
    AuthMode,
    ClusterKey,
    ClusterMemory,
    InstanceState,
    IssuerMetadata,
    OidcAuth,
    RetiredSecret,
    Server,
    ServiceAccountAuth,
    ca_data_of,
)
from palette_sync.core.objects import Desired
from palette_sync.core.policy import InstancePolicy, OidcPolicy, TokenPolicy
from palette_sync.core.rbac import PRESETS
from palette_sync.core.reasons import Reason
from palette_sync.core.rotation import CLOCK_TOLERANCE, LONGEST_BACKOFF, backoff, next_verification, verify_due
from palette_sync.core.select import AuthRule, CaRule, Filters

if TYPE_CHECKING:
    from palette_sync.core.due import Candidate

SECOND = timedelta(seconds=1)
VERIFIED = ClusterMemory(verified_at=NOW, desired="as-configured")
OIDC_RECORD = record(auth=OIDC)
POLICY = InstancePolicy(
    instance="alpha",
    name_prefix="alpha",
    filters=Filters(),
    default_mode=AuthMode.SERVICE_ACCOUNT,
    auth_rules=(AuthRule(AuthMode.OIDC, tag="auth:oidc"),),
    oidc=OidcPolicy("spectrocloud", refresh_interval=HOUR, issuers=IssuerPolicy(frozenset())),
    desired=Desired(
        namespace="backstage",
        service_account="backstage",
        secret="backstage-token",
        cluster_role="backstage",
        cluster_role_binding="backstage",
        rules=PRESETS["read-only"],
        adopt="matching",
        token_source="request",
    ),
    token=TokenPolicy(24 * HOUR, 24 * HOUR, HOUR),
    presentation=Presentation("", ""),
    verify_interval=HOUR,
    cluster_timeout=10 * SECOND,
)


def wake(one: Candidate, now: datetime = NOW) -> datetime | None:
    return wakes_at(one, now=now, verify_interval=HOUR)


def is_due(one: Candidate, now: datetime) -> bool:
    return due(one, now=now, verify_interval=HOUR) is not None


# -- one cluster -----------------------------------------------------------------------------------------------------

spans = st.timedeltas(timedelta(0), timedelta(days=2)).map(
    lambda span: span - timedelta(microseconds=span.microseconds)
)
keys = st.builds(ClusterKey, st.just("alpha"), st.text("0123456789abcdef", min_size=1, max_size=24))


KINDS = ("token", "token without end", "oidc", "oidc beside an old token")


@st.composite
def quiet_candidates(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS, *, failing: bool | None = None) -> Candidate:
    """A published cluster on which nothing is due now, with any combination of what may become due later.

    `failing` says whether it waits for the end of a backoff; None = either.
    """
    life = draw(spans) + MINUTE
    memory = ClusterMemory(
        verified_at=NOW - draw(spans) / 48,
        desired="as-configured",
        retired=tuple(
            RetiredSecret(f"s{number}", "uid", NOW + draw(spans) + SECOND) for number in range(draw(st.integers(0, 2)))
        ),
    )
    shape: dict[str, Any] = {"memory": memory}
    kind = draw(st.sampled_from(kinds))
    if kind == "token":
        shape["credential"] = sealed_credential(renew_at=NOW + life * 2 / 3, expires_at=NOW + life)
    elif kind == "token without end":
        shape["credential"] = sealed_credential(renew_at=NOW + life, expires_at=None)
    else:
        shape |= {"record": OIDC_RECORD, "mode": AuthMode.OIDC}
        shape["credential"] = (
            None if kind == "oidc" else sealed_credential(renew_at=NOW + SECOND, expires_at=NOW + MINUTE)
        )
    if draw(st.booleans()) if failing is None else failing:
        shape["memory"] = replace(memory, failures=draw(st.integers(1, 9)), retry_at=NOW + draw(spans) / 96 + SECOND)
    one = candidate(key=draw(keys), **shape)
    # Only a verification can be due. Take it away here instead of discarding the example.
    return replace(one, memory=replace(one.memory, verified_at=NOW)) if is_due(one, NOW) else one


@given(quiet_candidates())
def test_a_cluster_is_due_when_it_wakes_and_at_most_patience_earlier(one: Candidate) -> None:
    assert not is_due(one, NOW)
    wakes = wake(one)

    assert wakes is not None
    assert is_due(one, wakes)
    assert not is_due(one, max(wakes - PATIENCE - SECOND, NOW))


@given(quiet_candidates(kinds=("token", "token without end"), failing=False))
def test_a_cluster_wakes_no_later_than_the_renewal_time_of_its_token(one: Candidate) -> None:
    assert one.credential is not None

    wakes = wake(one)

    assert wakes is not None
    assert wakes <= one.credential.renew_at


@given(quiet_candidates(), st.integers(0, 99))
def test_the_wake_time_does_not_change_as_it_approaches(one: Candidate, percent: int) -> None:
    wakes = wake(one)
    assert wakes is not None
    later = NOW + (wakes - NOW) * percent / 100

    assert wake(one, later) == wakes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"credential": sealed_credential(renew_at=NOW + MINUTE)}, NOW + MINUTE, id="a renewal wakes at its second"
        ),
        pytest.param(
            {"memory": replace(VERIFIED, failures=3, retry_at=NOW + 2 * MINUTE)}, NOW + 2 * MINUTE, id="a backoff's end"
        ),
        pytest.param(
            {
                "memory": replace(VERIFIED, failures=3, retry_at=NOW + 5 * MINUTE),
                "credential": sealed_credential(renew_at=NOW + MINUTE),
            },
            NOW + 5 * MINUTE,
            id="a renewal waits for the backoff",
        ),
        pytest.param(
            {"memory": replace(VERIFIED, retired=(RetiredSecret("old", "u", NOW + MINUTE),))},
            NOW + MINUTE + PATIENCE,
            id="the deletion of a replaced Secret may come late by PATIENCE",
        ),
        pytest.param({"cluster": cluster(paused=True)}, None, id="a paused cluster never"),
        pytest.param(
            {
                "cluster": cluster(state="Provisioning"),
                "record": record(server=None, auth=None, access=access(AccessState.PENDING, "NotRunning")),
                "credential": None,
                "memory": ClusterMemory(),
            },
            None,
            id="a cluster that waits for Running never",
        ),
        pytest.param(
            {"record": OIDC_RECORD, "mode": AuthMode.OIDC, "credential": None, "memory": ClusterMemory()},
            None,
            id="a cluster that was never verified is due already",
        ),
        pytest.param(
            {
                "record": OIDC_RECORD,
                "mode": AuthMode.OIDC,
                "credential": sealed_credential(renew_at=NOW + SECOND),
                "memory": VERIFIED,
            },
            next_verification(KEY, NOW, HOUR) + PATIENCE,  # type: ignore[operator]
            id="a token left over beside OIDC wakes nobody",
        ),
        pytest.param(
            {"memory": replace(VERIFIED, failures=1, retry_at=NOW + LONGEST_BACKOFF + 2 * CLOCK_TOLERANCE)},
            NOW,
            id="a backoff that no failure could have set is ignored",
        ),
        pytest.param(
            {"memory": replace(VERIFIED, failures=1, retry_at=NOW - SECOND)},
            NOW,
            id="a backoff that ended during a pass",
        ),
    ],
)
def test_the_earliest_event_wakes_the_runner(changes: dict[str, Any], expected: datetime | None) -> None:
    assert wake(candidate(**changes)) == expected


MOMENTS = st.integers(0, 400 * 86_400_000_000).map(lambda microseconds: NOW + timedelta(microseconds=microseconds))


@given(keys, MOMENTS, st.integers(1, 100))
def test_the_next_verification_is_the_first_moment_at_which_one_is_due(
    key: ClusterKey, verified_at: datetime, minutes: int
) -> None:
    interval = minutes * MINUTE
    comes = next_verification(key, verified_at, interval)

    assert comes is not None
    assert verified_at < comes <= verified_at + interval
    assert verify_due(key, verified_at, comes, interval)
    assert not verify_due(key, verified_at, comes - timedelta(microseconds=1), interval)


def test_a_cluster_that_was_never_verified_has_no_next_verification() -> None:
    assert next_verification(KEY, None, HOUR) is None


# -- renewals that share a pass --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "left", "shares"),
    [
        pytest.param(24 * HOUR, MINUTE, True, id="within the minute"),
        pytest.param(24 * HOUR, MINUTE + SECOND, False, id="after the minute"),
        pytest.param(2 * MINUTE, 10 * SECOND, True, id="within a twelfth of a short life"),
        pytest.param(2 * MINUTE, 11 * SECOND, False, id="after a twelfth of a short life"),
        pytest.param(None, MINUTE, True, id="a token that never expires"),
    ],
)
def test_renewals_that_are_due_soon_share_a_pass(life: timedelta | None, left: timedelta, *, shares: bool) -> None:
    token = sealed_credential(
        issued_at=NOW - MINUTE, renew_at=NOW + left, expires_at=None if life is None else NOW - MINUTE + life
    )
    found = due(candidate(credential=token), now=NOW, verify_interval=HOUR, ahead=MINUTE)

    assert found == (
        Due(Reason.TOKEN_DUE, "the token has reached its renewal time", issue=True, urgent=True) if shares else None
    )


def test_an_oidc_cluster_has_no_renewal_that_could_share_a_pass() -> None:
    one = candidate(record=OIDC_RECORD, mode=AuthMode.OIDC, credential=None)

    assert due(one, now=NOW, verify_interval=HOUR, ahead=MINUTE) is None


# -- backoffs in the life of a token ---------------------------------------------------------------------------------

FAILURE = AccessFailed(Reason.UNREACHABLE, "no answer")
failures = st.integers(0, 40)


def folded(failures: int, left: timedelta | None) -> timedelta:
    """The backoff after one more failure of a cluster whose token is valid for `left`."""
    memory = fold_memory(
        ClusterMemory(failures=failures),
        FAILURE,
        key=KEY,
        desired="as-configured",
        now=NOW,
        expires_at=None if left is None else NOW + left,
    )
    assert memory.failures == failures + 1
    assert memory.retry_at is not None
    return memory.retry_at - NOW


@given(failures, st.timedeltas(SECOND, timedelta(days=3)))
def test_a_backoff_leaves_time_for_several_attempts_before_the_token_ends(failures: int, left: timedelta) -> None:
    pause = folded(failures, left)

    assert pause <= max(left / 4, SHORTEST_BACKOFF)
    assert pause <= backoff(failures + 1, KEY)
    assert pause >= min(SHORTEST_BACKOFF, backoff(failures + 1, KEY)) - SECOND


@pytest.mark.parametrize("left", [None, timedelta(0), -HOUR])
def test_a_token_that_never_expires_or_has_expired_shortens_no_backoff(left: timedelta | None) -> None:
    assert folded(9, left) == backoff(10, KEY)


def test_success_forgets_failures_and_backoff() -> None:
    gained = AccessGained(SERVER, ServiceAccountAuth(), "v1.33.1", "as-configured")
    memory = ClusterMemory(failures=4, retry_at=NOW)

    assert fold_memory(memory, gained, key=KEY, desired="x", now=NOW, expires_at=NOW + HOUR) == VERIFIED


# -- all clusters of an instance -------------------------------------------------------------------------------------


def oidc_record(uid: str, issuer: str = OIDC.issuer_url) -> Any:
    return record(uid, f"alpha-{uid}", auth=OidcAuth("spectrocloud", issuer, "backstage"))


def oidc_memory(**changes: Any) -> ClusterMemory:
    return ClusterMemory(**({"verified_at": NOW, "desired": POLICY.fingerprint(AuthMode.OIDC)} | changes))


def view(rows: Any = (), *, now: datetime = NOW, **state: Any) -> Candidates:
    return Candidates(POLICY, InstanceState(**state), {one.uid: one for one in rows}, now=now)


def published(one: Candidates, *uids: str) -> list[Candidate]:
    return [one.published(uid) for uid in uids]


def test_a_listed_cluster_comes_with_its_record_credential_and_memory() -> None:
    memory = ClusterMemory(verified_at=NOW, desired=POLICY.fingerprint(AuthMode.SERVICE_ACCOUNT))
    seen = view(records=by_uid(record()), credentials={"c1": sealed_credential()}, memory={"c1": memory}).listed(
        cluster()
    )

    assert (seen.record, seen.credential, seen.memory) == (record(), sealed_credential(), memory)
    assert (seen.mode, seen.desired) == (AuthMode.SERVICE_ACCOUNT, memory.desired)


def test_an_untrusted_snapshot_gives_no_credential() -> None:
    seen = view(records=by_uid(record()), credentials={"c1": sealed_credential()}, trusted=False)

    assert seen.listed(cluster()).credential is None
    assert seen.published("c1").credential is None


def test_a_published_cluster_comes_as_it_was_last_listed() -> None:
    row = cluster(tags=("auth:oidc",), health="UnHealthy")

    seen = view([row], records=by_uid(record())).published("c1")

    assert (seen.cluster, seen.mode) == (row, AuthMode.OIDC)


def test_without_a_row_a_cluster_keeps_the_access_mode_of_its_record() -> None:
    seen = view(records=by_uid(record(), oidc_record("c2")))

    assert [one.mode for one in published(seen, "c1", "c2")] == [AuthMode.SERVICE_ACCOUNT, AuthMode.OIDC]
    assert seen.published("c2").desired == POLICY.fingerprint(AuthMode.OIDC)
    assert mode_in_use(None) is AuthMode.SERVICE_ACCOUNT


def test_auto_compares_with_the_configuration_of_the_access_in_use() -> None:
    policy = replace(POLICY, default_mode=None)
    seen = Candidates(policy, InstanceState(records=by_uid(oidc_record("c1"))), {}, now=NOW).listed(cluster())

    assert (seen.mode, seen.desired) == (None, policy.fingerprint(AuthMode.OIDC, auto=True))


@pytest.mark.parametrize("auto", [True, False])
def test_without_a_row_a_cluster_keeps_how_its_mode_was_found(auto: bool) -> None:  # noqa: FBT001
    known = POLICY.fingerprint(AuthMode.SERVICE_ACCOUNT, auto=auto)
    seen = view(records=by_uid(record()), memory={"c1": ClusterMemory(desired=known)}).published("c1")

    assert (seen.auto, seen.desired, seen.mode) == (auto, known, AuthMode.SERVICE_ACCOUNT)


CA, ROOT = "-----BEGIN CERTIFICATE-----\nrule\n", "-----BEGIN CERTIFICATE-----\nroot\n"


@pytest.mark.parametrize("published", [f"{CA}{ROOT}", CA], ids=["completed with the root", "as the rule gives it"])
def test_without_a_row_the_ca_of_a_rule_is_recognised_in_the_record(published: str) -> None:
    policy = replace(POLICY, ca_rules=(CaRule(CA, cluster="*"),))
    served = record(server=Server("https://10.0.0.1:6443", ca_data_of(published)))
    seen = Candidates(policy, InstanceState(records=by_uid(served)), {}, now=NOW).published("c1")

    assert seen.ca_pem == CA
    assert seen.desired == policy.fingerprint(AuthMode.SERVICE_ACCOUNT, CA)


def test_a_mode_that_turns_to_auto_makes_a_cluster_due() -> None:
    memory = ClusterMemory(verified_at=NOW, desired=POLICY.fingerprint(AuthMode.SERVICE_ACCOUNT))
    state = InstanceState(records=by_uid(record()), credentials={"c1": sealed_credential()}, memory={"c1": memory})
    seen = Candidates(replace(POLICY, default_mode=None), state, {}, now=NOW)

    found = seen.due(seen.listed(cluster()), resync=False, ahead=MINUTE)

    assert found is not None
    assert found.reason is Reason.CONFIG_CHANGED


def test_due_clusters_follow_the_verify_interval_of_their_instance() -> None:
    policy = replace(POLICY, verify_interval=2 * SECOND)
    memory = ClusterMemory(verified_at=NOW - MINUTE, desired=policy.fingerprint(AuthMode.SERVICE_ACCOUNT))
    state = InstanceState(records=by_uid(record()), credentials={"c1": sealed_credential()}, memory={"c1": memory})
    seen = Candidates(policy, state, {}, now=NOW)

    found = seen.due(seen.published("c1"), resync=False, ahead=MINUTE)

    assert found is not None
    assert found.reason == "VerifyDue"
    calm = Candidates(replace(policy, verify_interval=10000 * HOUR), state, {}, now=NOW)
    assert calm.due(calm.published("c1"), resync=False, ahead=MINUTE) is None


def test_an_instance_without_published_clusters_never_wakes() -> None:
    assert view().wakes(1) == []
    assert view([cluster()]).wakes(1) == []


def test_the_next_events_are_reported_in_order_with_their_clusters() -> None:
    state: dict[str, Any] = {
        "records": by_uid(record(), oidc_record("c2"), record("c3")),
        "credentials": {
            "c1": sealed_credential(renew_at=NOW + 3 * MINUTE),
            "c3": sealed_credential(renew_at=NOW - MINUTE),
        },
        "memory": {"c1": oidc_memory(), "c2": oidc_memory(failures=1, retry_at=NOW + MINUTE), "c3": oidc_memory()},
    }
    moments = [(NOW - MINUTE, "c3"), (NOW + MINUTE, "c2"), (NOW + 3 * MINUTE, "c1")]

    assert view(**state).wakes(2) == moments[:2]
    assert view(**state).wakes(1)[0][0] == NOW - MINUTE


def test_a_cluster_that_never_wakes_has_no_next_event() -> None:
    paused = record(access=access(AccessState.FAILED, Reason.PAUSED))
    seen = view([cluster(paused=True)], records=by_uid(paused), credentials={"c1": sealed_credential()})

    assert seen.wakes(9) == []


ISSUER, OTHER = OIDC.issuer_url, "https://other.example"
FRESH = IssuerMetadata(ISSUER, fetched_at=NOW, valid_until=NOW + MINUTE)
RUN_OUT = replace(FRESH, valid_until=NOW)


@pytest.mark.parametrize(
    ("issuers", "uids"),
    [
        pytest.param({ISSUER: FRESH}, {"c3"}, id="fresh metadata needs no cluster"),
        pytest.param({ISSUER: RUN_OUT}, {"c1", "c3"}, id="one cluster for each issuer whose metadata expired"),
        pytest.param(
            {ISSUER: replace(FRESH, valid_until=None)}, {"c1", "c3"}, id="one cluster for an issuer that was never read"
        ),
    ],
)
def test_each_issuer_is_read_again_through_one_cluster(issuers: dict[str, IssuerMetadata], uids: set[str]) -> None:
    known = view(
        records=by_uid(oidc_record("c1"), oidc_record("c2"), oidc_record("c3", OTHER), record("c4")),
        memory=dict.fromkeys(("c1", "c2", "c3", "c4"), oidc_memory()),
        issuers=issuers,
    )

    found = known.issuers_due(published(known, "c1", "c2", "c3", "c4"))

    assert found.keys() == uids
    assert {one.reason for one in found.values()} == {"IssuerDue"}
    assert not any(one.issue for one in found.values())


def test_an_issuer_is_not_read_through_a_cluster_in_backoff() -> None:
    known = view(
        [cluster("c2", paused=True, tags=("auth:oidc",))],
        records=by_uid(oidc_record("c1"), oidc_record("c2"), oidc_record("c3")),
        memory={"c1": oidc_memory(failures=1, retry_at=NOW + MINUTE), "c2": oidc_memory(), "c3": oidc_memory()},
        issuers={ISSUER: RUN_OUT},
    )

    assert known.issuers_due(published(known, "c1", "c2", "c3")).keys() == {"c3"}
    assert known.issuers_due(published(known, "c1", "c2")) == {}


def test_an_issuer_wakes_when_its_metadata_expires_unless_all_its_clusters_are_in_backoff() -> None:
    state: dict[str, Any] = {"records": by_uid(oidc_record("c1"), oidc_record("c2")), "issuers": {ISSUER: FRESH}}
    resting = oidc_memory(failures=3, retry_at=NOW + 20 * MINUTE)

    awake = view(**state, memory={"c1": oidc_memory(), "c2": resting})
    assert (NOW + MINUTE + PATIENCE, ISSUER) in awake.wakes(9)
    asleep = view(**state, memory={"c1": resting, "c2": resting})
    assert [name for _, name in asleep.wakes(9)] == ["c1", "c2"]


def test_an_issuer_that_was_never_read_does_not_wake_the_runner() -> None:
    state = {"records": by_uid(oidc_record("c1")), "memory": {"c1": oidc_memory()}}

    for issuers in ({}, {ISSUER: IssuerMetadata(ISSUER, error="503")}):
        assert [name for _, name in view(**state, issuers=issuers).wakes(9)] == ["c1"]
