"""Pauses: when one holds, what it keeps from happening, and how it is shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import HOUR, KEY, NOW, by_uid, candidate, cluster, head, record, sealed_credential
from palette_sync.core.due import due, paused, waits, wakes_at
from palette_sync.core.fold import Presentation, fold_record
from palette_sync.core.history import Transition
from palette_sync.core.model import AccessState, ClusterMemory, ClusterRecord, InstanceState, PaletteFacts, Pause
from palette_sync.core.pause import PAUSE_TAG, pause_document, pause_in_force, pause_of
from palette_sync.core.problems import Problem, Severity, find_problems
from palette_sync.core.prune import Absence, Guard, absences_of, absences_to_dict, prune
from palette_sync.core.reasons import Reason
from palette_sync.core.rows import Filter, row_document, rows_of
from palette_sync.core.select import Selection
from palette_sync.runner.status import RunnerStatus

PAUSE = Pause("it moves", "anna@host:1", NOW - HOUR, NOW + 2 * HOUR)
ENDLESS = replace(PAUSE, until=None)
TAGGED = PaletteFacts("Running", tags=(PAUSE_TAG,))
FOREVER = timedelta(days=3650)


def test_a_pause_holds_until_its_end_and_an_endless_one_for_ever() -> None:
    one = record(pause=PAUSE)

    assert pause_of(one, NOW + 2 * HOUR - timedelta(seconds=1)) is not None
    assert pause_of(one, NOW + 2 * HOUR) is None
    assert pause_of(record(pause=ENDLESS), NOW + FOREVER) is not None
    assert pause_of(record(), NOW) is None


def test_the_tag_pauses_for_as_long_as_it_is_there_whatever_ends() -> None:
    tagged = pause_of(record(palette=TAGGED), NOW)
    both = pause_of(record(palette=TAGGED, pause=PAUSE), NOW)

    assert tagged is not None
    assert (tagged.tagged, tagged.since, tagged.until) == (True, None, None)
    assert tagged.text == "paused: it has the tag palette-sync:pause in Palette"
    assert both is not None
    assert (both.tagged, both.until, both.since) == (True, None, PAUSE.since)
    assert both.text == "paused by anna@host:1: it moves; it has the tag palette-sync:pause in Palette"
    assert pause_in_force(None, (PAUSE_TAG,), NOW) == tagged


def test_a_pause_for_programs() -> None:
    own = pause_of(record(pause=PAUSE), NOW)
    assert own is not None
    assert pause_document(own) == {
        "reason": "it moves",
        "by": "anna@host:1",
        "since": "2026-03-01T11:00:00Z",
        "until": "2026-03-01T14:00:00Z",
    }


# -- what is due ------------------------------------------------------------------------------------------------------

moments = st.datetimes(NOW.replace(tzinfo=None) - 9 * FOREVER / 10, NOW.replace(tzinfo=None) + FOREVER).map(
    lambda one: one.replace(tzinfo=NOW.tzinfo)
)


@given(
    now=moments,
    by_tag=st.booleans(),
    has_token=st.booleans(),
    asked=st.booleans(),
    state=st.sampled_from(["Running", "Error", ""]),
)
def test_nothing_is_ever_due_on_a_paused_cluster(
    *, now: datetime, by_tag: bool, has_token: bool, asked: bool, state: str
) -> None:
    one = candidate(
        cluster=cluster(state=state, tags=(PAUSE_TAG,) if by_tag else ()),
        record=record(pause=None if by_tag else ENDLESS),
        credential=sealed_credential() if has_token else None,
        memory=ClusterMemory(desired="something else", failures=3),
    )

    assert waits(one, now)
    assert due(one, now=now, verify_interval=HOUR, resync=asked, rotate=asked, revoke=asked, suspect_since=NOW) is None


def test_a_cluster_wakes_when_its_pause_ends() -> None:
    lapsing = sealed_credential(renew_at=NOW - HOUR)
    one = candidate(record=record(pause=PAUSE), credential=lapsing)

    assert wakes_at(one, now=NOW, verify_interval=FOREVER) == PAUSE.until
    assert wakes_at(replace(one, record=record(pause=ENDLESS)), now=NOW, verify_interval=FOREVER) is None
    ended = due(one, now=NOW + 2 * HOUR, verify_interval=FOREVER)
    assert ended is not None
    assert ended.reason is Reason.TOKEN_DUE
    assert paused(one, NOW + 2 * HOUR) is None


def test_a_rotation_is_due_before_everything_else_and_only_where_there_is_a_token() -> None:
    one = due(candidate(), now=NOW, verify_interval=FOREVER, rotate=True, revoke=True)
    assert one is not None
    assert (one.reason, one.issue, one.revoke) == (Reason.ROTATION_ASKED, True, True)

    new = due(candidate(record=None, credential=None), now=NOW, verify_interval=FOREVER, rotate=True)
    assert new is not None
    assert new.reason is Reason.NEW


# -- records ----------------------------------------------------------------------------------------------------------


def folded(previous: ClusterRecord | None, now: datetime = NOW, **changes: object) -> ClusterRecord:
    return fold_record(
        cluster(**changes),
        key=KEY,
        name="alpha-web",
        previous=previous,
        verdict=None,
        credential_alive=True,
        presentation=Presentation("", ""),
        now=now,
    )


def test_a_record_keeps_its_pause_until_it_ends() -> None:
    assert folded(record(pause=PAUSE)).pause == PAUSE
    assert folded(record(pause=PAUSE), NOW + 2 * HOUR).pause is None
    assert folded(record(pause=PAUSE)).access == record().access, "what is known of access stays"


def test_a_new_cluster_with_the_tag_waits_and_goes_on_without_it() -> None:
    new = folded(None, tags=(PAUSE_TAG,))
    assert (new.access.state, new.access.reason) == (AccessState.PENDING, Reason.WRITES_PAUSED)
    assert folded(new).access.reason is Reason.WAITING
    failed = record(server=None, auth=None, access=replace(record().access, state=AccessState.FAILED))
    assert folded(failed, tags=(PAUSE_TAG,)).access == failed.access


# -- prune ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selection",
    [
        Selection(dropped={"c1": Reason.DELETED}),
        Selection(dropped={"c1": Reason.PROJECT_EXCLUDED}),
        Selection(disappeared=frozenset({"c1"})),
    ],
)
def test_the_record_of_a_paused_cluster_is_never_dropped(selection: Selection) -> None:
    records = by_uid(record(pause=PAUSE))

    def pruned(now: datetime, status: dict[str, object]) -> tuple[set[str], dict[str, object]]:
        found = prune(selection, records, absences_of(status), now=now, guard=Guard(), scheduled=True, allow=True)
        return set(found.drop), {"held": absences_to_dict(found.absent)}

    drop, status = pruned(NOW, {})
    assert drop == set()
    (absence,) = absences_of(status).values()
    assert (absence.reason, absence.held, absence.since) == (Reason.WRITES_PAUSED, False, NOW)
    drop, status = pruned(NOW + HOUR, status)
    assert drop == set()
    assert absences_of(status)["c1"].since == NOW
    assert pruned(NOW + 2 * HOUR, status)[0] == {"c1"}, "once the pause is over"


def test_the_record_of_a_cluster_with_the_tag_that_palette_does_not_list_stays_until_an_operator_drops_it() -> None:
    records = by_uid(record(palette=TAGGED))

    def drops(selection: Selection, *, allow: bool = False) -> set[str]:
        known = {"c1": Absence(NOW - HOUR, NOW - HOUR, NOW, Reason.NOT_LISTED, "")}
        return set(prune(selection, records, known, now=NOW, guard=Guard(), scheduled=True, allow=allow).drop)

    gone = Selection(disappeared=frozenset({"c1"}))
    assert drops(gone) == set()
    assert drops(gone, allow=True) == {"c1"}
    assert drops(Selection(dropped={"c1": Reason.PROJECT_EXCLUDED})) == set()
    listed = Selection(dropped={"c1": Reason.DELETED}, seen=frozenset({"c1"}))
    assert drops(listed) == {"c1"}, "Palette lists it without the tag"


# -- what people see --------------------------------------------------------------------------------------------------


def problems(*records: ClusterRecord, now: datetime = NOW, **token: datetime) -> list[Problem]:
    credentials = {one.uid: sealed_credential(**token) for one in records}
    state = InstanceState(head=head(), records=by_uid(*records), credentials=credentials)
    return list(find_problems({}, {"alpha": state}, now=now))


def test_paused_clusters_are_a_notice_with_the_command_that_resumes() -> None:
    (one,) = problems(record(pause=PAUSE))

    assert (one.reason, one.severity, one.command) == (
        Reason.WRITES_PAUSED,
        Severity.NOTICE,
        "palette-sync resume alpha-web",
    )
    assert one.text == "1 cluster is paused: alpha-web (paused by anna@host:1, until 2026-03-01 14:00:00 UTC: it moves)"
    assert (one.since, one.next_at) == (PAUSE.since, PAUSE.until)
    (two,) = problems(record(pause=ENDLESS), record("c2", "alpha-two", palette=TAGGED))
    assert two.command == "palette-sync clusters --instance alpha --paused"
    assert two.text == "2 clusters are paused: alpha-two, alpha-web"


def test_a_token_that_would_lapse_in_a_pause_is_a_problem() -> None:
    ends = NOW + HOUR
    found = problems(record(pause=PAUSE), issued_at=NOW - 20 * HOUR, renew_at=NOW - HOUR, expires_at=ends)

    assert [one.reason for one in found] == [Reason.PAUSED_TOKEN_ENDS, Reason.WRITES_PAUSED]
    assert found[0].severity is Severity.PROBLEM
    assert found[0].command == "palette-sync resume alpha-web"
    assert "lapses at 2026-03-01 13:00 UTC and is not renewed" in found[0].text
    assert (found[0].since, found[0].next_at) == (NOW - HOUR, PAUSE.until)


def test_a_pause_that_ends_before_the_token_does_is_no_problem() -> None:
    found = problems(record(pause=PAUSE), issued_at=NOW - 20 * HOUR, renew_at=NOW - HOUR, expires_at=NOW + 3 * HOUR)
    assert [one.reason for one in found] == [Reason.WRITES_PAUSED]


def test_a_token_that_lapsed_in_a_pause_is_named_once_and_a_tag_is_shown() -> None:
    found = problems(record(palette=TAGGED), issued_at=NOW - 20 * HOUR, renew_at=NOW - 9 * HOUR, expires_at=NOW - HOUR)
    assert [one.reason for one in found] == [Reason.PAUSED_TOKEN_ENDS, Reason.WRITES_PAUSED]
    assert "lapsed at" in found[0].text
    assert (found[0].since, found[0].command) == (NOW - HOUR, "palette-sync show alpha-web")


def test_a_token_without_an_end_that_is_due_in_a_pause_is_a_problem() -> None:
    credential = sealed_credential(renew_at=NOW - HOUR, expires_at=None)
    state = InstanceState(head=head(), records=by_uid(record(pause=ENDLESS)), credentials={"c1": credential})
    found = find_problems({}, {"alpha": state}, now=NOW)
    assert "is due for renewal and is not renewed" in found[0].text


def test_rows_show_and_filter_pauses() -> None:
    state = InstanceState(head=head(), records=by_uid(record(pause=PAUSE), record("c2", "alpha-two")))
    rows = rows_of(state, NOW)

    assert [row.record.uid for row in rows if Filter(paused=True).matches(row)] == ["c1"]
    assert [row.record.uid for row in rows if Filter().matches(row)] == ["c1", "c2"]
    shown = {row.record.uid: row_document(row)["now"] for row in rows}
    assert shown["c1"]["paused"]["reason"] == "it moves"  # type: ignore[index]
    assert "paused" not in shown["c2"]  # type: ignore[operator]
    status = RunnerStatus()
    status.take_over(state, now=NOW)
    assert status.paused == 1


def test_the_history_says_paused_and_resumed() -> None:
    plain = {"name": "web", "access": {"state": "ready"}}
    stopped = {**plain, "pause": {"reason": "it moves"}}

    begins = Transition(2, NOW, "c1", plain, stopped)
    ends = Transition(3, NOW, "c1", stopped, plain)
    assert (begins.what, begins.details) == ("paused", "it moves")
    assert (ends.what, ends.details) == ("resumed", "it moves")
