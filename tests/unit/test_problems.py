"""What is wrong, since when, what happens by itself, and what to do, as a table."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import HOUR, MINUTE, NOW, access, by_uid, head, record, sealed_credential
from palette_sync.core.documents import format_time
from palette_sync.core.model import AccessState, ClusterMemory, InstanceState, ScopeStatus
from palette_sync.core.problems import LISTED, Problem, Severity, find_problems, is_wrong, problem_document
from palette_sync.core.reasons import Reason, Shown
from palette_sync.runner.status import RunnerState
from palette_sync.telemetry.status import SERVED

DAY = timedelta(days=1)
HEAD = head(epoch=5, version=7, clusters=1)
LEADING = {"state": "leading", "ready": True, "access": {"ready": 1}}


def document(**changes: Any) -> dict[str, Any]:
    return {"state": "running", "config": {"rejected": []}, "orphaned": [], "instances": {"alpha": LEADING}} | changes


def runner(**changes: Any) -> dict[str, Any]:
    return document(instances={"alpha": LEADING | changes})


def state(**changes: Any) -> InstanceState:
    facts: dict[str, Any] = {"head": HEAD, "records": by_uid(record()), "credentials": {"c1": sealed_credential()}}
    return InstanceState(**(facts | changes))


def find(document: dict[str, Any], one: InstanceState | None = None) -> tuple[Problem, ...]:
    return find_problems(document, {} if one is None else {"alpha": one}, now=NOW)


def only(document: dict[str, Any], one: InstanceState | None = None) -> Problem:
    (problem,) = find(document, one)
    return problem


def test_a_lost_redis_is_a_notice_for_a_day() -> None:
    (problem,) = find(runner(refilled_at=format_time(NOW - HOUR)))

    assert (problem.reason, problem.severity, problem.since) == (Reason.STORE_REFILLED, Severity.NOTICE, NOW - HOUR)
    assert find(runner(refilled_at=format_time(NOW - DAY))) == ()


def test_nothing_is_wrong() -> None:
    assert find(document(), state()) == ()
    assert not is_wrong(())
    assert find({}) == (), "who knows nothing claims nothing"


@pytest.mark.parametrize(
    ("given", "reason", "since", "words"),
    [
        pytest.param(
            document(config={"rejected": ["x: bad", "y: bad"], "rejected_at": format_time(NOW)}),
            Reason.CONFIG_REJECTED,
            NOW,
            "rejected: x: bad (and 1 more)",
            id="a rejected configuration",
        ),
        pytest.param(
            document(state="starting", instances={}, started_at=format_time(NOW)),
            Reason.STORE_UNAVAILABLE,
            NOW,
            "Redis has not answered yet",
            id="a start without Redis",
        ),
        pytest.param(
            runner(state="storeless", detail="it cannot be reached", state_since=format_time(NOW)),
            Reason.STORE_UNAVAILABLE,
            NOW,
            "Redis cannot be used: it cannot be reached",
            id="Redis lost",
        ),
        pytest.param(
            document(members=[{"id": "b:1:x", "outdated_since": format_time(NOW)}]),
            Reason.CONFIG_DIFFERS,
            NOW,
            "process b:1:x has an older configuration",
            id="a process with an older configuration",
        ),
        pytest.param(
            document(members=[{"id": "b:1:x", "rejected_at": format_time(NOW)}]),
            Reason.CONFIG_REJECTED,
            NOW,
            "process b:1:x has rejected",
            id="another process with a wrong configuration",
        ),
        pytest.param(
            document(strangers=[{"id": "c:1:x", "since": format_time(NOW)}]),
            Reason.KEYS_DIFFER,
            NOW,
            "process c:1:x has other seal keys",
            id="a process that cannot be verified",
        ),
        pytest.param(
            runner(state="standby", standing="KeysDiffer", standing_since=format_time(NOW)),
            Reason.KEYS_DIFFER,
            NOW,
            "of this process do not verify",
            id="a process that cannot verify the others",
        ),
        pytest.param(runner(state="stopped"), Reason.RUNNER_ENDED, None, "has ended", id="a runner that ended"),
        pytest.param(runner(state="unled"), Reason.NOBODY_LEADS, None, "no daemon leads", id="nobody leads"),
        pytest.param(
            runner(ready=False), Reason.NOTHING_PUBLISHED, None, "read yet (starting)", id="nothing published"
        ),
        pytest.param(
            runner(error="GET x: HTTP 503", failing_since=format_time(NOW - MINUTE)),
            Reason.LISTING_FAILED,
            NOW - MINUTE,
            "GET x: HTTP 503",
            id="Palette down",
        ),
        pytest.param(
            runner(busy_since=format_time(NOW - 2 * HOUR)),
            Reason.PASS_HANGS,
            NOW - 2 * HOUR,
            "longer than an hour",
            id="a pass that hangs",
        ),
        pytest.param(
            runner(api_key_expires_at=format_time(NOW - MINUTE)),
            Reason.API_KEY_EXPIRES,
            NOW - MINUTE,
            "has expired",
            id="an expired key",
        ),
    ],
)
def test_the_daemon_reports(given: dict[str, Any], reason: Reason, since: Any, words: str) -> None:
    problem = only(given)

    assert (problem.reason, problem.since, problem.severity) == (reason, since, Severity.PROBLEM)
    assert words in problem.text
    assert problem.by_itself == reason.by_itself
    assert problem.remedy == reason.remedy != ""


@pytest.mark.parametrize(
    ("runner_state", "words"), [("leading", "no other process can take over"), ("standby", "so another one leads")]
)
def test_a_process_that_palette_does_not_answer_says_so(runner_state: str, words: str) -> None:
    until = NOW + HOUR
    problem = only(runner(state=runner_state, cut_off_since=format_time(NOW), rests_until=format_time(until)))

    assert (problem.reason, problem.since, problem.next_at) == (Reason.CUT_OFF, NOW, until)
    assert words in problem.text


def test_this_process_reports_its_rejected_configuration_once() -> None:
    me = {"id": "b:1:x", "me": True, "rejected_at": format_time(NOW)}
    config = {"rejected": ["x: bad"], "rejected_at": format_time(NOW)}

    assert only(document(members=[me], config=config)).reason is Reason.CONFIG_REJECTED
    assert find(document(members=[{"id": "b:1:x"}, {"id": "c:2:y", "me": True}])) == ()


def test_a_listing_that_failed_names_the_next_one() -> None:
    problem = only(runner(error="HTTP 503", next_listing_at=format_time(NOW + MINUTE)))

    assert problem.next_at == NOW + MINUTE
    assert problem.command == "palette-sync check --instance alpha"


@pytest.mark.parametrize(
    ("left", "severity"),
    [
        pytest.param(15 * DAY, None, id="far away"),
        pytest.param(13 * DAY, Severity.NOTICE, id="two weeks"),
        pytest.param(HOUR, Severity.PROBLEM, id="the last day"),
    ],
)
def test_a_key_that_expires_is_a_notice_first(left: timedelta, severity: Severity | None) -> None:
    found = find(runner(api_key_expires_at=format_time(NOW + left)))

    assert [one.severity for one in found] == ([severity] if severity else [])


def test_an_orphaned_instance_is_a_notice() -> None:
    problem = only(document(orphaned=["former"]))

    assert (problem.reason, problem.instance, problem.severity) == (
        Reason.INSTANCE_ORPHANED,
        "former",
        Severity.NOTICE,
    )
    assert not is_wrong([problem])


def test_times_that_are_none_are_left_out() -> None:
    assert only(runner(state="storeless", state_since="yesterday")).since is None


def test_a_snapshot_that_does_not_verify_is_a_problem() -> None:
    assert "the digest" in only(document(), state(trusted=False, problems=("the digest does not match",))).text
    assert "digest or mac" in only(document(), state(trusted=False)).text


def test_stale_projects_are_named_with_the_first_reason() -> None:
    scopes = {
        f"p{number}": ScopeStatus(f"team-{number}", error="HTTP 403", since=NOW - number * MINUTE)
        for number in range(7)
    }

    problem = only(document(), state(scopes={**scopes, "ok": ScopeStatus("fine", listed_at=NOW)}))

    assert problem.reason is Reason.SCOPE_STALE
    assert problem.since == NOW - 6 * MINUTE
    assert problem.text == "7 projects cannot be listed: team-0: HTTP 403; also team-1, team-2, team-3, team-4 ..."


def test_a_single_stale_project_is_named_alone() -> None:
    one = state(scopes={"p": ScopeStatus("team-a", error="HTTP 403", since=NOW)})

    assert only(document(), one).text == "1 project cannot be listed: team-a: HTTP 403"


def test_projects_that_failed_with_the_whole_listing_are_not_named_again() -> None:
    one = state(scopes={"p": ScopeStatus("team-a", error="HTTP 503", since=NOW)})

    assert [problem.reason for problem in find(runner(error="HTTP 503"), one)] == [Reason.LISTING_FAILED]


def absence(reason: Reason, **times: Any) -> dict[str, str]:
    return {"reason": reason.value, "message": "2 of 2 clusters disappeared at once"} | {
        name: format_time(at) for name, at in times.items()
    }


def test_held_records_are_named_with_their_times_and_the_command_that_releases_them() -> None:
    held = {
        "c1": absence(Reason.PRUNE_HELD, since=NOW - HOUR, until=NOW + 23 * HOUR),
        "c2": absence(Reason.PRUNE_HELD, since=NOW - MINUTE, until=NOW + DAY),
        "c3": absence(Reason.NOT_LISTED, since=NOW),
        "gone": absence(Reason.PRUNE_HELD, since=NOW),
    }
    records = by_uid(record(), record("c2", "alpha-db"), record("c3", "alpha-small"))

    problem = only(document(), state(records=records, status={"held": held}))

    assert problem.reason is Reason.PRUNE_HELD
    assert problem.text == (
        "Palette no longer lists 2 clusters, whose records are held: alpha-db, alpha-web "
        "(2 of 2 clusters disappeared at once; dropped at 2026-03-02 11:00 UTC if that lasts)"
    )
    assert (problem.since, problem.next_at) == (NOW - HOUR, NOW + 23 * HOUR)
    assert problem.command == "palette-sync resync --allow-prune --instance alpha"


def test_records_that_are_held_for_ever_have_no_next_time() -> None:
    held = {"c1": absence(Reason.ACCESS_LOST, since=NOW)}

    problem = only(document(), state(status={"held": held}))

    assert (problem.reason, problem.next_at) == (Reason.ACCESS_LOST, None)
    assert "dropped" not in problem.text


def test_a_lapsed_token_is_named_with_its_cluster_its_time_and_why_it_was_not_renewed() -> None:
    unreachable = access(AccessState.DEGRADED, Reason.UNREACHABLE, "no answer")
    one = state(
        records=by_uid(record(), record("c2", "alpha-db", access=unreachable), record("c3", "alpha-ok")),
        credentials={
            "c1": sealed_credential(expires_at=NOW),
            "c2": sealed_credential(expires_at=NOW - HOUR),
            "c3": sealed_credential(),
        },
        memory={"c2": ClusterMemory(failures=3, retry_at=NOW + MINUTE)},
    )

    problem = only(document(), one)

    assert (problem.reason, problem.severity) == (Reason.TOKEN_LAPSED, Severity.PROBLEM)
    assert problem.text == "the token of 2 clusters has lapsed: alpha-db (Unreachable), alpha-web"
    assert (problem.since, problem.next_at) == (NOW - HOUR, NOW + MINUTE)
    assert problem.clusters == ("alpha-db", "alpha-web")


def test_a_renewal_that_fails_says_when_the_first_token_lapses() -> None:
    one = state(
        credentials={"c1": sealed_credential(renew_at=NOW - MINUTE)},
        memory={"c1": ClusterMemory(failures=1, retry_at=NOW - MINUTE)},
    )

    problem = only(document(), one)

    assert problem.reason is Reason.RENEWAL_FAILING
    assert problem.text == (
        "the token of 1 cluster is due and cannot be renewed: alpha-web; the first lapses at 2026-03-02 11:00 UTC"
    )
    assert problem.command == "palette-sync show alpha-web"
    assert problem.next_at is None, "a time that is past is not next"


def test_clusters_without_access_are_grouped_by_reason_the_worst_first() -> None:
    def failed(uid: str, reason: Reason, what: AccessState = AccessState.FAILED) -> Any:
        return record(uid, f"alpha-{uid}", access=access(what, reason, "why"))

    pending = failed("c0", Reason.NOT_RUNNING, AccessState.PENDING)
    legacy = failed("c9", Reason.LEGACY_TOKEN, AccessState.READY)
    degraded = failed("c8", Reason.UNREACHABLE, AccessState.DEGRADED)
    many = [failed(f"d{number}", Reason.FORBIDDEN) for number in range(6)]
    one = state(records=by_uid(pending, legacy, degraded, *many), credentials={})

    found = find(document(), one)

    assert [(problem.reason, len(problem.clusters), problem.severity) for problem in found] == [
        (Reason.FORBIDDEN, 6, Severity.PROBLEM),
        (Reason.UNREACHABLE, 1, Severity.PROBLEM),
        (Reason.LEGACY_TOKEN, 1, Severity.NOTICE),
    ]
    assert found[0].text == (
        "6 clusters have no access (Forbidden): alpha-d0, alpha-d1, alpha-d2, alpha-d3, alpha-d4 ..."
    )
    assert found[0].command == "palette-sync clusters --instance alpha --reason Forbidden"
    assert found[0].since == NOW - 5 * HOUR
    assert "has a token that lives" in found[1].text


def test_a_name_that_a_shell_would_read_is_quoted() -> None:
    odd = record(name="a; rm -rf ~", access=access(AccessState.FAILED, Reason.FORBIDDEN))

    assert only(document(), state(records=by_uid(odd), credentials={})).command == "palette-sync show 'a; rm -rf ~'"


def test_a_standby_reports_nothing_of_the_clusters_because_the_leader_does() -> None:
    lapsed = state(credentials={"c1": sealed_credential(expires_at=NOW)})

    assert find(runner(state="standby"), lapsed) == ()


def test_problems_come_before_notices_and_those_of_the_daemon_first() -> None:
    given = document(
        config={"rejected": ["x"]},
        orphaned=["zeta"],
        instances={"beta": LEADING | {"error": "e"}, "alpha": LEADING | {"error": "e"}},
    )

    assert [one.instance for one in find(given)] == ["", "alpha", "beta", "zeta"]


def test_problems_of_a_whole_instance_come_before_those_of_clusters_of_another() -> None:
    given = document(instances={"alpha": LEADING, "beta": LEADING | {"error": "e"}})
    odd = record(access=access(AccessState.FAILED, Reason.FORBIDDEN))

    found = find(given, state(records=by_uid(odd), credentials={}))

    assert [(one.instance, one.reason) for one in found] == [
        ("beta", Reason.LISTING_FAILED),
        ("alpha", Reason.FORBIDDEN),
    ]


def test_the_document_of_a_problem_is_for_programs() -> None:
    many = tuple(f"c{number:03}" for number in range(LISTED + 1))
    problem = Problem(Reason.FORBIDDEN, "alpha", "text", since=NOW, next_at=NOW, command="x", clusters=many)

    assert problem_document(problem) == {
        "severity": "problem",
        "reason": "Forbidden",
        "instance": "alpha",
        "text": "text",
        "since": format_time(NOW),
        "by_itself": Reason.FORBIDDEN.by_itself,
        "next_at": format_time(NOW),
        "remedy": Reason.FORBIDDEN.remedy,
        "command": "x",
        "runbook": "docs/runbook.md#forbidden",
        "count": LISTED + 1,
        "clusters": list(many[:LISTED]),
    }
    assert problem_document(
        replace(problem, instance="", clusters=(), command="", since=None, next_at=None)
    ).keys() == {
        "severity",
        "reason",
        "text",
        "by_itself",
        "remedy",
        "runbook",
    }


def test_every_reason_of_the_status_has_a_remedy() -> None:
    assert all(reason.remedy for reason in Reason if Shown.STATUS in reason.shown)


def test_the_words_for_states_are_those_of_a_runner() -> None:
    from palette_sync.core import problems

    words = {problems.STARTING, problems.STANDBY, problems.STORELESS, problems.STOPPED}
    assert words <= {one.value for one in RunnerState}
    assert problems.UNLED not in {one.value for one in RunnerState}
    assert problems.STANDBY in {one.value for one in SERVED}
