"""What a pass found out becomes a record and a memory; a failure never takes working access away."""

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
    NOW,
    OIDC,
    SERVER,
    SERVICE_ACCOUNT,
    TEAM_A,
    access,
    cluster,
    record,
    tenant_cluster,
    tenant_record,
)
from palette_sync.core.fold import (
    LEGACY_MESSAGE,
    TOKEN_CACHE,
    AccessFailed,
    AccessGained,
    Presentation,
    cluster_of,
    fold_memory,
    fold_record,
    without_legacy,
    without_token,
)
from palette_sync.core.model import (
    AccessState,
    ClusterMemory,
    ClusterRecord,
    Location,
    PaletteFacts,
    RetiredSecret,
    Server,
)
from palette_sync.core.reasons import Reason
from palette_sync.core.rotation import FIRST_BACKOFF, LONGEST_BACKOFF, backoff
from palette_sync.core.ways import Way

if TYPE_CHECKING:
    from palette_sync.core.fold import Verdict
    from palette_sync.core.model import Cluster

PLAIN = Presentation(title="", console_url="")
GAINED = AccessGained(SERVER, SERVICE_ACCOUNT, "v1.33.1", desired="as-configured")
UNREACHABLE = AccessFailed("Unreachable", "no answer")
NOT_READY = AccessFailed("KubeconfigNotReady", "not yet", pending=True)
NO_ACCESS = record(
    server=None, auth=None, kubernetes_version=None, access=access(AccessState.FAILED, "Forbidden", "403")
)


def folded(
    verdict: Verdict | None,
    previous: ClusterRecord | None = None,
    *,
    one: Cluster | None = None,
    alive: bool = True,
    presentation: Presentation = PLAIN,
) -> ClusterRecord:
    return fold_record(
        one or cluster(),
        key=KEY,
        name="alpha-web",
        previous=previous,
        verdict=verdict,
        credential_alive=alive,
        presentation=presentation,
        now=NOW,
    )


# ---- Access ----------------------------------------------------------------------------------------------------------

READY, DEGRADED = AccessState.READY, AccessState.DEGRADED
FAILED, PENDING = AccessState.FAILED, AccessState.PENDING
PROVISIONING = cluster(state="Provisioning")
PAUSED = cluster(paused=True, virtual=True)


@pytest.mark.parametrize(
    ("verdict", "previous", "changes", "expected"),
    [
        pytest.param(GAINED, None, {}, (READY, "Verified", ""), id="access was gained"),
        pytest.param(GAINED, NO_ACCESS, {}, (READY, "Verified", ""), id="access was gained after a failure"),
        pytest.param(
            replace(GAINED, legacy=True),
            None,
            {},
            (READY, "LegacyToken", LEGACY_MESSAGE),
            id="access was gained beside a token that never expires",
        ),
        pytest.param(UNREACHABLE, None, {}, (FAILED, "Unreachable", "no answer"), id="a first access that failed"),
        pytest.param(
            NOT_READY,
            None,
            {},
            (PENDING, "KubeconfigNotReady", "not yet"),
            id="a first access before the kubeconfig is ready",
        ),
        pytest.param(
            UNREACHABLE,
            record(),
            {},
            (DEGRADED, "Unreachable", "no answer"),
            id="a check that failed while the token lives",
        ),
        pytest.param(
            NOT_READY,
            record(),
            {},
            (DEGRADED, "KubeconfigNotReady", "not yet"),
            id="a renewal that came too early while the token lives",
        ),
        pytest.param(
            UNREACHABLE,
            record(),
            {"alive": False},
            (FAILED, "Unreachable", "no answer"),
            id="a check that failed and the token is dead",
        ),
        pytest.param(
            UNREACHABLE,
            record(auth=OIDC),
            {"alive": False},
            (DEGRADED, "Unreachable", "no answer"),
            id="an OIDC cluster that was not reached needs no token",
        ),
        pytest.param(
            UNREACHABLE, NO_ACCESS, {}, (FAILED, "Unreachable", "no answer"), id="a token without a server is of no use"
        ),
        pytest.param(None, None, {}, (PENDING, "Waiting", "first access has not been tried yet"), id="not tried yet"),
        pytest.param(
            None,
            None,
            {"one": PROVISIONING},
            (PENDING, "NotRunning", "Palette reports Provisioning; access is given once it reports Running"),
            id="new and not running",
        ),
        pytest.param(
            None,
            NO_ACCESS,
            {"one": cluster(imported=True)},
            (PENDING, "Imported", "it was imported into Palette, which offers no kubeconfig of imported clusters"),
            id="imported",
        ),
        pytest.param(
            None, record(), {"one": cluster(imported=True)}, (READY, "Verified", ""), id="imported, and with access"
        ),
        pytest.param(
            None,
            NO_ACCESS,
            {"one": cluster(state="")},
            (PENDING, "NotRunning", "Palette reports no state; access is given once it reports Running"),
            id="without access and in no state",
        ),
        pytest.param(None, NO_ACCESS, {}, (FAILED, "Forbidden", "403"), id="a failure stays until the next attempt"),
        pytest.param(None, record(), {}, (READY, "Verified", ""), id="a healthy cluster stays ready"),
        pytest.param(
            None,
            record(),
            {"one": PROVISIONING},
            (READY, "Verified", ""),
            id="access is kept in every state of the cluster",
        ),
        pytest.param(
            None,
            record(access=access(DEGRADED, "Unreachable", "x")),
            {},
            (DEGRADED, "Unreachable", "x"),
            id="a failed check stays until the next one",
        ),
        pytest.param(
            None,
            record(),
            {"alive": False},
            (FAILED, "TokenLapsed", "the token expired before it could be renewed"),
            id="the token expired while nothing could be done",
        ),
        pytest.param(
            None,
            record(access=access(DEGRADED, "Unreachable")),
            {"alive": False},
            (FAILED, "TokenLapsed", "the token expired before it could be renewed"),
            id="the token of a failing cluster expired",
        ),
        pytest.param(
            None,
            record(access=access(FAILED, "Unreachable", "x")),
            {"alive": False},
            (FAILED, "Unreachable", "x"),
            id="an earlier reason for a failure is not overwritten",
        ),
        pytest.param(
            None, record(auth=OIDC), {"alive": False}, (READY, "Verified", ""), id="OIDC stays ready without a token"
        ),
        pytest.param(
            None, record(), {"one": PAUSED}, (FAILED, "Paused", "the virtual cluster is paused in Palette"), id="paused"
        ),
        pytest.param(
            None,
            None,
            {"one": PAUSED},
            (FAILED, "Paused", "the virtual cluster is paused in Palette"),
            id="new and paused",
        ),
    ],
)
def test_what_a_reader_may_expect(
    verdict: Verdict | None,
    previous: ClusterRecord | None,
    changes: dict[str, Any],
    expected: tuple[AccessState, str, str],
) -> None:
    found = folded(verdict, previous, **changes).access

    assert (found.state, found.reason, found.message) == expected


@pytest.mark.parametrize(
    ("verdict", "moves"),
    [
        pytest.param(None, False, id="nothing was due"),
        pytest.param(GAINED, False, id="verified again"),
        pytest.param(replace(GAINED, legacy="x"), True, id="another reason"),
        pytest.param(UNREACHABLE, True, id="another state"),
    ],
)
def test_since_moves_only_when_state_or_reason_changes(verdict: Verdict | None, *, moves: bool) -> None:
    assert folded(verdict, record()).access.since == (NOW if moves else record().access.since)


def test_another_message_alone_does_not_move_since() -> None:
    before = record(access=access(DEGRADED, "Unreachable", "timed out"))

    after = folded(UNREACHABLE, before)

    assert (after.access.message, after.access.since) == ("no answer", before.access.since)


def test_the_state_of_a_first_record_begins_now() -> None:
    assert folded(UNREACHABLE).access.since == NOW


# ---- Server, auth and version ----------------------------------------------------------------------------------------


def test_a_new_server_and_version_replace_the_old() -> None:
    moved = Server("https://10.0.0.2:6443")

    after = folded(AccessGained(moved, OIDC, "v1.34.0", desired="d"), record())

    assert (after.server, after.auth, after.kubernetes_version) == (moved, OIDC, "v1.34.0")


def test_a_version_that_was_not_reported_stays_known() -> None:
    assert folded(replace(GAINED, kubernetes_version=None), record()).kubernetes_version == "v1.33.1"


@pytest.mark.parametrize("alive", [True, False], ids=["token alive", "token dead"])
@pytest.mark.parametrize("verdict", [None, UNREACHABLE, NOT_READY, without_token(UNREACHABLE)])
def test_no_failure_removes_the_last_good_server_auth_or_version(verdict: Verdict | None, *, alive: bool) -> None:
    before = record()

    after = folded(verdict, before, alive=alive)

    assert (after.server, after.auth, after.kubernetes_version) == (
        before.server,
        before.auth,
        before.kubernetes_version,
    )


def test_a_quiet_pass_changes_nothing_in_a_record() -> None:
    before = folded(GAINED)

    assert folded(None, before) == before
    assert folded(GAINED, before) == before


# ---- What Palette reports --------------------------------------------------------------------------------------------


def test_a_record_repeats_what_palette_reports_now() -> None:
    place = Location("DE", "Germany", "eu-1", "Frankfurt")
    one = cluster(
        name="renamed",
        state="Error",
        health="UnHealthy",
        cloud_type="aws",
        created_at=NOW - HOUR,
        tags=("env:prod",),
        location=place,
    )

    after = folded(None, record(), one=one)

    assert after.palette == PaletteFacts("Error", "UnHealthy", "aws", NOW - HOUR, ("env:prod",), place)
    assert (after.uid, after.name, after.instance, after.project) == ("c1", "alpha-web", "alpha", TEAM_A)


def test_a_tenant_scoped_record_has_no_project() -> None:
    after = folded(GAINED, one=tenant_cluster(project=TEAM_A))

    assert after.project is None
    assert after.scope == "tenant"


@pytest.mark.parametrize(
    ("one", "title", "shown"),
    [
        pytest.param(cluster(), "", "web (team-a)", id="the project distinguishes clusters"),
        pytest.param(
            cluster(), "Production", "web (Production: team-a)", id="the title of the instance comes before it"
        ),
        pytest.param(tenant_cluster(), "", "shared (tenant)", id="a tenant-scoped cluster shows that it is one"),
        pytest.param(tenant_cluster(), "Production", "shared (Production: tenant)", id="and with a title too"),
    ],
)
def test_titles_are_for_people(one: Cluster, title: str, shown: str) -> None:
    assert folded(GAINED, one=one, presentation=Presentation(title, "")).title == shown


@pytest.mark.parametrize(
    ("one", "console", "url"),
    [
        pytest.param(cluster(), "", None, id="no console and no link"),
        pytest.param(
            cluster(),
            "https://console.example",
            "https://console.example/projects/p-a/clusters/c1/overview",
            id="a link into the project",
        ),
        pytest.param(
            tenant_cluster(),
            "https://console.example/",
            "https://console.example/admin/clusters/c1/overview",
            id="a link into the tenant",
        ),
    ],
)
def test_dashboard_links_lead_to_the_console(one: Cluster, console: str, url: str | None) -> None:
    assert folded(GAINED, one=one, presentation=Presentation("", console)).dashboard_url == url


@pytest.mark.parametrize("skip", [True, False])
def test_the_metrics_flag_is_the_configured_one(*, skip: bool) -> None:
    assert folded(GAINED, presentation=Presentation("", "", skip)).skip_metrics_lookup is skip


# ---- Memory ----------------------------------------------------------------------------------------------------------


def test_success_clears_the_failures_and_remembers_the_access_that_was_gained() -> None:
    retired = (RetiredSecret("old", "u", NOW + HOUR),)
    before = ClusterMemory(verified_at=NOW - HOUR, failures=3, retry_at=NOW, generation="old", desired="before")

    after = fold_memory(before, replace(GAINED, generation="new", retired=retired), key=KEY, desired="tried", now=NOW)

    assert after == ClusterMemory(verified_at=NOW, generation="new", desired="as-configured", retired=retired)


def test_a_failure_keeps_the_memory_and_starts_the_backoff() -> None:
    before = ClusterMemory(NOW - HOUR, generation="g", desired="d", retired=(RetiredSecret("old", "u", NOW + HOUR),))

    after = fold_memory(before, UNREACHABLE, key=KEY, desired="tried", now=NOW)

    assert after == replace(before, failures=1, retry_at=NOW + backoff(1, KEY), desired="tried", tried_at=NOW)


def test_a_failure_that_only_a_change_can_end_starts_a_long_wait() -> None:
    failed = AccessFailed(Reason.NEEDS_AWS_CREDENTIALS, "asks to run a program")

    after = fold_memory(ClusterMemory(), failed, key=KEY, desired="tried", now=NOW)

    assert after.retry_at == NOW + backoff(1, KEY, Reason.NEEDS_AWS_CREDENTIALS) > NOW + 4 * HOUR


def test_the_way_that_worked_is_remembered_through_failures_and_until_another_one_works() -> None:
    by_proxy = fold_memory(ClusterMemory(), replace(GAINED, way=Way.PROXY), key=KEY, desired="d", now=NOW)

    assert fold_memory(by_proxy, UNREACHABLE, key=KEY, desired="d", now=NOW).way is Way.PROXY
    assert fold_memory(by_proxy, GAINED, key=KEY, desired="d", now=NOW).way is None


@given(st.integers(0, 10_000))
def test_every_failure_waits_longer_but_never_longer_than_the_longest_backoff(failures: int) -> None:
    before = ClusterMemory(failures=failures)

    after = fold_memory(before, UNREACHABLE, key=KEY, desired="tried", now=NOW)

    assert after.failures == failures + 1
    assert after.retry_at is not None
    assert FIRST_BACKOFF * 3 / 4 - timedelta(seconds=1) <= after.retry_at - NOW <= LONGEST_BACKOFF


# ---- Work on a cluster that was not listed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(
            record(palette=PaletteFacts("Running", "Healthy", "eks", NOW, ("a", "b:c"), Location("DE"))),
            id="a project's",
        ),
        pytest.param(tenant_record(), id="a tenant's"),
    ],
)
def test_a_record_holds_enough_to_work_on_its_cluster(one: ClusterRecord) -> None:
    rebuilt = cluster_of(one)
    again = folded(None, one, one=rebuilt)

    assert (rebuilt.uid, rebuilt.name) == (one.uid, one.name)
    assert (again.palette, again.scope, again.project, again.access) == (
        one.palette,
        one.scope,
        one.project,
        one.access,
    )


def test_a_login_that_is_not_allowed_is_withdrawn_and_no_later_failure_brings_it_back() -> None:
    refused = AccessFailed("IssuerNotAllowed", "no", pending=True, withdrawn=True)
    before = record(auth=OIDC, access=access(READY, "Verified", ""))

    withdrawn = folded(previous=before, verdict=refused)
    later = folded(previous=withdrawn, verdict=UNREACHABLE)

    assert (withdrawn.server, withdrawn.auth, withdrawn.access.state) == (None, None, AccessState.PENDING)
    assert withdrawn.access.reason == "IssuerNotAllowed"
    assert (later.server, later.auth, later.access.state) == (None, None, AccessState.FAILED)


def test_what_readers_cannot_use_is_withheld_although_its_token_lives() -> None:
    verdict = AccessFailed(Reason.CHAIN_INCOMPLETE, "no root", withheld=True)

    assert folded(verdict, record(), alive=True).access.state is AccessState.FAILED
    assert folded(replace(verdict, withheld=False), record(), alive=True).access.state is AccessState.DEGRADED


def test_a_replacement_that_failed_stays_withheld_without_its_token() -> None:
    assert without_token(AccessFailed(Reason.CHAIN_INCOMPLETE, "no root", withheld=True)).withheld


@pytest.mark.parametrize(("recheck", "expected"), [(True, NOW + TOKEN_CACHE), (False, None)])
def test_the_memory_holds_when_to_ask_again_and_what_was_asked_for(recheck: bool, expected: Any) -> None:  # noqa: FBT001
    verdict = replace(GAINED, recheck=recheck, validity=HOUR)

    memory = fold_memory(ClusterMemory(recheck_at=NOW), verdict, key=KEY, desired="as-configured", now=NOW)

    assert (memory.recheck_at, memory.validity) == (expected, HOUR)


def test_a_deleted_legacy_token_shows_nowhere_any_more() -> None:
    memory = ClusterMemory(generation="token-2", legacy=True)
    legacy = record(access=access(reason=Reason.LEGACY_TOKEN, message=LEGACY_MESSAGE))

    changed, remembered = without_legacy(legacy, memory, NOW)

    assert (changed.access.state, changed.access.reason, changed.access.message) == (
        AccessState.READY,
        Reason.VERIFIED,
        "",
    )
    assert remembered == ClusterMemory(generation="token-2")


def test_a_failure_stays_when_a_legacy_token_is_deleted() -> None:
    failed = record(access=access(AccessState.DEGRADED, Reason.UNREACHABLE, "no answer"))

    assert without_legacy(failed, ClusterMemory(legacy=True), NOW) == (failed, ClusterMemory())


def test_an_imported_cluster_is_known_as_such_by_its_record_alone() -> None:
    assert cluster_of(record(server=None, auth=None, access=access(PENDING, Reason.IMPORTED))).imported
    assert not cluster_of(record()).imported
