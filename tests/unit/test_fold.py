"""What is learnt becomes a record; what is not learnt stays as it was."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from palette_sync.core.fold import Failed, Gained, Presentation, cluster_of, fold_record, fold_work
from palette_sync.core.model import (
    Access,
    AccessState,
    ClusterKey,
    ClusterRecord,
    OidcAuth,
    RetiredSecret,
    Scope,
    Server,
    ServiceAccountAuth,
    Work,
)
from unit.builders import NOW, SERVER, cluster, record, tenant_cluster, work

KEY = ClusterKey("prod", "c1")
LATER = NOW + timedelta(hours=1)
OIDC = OidcAuth("spectrocloud", "https://issuer", "client")
GAINED = Gained(SERVER, ServiceAccountAuth(), "v1.33.1", "d", "secret", (RetiredSecret("s", "u", LATER),))
FAILED = Failed("Unreachable", "no answer")


def fold(row: Any = None, **given: Any) -> ClusterRecord:
    values: dict[str, Any] = {
        "key": KEY,
        "name": "prod-c1",
        "previous": None,
        "verdict": None,
        "credential_alive": False,
        "presentation": Presentation("", ""),
        "now": LATER,
    }
    return fold_record(row or cluster(), **(values | given))


def had(state: AccessState, reason: str = "Verified", **given: Any) -> ClusterRecord:
    return record(access=Access(state, reason, "before", NOW), **given)


@pytest.mark.parametrize(
    ("given", "state", "reason"),
    [
        pytest.param({"verdict": GAINED, "credential_alive": True}, "ready", "Verified", id="access was proven"),
        pytest.param(
            {"verdict": Gained(SERVER, ServiceAccountAuth(), None, "d", legacy="remove it"), "credential_alive": True},
            "ready",
            "LegacyToken",
            id="proven, beside a legacy token",
        ),
        pytest.param({"verdict": FAILED}, "failed", "Unreachable", id="never gained"),
        pytest.param({"verdict": Failed("KubeconfigNotReady", "", pending=True)}, "pending", "KubeconfigNotReady"),
        pytest.param(
            {"verdict": FAILED, "previous": record(), "credential_alive": True},
            "degraded",
            "Unreachable",
            id="failed, but the token lives",
        ),
        pytest.param(
            {"verdict": FAILED, "previous": record()}, "failed", "Unreachable", id="failed, the token is dead"
        ),
        pytest.param(
            {"verdict": FAILED, "previous": record(auth=OIDC)}, "degraded", "Unreachable", id="an OIDC cluster failed"
        ),
        pytest.param(
            {"previous": had(AccessState.READY), "credential_alive": True}, "ready", "Verified", id="nothing was due"
        ),
        pytest.param(
            {"previous": had(AccessState.READY)}, "failed", "TokenLapsed", id="nothing was done and the token lapsed"
        ),
        pytest.param(
            {"previous": had(AccessState.FAILED, "Conflict")}, "failed", "Conflict", id="a failure stays what it is"
        ),
        pytest.param(
            {"previous": had(AccessState.FAILED, "Conflict", server=None)},
            "failed",
            "Conflict",
            id="without a server too",
        ),
        pytest.param({}, "pending", "Waiting", id="new and not tried"),
        pytest.param({"row": cluster(state="Pending")}, "pending", "NotRunning", id="new and not running"),
        pytest.param({"row": cluster(state="")}, "pending", "NotRunning", id="Palette says nothing"),
        pytest.param(
            {"row": cluster(paused=True), "previous": record(), "credential_alive": True},
            "failed",
            "Paused",
            id="a paused cluster is withheld",
        ),
    ],
)
def test_access(given: dict[str, Any], state: str, reason: str) -> None:
    folded = fold(**given)

    assert (folded.access.state.value, folded.access.reason) == (state, reason)


def test_a_failure_never_takes_away_what_was_gained() -> None:
    previous = record(kubernetes_version="v1.33.0")

    folded = fold(previous=previous, verdict=FAILED, credential_alive=True)

    assert (folded.server, folded.auth, folded.kubernetes_version) == (SERVER, ServiceAccountAuth(), "v1.33.0")


def test_a_check_that_learnt_no_version_keeps_the_last_one() -> None:
    gained = Gained(Server("https://new"), OIDC, None, "d")

    folded = fold(previous=record(kubernetes_version="v1.33.0"), verdict=gained)

    assert folded.server == Server("https://new")
    assert folded.auth == OIDC
    assert folded.kubernetes_version == "v1.33.0"


def test_since_moves_only_when_state_or_reason_changes() -> None:
    before = had(AccessState.READY)

    assert fold(previous=before, credential_alive=True).access.since == NOW
    assert fold(previous=before, verdict=FAILED, credential_alive=True).access.since == LATER


def test_a_record_of_a_quiet_cluster_equals_the_one_before() -> None:
    row = cluster(created_at=NOW.replace(microsecond=123456), tags=("a:b",))
    presentation = Presentation("Prod", "https://console")
    first = fold(row, verdict=GAINED, credential_alive=True, presentation=presentation)

    second = fold(row, previous=first, credential_alive=True, presentation=presentation, now=LATER + timedelta(1))

    assert second == first


def test_title_and_link_name_the_place() -> None:
    shown = Presentation("Prod", "https://console/", skip_metrics_lookup=False)

    assert fold(presentation=shown).title == "c1 (Prod: shop)"
    assert fold(presentation=shown).dashboard_url == "https://console/projects/p1/clusters/c1/overview"
    assert fold(presentation=shown).skip_metrics_lookup is False
    tenant = fold(tenant_cluster("t1"), presentation=shown)
    assert tenant.title == "t1 (Prod: tenant)"
    assert tenant.dashboard_url == "https://console/admin/clusters/t1/overview"
    assert tenant.scope is Scope.TENANT
    assert fold().title == "c1 (shop)"
    assert fold().dashboard_url is None


def test_success_clears_the_failures_and_remembers_the_generation() -> None:
    folded = fold_work(work(failures=3, retry_at=LATER), GAINED, key=KEY, now=NOW)

    assert folded == Work(NOW, 0, None, "secret", "d", GAINED.retired)


def test_failures_add_up_and_lengthen_the_backoff() -> None:
    once = fold_work(Work(), FAILED, key=KEY, now=NOW)
    twice = fold_work(once, FAILED, key=KEY, now=NOW)

    assert (once.failures, twice.failures) == (1, 2)
    assert once.retry_at is not None
    assert twice.retry_at is not None
    assert NOW < once.retry_at < twice.retry_at


def test_a_row_rebuilt_from_its_record_says_what_was_published() -> None:
    row = cluster_of(record(project=None, scope=Scope.TENANT))

    assert (row.uid, row.state, row.health, row.scope) == ("c1", "Running", "Healthy", Scope.TENANT)
