"""What is wrong, since when, what happens by itself, and what to do: one list for every command and endpoint. Pure.

The list follows from three values: the status document (what the daemon knows of itself), the snapshots, and the time.
Who has only a part of them gets the problems that the part shows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from shlex import quote
from typing import TYPE_CHECKING, Any

from palette_sync.core.documents import present, time_or_none
from palette_sync.core.due import renews_from
from palette_sync.core.expiry import WARN_BEFORE, warning_due
from palette_sync.core.leadership import Standing
from palette_sync.core.model import AccessState
from palette_sync.core.pause import pause_of
from palette_sync.core.prune import HELD, absences_of
from palette_sync.core.reasons import Reason
from palette_sync.core.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from palette_sync.core.model import ClusterRecord, InstanceState
    from palette_sync.core.pause import PauseInForce
    from palette_sync.core.prune import Absence

LONG_PASS = timedelta(hours=1)
REFILL_SHOWN = timedelta(hours=24)
NAMED = 5  # clusters that the text of a problem names
LISTED = 100  # clusters that the document of a problem names

# States of a runner as the status document spells them (`runner.status.RunnerState`), and `unled`, which only a reader
# of Redis finds: nobody holds the lease.
STARTING, STANDBY, STORELESS, STOPPED, UNLED = "starting", "standby", "storeless", "stopped", "unled"


class Severity(StrEnum):
    """`problem`: something does not work. `notice`: everything works, but somebody has to act some day."""

    PROBLEM = "problem"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    `instance`: "" concerns the whole daemon. `text` is one line for people. `next_at`: when palette-sync tries next, if
    that is known. `command`: what to run, "" if no command helps. `clusters`: the names of those that it concerns.
    """

    reason: Reason
    instance: str
    text: str
    severity: Severity = Severity.PROBLEM
    since: datetime | None = None
    next_at: datetime | None = None
    command: str = ""
    clusters: tuple[str, ...] = ()

    @property
    def by_itself(self) -> str:
        return self.reason.by_itself

    @property
    def remedy(self) -> str:
        return self.reason.remedy


def find_problems(
    document: Mapping[str, Any], states: Mapping[str, InstanceState], *, now: datetime
) -> tuple[Problem, ...]:
    """Return everything that is wrong: problems before notices; the daemon's first, then those of whole instances, then
    those of clusters, each by instance.

    `document` has the shape of `/status.json`. `states` are the snapshots that are at hand, by instance.
    """
    instances = document.get("instances", {})
    found = [*_of_daemon(document)]
    for name in sorted({*instances, *states}):
        one = instances.get(name, {})
        found += _of_runner(name, one, now)
        if one.get("state") != STANDBY and name in states:
            found += _of_snapshot(name, states[name], error=one.get("error"))
            found += _of_clusters(name, states[name], now)
            found += _of_paused(name, states[name], now)
    return tuple(sorted(found, key=lambda one: (one.severity is Severity.NOTICE, _of_some(one), one.instance)))


def _of_some(problem: Problem) -> bool:
    """Whether it concerns single clusters only. Records are held because of what an instance's listing lacks."""
    return bool(problem.clusters) and problem.reason not in HELD


def is_wrong(problems: Iterable[Problem]) -> bool:
    """Whether something does not work; a notice alone is not wrong."""
    return any(one.severity is Severity.PROBLEM for one in problems)


def problem_document(problem: Problem) -> dict[str, object]:
    """The problem for programs. Of many clusters only the first `LISTED` are named, and `count` has the number."""
    return present(
        severity=problem.severity.value,
        reason=problem.reason.value,
        instance=problem.instance or None,
        text=problem.text,
        since=problem.since,
        by_itself=problem.by_itself,
        next_at=problem.next_at,
        remedy=problem.remedy or None,
        command=problem.command or None,
        runbook=f"docs/runbook.md#{problem.reason.lower()}",
        count=len(problem.clusters) or None,
        clusters=list(problem.clusters[:LISTED]) or None,
    )


def _of_daemon(document: Mapping[str, Any]) -> Iterable[Problem]:
    config = document.get("config", {})
    if rejected := config.get("rejected"):
        more = f" (and {len(rejected) - 1} more)" if len(rejected) > 1 else ""
        yield Problem(
            Reason.CONFIG_REJECTED,
            "",
            f"the configuration was rejected: {visible(str(rejected[0]))}{more}",
            since=time_or_none(config, "rejected_at"),
            command="palette-sync check",
        )
    if document.get("state") == STARTING and not document.get("instances"):
        yield Problem(
            Reason.STORE_UNAVAILABLE,
            "",
            "Redis has not answered yet",
            since=time_or_none(document, "started_at"),
            command="palette-sync check",
        )
    yield from _of_members(document)
    for name in document.get("orphaned", ()):
        yield Problem(
            Reason.INSTANCE_ORPHANED,
            str(name),
            "the instance is published, but no longer configured",
            severity=Severity.NOTICE,
            command=f"palette-sync clusters --instance {name}",
        )


def _of_members(document: Mapping[str, Any]) -> Iterable[Problem]:
    """What processes that share the instances disagree on. Each of them reports it of all."""
    for one in document.get("members", ()):
        name = f"process {visible(str(one['id']))}"
        if "outdated_since" in one:
            yield Problem(
                Reason.CONFIG_DIFFERS,
                "",
                f"{name} has an older configuration than the one that was loaded last",
                since=time_or_none(one, "outdated_since"),
                command="palette-sync reload",
            )
        if "rejected_at" in one and not one.get("me"):
            yield Problem(
                Reason.CONFIG_REJECTED,
                "",
                f"{name} has rejected its configuration",
                since=time_or_none(one, "rejected_at"),
                command="palette-sync reload",
            )
    for one in document.get("strangers", ()):
        yield Problem(
            Reason.KEYS_DIFFER,
            "",
            f"process {one['id']} has other seal keys",
            since=time_or_none(one, "since"),
        )


def _of_runner(name: str, one: Mapping[str, Any], now: datetime) -> Iterable[Problem]:
    """What the process that runs an instance, or the reader of its lease, knows."""
    state, since = one.get("state"), time_or_none(one, "state_since")
    detail = visible(str(one.get("detail", "")))
    if state == STORELESS:
        text = f"Redis cannot be used: {detail}"
        yield Problem(Reason.STORE_UNAVAILABLE, name, text, since=since, command="palette-sync check")
    elif one.get("standing") == Standing.KEYS_DIFFER.value:
        text = "the seal keys of this process do not verify what the other one publishes"
        yield Problem(Reason.KEYS_DIFFER, name, text, since=time_or_none(one, "standing_since"))
    elif state == STOPPED:
        yield Problem(Reason.RUNNER_ENDED, name, "the work on the instance has ended", since=since)
    elif state == UNLED:
        text = "no daemon leads the instance"
        yield Problem(Reason.NOBODY_LEADS, name, text, since=since, command="palette-sync status")
    if one.get("ready") is False:
        text = f"no snapshot was published or read yet ({detail or 'starting'})"
        yield Problem(Reason.NOTHING_PUBLISHED, name, text, since=since, command=_check(name))
    if cut_off_since := time_or_none(one, "cut_off_since"):
        rests_until = time_or_none(one, "rests_until")
        text = "Palette does not answer this process, "
        text += "so another one leads" if state == STANDBY else "and no other process can take over"
        yield Problem(Reason.CUT_OFF, name, text, since=cut_off_since, next_at=rests_until, command=_check(name))
    if error := one.get("error"):
        yield Problem(
            Reason.LISTING_FAILED,
            name,
            f"the last pass failed: {visible(str(error))}",
            since=time_or_none(one, "failing_since"),
            next_at=time_or_none(one, "next_listing_at"),
            command=_check(name),
        )
    busy = time_or_none(one, "busy_since")
    if busy is not None and now - busy > LONG_PASS:
        yield Problem(Reason.PASS_HANGS, name, "a pass has been at work for longer than an hour", since=busy)
    refilled = time_or_none(one, "refilled_at")
    if refilled is not None and now - refilled < REFILL_SHOWN:
        yield Problem(
            Reason.STORE_REFILLED,
            name,
            "Redis had lost what was published, and has it again",
            severity=Severity.NOTICE,
            since=refilled,
            command="palette-sync check",
        )
    yield from _api_key(name, time_or_none(one, "api_key_expires_at"), now)


def _api_key(name: str, expires_at: datetime | None, now: datetime) -> Iterable[Problem]:
    if expires_at is None or (due := warning_due(expires_at - now)) is None:
        return
    over = expires_at <= now
    yield Problem(
        Reason.API_KEY_EXPIRES,
        name,
        f"the Palette API key {'has expired' if over else 'expires soon'}, at {expires_at:%Y-%m-%d %H:%M} UTC",
        severity=Severity.PROBLEM if due == min(WARN_BEFORE) else Severity.NOTICE,
        since=expires_at if over else None,
        next_at=None if over else expires_at,
        command="palette-sync reload",
    )


def _of_snapshot(name: str, state: InstanceState, *, error: object) -> Iterable[Problem]:
    """`error`: why the last pass failed as a whole. Projects that failed for that alone are not named again."""
    if state.head is not None and not state.trusted:
        doubt = visible(state.problems[0]) if state.problems else "digest or mac does not match"
        text = f"the snapshot does not verify: {doubt}"
        yield Problem(Reason.SNAPSHOT_REFUSED, name, text, since=state.head.checked_at, command="palette-sync check")
    if stale := sorted(
        (one for one in state.scopes.values() if one.error and one.error != error), key=lambda one: one.name
    ):
        first = f"{visible(stale[0].name)}: {visible(stale[0].error or '')}"
        names = ", ".join(visible(one.name) for one in stale[1:NAMED])
        rest = f"; also {names}{' ...' if len(stale) > NAMED else ''}" if names else ""
        yield Problem(
            Reason.SCOPE_STALE,
            name,
            f"{counted(len(stale), 'project')} cannot be listed: {first}{rest}",
            since=_first(one.since for one in stale),
            command=_check(name),
        )
    yield from _held(name, state)


def _held(name: str, state: InstanceState) -> Iterable[Problem]:
    """What the prune guard holds, by reason. A small loss that only waits for its confirmation is no problem."""
    held: dict[Reason, dict[str, Absence]] = defaultdict(dict)
    for uid, one in absences_of(state.status).items():
        if one.held and uid in state.records:
            held[one.reason][state.records[uid].name] = one
    for reason, absences in sorted(held.items()):
        names = tuple(sorted(absences))
        first = min(absences.values(), key=lambda one: (one.until is None, one.until))
        drops = f"; dropped at {first.until:%Y-%m-%d %H:%M} UTC if that lasts" if first.until else ""
        yield Problem(
            reason,
            name,
            f"Palette no longer lists {counted(len(names), 'cluster')}, whose records are held: {_names(names)}"
            f" ({visible(first.message)}{drops})",
            since=_first(one.since for one in absences.values()),
            next_at=first.until,
            command=f"palette-sync resync --allow-prune --instance {name}",
            clusters=names,
        )


def _of_clusters(name: str, state: InstanceState, now: datetime) -> Iterable[Problem]:
    """Clusters that a reader cannot use, or soon cannot use; each of them is in one problem."""
    groups: dict[tuple[AccessState, Reason], list[ClusterRecord]] = defaultdict(list)
    for uid, record in state.records.items():
        credential, access = state.credentials.get(uid), record.access
        memory = state.memory.get(uid)
        if _ends_in_pause(state, record, now):
            continue  # `_of_paused` names it
        if access.state is AccessState.PENDING:
            continue  # nothing is wrong: something is not available yet
        if credential is not None and not credential.alive(now):
            groups[AccessState.FAILED, Reason.TOKEN_LAPSED].append(record)
        elif credential is not None and memory is not None and memory.failures and renews_from(credential) <= now:
            groups[AccessState.DEGRADED, Reason.RENEWAL_FAILING].append(record)
        elif access.reason is not Reason.VERIFIED:
            groups[access.state, access.reason].append(record)
    order = list(AccessState)[::-1]
    for (access_state, reason), records in sorted(groups.items(), key=lambda one: (order.index(one[0][0]), one[0][1])):
        yield _of_group(name, state, access_state, reason, sorted(records, key=lambda one: one.name), now)


_WORDS = {
    AccessState.FAILED: "no access",
    AccessState.DEGRADED: "a token that lives, but the last check or renewal failed",
    AccessState.READY: "access",
}


def _of_group(
    name: str,
    state: InstanceState,
    access_state: AccessState,
    reason: Reason,
    records: list[ClusterRecord],
    now: datetime,
) -> Problem:
    names = tuple(one.name for one in records)
    ends = [end for one in records if (credential := state.credentials.get(one.uid)) and (end := credential.expires_at)]
    first_end = min(ends, default=None)
    verb = "have" if len(names) > 1 else "has"
    if reason is Reason.TOKEN_LAPSED:
        causes = [
            f"{one.name} ({one.access.reason})"
            if one.access.reason not in {Reason.VERIFIED, Reason.TOKEN_LAPSED}
            else one.name
            for one in records[:NAMED]
        ]
        dots = " ..." if len(records) > NAMED else ""
        text = f"the token of {counted(len(names), 'cluster')} has lapsed: {', '.join(causes)}{dots}"
    elif reason is Reason.RENEWAL_FAILING:
        ends_at = f"; the first lapses at {first_end:%Y-%m-%d %H:%M} UTC" if first_end else ""
        text = f"the token of {counted(len(names), 'cluster')} is due and cannot be renewed: {_names(names)}{ends_at}"
    else:
        text = f"{counted(len(names), 'cluster')} {verb} {_WORDS[access_state]} ({reason}): {_names(names)}"
    lapsed = reason is Reason.TOKEN_LAPSED and first_end
    return Problem(
        reason,
        name,
        text,
        severity=Severity.NOTICE if access_state is AccessState.READY else Severity.PROBLEM,
        since=first_end if lapsed else _first(one.access.since for one in records),
        next_at=_first(
            memory.retry_at
            for one in records
            if (memory := state.memory.get(one.uid)) and memory.retry_at and memory.retry_at > now
        ),
        command=f"palette-sync show {quote(visible(names[0]))}"
        if len(names) == 1
        else f"palette-sync clusters --instance {name} --reason {records[0].access.reason}",
        clusters=names,
    )


def _of_paused(name: str, state: InstanceState, now: datetime) -> Iterable[Problem]:
    """What is paused, and first of all whose token is not renewed because of that."""
    paused = sorted(
        ((record, pause) for record in state.records.values() if (pause := pause_of(record, now)) is not None),
        key=lambda one: one[0].name,
    )
    ending = [(record, pause) for record, pause in paused if _ends_in_pause(state, record, now)]
    for record, pause in ending:
        end = state.credentials[record.uid].expires_at
        lapsed = end is not None and end <= now
        when = f"{'lapsed' if lapsed else 'lapses'} at {end:%Y-%m-%d %H:%M} UTC" if end else "is due for renewal"
        yield Problem(
            Reason.PAUSED_TOKEN_ENDS,
            name,
            f"the token of {record.name} {when} and is not renewed: {pause.text}",
            since=end if lapsed else state.credentials[record.uid].renew_at,
            next_at=pause.until,
            command=_resume(record, pause),
            clusters=(record.name,),
        )
    if not paused:
        return
    names = tuple(record.name for record, _ in paused)
    single = f" ({paused[0][1].text})" if len(paused) == 1 else ""
    yield Problem(
        Reason.WRITES_PAUSED,
        name,
        f"{counted(len(names), 'cluster')} {'is' if len(names) == 1 else 'are'} paused: {_names(names)}{single}",
        severity=Severity.NOTICE,
        since=_first(pause.since for _, pause in paused),
        next_at=_first(pause.until for _, pause in paused),
        command=_resume(*paused[0]) if len(paused) == 1 else f"palette-sync clusters --instance {name} --paused",
        clusters=names,
    )


def _ends_in_pause(state: InstanceState, record: ClusterRecord, now: datetime) -> bool:
    """Whether the renewal of a paused cluster's token is due, and its pause does not end before the token does."""
    credential, pause = state.credentials.get(record.uid), pause_of(record, now)
    if credential is None or pause is None or renews_from(credential) > now:
        return False
    return not credential.alive(now) or credential.expires_at is None or pause.holds_at(credential.expires_at)


def _resume(record: ClusterRecord, pause: PauseInForce) -> str:
    """The command that ends a pause; a tag in Palette is removed there."""
    return f"palette-sync {'show' if pause.tagged else 'resume'} {quote(visible(record.name))}"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else "")


def _check(name: str) -> str:
    return f"palette-sync check --instance {name}"


def _first(moments: Iterable[datetime | None]) -> datetime | None:
    return min((one for one in moments if one is not None), default=None)
