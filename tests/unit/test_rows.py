"""Clusters as rows: their state now, filters, order, and what programs get."""

from __future__ import annotations

from typing import Any

import pytest

from builders import HOUR, MINUTE, NOW, OIDC, TEAM_B, access, by_uid, record, sealed_credential, tenant_record
from palette_sync.core.documents import format_time
from palette_sync.core.model import AccessState, ClusterMemory, InstanceState, PaletteFacts
from palette_sync.core.reasons import Reason
from palette_sync.core.rows import SORTS, Filter, Row, row_document, rows_of, sorted_rows

UNREACHABLE = access(AccessState.FAILED, Reason.UNREACHABLE, "no answer")


def rows(**changes: Any) -> list[Row]:
    facts: dict[str, Any] = {
        "records": by_uid(
            record(palette=PaletteFacts("Running", tags=("env:prod",))),
            record("c2", "alpha-db", project=TEAM_B, access=UNREACHABLE, server=None, auth=None),
            tenant_record("c3", name="alpha-shared", auth=OIDC, access=access(AccessState.DEGRADED, Reason.FORBIDDEN)),
        ),
        "credentials": {"c1": sealed_credential()},
        "memory": {"c2": ClusterMemory(failures=2, retry_at=NOW + MINUTE), "c3": ClusterMemory(verified_at=NOW)},
    }
    return rows_of(InstanceState(**(facts | changes)), NOW)


def by_name(found: list[Row]) -> dict[str, Row]:
    return {row.record.name: row for row in found}


def test_a_row_has_what_is_known_beside_the_record() -> None:
    found = by_name(
        rows(status={"held": {"c3": {"since": format_time(NOW), "reason": "PruneHeld", "message": "all are gone"}}})
    )
    web, db, shared = found["alpha-web"], found["alpha-db"], found["alpha-shared"]

    assert (web.state, web.reason, web.since, web.auth) == ("ready", "Verified", NOW - 5 * HOUR, "token")
    assert web.expires_at == NOW + 23 * HOUR
    assert (db.next_try, db.verified_at, db.expires_at, db.auth) == (NOW + MINUTE, None, None, "-")
    assert (shared.verified_at, shared.project, shared.auth, shared.held) == (NOW, "tenant", "oidc", True)
    assert [web.usable, db.usable, shared.usable] == [True, False, True]
    assert web.next_try is None


def test_a_token_that_lapsed_since_the_record_was_written_is_no_access() -> None:
    web = by_name(rows(credentials={"c1": sealed_credential(expires_at=NOW - MINUTE)}))["alpha-web"]

    assert (web.state, web.reason, web.since) == (AccessState.FAILED, Reason.TOKEN_LAPSED, NOW - MINUTE)
    assert not web.usable


def test_a_lapsed_token_does_not_hide_why_access_failed() -> None:
    db = by_name(rows(credentials={"c2": sealed_credential(expires_at=NOW - MINUTE)}))["alpha-db"]

    assert (db.state, db.reason, db.since) == (AccessState.FAILED, Reason.UNREACHABLE, NOW - 5 * HOUR)


def test_programs_get_times_and_no_token() -> None:
    documents = {one["name"]: one["now"] for one in map(row_document, rows())}

    assert documents["alpha-web"] == {
        "state": "ready",
        "reason": "Verified",
        "since": format_time(NOW - 5 * HOUR),
        "token": {
            "issued_at": format_time(NOW - HOUR),
            "renew_at": format_time(NOW + 10 * HOUR),
            "expires_at": format_time(NOW + 23 * HOUR),
            "lapsed": False,
        },
    }
    assert documents["alpha-db"] == {
        "state": "failed",
        "reason": "Unreachable",
        "since": format_time(NOW - 5 * HOUR),
        "next_try": format_time(NOW + MINUTE),
        "failures": 2,
    }
    assert documents["alpha-shared"]["verified_at"] == format_time(NOW)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        pytest.param(Filter(), {"alpha-web", "alpha-db", "alpha-shared"}, id="everything"),
        pytest.param(Filter(names=("ALPHA-?B", "c3")), {"alpha-db", "alpha-shared"}, id="a pattern and a uid"),
        pytest.param(Filter(names=("web (*",)), {"alpha-web", "alpha-db", "alpha-shared"}, id="the title"),
        pytest.param(Filter(projects=("team-b", "tenant")), {"alpha-db", "alpha-shared"}, id="project"),
        pytest.param(Filter(projects=("p-a",)), {"alpha-web"}, id="a project's uid"),
        pytest.param(Filter(states=("failed", "degraded")), {"alpha-db", "alpha-shared"}, id="states"),
        pytest.param(Filter(reasons=("Unreachable",)), {"alpha-db"}, id="reason"),
        pytest.param(Filter(tags=("env:*",)), {"alpha-web"}, id="tag"),
        pytest.param(Filter(auths=("token",)), {"alpha-web"}, id="auth"),
        pytest.param(Filter(states=("failed",), tags=("env:*",)), set(), id="all must hold"),
    ],
)
def test_a_filter_keeps(wanted: Filter, names: set[str]) -> None:
    assert {row.record.name for row in rows() if wanted.matches(row)} == names


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("name", ["alpha-db", "alpha-shared", "alpha-web"]),
        ("project", ["alpha-web", "alpha-db", "alpha-shared"]),
        ("state", ["alpha-db", "alpha-shared", "alpha-web"]),
        ("reason", ["alpha-shared", "alpha-db", "alpha-web"]),
        ("since", ["alpha-db", "alpha-shared", "alpha-web"]),
        ("expiry", ["alpha-web", "alpha-db", "alpha-shared"]),
        ("next-try", ["alpha-db", "alpha-shared", "alpha-web"]),
        ("auth", ["alpha-shared", "alpha-web", "alpha-db"]),
        ("version", ["alpha-db", "alpha-shared", "alpha-web"]),
    ],
)
def test_rows_are_sorted_by(by: str, names: list[str]) -> None:
    assert by in SORTS
    assert [row.record.name for row in sorted_rows(rows(), by)] == names


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("name", ["alpha-web", "alpha-shared", "alpha-db"]),
        ("state", ["alpha-web", "alpha-shared", "alpha-db"]),
        ("expiry", ["alpha-web", "alpha-db", "alpha-shared"]),
        ("auth", ["alpha-web", "alpha-shared", "alpha-db"]),
    ],
)
def test_in_the_other_direction_what_does_not_exist_comes_last_too(by: str, names: list[str]) -> None:
    assert [row.record.name for row in sorted_rows(rows(), by, reverse=True)] == names


def test_versions_are_compared_as_numbers() -> None:
    versions = ["v1.30.11", None, "v1.9.0", "unknown", "v1.30.2+k3s1", "v" + "9" * 5000]
    some = by_uid(*(record(f"c{at}", f"n{at}", kubernetes_version=one) for at, one in enumerate(versions)))
    found = sorted_rows(rows_of(InstanceState(records=some), NOW), "version")
    assert [row.record.name for row in found] == ["n2", "n4", "n0", "n5", "n1", "n3"]


def test_every_sort_is_tested() -> None:
    assert len(SORTS) == 9
